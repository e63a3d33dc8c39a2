package vaulttest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

func TestStart(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("VAULT_ADDR", "http://192.0.2.1:1") // nobody's; must not be used
	t.Setenv("VAULT_NAMESPACE", "elsewhere")
	s := vaulttest.Start(t)
	write(t, s, s.RootToken, "secret/data/a")

	token := s.Token(t, `path "secret/data/b" { capabilities = ["create", "update"] }`)
	write(t, s, token, "secret/data/b")
	if err := tryWrite(t, s, token, "secret/data/a"); err == nil {
		t.Error("a token could write what its policy does not name")
	}
	c := s.Client(t)
	c.SetToken(token)
	if _, err := c.Auth().Token().LookupSelf(); err == nil {
		t.Error("the token has the rights of the default policy")
	}

	s.EnableKV(t, "strict", 2, map[string]any{"cas_required": true})
	if err := tryWrite(t, s, s.RootToken, "strict/data/a"); err == nil {
		t.Error("cas_required was not set")
	}
	s.EnableKV(t, "old", 1, nil)
	if files, _ := filepath.Glob(filepath.Join(home, ".*")); len(files) > 0 {
		t.Errorf("Vault wrote to the home directory: %v", files)
	}
}

func TestStartPersistent(t *testing.T) {
	s := vaulttest.StartPersistent(t)
	write(t, s, s.RootToken, "secret/data/a")
	s.Seal(t)
	if err := tryWrite(t, s, s.RootToken, "secret/data/a"); err == nil {
		t.Error("a sealed server took a write")
	}
	s.Unseal(t)
	write(t, s, s.RootToken, "secret/data/a")
	s.Kill()
	s.Restart(t)
	secret, err := s.Client(t).KVv2("secret").Get(t.Context(), "a")
	if err != nil || secret.VersionMetadata.Version != 2 {
		t.Errorf("after a kill and a restart: %v, %v", secret, err)
	}
}

func TestStartCluster(t *testing.T) {
	nodes := vaulttest.StartCluster(t)
	write(t, nodes[2], nodes[2].RootToken, "secret/data/a")
	first, since := leader(t, nodes, time.Time{})
	if first != nodes[0] {
		t.Errorf("%s leads", first.Addr)
	}
	first.Kill()
	second, since := leader(t, nodes, since)
	first.Rejoin(t)
	if err := second.StepDown(t); err != nil {
		t.Fatal(err)
	}
	third, _ := leader(t, nodes, since)
	if second == first || third == second {
		t.Errorf("%s is killed, %s steps down, %s leads", first.Addr, second.Addr, third.Addr)
	}
	for _, s := range nodes {
		if secret, err := s.Client(t).KVv2("secret").Get(t.Context(), "a"); err != nil || secret.VersionMetadata.Version != 1 {
			t.Errorf("%s after two elections: %v, %v", s.Addr, secret, err)
		}
	}
}

// leader waits for a server that leads since later.
func leader(t *testing.T, nodes []*vaulttest.Server, later time.Time) (*vaulttest.Server, time.Time) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		for _, s := range nodes {
			if since := s.Leads(t.Context()); since.After(later) {
				tick.Stop()
				return s, since
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no other server leads within a minute")
		}
	}
}

func TestBinary(t *testing.T) {
	path := vaulttest.Binary(t)
	t.Setenv("VAULT_BIN", path)
	if got, err := vaulttest.Find(t.Context(), t.Output()); err != nil || got != path {
		t.Errorf("VAULT_BIN: %q, %v", got, err)
	}
	other := filepath.Join(t.TempDir(), "vault")
	say := func(version string) {
		if err := os.WriteFile(other, []byte("#!/bin/sh\necho '"+version+"'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("VAULT_BIN", other)
	say("Terraform v1.15.0")
	if _, err := vaulttest.Find(t.Context(), t.Output()); err == nil {
		t.Error("another program was taken for Vault")
	}
	say("OpenBao v2.6.2 (0b5e9b0c9e4d5f0e8a6d3c2b1a09f8e7d6c5b4a3), committed 2026-08-20T10:00:00Z")
	if got, err := vaulttest.Find(t.Context(), t.Output()); err != nil || got != other {
		t.Errorf("OpenBao in VAULT_BIN: %q, %v", got, err)
	}
	t.Setenv("VAULT_BIN", "")
	t.Setenv("PATH", filepath.Dir(other)+string(os.PathListSeparator)+os.Getenv("PATH"))
	if got, err := vaulttest.Find(t.Context(), t.Output()); err != nil || got == other {
		t.Errorf("another program on the PATH: %q, %v", got, err)
	}
}

func write(t *testing.T, s *vaulttest.Server, token, path string) {
	t.Helper()
	if err := tryWrite(t, s, token, path); err != nil {
		t.Fatal(err)
	}
}

func tryWrite(t *testing.T, s *vaulttest.Server, token, path string) error {
	t.Helper()
	c, err := vaultapi.NewClient(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	c.ClearNamespace()
	c.SetToken(token)
	_, err = c.Logical().WriteWithContext(t.Context(), path, map[string]any{"data": map[string]any{"x": 1}})
	return err
}
