package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
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

// painter is that of stdout: colours are for people, and not for those who refuse them.
func (a app) painter() painter {
	refused, _ := a.lookuper.Lookup("NO_COLOR")
	kind, _ := a.lookuper.Lookup("TERM")
	return painter{a.isTerminal(a.stdout) && refused == "" && kind != "dumb"}
}

func (p painter) paint(color, text string) string {
	if !p.on || color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

var controls = regexp.MustCompile(`\x1b\[(?:0|1|2|31|32|33)m|[\p{Cc}\p{Cf}]`)

// tame takes out what could command a terminal, but for our colours: names of keys, and records, are by others.
func tame(text string) string {
	return controls.ReplaceAllStringFunc(text, func(c string) string {
		if len(c) > 1 && c[0] == '\x1b' || c == "\n" || c == "\t" {
			return c
		}
		return ""
	})
}

// isTerminal reports whether a person looks at a stream, or types into it, directly.
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
	nowhere, err := os.Stat(os.DevNull) // a character device too, and what a service has
	return err != nil || !os.SameFile(info, nowhere)
}

// columns pads the cells of all rows, so that they stand below each other.
func columns(rows [][]string) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	lines := make([]string, len(rows))
	for r, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		lines[r] = strings.TrimRight(line.String(), " ")
	}
	return lines
}

// progress shows a person at a terminal what the log says of the work on policies, while it goes on. Failures are left
// out: they are reported at the end.
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
	if _, err := fmt.Fprintln(p.out, tame(text)); err != nil {
		return 0, fmt.Errorf("writing to the terminal: %w", err)
	}
	return len(line), nil
}
