package sinks_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// runToken keeps the token alive until the test ends, and then waits for it.
func runToken(t *testing.T, v *sinks.Vault) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := v.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
}

const tokenPolicy = `
	path "auth/token/lookup-self" { capabilities = ["read"] }
	path "auth/token/renew-self" { capabilities = ["update"] }
	path "secret/*" { capabilities = ["create", "read", "update"] }`

// left is how long the token is known to live; ok is false while nothing is known.
func left(v *sinks.Vault) (d time.Duration, ok bool) {
	at, ok := v.TokenExpiry()
	return time.Until(at), ok
}

func known(v *sinks.Vault) func() bool { return func() bool { _, ok := v.TokenExpiry(); return ok } }

func lives(ttl string, renewable bool) func(*vaultapi.TokenCreateRequest) {
	return func(r *vaultapi.TokenCreateRequest) { r.TTL, r.Renewable = ttl, &renewable }
}

func TestVaultToken(t *testing.T) {
	s := vaulttest.Start(t)
	for name, test := range map[string]func(*testing.T, *vaulttest.Server){
		"renewed":       testTokenRenewed,
		"maximum life":  testTokenMaximumLife,
		"not renewable": testTokenNotRenewable,
		"batch":         testTokenBatch,
		"root":          testTokenRoot,
		"revoked":       testTokenRevoked,
		"login again":   testTokenLogin,
		"login refused": testTokenLoginRefused,
		"file changed":  testTokenFileChanged,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, s) })
	}
}

func testTokenRenewed(t *testing.T, s *vaulttest.Server) {
	const ttl = 3 * time.Second
	token := s.Token(t, tokenPolicy, lives(ttl.String(), true))
	v := openVault(t, s, token)
	start := time.Now()
	runToken(t, v)
	c := s.Client(t)
	eventually(t, "the token outlives its first life", func() bool {
		if _, err := c.Auth().Token().LookupWithContext(t.Context(), token); err != nil {
			t.Fatalf("after %s the token is gone: %v", time.Since(start), err)
		}
		return time.Since(start) > ttl+time.Second
	})
	if d, ok := left(v); !ok || d <= 0 || d > ttl {
		t.Errorf("the token is thought to live another %s", d)
	}
	must(t, v.Check(t.Context()))
}

func testTokenMaximumLife(t *testing.T, s *vaulttest.Server) {
	token := s.Token(t, tokenPolicy, lives("3s", true), func(r *vaultapi.TokenCreateRequest) { r.ExplicitMaxTTL = "4s" })
	log := new(lockedBuffer)
	v := openVault(t, s, token, withLog(log))
	runToken(t, v)
	eventually(t, "the token ends", func() bool { return v.Check(t.Context()) != nil })
	wantError(t, v.Check(t.Context()), wanted{reason: ledger.FailureSinkDenied, outage: true, says: "ended"})
	eventually(t, "that is logged", func() bool { return strings.Contains(log.String(), "keeping the vault token alive failed") })
	if !strings.Contains(log.String(), "cannot be renewed") {
		t.Errorf("no warning before: %s", log)
	}
}

func testTokenNotRenewable(t *testing.T, s *vaulttest.Server) {
	v := openVault(t, s, s.Token(t, tokenPolicy, lives("1h", false)))
	runToken(t, v)
	eventually(t, "the token is looked up", known(v))
	if d, _ := left(v); d < 59*time.Minute || d > time.Hour {
		t.Errorf("the token lives another %s", d)
	}
}

func testTokenBatch(t *testing.T, s *vaulttest.Server) {
	v := openVault(t, s, s.Token(t, tokenPolicy, func(r *vaultapi.TokenCreateRequest) { r.Type, r.TTL = "batch", "1h" }))
	runToken(t, v)
	eventually(t, "the token is looked up", known(v))
	must(t, v.Ready(t.Context()))
}

func testTokenRoot(t *testing.T, s *vaulttest.Server) {
	v := openVault(t, s, s.RootToken)
	if at, ok := v.TokenExpiry(); ok {
		t.Errorf("nobody was asked, and the token ends at %s", at)
	}
	runToken(t, v)
	eventually(t, "the token is looked up", known(v))
	must(t, v.Ready(t.Context()))
	if at, _ := v.TokenExpiry(); !at.IsZero() {
		t.Errorf("a root token ends at %s", at)
	}
}

func testTokenRevoked(t *testing.T, s *vaulttest.Server) {
	token := s.Token(t, tokenPolicy, lives("3s", true))
	v := openVault(t, s, token)
	runToken(t, v)
	eventually(t, "the token is looked up", known(v))
	must(t, v.Ready(t.Context()))
	must(t, s.Client(t).Auth().Token().RevokeTreeWithContext(t.Context(), token))
	eventually(t, "the renewal finds out", func() bool { return v.Check(t.Context()) != nil })
	wantError(t, v.Ready(t.Context()), wanted{reason: ledger.FailureSinkDenied, outage: true})
	if d, _ := left(v); d > 0 {
		t.Errorf("a revoked token is said to live another %s", d)
	}
}

