package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/internal/smallfile"
)

// maxSize bounds the policy file, and so the memory and time that its content can cost.
const maxSize = 8 << 20

// Source is the source of the policy file: a path, or the text itself.
type Source struct {
	Path string // "" when Text is the policy file
	Text string
}

// Source returns the source that the environment names.
func (e Env) Source() Source {
	if e.PolicyFile != "" {
		return Source{Path: e.PolicyFile}
	}
	return Source{Text: e.Policies}
}

// name is the source's name in faults.
func (s Source) name() string {
	if s.Path == "" {
		return "REKEYD_POLICIES"
	}
	return cut(s.Path, 200)
}

// Read returns the text, until ctx ends.
func (s Source) Read(ctx context.Context) ([]byte, error) {
	if s.Path == "" {
		return []byte(s.Text), nil
	}
	return smallfile.Read(ctx, s.Path, maxSize)
}

// unread is the fault of a policy file that cannot be read. alone: it was named as an argument.
func (s Source) unread(err error, alone bool) Fault {
	path := "REKEYD_POLICY_FILE"
	if alone {
		path = "the path"
	}
	if errors.Is(err, smallfile.ErrTooLarge) {
		return Fault{File: s.name(), Text: tooLarge()}
	}
	return Fault{File: s.name(), Text: fmt.Sprintf("the policy file cannot be read: %v; correct %s or the file's permissions", reason(err), path)}
}

func tooLarge() string {
	return fmt.Sprintf("the policy file is larger than %d MiB; split it between several instances of rekeyd", maxSize>>20)
}

// reason leaves out the path that smallfile repeats.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// parse returns the root of the single YAML document in text, or the fault that prevents reading it.
func parse(file string, text []byte) (*yaml.Node, *Fault) {
	if f := unreadable(text); f != nil {
		f.File = file
		return nil, f
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if err == nil {
		err = dec.Decode(&more)
	}
	switch {
	case errors.Is(err, io.EOF) && len(doc.Content) == 0:
		return nil, &Fault{File: file, Line: 1, Text: "the policy file is empty; write a list of policies"}
	case err == nil:
		return nil, &Fault{File: file, Line: more.Line, Text: "a second YAML document starts here; write a single document, without ---"}
	case !errors.Is(err, io.EOF):
		if m := unknownAnchor.FindStringSubmatch(err.Error()); m != nil {
			return nil, unknownAlias(file, string(text), m[1])
		}
		return nil, syntaxFault(file, text, err)
	}
	return doc.Content[0], nil
}

var unknownAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced$`)

// unreadable checks the bytes before they are parsed.
func unreadable(text []byte) *Fault {
	lineOf := func(offset int) int { return 1 + bytes.Count(text[:offset], []byte("\n")) }
	if len(text) > maxSize {
		return &Fault{Text: tooLarge()}
	}
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		return &Fault{Line: 1, Text: "the policy file starts with a byte order mark; save it as UTF-8 without one"}
	}
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return &Fault{Line: lineOf(i), Text: fmt.Sprintf("byte %#02x is not UTF-8; save the policy file as UTF-8", text[i])}
		}
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f {
			return &Fault{Line: lineOf(i), Text: fmt.Sprintf("the control character %U is not allowed in YAML; remove it", r)}
		}
		i += size
	}
	return nil
}

// syntaxFault turns the parser's error into a fault on its line, with advice on common causes.
func syntaxFault(file string, text []byte, err error) *Fault {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	f := &Fault{File: file}
	if m := regexp.MustCompile(`^line ([0-9]+): (.*)`).FindStringSubmatch(said); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
		said = m[2]
	}
	advice := "correct it there or on the line before"
	lines := strings.Split(string(text), "\n")
	for _, n := range []int{f.Line, f.Line + 1, f.Line - 1} { // the parser's line may be off by one
		if n < 1 || n > len(lines) {
			continue
		}
		if hint := syntaxHint(lines[n-1]); hint != "" {
			f.Line, advice = n, hint
			break
		}
	}
	switch {
	case strings.Contains(said, "exceeded max depth"):
		advice = "nest lists and mappings less deeply"
	case f.Line == 0:
		f.Line = 1 // the parser names every line but the first
	}
	f.Text = "not valid YAML: " + said + "; " + advice
	return f
}

func syntaxHint(line string) string {
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	_, value, _ := strings.Cut(line, ": ")
	value = strings.TrimSpace(value)
	switch {
	case strings.Contains(indent, "\t"):
		return "indent with spaces, never with a tab"
	case strings.HasPrefix(value, "*") || strings.HasPrefix(value, "@"):
		return "put the value in quotes, since it starts with " + value[:1]
	}
	return ""
}
