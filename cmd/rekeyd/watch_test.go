package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/sethvargo/go-envconfig"
	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// eventuallySays waits for a text in what a command has said so far.
func eventuallySays(t *testing.T, said *process.Output, text string) {
	t.Helper()
	process.Eventually(t, time.Minute, func() error {
		if !strings.Contains(said.String(), text) {
			return fmt.Errorf("no %q in %q", text, said)
		}
		return nil
	})
}

// TestWatchInAPipe has the whole table once, then the line of the policy that changed, and ends with an interrupt.
func TestWatchInAPipe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "--all")
	out, errs := new(process.Output), new(process.Output)
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		a := app{lookuper: envconfig.MapLookuper(w.env), stdout: out, stderr: errs}
		ended <- a.run(ctx, []string{"status", "--watch", "--interval", "1s"})
	}()
	eventuallySays(t, out, "\ntts-prod  ok")
	w.must(0, "rotate", "tts-prod")
	second := w.sim.State()[0].Keys[1].ID
	eventuallySays(t, out, "\ntts-prod  ok     "+second)
	interrupt()
	if status := <-ended; status != 0 || errs.String() != "" {
		t.Errorf("exit status %d: %s", status, errs)
	}
	text := out.String()
	if strings.Count(text, "POLICY") != 1 || strings.Count(text, "dubbing") != 1 || strings.Contains(text, "\x1b") {
		t.Errorf("got\n%s", text)
	}
}

// TestWatchOnATerminal runs the binary, which redraws, and presses Ctrl-C.
func TestWatchOnATerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("builds rekeyd")
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "rekeyd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w := newWorld(t)
	w.must(0, "rotate", "--all")
	cmd := exec.CommandContext(t.Context(), binary, "status", "-w", "--interval", "1s")
	cmd.Env = []string{"TERM=xterm"}
	for name, value := range w.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	said, read := new(process.Output), make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(said, terminal) // ends with an error on Linux
	}()
	const cleared = "\x1b[H\x1b[2J"
	eventuallySays(t, said, cleared+"Every 1s, last at ")
	w.must(0, "rotate", "tts-prod")
	eventuallySays(t, said, w.sim.State()[0].Keys[1].ID)
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 5, Cols: 200}); err != nil {
		t.Fatal(err)
	}
	eventuallySays(t, said, "2 more\x1b[0m\r\n")
	if _, err := terminal.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	<-read
	_ = terminal.Close()
	if text := said.String(); strings.Count(text, cleared) != strings.Count(text, "POLICY") || strings.Count(text, cleared) < 2 {
		t.Errorf("got %q", text)
	}
}

// TestWatchFitsTheScreen: what is not shown is counted, wrapped lines and reports of faults too.
func TestWatchFitsTheScreen(t *testing.T) {
	t.Parallel()
	all := []web.PolicyView{{Name: "a", State: plan.StateOK}, {Name: "b", State: plan.StateFailing}, {Name: "c", State: plan.StateError}, {Name: "d", State: plan.StateOK}}
	lines := []string{"HEAD", "a", strings.Repeat("b", 11), "c", "d"}
	colors := []string{bold, "", red, red, ""}
	fault := errors.New("one\ntwo")
	for _, c := range []struct {
		rows, columns int
		fault         error
		want          string
	}{
		{0, 0, nil, "HEAD a bbbbbbbbbbb c d"},
		{9, 80, nil, "HEAD a bbbbbbbbbbb c d"},
		{8, 80, nil, "HEAD a bbbbbbbbbbb c d"},
		{7, 80, nil, "HEAD a bbbbbbbbbbb 2 more, 1 failing or in error: --state failing,error"},
		{8, 10, nil, "HEAD a bbbbbbbbbbb 2 more, 1 failing or in error: --state failing,error"},
		{8, 80, fault, "HEAD a 3 more, 2 failing or in error: --state failing,error"},
		{1, 80, fault, "HEAD 4 more, 2 failing or in error: --state failing,error"},
	} {
		w := watcher{app: app{size: func(io.Writer) (int, int) { return c.rows, c.columns }}}
		got, painted := w.fit(lines, colors, all, c.fault)
		if strings.Join(got, " ") != c.want || len(painted) != len(got) {
			t.Errorf("on %d rows of %d columns: %q, want %q", c.rows, c.columns, got, c.want)
		}
	}
}

