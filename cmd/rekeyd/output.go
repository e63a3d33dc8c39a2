package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// format is the value of -o.
type format string

const (
	formatTable format = "table" // for people: one short line each
	formatWide  format = "wide"  // for people: whole sentences
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

func formats() []string {
	return []string{string(formatTable), string(formatWide), string(formatJSON), string(formatYAML)}
}

func knownFormats() string { return "table, wide, json or yaml" }

// String, Set and Type are for the flag.
func (f *format) String() string { return string(*f) }

func (f *format) Set(text string) error {
	if !slices.Contains(formats(), text) {
		return errors.New("write " + knownFormats())
	}
	*f = format(text)
	return nil
}

func (*format) Type() string { return "FORMAT" }

// document reports whether a program reads the output: one document, and nothing else on stdout.
func (f format) document() bool { return f == formatJSON || f == formatYAML }

// document writes v in a format for programs. YAML has the fields of the JSON in their order.
func (a app) document(f format, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the output: %w", err)
	}
	if text = append(escapeControls(text), '\n'); f == formatYAML {
		if text, err = yamlOf(v); err != nil {
			return fmt.Errorf("encoding the output: %w", err)
		}
	}
	return a.print("%s", safe(text))
}

// output writes v in a format for programs, or the text for people.
func (a app) output(f format, v any, text func() error) error {
	if f.document() {
		return a.document(f, v)
	}
	return text()
}

// yamlOf goes through JSON, which has the names and leaves out what is absent.
func yamlOf(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(escapeForYAML(text), &doc); err != nil { // JSON is YAML, but for the escapes of what is beyond 16 bits
		return nil, err
	}
	restyle(&doc)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(&doc), encoder.Close()); err != nil {
		return nil, err
	}
	return escapeForYAML(out.Bytes()), nil
}

// escapeForYAML escapes what controls a terminal; it is in double quotes in JSON, and, by restyle, in our YAML.
func escapeForYAML(text []byte) []byte {
	return escapeRunes(text, func(out []byte, r rune) []byte {
		if r > 0xffff {
			return fmt.Appendf(out, `\U%08x`, r)
		}
		return fmt.Appendf(out, `\u%04x`, r)
	})
}

// oldYAML are strings that a reader of YAML 1.1 takes for a boolean or a number to the base of 60.
var oldYAML = regexp.MustCompile(`^(?i:y|yes|n|no|on|off)$|^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

// restyle writes JSON's values as YAML usually is: in lines, quoted only where it matters.
func restyle(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || !oldYAML.MatchString(n.Value) && !strings.ContainsFunc(n.Value, isControl) {
		n.Style = 0
	}
	for _, inner := range n.Content {
		restyle(inner)
	}
}

// table writes rows below their heading, aligned; on a terminal in colours.
func (a app) table(rows [][]string, colors []string) error {
	return a.lines(columns(rows), append([]string{bold}, colors...))
}

func (a app) lines(lines, colors []string) error {
	p := a.painter()
	for i, line := range lines {
		if err := a.print("%s\n", p.paint(colors[i], line)); err != nil {
			return err
		}
	}
	return nil
}

// columns aligns the cells of all rows. Each row is one line, whatever its content.
func columns(rows [][]string) []string {
	var out strings.Builder
	aligned := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = stripControls(cell)
		}
		_, _ = fmt.Fprintln(aligned, strings.Join(cells, "\t")) // a Builder does not fail
	}
	_ = aligned.Flush()
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return lines
}
