package main

import (
	"bytes"
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
