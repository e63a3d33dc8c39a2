package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/sethvargo/go-envconfig"
	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/internal/web"
)

// TestYAMLIsTheSameDocumentAsJSON has every kind of value, and strings that YAML takes for something else.
func TestYAMLIsTheSameDocumentAsJSON(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		web.ViewOf(everything(t)), planOf(everything(t), instant),
		map[string]any{"b": 1, "a": []any{nil, true, -1.5, 1_000_000, 1e21, "", " ", "a: b", "# no", "- x", "two\nlines\n", "tab\t", "é😀"}, "on": "off"},
		[]string{"yes", "No", "y", "null", "~", "1", "0x1", "1_0", "010", "1e3", "12:30:45", "2026-03-01", "2026-03-01T00:00:00Z", "=", "<<", "&a", "*a", "!t", "%", "@", "`", "\"", "'", "\\", "{}", "[]", ".inf"},
		[]string{}, map[string]any{},
	} {
		var asJSON, asYAML bytes.Buffer
		if err := (app{stdout: &asJSON}).document(formatJSON, v); err != nil {
			t.Fatal(err)
		}
		if err := (app{stdout: &asYAML}).document(formatYAML, v); err != nil {
			t.Fatal(err)
		}
		var fromYAML, want, got any
		if err := yaml.Unmarshal(asYAML.Bytes(), &fromYAML); err != nil {
			t.Fatalf("%v\n%s", err, asYAML.String())
		}
		again, err := json.Marshal(fromYAML)
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(asJSON.Bytes(), &want) != nil || json.Unmarshal(again, &got) != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("YAML\n%s\nis not JSON\n%s", asYAML.String(), asJSON.String())
		}
		for _, word := range []string{"yes", "No", "y", "off", "12:30:45"} { // what YAML 1.1 reads otherwise
			for line := range strings.Lines(asYAML.String()) {
				if strings.TrimLeft(line, "- ") == word+"\n" || strings.HasSuffix(line, ": "+word+"\n") {
					t.Errorf("%s is not quoted in\n%s", word, asYAML.String())
				}
			}
		}
	}
}

// TestFormats has every command that has -o in each format. A program gets one document and nothing else.
func TestFormats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "--all")
	for _, args := range [][]string{
		{"status"}, {"status", "tts-prod"}, {"plan"}, {"history"}, {"schedule"}, {"prune"}, {"check"}, {"check", "--online"}, {"rotate", "--all", "--dry-run"}, {"rotate", "--all"},
		{"rollback", "tts-prod"},
	} {
		for f, decode := range map[format]func([]byte, any) error{formatTable: nil, formatWide: nil, formatJSON: json.Unmarshal, formatYAML: yaml.Unmarshal} {
			status, stdout, stderr := w.run(append(args, "-o", string(f))...)
			if status != 0 && status != exitToDo && args[0] != "check" || stdout == "" {
				t.Errorf("%v -o %s: exit status %d\n%s%s", args, f, status, stdout, stderr)
			}
			var v any
			if decode != nil && (decode([]byte(stdout), &v) != nil || v == any(stdout)) {
				t.Errorf("%v: not %s: %s", args, f, stdout)
			}
		}
	}
	for _, c := range documented() {
		if flag := c.Flags().Lookup("output"); flag != nil && flag.Value.Type() == "FORMAT" {
			if _, _, stderr := w.run(c.Name(), "-o", "xml"); !strings.Contains(stderr, "write table, wide, json or yaml; see rekeyd "+c.Name()+" --help") {
				t.Errorf("%s says %q", c.Name(), stderr)
			}
			if got := w.must(0, "__complete", c.Name(), "-o", ""); got != "table\nwide\njson\nyaml\n:4\n" {
				t.Errorf("%s completes %q", c.Name(), got)
			}
		}
	}
	if a, b := w.must(0, "history", "--json"), w.must(0, "history", "-o", "json"); a != b {
		t.Errorf("--json is not -o json: %s", a)
	}
}

// TestColours are for terminals, and can be refused in three ways.
func TestColours(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		tty  bool
		args []string
		want bool
	}{
		{nil, true, nil, true}, {nil, false, nil, false}, {nil, true, []string{"--no-color"}, false}, {map[string]string{"NO_COLOR": "1"}, true, nil, false},
		{map[string]string{"NO_COLOR": ""}, true, nil, true}, {map[string]string{"TERM": "dumb"}, true, nil, false}, {nil, true, []string{"--no-color=false"}, true},
	} {
		w := newWorld(t)
		for name, value := range c.env {
			w.env[name] = value
		}
		w.tty = c.tty
		for _, args := range [][]string{{"status"}, {"status", "tts-prod"}, {"history"}} {
			if out := w.must(0, append(args, c.args...)...); strings.Contains(out, "\x1b") != c.want {
				t.Errorf("%+v: %v: %q", c, args, out)
			}
		}
	}
	plain := true
	if (app{lookuper: envconfig.MapLookuper(nil), plain: &plain, terminal: func(any) bool { return true }}).painter().on {
		t.Error("--no-color paints")
	}
}
