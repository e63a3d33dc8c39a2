package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestWhatCanBeWrongWithVault causes each fault in a real server. The daemon names it, says what to do, is not ready, and
// makes no key.
func TestWhatCanBeWrongWithVault(t *testing.T) {
	t.Parallel()
	tls := vaulttest.StartTLS(t)
	silent := listener(t)
	closed := listener(t)
	_ = closed.Close()
	for _, c := range []struct {
		name           string
		vault          *vaulttest.Server
		cause          func(*testing.T, *world)
		env            map[string]string
		reason, advice string
		serves         bool // Vault as such is in order, so /readyz does not speak of it
	}{
		{"refused", nil, nil, map[string]string{"VAULT_ADDR": "http://" + closed.Addr().String()}, "sink_unreachable", "check VAULT_ADDR and that Vault runs", false},
		{"no such name", nil, nil, map[string]string{"VAULT_ADDR": "https://vault.invalid:8200"}, "sink_dns", "", false},
		{"no answer", nil, nil, map[string]string{"VAULT_ADDR": "http://" + silent.Addr().String()}, "sink_timeout", "overloaded", false},
		{"another name in the certificate", tls, nil, map[string]string{"VAULT_CACERT": tls.CACert, "VAULT_TLS_SERVER_NAME": "other.example.com"}, "sink_tls_name", "", false},
		{"an unknown authority", tls, nil, nil, "sink_tls_ca", "VAULT_CACERT", false},
		{"TLS spoken to without", tls, nil, map[string]string{"VAULT_ADDR": strings.Replace(tls.Addr, "https", "http", 1)}, "sink_tls", "starts with https://", false},
		{"sealed", vaulttest.StartPersistent(t), func(t *testing.T, w *world) { w.vault.Seal(t) }, nil, "sink_sealed", "unseal Vault", false},
		{"rate limit", vaulttest.Start(t), func(t *testing.T, w *world) {
			w.administer(t, "sys/quotas/rate-limit/tight", map[string]any{"path": "secret/", "rate": 0.001})
		}, nil, "sink_rate_limited", "raise Vault's rate limit quota", true},
		{"no mount", vaulttest.Start(t), func(t *testing.T, w *world) {
			if err := w.root.Sys().UnmountWithContext(t.Context(), "secret"); err != nil {
				t.Fatal(err)
			}
		}, nil, "sink_no_mount", "", true},
		{"KV version 1", vaulttest.Start(t), func(t *testing.T, w *world) {
			if err := w.root.Sys().UnmountWithContext(t.Context(), "secret"); err != nil {
				t.Fatal(err)
			}
			w.vault.EnableKV(t, "secret", 1, nil)
		}, nil, "sink_not_kv2", "version 2", true},
		{"a token of nobody", vaulttest.Start(t), nil, map[string]string{"VAULT_TOKEN": "hvs.of-nobody"}, "sink_denied", "", false},
		{"a record that is too large", vaulttest.StartPersistent(t, "max_request_size = 4000"), func(t *testing.T, w *world) {
			w.administer(t, "secret/data/"+w.sink(), map[string]any{"data": map[string]any{"note": strings.Repeat("x", 3900)}})
		}, nil, "sink_too_large", "raise the listener's limits", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			vault := c.vault
			if vault == nil {
				vault = common.vault
			}
			w := newWorld(t, vault)
			if c.cause != nil {
				c.cause(t, w)
			}
			w.policy("@every 1h")
			d := w.start(c.env)
			process.Eventually(t, 2*process.Patience, func() error {
				for line := range strings.Lines(d.Stderr.String()) {
					if strings.Contains(line, fmt.Sprintf("%q", c.reason)) && strings.Contains(line, c.advice) {
						return nil
					}
				}
				return fmt.Errorf("no line with %s and %q in:\n%s", c.reason, c.advice, d.Stderr.String())
			})
			if status, body := d.get("/readyz"); !c.serves && status != http.StatusServiceUnavailable {
				t.Errorf("ready: HTTP %d: %s", status, body)
			}
			// How large the record will be is known only with its key, which is deleted again.
			if n := len(w.history("createAPIKey")); n != 0 && c.reason != "sink_too_large" {
				t.Errorf("%d keys were created", n)
			}
			d.end()
		})
	}
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func (w *world) administer(t *testing.T, path string, data map[string]any) {
	t.Helper()
	if _, err := w.root.Logical().WriteWithContext(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

// TestMountsThatRekeydCanUse are set up more strictly than usual, and rotations work all the same.
func TestMountsThatRekeydCanUse(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]map[string]any{
		"check-and-set required": {"cas_required": true},
		"one version kept":       {"max_versions": 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, vaulttest.Start(t))
			w.administer(t, "secret/config", config)
			w.policy("@every 1h")
			d := w.start(nil)
			w.settled("")
			before, _ := w.record()
			if status, _, stderr := w.command(w.environment(nil), "rotate", "tts-prod"); status != 0 {
				t.Fatalf("exit status %d: %s", status, stderr)
			}
			if after, _ := w.record(); after["key_id"] == before["key_id"] {
				t.Error("nothing was rotated")
			}
			status, _, stderr := w.command(w.environment(nil), "rollback", "tts-prod")
			if refused := status == 1 && strings.Contains(stderr, "no kept version"); refused != (config["max_versions"] == 1) {
				t.Errorf("rollback: exit status %d: %s", status, stderr)
			}
			d.end()
		})
	}
}

