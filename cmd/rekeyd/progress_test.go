package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

func TestProgressOfLongWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		stop := app{stderr: &errs}.reportProgress("tts-prod", 4*time.Minute)
		<-time.After(11 * time.Second)
		stop()
		if text := errs.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "tts-prod: not done after 10s") || !strings.Contains(text, "given up after 4m0s") {
			t.Errorf("got %q", text)
		}
	})
}

func TestNullDeviceIsNoTerminal(t *testing.T) {
	t.Parallel()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if (app{}).isTerminal(f) || (app{}).isTerminal(new(bytes.Buffer)) {
		t.Error("taken for a terminal")
	}
}

// TestKeyNamesDoNotControlTheTerminal prints a hostile name of a key.
func TestKeyNamesDoNotControlTheTerminal(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	a := app{stdout: &out, stderr: &errs}
	name := "\x1b]0;owned\a\x1b[2J\x1b[8m\u202ekey\r\b"
	if err := a.print("%s\t%s\n", painter{true}.paint(red, "error"), name); err != nil {
		t.Fatal(err)
	}
	a.printError("error", errors.New(name))
	if got, want := out.String(), "\x1b[31merror\x1b[0m\t]0;owned[2J[8mkey\n"; got != want {
		t.Errorf("printed %q", got)
	}
	if got, want := errs.String(), "rekeyd: error: ]0;owned[2J[8mkey\n"; got != want {
		t.Errorf("the error is %q", got)
	}
}

// TestASurveySaysHowFarItIs every five seconds, to a person.
func TestASurveySaysHowFarItIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		terminal bool
		format   format
		want     string
	}{{true, formatTable, "  read 5 of 12\n  read 10 of 12\n"}, {true, formatJSON, ""}, {false, formatTable, ""}} {
		synctest.Test(t, func(t *testing.T) {
			var errs bytes.Buffer
			ctx := app{stderr: &errs, terminal: func(any) bool { return c.terminal }}.surveying(t.Context(), c.format)
			for i := range 12 {
				rotator.Progress(ctx, i, 12)
				<-time.After(time.Second)
			}
			if errs.String() != c.want {
				t.Errorf("a terminal: %t, format %s: got %q", c.terminal, c.format, errs.String())
			}
		})
	}
}

// TestWhatReadsManyTellsHowFar: survey, search for lost keys, and discovery.
func TestWhatReadsManyTellsHowFar(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "--all")
	s, err := daemon.Load(envconfig.MapLookuper(w.env))
	if err != nil {
		t.Fatal(err)
	}
	d, err := daemon.New(daemon.Config{Settings: s})
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(context.Context) error{
		"survey": func(ctx context.Context) error { _, err := d.Survey(ctx); return err },
		"lost":   func(ctx context.Context) error { _, err := d.Lost(ctx); return err },
		"discover": func(ctx context.Context) error {
			_, err := daemon.Discover(ctx, envconfig.MapLookuper(w.env), "", "", ledger.Ref{Mount: "secret", Path: "elevenlabs"}, nil)
			return err
		},
	} {
		var told []int
		err := do(rotator.WithProgress(t.Context(), func(done, of int) { told = append(told, 10*done+of) }))
		if err != nil || len(told) < 2 || told[0] != 2 || told[1] != 12 {
			t.Errorf("%s: told %v: %v", name, told, err)
		}
	}
}
