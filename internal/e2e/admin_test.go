package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

func (w *world) policies(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.policyFile, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// workspaceError is what a daemon shows of a workspace.
func (r *rekeyd) workspaceError(name string) string {
	r.w.t.Helper()
	_, body := r.get("/api/v1/policies")
	var view struct {
		Workspaces []struct{ Name, Error string }
	}
	if err := json.Unmarshal([]byte(body), &view); err != nil {
		r.w.t.Fatalf("%v: %s", err, body)
	}
	for _, ws := range view.Workspaces {
		if ws.Name == name {
			return ws.Error
		}
	}
	r.w.t.Fatalf("there is no workspace %s: %s", name, body)
	return ""
}

// TestOneOfTwoWorkspacesIsRevoked: the one is in error, says so, and is asked once per interval; the other goes on.
func TestOneOfTwoWorkspacesIsRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	second := common.StartSimulator(t, "sk_of_the_second_workspace", 7, account)
	w.policies(fmt.Sprintf(`workspaces:
  - {name: first, base_url: %q, api_key: {env: ELEVENLABS_API_KEY}}
  - {name: second, base_url: %q, api_key: {env: ELEVENLABS_SECOND}}
defaults: {schedule: "@every 1h", permissions: [text_to_speech], overlap: 1s, quarantine: 1s}
policies:
  - {name: one, workspace: first, service_account: %s, sink: {path: elevenlabs/%s/one}}
  - {name: two, workspace: second, service_account: %s, sink: {path: elevenlabs/%s/two}}
`, w.sim.URL, second.URL, account, w.id, account, w.id))
	change := map[string]string{"ELEVENLABS_SECOND": "sk_of_the_second_workspace"}
	d := w.start(change)
	process.Eventually(t, process.Patience, func() error {
		one, _ := w.document("elevenlabs/" + w.id + "/one")
		if two, _ := w.document("elevenlabs/" + w.id + "/two"); one["key_id"] == nil || two["key_id"] == nil {
			return errors.New("the first keys are not there")
		}
		return nil
	})
	second.Ask(http.MethodPost, "keys/admin/disable", map[string]string{"reason": ""}, &struct{}{})
	process.Eventually(t, process.Patience, func() error {
		if said := d.workspaceError("second"); !strings.Contains(said, "put a working admin key") {
			return fmt.Errorf("workspace second says %q", said)
		}
		return nil
	})
	if said := d.workspaceError("first"); said != "" {
		t.Errorf("workspace first says %q", said)
	}
	if !strings.Contains(d.Stderr.String(), `"failure":"admin_key_refused"`) {
		t.Error("the log does not say it")
	}
	if got := d.metric(`rekeyd_requests_total{code="401",operation="list",target="elevenlabs"}`); got == "" {
		t.Error("no metric says it")
	}
	status, stdout, stderr := w.command(w.environment(change), "rotate", "one")
	if status != 0 {
		t.Errorf("rotating in the other workspace: exit status %d, %q, %q", status, stdout, stderr)
	}
	if status, _, stderr := w.command(w.environment(change), "status"); status != 1 || !strings.Contains(stderr, "listing workspace second") {
		t.Errorf("status: exit status %d, %q", status, stderr)
	}
	asked, begun := len(second.History()), time.Now()
	process.Eventually(t, process.Patience, func() error {
		if n := len(second.History()) - asked; n < 5 {
			return fmt.Errorf("it was asked %d times", n)
		}
		return nil
	})
	if took := time.Since(begun); took < time.Second {
		t.Errorf("the workspace that refuses was asked five times in %s, its interval is 300ms", took)
	}
	second.Ask(http.MethodPost, "keys/admin/enable", struct{}{}, &struct{}{})
	process.Eventually(t, process.Patience, func() error {
		if said := d.workspaceError("second"); said != "" {
			return fmt.Errorf("it still says %q", said)
		}
		return nil
	})
	d.end()
}

// readAdmin uses the admin key in its place until stop: it must be one at every moment.
func (w *world) readAdmin(path string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			record, _ := w.document(path)
			secret, _ := record["api_key"].(string)
			if status, body := process.Request(w.t, http.MethodGet, w.sim.URL+"/v1/service-accounts", "xi-api-key: "+secret, ""); status != http.StatusOK {
				done <- fmt.Errorf("the key at %s is no admin key: HTTP %d: %s", path, status, body)
				return
			}
		}
		done <- nil
	}()
	return func() {
		w.t.Helper()
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

// TestTwoReplicasRotateTheAdminKey from a key that a person put in place; each replica is killed while one of the two
// has a new key in its hands.
func TestTwoReplicasRotateTheAdminKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	path := "elevenlabs/" + w.id + "/admin"
	byHand, secret := w.sim.AddKey(account, "by hand")
	w.put(path, map[string]any{"api_key": secret, "team": "platform"})
	policy := func(more string) {
		w.policies(fmt.Sprintf(`workspaces:
  - {name: default, base_url: %q, api_key: {vault: {path: %s}}}
policies:
  - {name: admin, service_account: %s, schedule: "@every 6s", permissions: [service_account_write], overlap: 3s, quarantine: 1s, sink: {path: %s}%s}
`, w.sim.URL, path, account, path, more))
	}
	policy("")
	change := map[string]string{"ELEVENLABS_API_KEY": ""}
	d := w.start(change)
	process.Eventually(t, process.Patience, func() error {
		if _, body := d.get("/api/v1/policies"); !strings.Contains(body, "record_changed") || !strings.Contains(body, byHand) {
			return fmt.Errorf("nobody said what the value is, and the policy is no error that names candidates: %s", body)
		}
		return nil
	})
	policy(", adopt: " + byHand)
	replicas := []*rekeyd{d, w.start(change)}
	stop := w.readAdmin(path)
	for i := range replicas {
		made := len(w.history("createAPIKey"))
		w.sim.SetFaults(delay("createAPIKey", time.Second))
		process.Eventually(t, process.Patience, func() error {
			if all := w.history("createAPIKey"); len(all) == made || !all[len(all)-1].Applied {
				return errors.New("no key was created")
			}
			return nil
		})
		replicas[i].Kill()
		w.sim.SetFaults(elevensim.Faults{})
		replicas[i] = w.start(change)
		w.rotatedAgain(path)
	}
	process.Eventually(t, process.Patience, func() error {
		if !w.gone(byHand) {
			return errors.New("the key that was there at first is still there")
		}
		return nil
	})
	stop()
	if record, _ := w.document(path); record["team"] != "platform" {
		t.Error("a field of others is gone")
	}
	for _, r := range replicas {
		process.Eventually(t, process.Patience, func() error {
			if said := r.workspaceError("default"); said != "" {
				return errors.New(said)
			}
			return nil
		})
		r.end()
	}
}

// rotatedAgain waits until another key is in the record.
func (w *world) rotatedAgain(path string) {
	w.t.Helper()
	before, _ := w.document(path)
	process.Eventually(w.t, process.Patience, func() error {
		if now, _ := w.document(path); now["key_id"] == before["key_id"] {
			return fmt.Errorf("it still holds %v", before["key_id"])
		}
		return nil
	})
}
