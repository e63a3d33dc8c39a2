package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhoeverWaitsIsReassured(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		stop := app{stderr: &errs}.reassure("tts-prod", 4*time.Minute)
		<-time.After(11 * time.Second)
		stop()
		if text := errs.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "tts-prod: not done after 10s") || !strings.Contains(text, "given up after 4m0s") {
			t.Errorf("got %q", text)
		}
	})
}

func TestNobodyIsAtANullDevice(t *testing.T) {
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
