package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/sethvargo/go-envconfig"
	"golang.org/x/sys/unix"

	"github.com/rekeyd/rekeyd/internal/process"
)

// TestATerminalDoesNotShowTheSecret pastes one, and finds the terminal afterwards as it was.
func TestATerminalDoesNotShowTheSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "tts-prod")
	value := w.sim.State()[0].Keys[0].Secret
	screen, keyboard, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = screen.Close() }()
	shown, done := new(process.Output), make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1<<10)
		for {
			n, err := screen.Read(buffer)
			_, _ = shown.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	echoes := func() bool {
		now, err := unix.IoctlGetTermios(int(keyboard.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return now.Lflag&unix.ECHO != 0
	}
	if !echoes() {
		t.Fatal("the terminal does not echo to begin with")
	}
	said, out := new(process.Output), bytes.Buffer{}
	a := app{lookuper: envconfig.MapLookuper(w.env), stdin: keyboard, stdout: &out, stderr: said}
	ended := make(chan int)
	go func() { ended <- a.run(t.Context(), []string{"leaked"}) }()
	process.Eventually(t, process.Patience, func() error {
		if !strings.Contains(said.String(), "it is not shown: ") {
			return errNotOurs
		}
		return nil
	})
	if _, err := screen.WriteString(value + "\n"); err != nil {
		t.Fatal(err)
	}
	if status := <-ended; status != exitDone || !strings.HasPrefix(out.String(), "tts-prod: the current key ") {
		t.Errorf("exit status %d: %s%s", status, out.String(), said.String())
	}
	if !echoes() {
		t.Error("the terminal does not echo any more")
	}
	_ = keyboard.Close()
	<-done
	if strings.Contains(shown.String()+said.String(), value) {
		t.Errorf("the terminal shows the secret: %q", shown.String())
	}
}
