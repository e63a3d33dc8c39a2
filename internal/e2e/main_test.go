// Package e2e tests the real binary as a process, with the simulator as another and a real Vault. What it asserts on
// is what the simulator and Vault saw, never what rekeyd says of itself.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// shared is what all tests use and none changes.
type shared struct {
	rekeyd, simulator string // binaries
	vault             *vaulttest.Server
}

var common shared // set by TestMain, before any test

func TestMain(m *testing.M) {
	os.Exit(prepared(m))
}

func prepared(m *testing.M) int {
	dir, err := os.MkdirTemp("", "rekeyd-e2e-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
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
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "../../cmd/rekeyd", "../../cmd/elevensim")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building: %w: %s", err, out)
	}
	s.rekeyd, s.simulator = filepath.Join(dir, "rekeyd"), filepath.Join(dir, "elevensim")
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
