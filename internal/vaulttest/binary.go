// Package vaulttest starts real Vault servers for tests, or OpenBao servers, which VAULT_BIN may name.
package vaulttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/tools"
)

// Binary returns the path of a real Vault: VAULT_BIN, which may be OpenBao's bao, else `vault` on the PATH, else one that is built once into
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
		if _, err := kindOf(ctx, path); err != nil {
			return "", fmt.Errorf("using VAULT_BIN: %w", err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("vault"); err == nil {
		if kind, err := kindOf(ctx, path); err == nil && kind == vault {
			return path, nil
		}
	}
	return build(ctx, progress)
}

// kind is whose server a binary is; the text begins what it says to the command version.
type kind string

const (
	vault   kind = "Vault v"
	openBao kind = "OpenBao v"
)

func kindOf(ctx context.Context, path string) (kind, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version").Output() //nolint:gosec // the tester's own choice of binary
	if err != nil {
		return "", fmt.Errorf("running %s version: %w", path, err)
	}
	for _, k := range []kind{vault, openBao} {
		if bytes.HasPrefix(out, []byte(k)) {
			return k, nil
		}
	}
	return "", fmt.Errorf("%s is neither HashiCorp Vault nor OpenBao", path)
}

func build(ctx context.Context, progress io.Writer) (string, error) {
	return tools.Program{
		Name: "vault", Args: []string{"-tags", "minimal"}, // without the plugins for clouds and databases
		What: "the real Vault server once, for the tests: about 5 minutes on two cores, 140 MB in .cache/vault (set VAULT_BIN to use one that you have)",
	}.Build(ctx, progress)
}
