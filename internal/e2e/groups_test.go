package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

// turn is a rotation of a policy, from the new key to the end of the old one's overlap.
type turn struct {
	policy     string
	begun, end time.Time
}

// turns returns the rotations whose overlap has ended.
func (w *world) turns(policy string) []turn {
	w.t.Helper()
	disabled := map[string]time.Time{}
	for _, r := range w.history("updateAPIKey") {
		if object(w.t, r.Body)["is_enabled"] == false && r.Applied {
			disabled[r.KeyID] = r.Time
		}
	}
	var turns []turn
	old := ""
	for _, k := range byAge(w.sim.Keys()) {
		if !strings.Contains(k.Name, "."+policy+".") {
			continue
		}
		if end, ok := disabled[old]; ok {
			turns = append(turns, turn{policy, k.CreatedAt, end})
		}
		old = k.ID
	}
	return turns
}

// TestGroup has two replicas rotate two policies that are always due at the same moment.
func TestGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	text := fmt.Sprintf(`defaults: {group: both, schedule: '@every 8s', permissions: all, overlap: 2s, quarantine: 1s}
policies:
  - {name: one, service_account: %[1]s, sink: {path: elevenlabs/%[2]s/one}}
  - {name: two, service_account: %[1]s, sink: {path: elevenlabs/%[2]s/two}}
`, account, w.id)
	if err := os.WriteFile(w.policyFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := w.start(nil), w.start(nil)
	process.Eventually(t, 3*process.Patience, func() error {
		_, body := a.get("/api/v1/policies")
		if strings.Contains(body, `"group_held_by"`) && strings.Contains(body, `"reason": "group_busy"`) {
			return nil
		}
		return fmt.Errorf("nobody waits: %s", body)
	})
	process.Eventually(t, 6*process.Patience, func() error {
		if one, two := len(w.turns("one")), len(w.turns("two")); one < 2 || two < 2 {
			return fmt.Errorf("%d and %d turns", one, two)
		}
		return nil
	})
	for _, x := range w.turns("one") {
		for _, y := range w.turns("two") {
			if x.begun.Before(y.end) && y.begun.Before(x.end) {
				t.Errorf("at the same time: %v, %v", x, y)
			}
		}
	}
	group, _ := w.document("rekeyd/" + w.id + "/groups/both")
	if holds, _ := group["holds"].([]any); len(holds) != 1 {
		t.Errorf("the group holds %v", group)
	}
	a.end()
	b.end()
}

// uses has a reader go on with a key until stop is called.
func (w *world) uses(id string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				process.Request(w.t, http.MethodPost, w.sim.URL+"/_sim/keys/"+id+"/usage", "", `{"credits": 1}`)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// TestWaitUntilIdle prolongs an overlap for as long as the old key is used, by another replica too, and not longer than
// the policy says.
func TestWaitUntilIdle(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]time.Duration{"idle in the end": 5 * time.Minute, "never idle": 4 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, d, old := cared(t, ", wait_until_idle: "+wait.String())
			w.rewrite("overlap: 1h", "overlap: 2s")
			if status := d.Stop(); status != 0 {
				t.Fatalf("exit status %d", status)
			}
			d = w.start(nil)
			stop := w.uses(old)
			w.verb(0, "rotate", "tts-prod")
			begun := time.Now()
			inUse := func() error {
				if v := d.metric(`rekeyd_retiring_key_in_use{policy="tts-prod"}`); v != "1" {
					return fmt.Errorf("in use: %q", v)
				}
				return nil
			}
			process.Eventually(t, 3*process.Patience, inUse)
			if wait > time.Minute {
				other := w.start(nil) // one that knows nothing yet
				process.Eventually(t, 3*process.Patience, func() error {
					if time.Since(begun) < 6*time.Second {
						return fmt.Errorf("the overlap is hardly over")
					}
					return nil
				})
				if k := w.key(old); k.Disabled {
					t.Error("a key in use was disabled")
				}
				stop()
				defer other.end()
			}
			process.Eventually(t, 6*process.Patience, func() error {
				if k := w.key(old); !k.Disabled {
					return fmt.Errorf("the old key is still enabled")
				}
				return nil
			})
			if took := time.Since(begun); wait < time.Minute && took < wait {
				t.Errorf("disabled after %s in spite of being used", took)
			}
			stop()
			d.end()
		})
	}
}

// TestGroupNeedsItsRight finds out before a key is made that the group could not be written.
func TestGroupNeedsItsRight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	hcl, err := os.ReadFile("../../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	w.vaultToken = w.vault.Token(t, string(hcl)+fmt.Sprintf("\npath \"secret/data/rekeyd/%s/groups/*\" {\n  capabilities = [\"deny\"]\n}\n", w.id))
	w.calm(", group: both")
	if said := w.verb(1, "check", "--online"); !strings.Contains(said, "/groups/both") {
		t.Errorf("the doctor does not see it: %s", said)
	}
	d := w.start(nil)
	d.state("failing", "sink_denied")
	if keys := w.sim.Keys(); len(keys) > 0 {
		t.Errorf("keys were made: %v", keys)
	}
	d.end()
}
