package e2e

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

// cared starts a daemon on a calm policy and waits for its first key.
func cared(t *testing.T, more string) (w *world, d *rekeyd, first string) {
	t.Helper()
	w = newWorld(t, common.vault)
	w.calm(more)
	d = w.start(nil)
	return w, d, w.becomes("")
}

// state waits until the policy is in this state, for this reason.
func (r *rekeyd) state(state, reason string) {
	r.w.t.Helper()
	process.Eventually(r.w.t, process.Patience, func() error {
		_, body := r.get("/api/v1/policies")
		if !strings.Contains(body, fmt.Sprintf("\"state\": %q", state)) || reason != "" && !strings.Contains(body, fmt.Sprintf("\"reason\": %q", reason)) {
			return fmt.Errorf("want %s %s: %s", state, reason, body)
		}
		return nil
	})
}

// TestLeak measures from the provider's disabling to the new key in Vault: a reconcile interval (300ms here) and the
// calls themselves.
func TestLeak(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"auto", "manual"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, d, first := cared(t, ", mode: "+mode)
			begun := time.Now()
			w.disable(first, "exposed_publicly")
			second := w.becomes(first)
			if took := time.Since(begun); took > quick {
				t.Errorf("it took %s", took)
			}
			w.listings(3)
			for _, r := range w.history("updateAPIKey") {
				if r.KeyID == first && object(t, r.Body)["is_enabled"] != false {
					t.Error("the leaked key was changed otherwise than to disable it")
				}
			}
			if k := w.key(first); !k.Disabled || k.Deleted() {
				t.Errorf("the leaked key is %+v, and should be in quarantine", k)
			}
			w.says(w.verb(1, "rollback", "tts-prod"), "exposed_publicly")
			if w.current() != second {
				t.Error("rotated more than once")
			}
			d.end()
		})
	}
}

func TestKeyDeletedByOthers(t *testing.T) {
	t.Parallel()
	w, d, first := cared(t, "")
	w.sim.Ask(http.MethodDelete, "keys/"+first, nil, &struct{}{})
	w.becomes(first)
	d.state("ok", "")
	d.end()
}

// TestOneListingIsNoProof has the commands show what they cannot know for sure.
func TestOneListingIsNoProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	w.verb(0, "rotate", "tts-prod")
	id := w.current()
	w.sim.Ask(http.MethodDelete, "keys/"+id, nil, &struct{}{})
	before := w.writes()
	w.says(w.verb(0, "status", "-o", "wide"), id, "missing from the last listing")
	w.says(w.verb(0, "plan"), "missing from the last listing", "nothing to do now")
	if w.writes() != before {
		t.Error("looking changed something")
	}
}

func TestKeyDisabledByAPerson(t *testing.T) {
	t.Parallel()
	w, d, first := cared(t, "")
	before, version := w.record()
	w.disable(first, "")
	d.state("error", "key_disabled")
	w.listings(3)
	if after, v := w.record(); v != version || !reflect.DeepEqual(before, after) || len(w.history("createAPIKey")) != 1 {
		t.Error("a person's decision was overruled")
	}
	w.says(w.verb(0, "status", "-o", "wide"), "error: ", "rekeyd rotate tts-prod")
	w.verb(0, "rotate", "tts-prod")
	if second := w.current(); second == first || !w.key(first).Disabled {
		t.Error("rotate did not replace the disabled key, or enabled it")
	}
	d.state("ok", "")
	d.end()
}

func TestRecordDeleted(t *testing.T) {
	t.Parallel()
	w, d, first := cared(t, "")
	if err := w.root.KVv2("secret").Delete(t.Context(), w.sink()); err != nil {
		t.Fatal(err)
	}
	second := w.becomes(first)
	if k := w.key(first); k.Disabled || second == first {
		t.Error("the old key did not go through its overlap")
	}
	d.end()
}

