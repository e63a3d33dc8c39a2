package vaulttest

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// Config is a client configuration for the server that nothing in the environment changes.
func (s *Server) Config() *vaultapi.Config {
	c := vaultapi.DefaultConfig()
	c.Address, c.AgentAddress, c.MaxRetries, c.Limiter = s.Addr, "", 0, nil
	return c
}

// Client returns a client with the root token.
func (s *Server) Client(tb testing.TB) *vaultapi.Client {
	tb.Helper()
	c, err := s.client()
	must(tb, "making a client", err)
	return c
}

func (s *Server) client() (*vaultapi.Client, error) {
	config := s.Config()
	if s.CACert != "" {
		if err := config.ConfigureTLS(&vaultapi.TLSConfig{CACert: s.CACert}); err != nil {
			return nil, err
		}
	}
	c, err := vaultapi.NewClient(config)
	if err != nil {
		return nil, err
	}
	c.ClearNamespace()
	c.SetToken(s.RootToken)
	return c, nil
}

// Token returns a new token that has the policy's rights and no others, not even those of Vault's default policy.
func (s *Server) Token(tb testing.TB, policyHCL string, change ...func(*vaultapi.TokenCreateRequest)) string {
	tb.Helper()
	c := s.Client(tb)
	name := "test-" + rand.Text()[:10]
	must(tb, "writing a policy", c.Sys().PutPolicyWithContext(tb.Context(), name, policyHCL))
	req := &vaultapi.TokenCreateRequest{Policies: []string{name}, NoDefaultPolicy: true, NoParent: true}
	for _, f := range change {
		f(req)
	}
	secret, err := c.Auth().Token().CreateWithContext(tb.Context(), req)
	must(tb, "creating a token", err)
	return secret.Auth.ClientToken
}

// EnableKV mounts a KV engine of the given version (1 or 2) and returns once it answers. config is written to a
// version 2 mount's configuration: cas_required, max_versions, delete_version_after.
func (s *Server) EnableKV(tb testing.TB, mount string, version int, config map[string]any) {
	tb.Helper()
	c := s.Client(tb)
	must(tb, "enabling KV", s.enableKV(tb.Context(), c, mount, version))
	if len(config) > 0 {
		_, err := c.Logical().WriteWithContext(tb.Context(), mount+"/config", config)
		must(tb, "configuring KV", err)
	}
}

func (s *Server) enableKV(ctx context.Context, c *vaultapi.Client, mount string, version int) error {
	err := c.Sys().MountWithContext(ctx, mount, &vaultapi.MountInput{
		Type: "kv", Options: map[string]string{"version": fmt.Sprint(version)},
	})
	if err != nil || version != 2 {
		return err
	}
	return s.awaitKV(ctx, mount)
}

// awaitKV waits until a version 2 mount has prepared itself: until then it refuses every request.
func (s *Server) awaitKV(ctx context.Context, mount string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.poll(ctx, func(c *vaultapi.Client) error {
		_, err := c.Logical().ReadWithContext(ctx, mount+"/config")
		return err
	})
}

func (s *Server) initialize(ctx context.Context) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	keys, err := c.Sys().InitWithContext(ctx, &vaultapi.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initializing Vault: %w", err)
	}
	s.UnsealKey, s.RootToken = keys.Keys[0], keys.RootToken
	if err := s.unseal(ctx); err != nil {
		return err
	}
	c.SetToken(s.RootToken)
	return s.enableKV(ctx, c, "secret", 2)
}

// unseal returns once the server is active.
func (s *Server) unseal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.giveKey(ctx); err != nil {
		return err
	}
	return s.poll(ctx, func(c *vaultapi.Client) error {
		_, err := c.Auth().Token().LookupSelfWithContext(ctx)
		return err
	})
}

// giveKey gives the server the key once. A server that joins a cluster takes a while to unseal, and one that is given the key
// again meanwhile unseals twice: it has two loops that wait for the lead, and a step-down reaches the wrong one.
func (s *Server) giveKey(ctx context.Context) error {
	return s.poll(ctx, func(c *vaultapi.Client) error {
		_, err := c.Sys().UnsealWithContext(ctx, s.UnsealKey)
		return err
	})
}

// Restart starts a persistent server again on its old address and data, unsealed.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.RestartSealed(tb)
	s.Unseal(tb)
}

// RestartSealed starts a persistent server again and leaves it sealed, as after a crash.
func (s *Server) RestartSealed(tb testing.TB) {
	tb.Helper()
	s.Kill()
	must(tb, "restarting Vault", s.start(tb.Context()))
}

// Unseal unseals a persistent server, and waits for its mount at secret/.
func (s *Server) Unseal(tb testing.TB) {
	tb.Helper()
	must(tb, "unsealing Vault", s.unseal(tb.Context()))
	must(tb, "waiting for secret/", s.awaitKV(tb.Context(), "secret"))
}

// Seal seals the server.
func (s *Server) Seal(tb testing.TB) {
	tb.Helper()
	must(tb, "sealing Vault", s.Client(tb).Sys().SealWithContext(tb.Context()))
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	must(tb, "sealing Vault", s.poll(ctx, func(c *vaultapi.Client) error {
		if status, err := c.Sys().SealStatusWithContext(ctx); err != nil || !status.Sealed {
			return fmt.Errorf("not sealed: %w", err)
		}
		return nil
	}))
}

func must(tb testing.TB, what string, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}
