package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// TestAProbeFailsAndIsMended shares a voice with the key in use alone. The new key has the same permissions and cannot read it, so
// it is deleted; once the voice is shared with the account, the key is replaced, and its end is proven.
func TestAProbeFailsAndIsMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	w.verb(0, "rotate", "tts-prod")
	first := w.current()
	record, _ := w.record()
	const path = "/v1/voices/ours"
	w.calm(", probes: [" + path + "], wait_until_used: 30m")
	w.examined(1, nil, "error   policy tts-prod: probe "+path+" answers 404 with the current key")
	share := func(with string) {
		w.sim.Ask(http.MethodPost, "voices/ours", map[string]string{"with": with}, &struct{}{})
	}
	share(first)
	w.examined(0, nil, "ok      policy tts-prod: probe "+path+" answers 200 with the current key")
	before := w.sim.Keys()
	status, _, said := w.command(w.environment(map[string]string{"REKEYD_VERIFY_TIMEOUT": "2s"}), "rotate", "tts-prod")
	if w.says(said, "probe "+path+" with the new key", "404"); status != 1 {
		t.Errorf("exit status %d", status)
	}
	if after := w.sim.Keys(); w.current() != first || len(after) != len(before)+1 || !w.gone(after[len(after)-1].ID) {
		t.Errorf("%s is published, not %s; there were %d keys and are %d", w.current(), first, len(before), len(after))
	}
	share(account)
	d := w.start(nil)
	w.verb(0, "rotate", "tts-prod", "--reason", "the voice is shared now")
	second := w.becomes(first)
	process.Eventually(t, process.Patience, func() error {
		if _, body := process.Request(t, http.MethodGet, d.url+"/api/v1/policies", "", ""); !strings.Contains(body, `"new_key_unused"`) {
			return fmt.Errorf("the API does not say that the new key is unused: %s", body)
		}
		return nil
	})
	w.says(w.verb(0, "status", "tts-prod"), "the new key is not used yet; waits until ")
	w.sim.SetFaults(elevensim.Faults{DisableLag: elevensim.Duration(1e12)})
	w.verb(0, "rotate", "tts-prod", "--revoke-now")
	process.Eventually(t, process.Patience, func() error {
		if got := d.metric(`rekeyd_policy_problem{policy="tts-prod",reason="still_accepted"}`); got != "1" {
			return fmt.Errorf("still_accepted is %q", got)
		}
		return nil
	})
	w.sim.SetFaults(elevensim.Faults{})
	process.Eventually(t, 2*process.Patience, func() error {
		entry, _ := w.document("rekeyd/" + w.id + "/policies/tts-prod")
		proofs := 0
		for _, past := range entry["history"].([]any) {
			if past := past.(map[string]any); past["proof"] == "rejected" && (past["previous_key_id"] == first || past["previous_key_id"] == second) {
				proofs++
			}
		}
		if got := d.metric(`rekeyd_policy_problem{policy="tts-prod",reason="still_accepted"}`); proofs != 2 || got != "" {
			return fmt.Errorf("%d of 2 keys are proven rejected, and still_accepted is %q: %v", proofs, got, entry["history"])
		}
		return nil
	})
	// The secrets are in no log, page or metric.
	for _, page := range []string{"/", "/calendar", "/policies/tts-prod", "/metrics", "/api/v1/policies"} {
		if _, body := process.Request(t, http.MethodGet, d.url+page, "", ""); strings.Contains(body, fmt.Sprint(record["api_key"])) {
			t.Errorf("%s shows a secret", page)
		}
	}
	if status := d.Stop(); status != 0 || strings.Contains(d.Stderr.String(), fmt.Sprint(record["api_key"])) {
		t.Errorf("exit status %d, or a secret was logged", status)
	}
}
