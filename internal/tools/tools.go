// Package tools builds the servers that tests talk to, each from a module of its own below this folder, once.
package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
)

// Program is what can be built.
type Program struct {
	Name string   // of the folder below this one, of the folder in .cache, and of the binary
	What string   // for the line that says what is going on
	Args []string // of go build
}

// Build returns the path of the program, which is built into the repository's .cache where it is not there yet. The
// go.sum and the arguments that it was built from lie beside the binary, so that another version is noticed; a lock keeps the test
// processes of one `go test` from building it twice.
func (p Program) Build(ctx context.Context, progress io.Writer) (string, error) {
	source, cache, err := p.folders()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o750); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	lock := flock.New(filepath.Join(cache, "lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", fmt.Errorf("waiting for another build of %s: %w", p.Name, err)
	}
	defer func() { _ = lock.Close() }()

	binary, stamp := filepath.Join(cache, p.Name), filepath.Join(cache, "go.sum")
	want, err := os.ReadFile(filepath.Join(source, "go.sum")) //nolint:gosec // inside the repository
	if err != nil {
		return "", fmt.Errorf("reading what to build: %w", err)
	}
	want = append(want, strings.Join(p.Args, " ")...)
	have, err := os.ReadFile(stamp) //nolint:gosec // inside the repository
	if _, missing := os.Stat(binary); err == nil && missing == nil && bytes.Equal(have, want) {
		return binary, nil
	}
	if err := p.compile(ctx, source, binary, progress); err != nil {
		return "", err
	}
	return binary, os.WriteFile(stamp, want, 0o600) //nolint:gosec // inside the repository
}

// folders returns where the program's module and its cache are in this repository.
func (p Program) folders() (source, cache string, err error) {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Dir(file)
	if !ok || !filepath.IsAbs(dir) { // built with -trimpath
		if dir, err = os.Getwd(); err != nil {
			return "", "", err
		}
	}
	for ; ; dir = filepath.Dir(dir) {
		source = filepath.Join(dir, "internal", "tools", p.Name)
		if _, err := os.Stat(filepath.Join(source, "go.mod")); err == nil {
			return source, filepath.Join(dir, ".cache", p.Name), nil
		}
		if dir == filepath.Dir(dir) {
			return "", "", errors.New("not inside the rekeyd repository")
		}
	}
}

func (p Program) compile(ctx context.Context, source, binary string, progress io.Writer) error {
	_, _ = fmt.Fprintf(progress, "tools: building %s\n", p.What)
	var out counter
	args := append([]string{"build", "-C", source, "-v", "-trimpath", "-ldflags", "-s -w", "-o", binary}, p.Args...)
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...) //nolint:gosec // fixed arguments
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	cmd.Stderr = &out
	start := time.Now()
	done := make(chan error, 1)
	go func() { done <- cmd.Run() }()
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("building %s: %w: %s", p.Name, err, out.tail())
			}
			_, _ = fmt.Fprintf(progress, "tools: built %s in %s\n", p.Name, time.Since(start).Round(time.Second))
			return nil
		case <-tick.C:
			_, _ = fmt.Fprintf(progress, "tools: building %s: %d packages compiled after %s\n",
				p.Name, out.lines.Load(), time.Since(start).Round(time.Second))
		}
	}
}

// counter counts the packages that `go build -v` names, and keeps its words for when it fails.
type counter struct {
	lines atomic.Int64
	text  bytes.Buffer
}

func (c *counter) Write(p []byte) (int, error) {
	c.lines.Add(int64(bytes.Count(p, []byte("\n"))))
	return c.text.Write(p)
}

// tail is called when the command has ended.
func (c *counter) tail() string {
	lines := strings.Split(strings.TrimSpace(c.text.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
