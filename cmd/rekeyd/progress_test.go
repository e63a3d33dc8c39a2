package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