// testTokenLogin has tokens that can be renewed for a while and one that is revoked: each is replaced in time.
func testTokenLogin(t *testing.T, s *vaulttest.Server) {
	root := s.Client(t)
	must(t, root.Sys().PutPolicyWithContext(t.Context(), "login", tokenPolicy))
	var mu sync.Mutex
	var issued []string
	v := openVault(t, s, "", func(o *sinks.VaultOptions) {
		o.Login = func(ctx context.Context, c *vaultapi.Client) (*vaultapi.Secret, error) {
			if c.Token() != "" {
				t.Error("the login's client has a token")
			}
			secret, err := root.Auth().Token().CreateWithContext(ctx, &vaultapi.TokenCreateRequest{
				Policies: []string{"login"}, NoDefaultPolicy: true, TTL: "3s", ExplicitMaxTTL: "5s",
			})
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			if len(issued) == 0 { // as a token from a file, of which nothing is known
				secret.Auth.LeaseDuration, secret.Auth.Renewable = 0, false
			}
			issued = append(issued, secret.Auth.ClientToken)
			return secret, nil
		}
	})
	logins := func() int { mu.Lock(); defer mu.Unlock(); return len(issued) }
	f := fixture{store: v, mount: "secret"}
	runToken(t, v)
	eventually(t, "the first login", func() bool { return v.Ready(t.Context()) == nil })
	eventually(t, "the second login", func() bool {
		if _, err := v.Read(t.Context(), f.ref("a"), 0); err != nil {
			t.Fatalf("between two tokens: %v", err)
		}
		return logins() >= 2
	})
	eventually(t, "the second token is used", func() bool { d, _ := left(v); return d > time.Second })
	mu.Lock()
	revoked := issued[len(issued)-1]
	mu.Unlock()
	before := logins()
	must(t, s.Client(t).Auth().Token().RevokeTreeWithContext(t.Context(), revoked))
	eventually(t, "a new token after a refusal", func() bool {
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		return err == nil && logins() > before
	})
}

// testTokenFileChanged has the token in a file: what is written there is used within seconds, unless it is no token.
func testTokenFileChanged(t *testing.T, s *vaulttest.Server) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) { must(t, os.WriteFile(path, []byte(text), 0o600)) }
	first, second := s.Token(t, tokenPolicy, lives("1h", true)), s.Token(t, tokenPolicy, lives("2h", true))
	const wrong = "hvs.no-token-of-this-vault"
	write(first)
	log := new(lockedBuffer)
	v := openVault(t, s, first, withLog(log), func(o *sinks.VaultOptions) {
		o.Reread = func() (secret.Secret, error) {
			text, err := os.ReadFile(path)
			return secret.New(string(text)), err
		}
	})
	runToken(t, v)
	eventually(t, "the first token is looked up", known(v))
	write(wrong)
	eventually(t, "a wrong token is refused", func() bool { return strings.Contains(log.String(), "switching to the new Vault token") })
	must(t, v.Check(t.Context()))
	must(t, os.Remove(path))
	write(second)
	eventually(t, "the second token is used", func() bool { d, _ := left(v); return d > time.Hour })
	must(t, s.Client(t).Auth().Token().RevokeTreeWithContext(t.Context(), first))
	must(t, v.Ready(t.Context()))
	for _, secret := range []string{first, second, wrong} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log shows a token: %s", log)
		}
	}
}

func testTokenLoginRefused(t *testing.T, s *vaulttest.Server) {
	log := new(lockedBuffer)
	v := openVault(t, s, "", withLog(log), func(o *sinks.VaultOptions) {
		o.Login = func(ctx context.Context, c *vaultapi.Client) (*vaultapi.Secret, error) {
			return c.Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{"secret_id": "hvs.secret-id"})
		}
	})
	runToken(t, v)
	eventually(t, "the refusal is logged", func() bool { return strings.Contains(log.String(), "keeping the vault token alive failed") })
	for _, bad := range []string{"hvs.secret-id", "URL", "http://"} {
		if strings.Contains(log.String(), bad) {
			t.Errorf("the log has %q: %s", bad, log)
		}
	}
	if !strings.Contains(log.String(), "REKEYD_VAULT_AUTH") {
		t.Errorf("no advice: %s", log)
	}
}

func TestVaultLoginFollowsNoRedirect(t *testing.T) {
	log := new(lockedBuffer)
	v, _ := stub(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/elsewhere") {
			t.Error("the login followed a redirect")
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}, withLog(log), func(o *sinks.VaultOptions) {
		o.Token = secret.Secret{}
		o.Login = func(ctx context.Context, c *vaultapi.Client) (*vaultapi.Secret, error) {
			return c.Logical().WriteWithContext(ctx, "auth/approle/login", nil)
		}
	})
	runToken(t, v)
	eventually(t, "the failure is logged", func() bool { return log.String() != "" })
}

func TestVaultReadyIsAskedOnce(t *testing.T) {
	var calls int
	v, _ := stub(t, func(w http.ResponseWriter, _ *http.Request) {
		calls++
		_, _ = io.WriteString(w, `{"data":{"ttl":0}}`)
	})
	for range 5 {
		must(t, v.Ready(t.Context()))
	}
	if calls != 1 {
		t.Errorf("five questions made %d calls", calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v, _ = stub(t, nil)
	if err := v.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func withLog(log io.Writer) func(*sinks.VaultOptions) {
	return func(o *sinks.VaultOptions) { o.Logger = newLogger(log) }
}
