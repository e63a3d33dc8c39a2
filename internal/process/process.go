// Package process runs the programs of this module as processes, for tests, and keeps what they say.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what takes a second on a quiet machine.
const Patience = 20 * time.Second

// Programs are the paths of binaries.
type Programs struct{ Rekeyd, Simulator string }

// Build builds the programs into a folder, without the race detector, under the given build tags.
func Build(ctx context.Context, dir string, tags ...string) (Programs, error) {
	const commands = "github.com/rekeyd/rekeyd/cmd/"
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", strings.Join(tags, ","), "-o", dir+string(filepath.Separator), commands+"rekeyd", commands+"elevensim") //nolint:gosec // a folder of the test's own
	if out, err := cmd.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("building: %w: %s", err, out)
	}
	return Programs{filepath.Join(dir, "rekeyd"), filepath.Join(dir, "elevensim")}, nil
}

// Output collects what a process writes.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends to the output.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns all that was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Count returns how often these words were written so far.
func (o *Output) Count(words string) int { return strings.Count(o.String(), words) }

// CheckNoSecretIn looks for secrets, given by what they are called, in all that was said.
func CheckNoSecretIn(t *testing.T, said []*Output, secrets map[string]string) {
	t.Helper()
	total := 0
	for _, o := range said {
		text := o.String()
		total += len(text)
		for name, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the %s is in:\n%s", name, text)
			}
		}
	}
	if total == 0 {
		t.Error("nothing was said, so nothing was checked")
	}
}

// Process is one running program.
type Process struct {
	Stdout, Stderr Output

	t      *testing.T
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts a program in an empty folder, without stdin; it is killed when the test ends.
func Start(t *testing.T, env []string, name string, args ...string) *Process {
	t.Helper()
	return StartReading(t, nil, env, name, args...)
}

// StartReading is Start with a stdin.
func StartReading(t *testing.T, stdin io.Reader, env []string, name string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(name, args...), exited: make(chan struct{})} //nolint:gosec,noctx // our own program; ended below, and not by a context
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdin = env, t.TempDir(), stdin
	p.cmd.Stdout, p.cmd.Stderr = &p.Stdout, &p.Stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.exited) }()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s said last:\n%s", filepath.Base(name), tail(p.Stderr.String(), 30))
		}
	})
	return p
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}

// Exited reports whether the process has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("sending %s: %v", s, err)
	}
}

// ID is the process's.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// DumpedCore reports whether the process, which has ended, left a core file.
func (p *Process) DumpedCore() bool {
	<-p.exited
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.CoreDump()
}

// Kill is SIGKILL. It returns once the process has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Stop is SIGTERM; it returns the exit status.
func (p *Process) Stop() int {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Wait waits for the end of the process and returns the exit status.
func (p *Process) Wait() int {
	p.t.Helper()
	if !p.Ended(Patience) {
		p.t.Fatalf("the process does not end; it said:\n%s", p.Stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Ended waits for the end of the process, for so long.
func (p *Process) Ended(within time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(within):
		return false
	}
}

// Find waits for a match of the expression's first group in one of the outputs.
func (p *Process) Find(where *Output, expression string) string {
	p.t.Helper()
	re := regexp.MustCompile(expression)
	var found []string
	Eventually(p.t, Patience, func() error {
		if found = re.FindStringSubmatch(where.String()); found == nil {
			return fmt.Errorf("no %s in:\n%s%s", expression, p.Stdout.String(), p.Stderr.String())
		}
		return nil
	})
	return found[1]
}

// Eventually asks again and again until f has no complaint.
func Eventually(t *testing.T, patience time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", patience, err)
		}
		<-tick.C
	}
}
