// Package vaulttest starts real Vault servers for tests.
package vaulttest

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
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// Binary returns the path of a real Vault: VAULT_BIN, else `vault` on the PATH, else one that is built once into
// the repository's .cache/vault. It never skips the test.
func Binary(tb testing.TB) string {
	tb.Helper()
	path, err := Find(context.Background(), os.Stderr)
	if err != nil {
		tb.Fatalf("finding a Vault server: %v", err)
	}
	return path
}

// Find is Binary for programs; progress says what it does when that takes long.
func Find(ctx context.Context, progress io.Writer) (string, error) {
	if path := os.Getenv("VAULT_BIN"); path != "" {
		if err := isVault(ctx, path); err != nil {
			return "", fmt.Errorf("using VAULT_BIN: %w", err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("vault"); err == nil && isVault(ctx, path) == nil {
		return path, nil
	}
	return build(ctx, progress)
}

func isVault(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version").Output() //nolint:gosec // the tester's own choice of binary
	if err != nil {
		return fmt.Errorf("running %s version: %w", path, err)
	}
	if !bytes.HasPrefix(out, []byte("Vault v")) {
		return fmt.Errorf("%s is not HashiCorp Vault", path)
	}
	return nil
}

// build makes the server from internal/tools/vault. The go.sum that it was built from lies beside the binary, so
// that another version of Vault is noticed; a lock keeps the test processes of one `go test` from building it twice.
func build(ctx context.Context, progress io.Writer) (string, error) {
	source, cache, err := folders()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o750); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	lock := flock.New(filepath.Join(cache, "lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", fmt.Errorf("waiting for another build of Vault: %w", err)
	}
	defer func() { _ = lock.Close() }()

	binary, stamp := filepath.Join(cache, "vault"), filepath.Join(cache, "go.sum")
	want, err := os.ReadFile(filepath.Join(source, "go.sum")) //nolint:gosec // inside the repository
	if err != nil {
		return "", fmt.Errorf("reading what to build: %w", err)
	}
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, want) && isVault(ctx, binary) == nil { //nolint:gosec // inside the repository
		return binary, nil
	}
	if err := compile(ctx, source, binary, progress); err != nil {
		return "", err
	}
	return binary, os.WriteFile(stamp, want, 0o600) //nolint:gosec // inside the repository
}

// folders returns where the server's module and its cache are in this repository.
func folders() (source, cache string, err error) {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Dir(file)
	if !ok || !filepath.IsAbs(dir) { // built with -trimpath
		if dir, err = os.Getwd(); err != nil {
			return "", "", err
		}
	}
	for ; ; dir = filepath.Dir(dir) {
		source = filepath.Join(dir, "internal", "tools", "vault")
		if _, err := os.Stat(filepath.Join(source, "go.mod")); err == nil {
			return source, filepath.Join(dir, ".cache", "vault"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", "", errors.New("not inside the rekeyd repository; set VAULT_BIN to a Vault binary")
		}
	}
}

func compile(ctx context.Context, source, binary string, progress io.Writer) error {
	_, _ = fmt.Fprintln(progress, "vaulttest: building the real Vault server once, for the tests: about 5 minutes on two cores, 140 MB"+
		" in .cache/vault (set VAULT_BIN to use one that you have)")
	var out counter
	cmd := exec.CommandContext(ctx, "go", "build", "-C", source, "-v", "-trimpath", "-tags", "minimal", //nolint:gosec // fixed arguments
		"-ldflags", "-s -w", "-o", binary, ".")
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
				return fmt.Errorf("building Vault: %w: %s", err, out.tail())
			}
			_, _ = fmt.Fprintf(progress, "vaulttest: built Vault in %s\n", time.Since(start).Round(time.Second))
			return nil
		case <-tick.C:
			_, _ = fmt.Fprintf(progress, "vaulttest: building Vault: %d packages compiled after %s\n",
				out.lines.Load(), time.Since(start).Round(time.Second))
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
