package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// forged are texts that others may have chosen: lines of their own, colours, cursor movements, C1 controls as runes and
// as bytes, directions of writing, and characters without a shape.
func forged() []string {
	return []string{
		"a\n\nDelete or disable 0 keys? Type yes: ", "a\r\x1b[2K\x1b[32mnothing to delete\x1b[0m", "\x1b]0;owned\a", "\x1b[1mbold\x1b[0m",
		"\u009b31mred", "\x9b2J", "\u202eyek\u2066", "a\u200bb\u00adc\ufeff", "a\u2028b\u2029c\u0085d", "\U000e0041tag", "\x00\x7f\b\v\f", "\xc3(\xff",
	}
}

// harmless reports whether a text has nothing that commands a terminal.
func harmless(text string) bool {
	return !strings.ContainsFunc(strings.ToValidUTF8(text, "\x00"), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' })
}

// TestTheQuestionOfPruneCannotBeForged: between the list and the question stands nothing that the name of a key brought.
func TestTheQuestionOfPruneCannotBeForged(t *testing.T) {
	t.Parallel()
	for _, name := range forged() {
		var screen bytes.Buffer
		a := app{stdin: strings.NewReader("no\n"), stdout: &screen, stderr: &screen, terminal: func(any) bool { return true }}
		a.lookuper = noColor{}
		lost := []rotator.LostKey{{KeyID: name, KeyName: name, Account: name, Created: instant}, {KeyID: "key_b", KeyName: "b", Account: "svcacc", Created: instant}}
		if err := a.showLost(lost, instant.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := a.confirm(t.Context(), len(lost), false); err == nil {
			t.Error("no answer is a yes")
		}
		lines := strings.Split(screen.String(), "\n")
		if !harmless(screen.String()) || len(lines) != 4 || !strings.HasPrefix(lines[0], "  - delete") || !strings.HasPrefix(lines[1], "  - delete") ||
			lines[3] != "Delete or disable 2 keys? Type 2 or yes: " {
			t.Errorf("%q: %q", name, screen.String())
		}
	}
}

// TestAnInterruptEndsTheQuestions: a person who interrupts a question need not answer it.
func TestAnInterruptEndsTheQuestions(t *testing.T) {
	t.Parallel()
	stdin, typed := io.Pipe() // holds no answer
	defer func() { _ = typed.Close() }()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	a := app{stdin: stdin, stdout: io.Discard, stderr: io.Discard, lookuper: noColor{}, terminal: func(any) bool { return true }}
	if err := a.confirm(ctx, 1, false); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("the question was answered: %v", err)
	}
}

// TestAForgedNameOnItsWayToTheScreen has the names in ElevenLabs.
func TestAForgedNameOnItsWayToTheScreen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "tts-prod")
	for _, name := range forged() {
		w.lose("svcacc_a", name, "aaaaaaaaaa")
	}
	w.tty, w.typed, w.env["NO_COLOR"] = true, "no\n", "1"
	for _, args := range [][]string{{"prune"}, {"plan"}, {"status"}, {"check", "--online"}, {"prune", "--json"}, {"status", "--json"}, {"plan", "--json"}, {"history"}, {"history", "--json"}} {
		_, stdout, stderr := w.run(args...)
		if !harmless(stdout) || !harmless(stderr) || strings.Contains(stdout+stderr, "\nDelete or disable 0") {
			t.Errorf("%v: %q\n%q", args, stdout, stderr)
		}
	}
}

type noColor struct{}

func (noColor) Lookup(name string) (string, bool) { return "1", name == "NO_COLOR" }

// TestEveryPrinterStrips has every way out: tables, errors, warnings, plans, reports, progress, logs and JSON.
func TestEveryPrinterStrips(t *testing.T) {
	t.Parallel()
	for _, text := range forged() {
		for _, terminal := range []bool{true, false} {
			var out bytes.Buffer
			a := app{stdout: &out, stderr: &out, lookuper: noColor{}, terminal: func(any) bool { return terminal }}
			plan := planTable{Policies: []policyPlan{{Policy: text, words: text, Now: []change{{What: text, Reason: text}}}}}
			for _, err := range []error{
				a.table([][]string{{"KEY", "NAME"}, {text, text}}, []string{red}),
				a.print("%s\n", ledger.Trigger(text)),
				a.print("%s", safe(plan.text(a.painter(), instant))),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			a.say("%v\n", text)
			if lines := strings.Count(out.String(), "\n"); !harmless(out.String()) || lines != 8 {
				t.Errorf("%q: %d lines: %q", text, lines, out.String())
			}
			a.printError("error", errorText(text))
			for line := range strings.Lines(out.String()) {
				if strings.HasPrefix(line, "Delete") {
					t.Errorf("%q begins a line of its own", text)
				}
			}
			logged, err := json.Marshal(map[string]string{"level": "INFO", "msg": text, "policy": text})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = progress{&out}.Write(logged)
			if _, err := (escaped{&out}).Write(logged); err != nil || !harmless(out.String()) {
				t.Errorf("%q: %v %q", text, err, out.String())
			}
			out.Reset()
			for f, decode := range map[format]func([]byte, any) error{formatJSON: json.Unmarshal, formatYAML: yaml.Unmarshal} {
				out.Reset()
				if err := a.document(f, []string{text}); err != nil || !harmless(out.String()) {
					t.Errorf("%q in %s: %v %q", text, f, err, out.String())
				}
				var back []string
				if err := decode(out.Bytes(), &back); err != nil || back[0] != strings.ToValidUTF8(text, "\ufffd") && !strings.ContainsRune(back[0], '\ufffd') {
					t.Errorf("%q came back from %s as %q, %v", text, f, back, err)
				}
			}
		}
	}
}

type errorText string

func (e errorText) Error() string { return string(e) }

// TestAPastedSecretAsAnArgumentIsNotRepeated has it in place of names, flags, commands and reasons.
func TestAPastedSecretAsAnArgumentIsNotRepeated(t *testing.T) {
	t.Parallel()
	const secret = "sk_0123456789abcdef0123456789abcdef"
	for _, args := range [][]string{
		{secret}, {"rotate", secret}, {"rotate", "tts-prod", "--reason", secret}, {"rotate", "tts-prod", "--reason", "it leaked: " + secret}, {"rollback", secret},
		{"prune", secret}, {"plan", secret}, {"plan", "a", secret}, {"status", secret}, {"status", "--" + secret}, {"schedule", secret}, {"schedule", "--from", secret}, {"history", secret}, {"history", "--since", secret},
		{"schedule", "-n", secret}, {"check", secret}, {"help", secret}, {"completion", secret}, {"-" + secret}, {"plan", "-o", secret}, {"rotat", "--reason", secret}, {"version", secret}, {"health", secret}, {"run", secret},
	} {
		status, stdout, stderr := command(t, nil, args...)
		if status == 0 || strings.Contains(stdout+stderr, secret[:12]) || stderr == "" {
			t.Errorf("%q: exit status %d\n%s%s", args, status, stdout, stderr)
		}
	}
}