// TestEachLineOfThePolicyIsNeeded takes one path out of Vault's policy at a time: the fault names the path, and no key
// is made.
func TestEachLineOfThePolicyIsNeeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vaulttest.Start(t))
	w.policy("@every 1h")
	text, err := os.ReadFile(w.policyFile)
	if err != nil {
		t.Fatal(err)
	}
	adminKey := "elevenlabs-admin/" + w.id
	w.put(adminKey, map[string]any{"api_key": w.adminKey})
	w.policies(fmt.Sprintf("workspaces: [{name: default, base_url: %q, api_key: {vault: {path: %s}}}]\n%s", w.sim.URL, adminKey, text))
	hcl := policyHCL(t)
	for i, c := range []struct{ path, capability string }{
		{"secret/data/elevenlabs/*", "create"}, {"secret/data/elevenlabs/*", "read"}, {"secret/data/elevenlabs/*", "update"},
		{"secret/data/elevenlabs-admin/*", "read"},
		{"secret/data/rekeyd/*", "create"}, {"secret/data/rekeyd/*", "read"}, {"secret/data/rekeyd/*", "update"},
		{"secret/metadata/rekeyd/*", "list"}, {"sys/capabilities-self", "update"}, {"auth/token/lookup-self", "read"}, {"auth/token/renew-self", "update"},
	} {
		t.Run(c.capability+" "+strings.ReplaceAll(c.path, "/", "_"), func(t *testing.T) {
			token := w.vault.Token(t, without(t, hcl, c.path, c.capability), func(r *vaultapi.TokenCreateRequest) { r.TTL = "3s" })
			d := w.start(map[string]string{"VAULT_TOKEN": token, "REKEYD_LEDGER_PATH": fmt.Sprint("rekeyd/", w.id, "/", i)})
			named := strings.TrimSuffix(c.path, "/*")
			process.Eventually(t, process.Patience, func() error {
				for line := range strings.Lines(d.Stderr.String()) {
					if strings.Contains(line, named) && strings.Contains(line, c.capability) {
						return nil
					}
				}
				return fmt.Errorf("nobody names %s and %s:\n%s", named, c.capability, d.Stderr.String())
			})
			d.Kill()
		})
	}
	// A token without the right to be looked up or renewed works while it lasts; everything else must cost no key.
	if n := len(w.history("createAPIKey")); n > 4 {
		t.Errorf("%d keys were created", n)
	}
}

// without takes a capability away from one path of a policy.
func without(t *testing.T, hcl, path, capability string) string {
	t.Helper()
	head, rest, found := strings.Cut(hcl, fmt.Sprintf("path %q {\n  capabilities = [", path))
	list, tail, closed := strings.Cut(rest, "]")
	if !found || !closed || !strings.Contains(list, fmt.Sprintf("%q", capability)) {
		t.Fatalf("policy.hcl does not give %s on %s", capability, path)
	}
	list = strings.ReplaceAll(list, fmt.Sprintf("%q", capability), `"deny_nothing"`)
	list = strings.ReplaceAll(strings.ReplaceAll(list, `"deny_nothing", `, ""), `, "deny_nothing"`, "")
	list = strings.ReplaceAll(list, `"deny_nothing"`, "")
	return head + fmt.Sprintf("path %q {\n  capabilities = [", path) + list + "]" + tail
}