func TestRecordOverwritten(t *testing.T) {
	t.Parallel()
	w, d, first := cared(t, "")
	record, _ := w.record()
	record["api_key"], record["key_id"] = "sk_put_there_by_somebody", "unheard-of"
	w.put(w.sink(), record)
	_, version := w.record()
	d.state("error", "record_changed")
	w.says(w.verb(0, "plan"), "error: ", "rekeyd rotate tts-prod", "1 policy in error")
	if _, v := w.record(); v != version || w.key(first).Disabled {
		t.Error("what somebody put there was touched")
	}
	w.says(w.verb(0, "rotate", "tts-prod"), first+" works until ")
	if w.current() == first {
		t.Error("not rotated")
	}
	d.state("ok", "")
	d.end()
}

// TestVaultRollbackByOthers uses Vault's own way to go back, which is understood.
func TestVaultRollbackByOthers(t *testing.T) {
	t.Parallel()
	w, d, first := cared(t, "")
	old, _ := w.record()
	w.verb(0, "rotate", "tts-prod")
	second := w.current()
	w.put(w.sink(), old)
	_, version := w.record()
	process.Eventually(t, process.Patience, func() error {
		if status, body := d.get("/api/v1/policies"); status != http.StatusOK || !strings.Contains(body, `"id": "`+first+`"`) || !strings.Contains(body, `"state": "ok"`) {
			return fmt.Errorf("not followed: %s", body)
		}
		return nil
	})
	w.listings(2)
	if _, v := w.record(); v != version || w.current() != first || w.key(second).Disabled {
		t.Error("the record was rewritten, or the wrong key is current")
	}
	d.end()
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	id, secret := w.sim.AddKey(account, "by hand")
	other, _ := w.sim.AddKey(account, "another")
	w.put(w.sink(), map[string]any{"api_key": secret})
	w.calm("")
	d := w.start(nil)
	d.state("error", "record_changed")
	w.says(w.verb(0, "status", "-o", "wide"), id+" (by hand, hint ", other+" (another, hint ")
	w.calm(", adopt: " + id)
	d.state("ok", "")
	if keys := w.sim.Keys(); len(keys) != 2 || keys[0].Disabled || keys[1].Disabled {
		t.Errorf("the keys are %+v", keys)
	}
	w.says(w.verb(0, "rotate", "tts-prod"), id+" works until ")
	if w.current() == id {
		t.Error("not rotated")
	}
	d.end()
}

// TestModeManual has a key that the schedule and drift would replace.
func TestModeManual(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	id := w.seed()
	w.policy("@every 1h")
	w.sharpen("mode: manual\n    on_drift: rotate")
	d := w.start(nil)
	d.state("ok", "")
	w.listings(3)
	if n := len(w.history("createAPIKey")); n != 0 {
		t.Errorf("%d keys were created", n)
	}
	w.says(w.verb(0, "plan"), "tts-prod: ok", "nothing to do now")
	w.verb(0, "rotate", "tts-prod")
	if w.current() == id {
		t.Error("not rotated on request")
	}
	d.end()
}

// sharpen adds lines to the policy.
func (w *world) sharpen(more string) {
	w.t.Helper()
	w.rewrite("    overlap: 1s\n", "    overlap: 1s\n    "+more+"\n")
}

// TestPolicyRemoved keeps its current key, while its retiring ones finish their way.
func TestPolicyRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	w.verb(0, "rotate", "tts-prod")
	first := w.current()
	w.verb(0, "rotate", "tts-prod")
	second := w.current()
	w.rewrite("tts-prod", "tts-next")
	d := w.start(nil)
	process.Eventually(t, process.Patience, func() error {
		if !w.gone(first) {
			return fmt.Errorf("the retiring key is still there")
		}
		return nil
	})
	if w.current() != second {
		t.Error("the current key is not in the record any more")
	}
	w.says(w.verb(0, "status", "-o", "wide"), "removed from the policy file", "rekeyd prune tts-prod", second)
	w.verb(0, "prune", "tts-prod", "--yes")
	process.Eventually(t, process.Patience, func() error {
		if !w.gone(second) {
			return fmt.Errorf("the pruned key is still there, after its quarantine")
		}
		return nil
	})
	d.end()
}
