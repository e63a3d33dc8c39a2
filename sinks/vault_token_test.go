package sinks_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/rotator"
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
	if left := time.Until(v.TokenExpiry()); left <= 0 || left > ttl {
		t.Errorf("the token is thought to live another %s", left)
	}
	must(t, v.Check(t.Context()))
}

func testTokenMaximumLife(t *testing.T, s *vaulttest.Server) {
	token := s.Token(t, tokenPolicy, lives("3s", true), func(r *vaultapi.TokenCreateRequest) { r.ExplicitMaxTTL = "4s" })
	log := new(lockedBuffer)
	v := openVault(t, s, token, withLog(log))
	runToken(t, v)
	eventually(t, "the token ends", func() bool { return v.Check(t.Context()) != nil })
	wantError(t, v.Check(t.Context()), wanted{reason: rotator.ReasonSinkDenied, outage: true, says: "ended"})
	eventually(t, "that is logged", func() bool { return strings.Contains(log.String(), "cannot be kept alive") })
	if !strings.Contains(log.String(), "cannot be renewed") {
		t.Errorf("no warning before: %s", log)
	}
}

func testTokenNotRenewable(t *testing.T, s *vaulttest.Server) {
	v := openVault(t, s, s.Token(t, tokenPolicy, lives("1h", false)))
	runToken(t, v)
	eventually(t, "the token is looked up", func() bool { return !v.TokenExpiry().IsZero() })
	if left := time.Until(v.TokenExpiry()); left < 59*time.Minute || left > time.Hour {
		t.Errorf("the token lives another %s", left)
	}
}

func testTokenBatch(t *testing.T, s *vaulttest.Server) {
	v := openVault(t, s, s.Token(t, tokenPolicy, func(r *vaultapi.TokenCreateRequest) { r.Type, r.TTL = "batch", "1h" }))
	runToken(t, v)
	eventually(t, "the token is looked up", func() bool { return !v.TokenExpiry().IsZero() })
	must(t, v.Ready(t.Context()))
}

func testTokenRoot(t *testing.T, s *vaulttest.Server) {
	looked := make(chan struct{}, 9)
	v := openVault(t, s, s.RootToken, func(o *sinks.VaultOptions) {
		o.Observe = func(string, string, time.Duration) { looked <- struct{}{} }
	})
	runToken(t, v)
	<-looked
	must(t, v.Ready(t.Context()))
	if !v.TokenExpiry().IsZero() {
		t.Errorf("a root token ends at %s", v.TokenExpiry())
	}
}

func testTokenRevoked(t *testing.T, s *vaulttest.Server) {
	token := s.Token(t, tokenPolicy, lives("3s", true))
	v := openVault(t, s, token)
	runToken(t, v)
	eventually(t, "the token is looked up", func() bool { return !v.TokenExpiry().IsZero() })
	must(t, v.Ready(t.Context()))
	must(t, s.Client(t).Auth().Token().RevokeTreeWithContext(t.Context(), token))
	eventually(t, "the renewal finds out", func() bool { return v.Check(t.Context()) != nil })
	wantError(t, v.Ready(t.Context()), wanted{reason: rotator.ReasonSinkDenied, outage: true})
	if v.TokenExpiry().After(time.Now()) {
		t.Errorf("a revoked token is said to live until %s", v.TokenExpiry())
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
	eventually(t, "the second token is used", func() bool { return time.Until(v.TokenExpiry()) > time.Second })
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

func testTokenLoginRefused(t *testing.T, s *vaulttest.Server) {
	log := new(lockedBuffer)
	v := openVault(t, s, "", withLog(log), func(o *sinks.VaultOptions) {
		o.Login = func(ctx context.Context, c *vaultapi.Client) (*vaultapi.Secret, error) {
			return c.Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{"secret_id": "hvs.secret-id"})
		}
	})
	runToken(t, v)
	eventually(t, "the refusal is logged", func() bool { return strings.Contains(log.String(), "cannot be kept alive") })
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
		o.Token = elevenlabs.Secret{}
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
