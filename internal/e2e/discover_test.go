package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// TestDiscoverAndAdopt: what discover writes for a hundred accounts and five hundred keys, loaded by a daemon with the shipped
// Vault policy, adopts every key whose secret is in a record, and makes, changes and deletes none.
func TestDiscoverAndAdopt(t *testing.T) {
	t.Parallel()
	const accounts, each = 100, 5
	w := newWorld(t, common.vault)
	names := []string{account}
	for i := range accounts - 1 {
		a := elevensim.Account{ID: fmt.Sprintf("svcacc_%03d", i), Name: fmt.Sprintf("Application %d", i)}
		w.sim.Ask(http.MethodPost, "accounts", a, &struct{}{})
		names = append(names, a.ID)
	}
	held, hints := map[string]string{}, map[string]bool{}
	for i, account := range names {
		for n := range each {
			id, secret := w.sim.AddKey(account, fmt.Sprintf("app %d-%d", i, n))
			held[id] = fmt.Sprintf("elevenlabs/%s/app-%d/%d", w.id, i, n)
			data := map[string]any{"api_key": secret, "owner": "a person"}
			if hint := secret[len(secret)-4:]; hints[hint] || n == 0 { // of two keys with one hint the record says which
				data["key_id"] = id
			} else {
				hints[hint] = true
			}
			w.put(held[id], data)
		}
	}
	token := w.vault.Token(t, policyHCL(t)+"\npath \"secret/metadata/elevenlabs/*\" {\n  capabilities = [\"list\"]\n}\n")
	env := w.environment(map[string]string{"REKEYD_POLICY_FILE": "", "VAULT_TOKEN": token})
	status, text, stderr := w.command(env, "discover", "--prefix", "elevenlabs/"+w.id)
	if status != 0 || !strings.HasPrefix(text, "# Workspace default as it is: 500 enabled keys in 100 service accounts, of which 500 were found in a record.\n") {
		t.Fatalf("exit status %d: %s%.2000s", status, stderr, text)
	}
	if err := os.WriteFile(w.policyFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, stderr := w.command([]string{"PATH=/bin"}, "check", w.policyFile); status != 0 || out != "ok: "+w.policyFile+": 500 policies in 1 workspace\n" {
		t.Fatalf("check: exit status %d: %s%s", status, out, stderr)
	}
	d := w.start(map[string]string{"REKEYD_MIN_INTERVAL": "", "REKEYD_LOG_LEVEL": "info"})
	process.Eventually(t, 2*process.Patience, func() error {
		var shown struct {
			Policies []struct {
				Name, State, Message string
				Sink                 struct{ Path string }
				Key                  struct{ ID string }
				Drift                []string
			}
		}
		_, body := d.get("/api/v1/policies")
		if err := json.Unmarshal([]byte(body), &shown); err != nil {
			return err
		}
		adopted := map[string]bool{}
		for _, p := range shown.Policies {
			if p.State != "ok" || p.Sink.Path != held[p.Key.ID] || len(p.Drift) > 0 {
				return fmt.Errorf("policy %s is %s with key %s at %s, drift %v: %s", p.Name, p.State, p.Key.ID, p.Sink.Path, p.Drift, p.Message)
			}
			adopted[p.Key.ID] = true
		}
		if len(adopted) != accounts*each {
			return fmt.Errorf("%d keys are adopted", len(adopted))
		}
		return nil
	})
	if status := d.Stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	for _, operation := range []string{"createAPIKey", "updateAPIKey", "deleteAPIKey"} {
		if calls := w.history(operation); len(calls) > 0 {
			t.Errorf("%d calls of %s, the first: %+v", len(calls), operation, calls[0])
		}
	}
}
