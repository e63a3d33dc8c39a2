package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Colours, as a terminal takes them.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
	dim    = "2"
)

// painter colours text, or leaves it as it is.
type painter struct{ on bool }

// painter returns the painter of stdout: colours are for terminals, unless --no-color, NO_COLOR or TERM=dumb refuses them.
func (a app) painter() painter {
	if a.plain != nil && *a.plain {
		return painter{}
	}
	refused, _ := a.lookuper.Lookup("NO_COLOR")
	kind, _ := a.lookuper.Lookup("TERM")
	return painter{a.isTerminal(a.stdout) && refused == "" && kind != "dumb"}
}

func (p painter) paint(color, text string) safe {
	text = stripControls(text)
	if !p.on || color == "" {
		return safe(text)
	}
	return safe("\x1b[" + color + "m" + text + "\x1b[0m")
}

// safe is text whose line breaks and colours are our own.
type safe string

// write writes all output for people. It strips control characters from arguments that are not safe, since names of keys,
// records and remote answers are untrusted.
func write(w io.Writer, format string, args ...any) error {
	for i, arg := range args {
		switch arg := arg.(type) {
		case safe:
		case error:
			args[i] = stripControls(arg.Error())
		default:
			if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
				args[i] = stripControls(v.String())
			}
		}
	}
	_, err := fmt.Fprintf(w, format, args...)
	return err
}

// stripControls makes a text one line and removes characters that control a terminal or reorder its output: control
// characters of either set, also as single bytes, and invisible characters.
func stripControls(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		case unicode.Is(unicode.Zs, r):
			return ' '
		}
		return -1
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// escapeControls escapes the same characters as JSON does, and keeps JSON valid. Line breaks stay.
func escapeControls(text []byte) []byte {
	return escapeRunes(text, func(out []byte, r rune) []byte {
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
		return out
	})
}

func escapeRunes(text []byte, escape func(out []byte, r rune) []byte) []byte {
	if !bytes.ContainsFunc(text, isControl) {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		if isControl(r) {
			out = escape(out, r)
			continue
		}
		out = utf8.AppendRune(out, r) // an invalid byte becomes U+FFFD
	}
	return out
}

func isControl(r rune) bool {
	return r != '\n' && r != '\t' && !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) || r == utf8.RuneError
}

// escaped is a stream for logs, which may end on a terminal.
type escaped struct{ out io.Writer }

func (e escaped) Write(line []byte) (int, error) {
	if _, err := e.out.Write(escapeControls(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// isTerminal reports whether a stream is a terminal.
func (a app) isTerminal(stream any) bool {
	if a.terminal != nil {
		return a.terminal(stream)
	}
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	nowhere, err := os.Stat(os.DevNull) // also a character device, and a service's stdin
	return err != nil || !os.SameFile(info, nowhere)
}

// progress shows the log of the work on policies to a person at a terminal. It leaves out failures, which are reported at
// the end.
type progress struct{ out io.Writer }

func (p progress) Write(line []byte) (int, error) {
	var l struct {
		Level, Msg, Policy string
		KeyID              string `json:"key_id"`
	}
	if json.Unmarshal(line, &l) != nil || l.Policy == "" || l.Level == "ERROR" || l.Level == "DEBUG" {
		return len(line), nil
	}
	text := "  " + l.Policy + ": " + l.Msg
	if l.KeyID != "" {
		text += " " + l.KeyID
	}
	if err := write(p.out, "%s\n", text); err != nil {
		return 0, fmt.Errorf("writing to the terminal: %w", err)
	}
	return len(line), nil
}
