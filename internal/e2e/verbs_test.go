package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// calm writes a policy file whose overlap and quarantine do not end during a test; more is added to the policy.
func (w *world) calm(more string) {
	w.t.Helper()
	text := fmt.Sprintf("policies:\n  - {name: tts-prod, service_account: %s, schedule: '@every 24h', permissions: all, overlap: 1h, quarantine: 1h, sink: {path: %s}%s}\n",
		account, w.sink(), more)
	if err := os.WriteFile(w.policyFile, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// verb runs a command that must end with this status; it returns what it said.
func (w *world) verb(status int, args ...string) string {
	w.t.Helper()
	got, stdout, stderr := w.command(w.environment(nil), args...)
	if got != status {
		w.t.Fatalf("rekeyd %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, status, stdout, stderr)
	}
	return stdout + complaints(stderr)
}

// complaints leaves the log out.
func complaints(stderr string) string {
	var said strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "{") {
			said.WriteString(line)
		}
	}
	return said.String()
}

func (w *world) says(text string, words ...string) {
	w.t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			w.t.Errorf("no %q in:\n%s", word, text)
		}
	}
}

// current is the id of the key in the record, whose secret works, and is the one there.
func (w *world) current() string {
	w.t.Helper()
	record, _ := w.record()
	id, _ := record["key_id"].(string)
	secret, _ := record["api_key"].(string)
	if k := w.key(id); k.Secret != secret || k.Disabled || k.Deleted() {
		w.t.Errorf("the record holds key %s with another secret, or a dead one", id)
	}
	if status, body := process.Request(w.t, http.MethodGet, w.sim.URL+"/v1/models", "xi-api-key: "+secret, ""); status != http.StatusOK {
		w.t.Errorf("the published secret does not work: HTTP %d %s", status, body)
	}
	return id
}

// becomes waits until another key than this one is published.
func (w *world) becomes(not string) string {
	w.t.Helper()
	process.Eventually(w.t, process.Patience, func() error {
		if record, _ := w.record(); record["key_id"] == nil || record["key_id"] == not {
			return fmt.Errorf("the record holds %v", record["key_id"])
		}
		return nil
	})
	return w.current()
}

func (w *world) disable(id, reason string) {
	w.t.Helper()
	w.sim.Ask(http.MethodPost, "keys/"+id+"/disable", map[string]string{"reason": reason}, &struct{}{})
}

// writes counts what rekeyd could have changed: versions in Vault and requests that change keys.
func (w *world) writes() string {
	w.t.Helper()
	_, record := w.record()
	_, entry := w.document("rekeyd/" + w.id + "/policies/tts-prod")
	_, owner := w.document("rekeyd/" + w.id + "/owner")
	calls := 0
	for _, r := range w.sim.History() {
		if r.Method != http.MethodGet {
			calls++
		}
	}
	return fmt.Sprint(record, entry, owner, calls)
}

func TestPlanWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	before := w.writes()
	w.says(w.verb(3, "plan"), "+ create a key of "+account, "first", "now", "1 to create")
	w.says(w.verb(3, "plan", "tts-prod", "--json"), `"effect": "create"`, `"reason": "first"`)
	if w.writes() != before {
		t.Error("planning wrote something")
	}
	w.verb(0, "rotate", "tts-prod")
	id := w.current()
	before = w.writes()
	w.says(w.verb(0, "plan"), "nothing to do now", "schedule", "in 23h")
	w.calm(", character_limit: 7")
	w.says(w.verb(3, "plan"), "~ patch "+id+": character_limit becomes 7", "drift")
	w.disable(id, "exposed_publicly")
	w.says(w.verb(3, "plan"), "+ create", "exposed_publicly", "retire "+id)
	if w.writes() != before {
		t.Error("planning wrote something")
	}
}

func TestRotateBesideADaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	d := w.start(nil)
	first := w.becomes("")
	stop := w.read()
	said := w.verb(0, "rotate", "tts-prod", "--reason", "drill")
	second := w.current()
	w.says(said, second, first+" works until ")
	if second == first || w.key(first).Disabled {
		t.Errorf("first %s, second %s", first, second)
	}
	said = w.verb(0, "rotate", "tts-prod", "--revoke-now", "--json")
	for _, id := range []string{first, second} { // at once, with no patience
		if k := w.key(id); !k.Disabled && !k.Deleted() {
			t.Errorf("key %s still works", id)
		}
	}
	third := w.current()
	w.says(said, `"key_id": "`+third+`"`, first, second)
	w.says(w.verb(2, "rotate", "tts-prd"), "did you mean tts-prod?")
	if n := len(w.history("createAPIKey")); n != 3 {
		t.Errorf("%d keys were created, want 3", n)
	}
	stop()
	d.end()
}

func TestRotateOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	d := w.start(nil)
	first := w.becomes("")
	process.Eventually(t, process.Patience, func() error {
		status, body := process.Request(t, http.MethodPost, d.url+"/api/v1/policies/tts-prod/rotate", "Authorization: Bearer "+w.adminToken, `{"reason": "drill"}`)
		w.heard(body)
		if status != http.StatusAccepted {
			return fmt.Errorf("HTTP %d %s", status, body)
		}
		return nil
	})
	if second := w.becomes(first); w.key(first).Disabled || second == first {
		t.Error("it was not an ordinary rotation")
	}
	d.end()
}

func TestRollback(t *testing.T) {
	t.Parallel()
	t.Run("beside a daemon", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, common.vault)
		w.calm("")
		d := w.start(nil)
		first := w.becomes("")
		w.verb(0, "rotate", "tts-prod")
		second := w.current()
		stop := w.read()
		w.says(w.verb(0, "rollback", "tts-prod"), first, second+" works until ")
		if got := w.current(); got != first || w.key(second).Disabled {
			t.Errorf("the record holds %s, want %s; and %s stays enabled", got, first, second)
		}
		w.says(w.verb(0, "status"), "  ok  ", first)
		stop()
		d.end()
	})
	refused := func(name, why string, spoil func(w *world, first string)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, common.vault)
			w.calm("")
			w.verb(0, "rotate", "tts-prod")
			first := w.current()
			w.verb(0, "rotate", "tts-prod")
			spoil(w, first)
			second, before := w.current(), w.writes()
			w.says(w.verb(1, "rollback", "tts-prod"), why)
			if w.current() != second || w.writes() != before {
				t.Error("a refused rollback changed something")
			}
		})
	}
	refused("pruned", "no kept version", func(w *world, _ string) {
		for range 3 {
			record, _ := w.record()
			w.put(w.sink(), record)
		}
		if err := w.root.KVv2("secret").Destroy(t.Context(), w.sink(), []int{1, 2, 3}); err != nil {
			w.t.Fatal(err)
		}
	})
	refused("disabled by the provider", "exposed_publicly", func(w *world, first string) { w.disable(first, "exposed_publicly") })
	refused("revoked", "--revoke-now", func(w *world, _ string) { w.verb(0, "rotate", "tts-prod", "--revoke-now") })
	t.Run("file sink", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, common.vault)
		w.calm("")
		env := w.environment(map[string]string{"VAULT_ADDR": "", "VAULT_TOKEN": "", "REKEYD_SINK": "file", "REKEYD_FILE_DIR": t.TempDir()})
		for range 2 {
			if status, _, stderr := w.command(env, "rotate", "tts-prod"); status != 0 {
				t.Fatal(stderr)
			}
		}
		if status, _, stderr := w.command(env, "rollback", "tts-prod"); status != 1 || !strings.Contains(stderr, "rekeyd: error: rolling back policy tts-prod: ") {
			t.Errorf("exit status %d: %s", status, stderr)
		}
		if keys := w.sim.Keys(); len(keys) != 2 || keys[0].Disabled || keys[1].Disabled {
			t.Errorf("the keys are %+v", keys)
		}
	})
}

func TestVerbsOfAPausedPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	w.verb(0, "rotate", "tts-prod")
	id := w.current()
	w.calm(", mode: paused")
	before := w.writes()
	w.says(w.verb(1, "rotate", "tts-prod"), "paused")
	w.says(w.verb(1, "rollback", "tts-prod"), "paused")
	w.says(w.verb(0, "plan"), "paused")
	d := w.start(nil)
	status, _ := process.Request(t, http.MethodPost, d.url+"/api/v1/policies/tts-prod/rotate", "Authorization: Bearer "+w.adminToken, "")
	if status != http.StatusConflict {
		t.Errorf("HTTP %d", status)
	}
	w.disable(id, "exposed_publicly")
	w.listings(3)
	if w.writes() != before {
		t.Error("a paused policy was worked on")
	}
	if status := d.Stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// listings waits until ElevenLabs was listed so many times more.
func (w *world) listings(n int) {
	w.t.Helper()
	before := len(w.history("listServiceAccounts"))
	process.Eventually(w.t, process.Patience, func() error {
		if now := len(w.history("listServiceAccounts")); now < before+n {
			return fmt.Errorf("%d of %d listings", now-before, n)
		}
		return nil
	})
}

const quick = 5 * time.Second // a reconcile interval and the calls, on a busy machine

// TestRotateTakesOverFromADeadDaemon has the command settle what a killed daemon left, on its own.
func TestRotateTakesOverFromADeadDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	old := w.seed()
	w.policy("@every 1h")
	w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Hang, Operation: "getUser"}}})
	d := w.start(nil)
	lost := w.created()
	d.Kill()
	w.sim.SetFaults(elevensim.Faults{})
	w.verb(0, "rotate", "tts-prod")
	if id := w.current(); id == old || id == lost {
		t.Errorf("the record holds %s; %s was the old key, %s is the one whose secret was lost", id, old, lost)
	}
	d = w.start(nil)
	w.settled(old)
	if !w.gone(lost) {
		t.Error("the key whose secret was lost is still there")
	}
	d.end()
}

// TestRevokeThatCannotDisable must not end with 0.
func TestRevokeThatCannotDisable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	w.verb(0, "rotate", "tts-prod")
	first := w.current()
	w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500, Operation: "updateAPIKey"}}})
	said := w.verb(1, "rotate", "tts-prod", "--revoke-now")
	w.says(said, "rekeyd: error: rotating policy tts-prod: ", "disabling key "+first)
	if w.key(first).Disabled || w.current() == first {
		t.Error("the key was disabled, or not replaced")
	}
	w.sim.SetFaults(elevensim.Faults{})
	w.verb(0, "rotate", "tts-prod", "--revoke-now")
	for _, k := range w.sim.Keys() {
		if k.Disabled == (k.ID == w.current()) {
			t.Errorf("key %s: disabled %t", k.ID, k.Disabled)
		}
	}
}

// TestSeveralPoliciesAreAllTried has one of them fail.
func TestSeveralPoliciesAreAllTried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	text, err := os.ReadFile(w.policyFile)
	if err != nil {
		t.Fatal(err)
	}
	one := strings.TrimPrefix(string(text), "policies:\n")
	bad := strings.ReplaceAll(strings.Replace(one, account, "svcacc_none", 1), "tts-prod", "bad")
	if err := os.WriteFile(w.policyFile, []byte("policies:\n"+bad+one), 0o600); err != nil {
		t.Fatal(err)
	}
	said := w.verb(1, "rotate", "bad", "tts-prod")
	w.says(said, "tts-prod: rotated", "rekeyd: error: rotating policy bad: ", "svcacc_none")
	if n := strings.Count(said, "rekeyd: error: "); n != 1 {
		t.Errorf("%d errors:\n%s", n, said)
	}
	w.current()
}