// TestWatchDraws one view after another in each format.
func TestWatchDraws(t *testing.T) {
	t.Parallel()
	view := func(state plan.State) web.View {
		return web.View{Policies: []web.PolicyView{{Name: "a", State: state}, {Name: "b", State: plan.StateOK}}, Unmanaged: []web.PolicyView{}}
	}
	views := []web.View{view(plan.StateOK), view(plan.StateOK), view(plan.StateError), view(plan.StateError)}
	views[1].StoreError, views[2].StoreError = "sealed", "sealed"
	for _, c := range []struct {
		format      format
		tty         bool
		term        string
		heads, a, b int
	}{
		{formatTable, false, "", 1, 2, 1}, {formatWide, false, "", 1, 2, 1}, {formatTable, true, "dumb", 1, 2, 1}, {formatTable, true, "xterm", 4, 4, 4},
	} {
		out, errs := new(process.Output), new(process.Output)
		w := watcher{app: app{stdout: out, stderr: errs, terminal: func(any) bool { return c.tty }, lookuper: envconfig.MapLookuper(map[string]string{"TERM": c.term, "NO_COLOR": "1"})}, options: options{format: c.format}}
		for _, v := range views {
			if err := w.draw(v, instant); err != nil {
				t.Fatal(err)
			}
		}
		lines := map[string]int{}
		for line := range strings.Lines(out.String()) {
			lines[strings.Fields(line + " .")[0]]++
		}
		if lines["POLICY"] != c.heads || lines["a"] != c.a || lines["b"] != c.b {
			t.Errorf("%+v:\n%s", c, out)
		}
		if reports := strings.Count(errs.String(), "sealed"); reports != 1 && c.heads == 1 || reports != 2 && c.heads == 4 {
			t.Errorf("%+v: says %s", c, errs)
		}
	}
	for f, decode := range map[format]func(io.Reader) interface{ Decode(any) error }{
		formatJSON: func(r io.Reader) interface{ Decode(any) error } { return json.NewDecoder(r) },
		formatYAML: func(r io.Reader) interface{ Decode(any) error } { return yaml.NewDecoder(r) },
	} {
		out := new(process.Output)
		w := watcher{app: app{stdout: out, stderr: io.Discard, lookuper: envconfig.MapLookuper(nil), terminal: func(any) bool { return true }}, options: options{format: f}}
		for _, v := range views {
			if err := w.draw(v, instant); err != nil {
				t.Fatal(err)
			}
		}
		var states []any
		documents := decode(strings.NewReader(out.String()))
		for {
			var v map[string][]map[string]any
			err := documents.Decode(&v)
			if errors.Is(err, io.EOF) {
				break
			}
			var partial *json.UnmarshalTypeError
			if yamlError := (*yaml.TypeError)(nil); err != nil && !errors.As(err, &partial) && !errors.As(err, &yamlError) { // store_error is no list
				t.Fatal(err)
			}
			states = append(states, v["policies"][0]["state"])
		}
		if fmt.Sprint(states) != "[ok error]" {
			t.Errorf("%s: states %v in\n%s", f, states, out)
		}
	}
}

// TestWatchThatFails ends at once where it cannot begin; later it says so and looks again.
func TestWatchThatFails(t *testing.T) {
	t.Parallel()
	errs := new(process.Output)
	a := app{stdout: io.Discard, stderr: errs, lookuper: envconfig.MapLookuper(nil)}
	o := options{format: formatTable, interval: time.Millisecond}
	failure := errors.New("the ledger is away")
	if err := a.watch(t.Context(), o, func(context.Context) (web.View, error) { return web.View{}, failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	looks := 0
	err := a.watch(ctx, o, func(context.Context) (web.View, error) {
		if looks++; looks == 5 {
			interrupt()
		}
		if looks > 1 {
			return web.View{}, failure
		}
		return web.View{}, nil
	})
	if err != nil || looks != 5 || strings.Count(errs.String(), "the ledger is away") != 1 {
		t.Errorf("%d looks, %v: %s", looks, err, errs)
	}
}
