// Package e2e tests the real binary as a process, with the simulator as another and a real Vault. What it asserts on
// is what the simulator and Vault saw, never what rekeyd says of itself.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// shared is what all tests use and none changes.
type shared struct {
	process.Programs
	vault *vaulttest.Server
}

var common shared // set by TestMain, before any test

func TestMain(m *testing.M) {
	os.Exit(prepared(m))
}

func prepared(m *testing.M) int {
	dir, err := os.MkdirTemp("", "rekeyd-e2e-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = os.Chmod(dir, 0o755) // another user executes what is built there
	}
	if err == nil {
		err = common.prepare(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "preparing the tests:", err)
		return 1
	}
	defer common.vault.Kill()
	return m.Run()
}

func (s *shared) prepare(ctx context.Context, dir string) error {
	var err error
	if s.Programs, err = process.Build(ctx, dir); err != nil {
		return err
	}
	binary, err := vaulttest.Find(ctx, os.Stderr)
	if err != nil {
		return err
	}
	home := filepath.Join(dir, "vault")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	s.vault, err = vaulttest.Launch(ctx, binary, home)
	return err
}
