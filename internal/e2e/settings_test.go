package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// limits are a key's optional settings, as JSON.
func limits(k elevensim.Key) string {
	text, err := json.Marshal([]any{k.TTSConcurrency, k.DubConcurrency, k.MusicConcurrency, k.ThirdPartyDisable})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// TestAnEnterpriseKeyKeepsItsLimits adopts a key as an Enterprise workspace has it. Its successors have its limits, and every place
// says that ElevenLabs may not disable it, until the policy manages that. Then the plan offers less, and the old key stays until
// the policy does without.
func TestAnEnterpriseKeyKeepsItsLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	tts, no := int64(10), false
	var made struct{ ID, Secret string }
	w.sim.Ask(http.MethodPost, "accounts/"+account+"/keys",
		elevensim.KeySpec{Name: "by hand", Permissions: []string{"text_to_speech", "models_read"}, TTSConcurrency: &tts, ThirdPartyDisable: &no}, &made)
	w.put(w.sink(), map[string]any{"api_key": made.Secret, "key_id": made.ID, "rotated_at": time.Now().UTC().Format(time.RFC3339), "team": "speech"})
	w.calm("")
	d := w.start(nil)
	allowed := func(want string) {
		t.Helper()
		process.Eventually(t, process.Patience, func() error {
			if got := d.metric(`rekeyd_third_party_disable_allowed{policy="tts-prod"}`); got != want {
				return fmt.Errorf("rekeyd_third_party_disable_allowed is %q, want %s", got, want)
			}
			return nil
		})
	}
	allowed("0")
	stop := w.read()
	w.verb(0, "rotate", "tts-prod")
	second := w.becomes(made.ID)
	if got := limits(w.key(second)); got != "[10,null,null,false]" {
		t.Errorf("the second key has the limits %s", got)
	}
	if entry, _ := w.document("rekeyd/" + w.id + "/policies/tts-prod"); fmt.Sprint(entry["schema"]) != "2" {
		t.Errorf("the entry has schema %v", entry["schema"])
	}
	const unguarded = " when it leaks, nor may its holder"
	w.examined(0, nil, "warning policy tts-prod: ElevenLabs may not disable key "+second+unguarded)
	w.says(w.verb(0, "plan"), "! ElevenLabs may not disable key "+second+unguarded)
	process.Eventually(t, process.Patience, func() error {
		if _, page := d.get("/"); !strings.Contains(page, "ElevenLabs may not disable key "+second+unguarded) {
			return errors.New("the page does not say that ElevenLabs may not disable the key")
		}
		return nil
	})

	w.calm(", third_party_disable_allowed: true, dubbing_concurrency_limit: 3, tts_concurrency_limit: 12")
	allowed("1")
	process.Eventually(t, process.Patience, func() error {
		if got := limits(w.key(second)); got != "[12,3,null,true]" {
			return fmt.Errorf("after the policy was edited the key has the limits %s", got)
		}
		return nil
	})
	w.verb(0, "rotate", "tts-prod")
	third := w.becomes(second)
	if got := limits(w.key(third)); got != "[12,3,null,true]" {
		t.Errorf("the third key has the limits %s", got)
	}

	w.sim.SetFaults(elevensim.Faults{NotOffered: []string{"tts_concurrency_limit"}})
	w.calm("")
	status, _, stderr := w.command(w.environment(nil), "rotate", "tts-prod")
	if w.says(stderr, "ElevenLabs refuses tts_concurrency_limit 12, which the key to replace has; set it in policy tts-prod to none"); status != 1 || w.current() != third {
		t.Errorf("exit status %d, and the record holds %s", status, w.current())
	}
	w.calm(", tts_concurrency_limit: none")
	w.verb(0, "rotate", "tts-prod")
	if got := limits(w.key(w.becomes(third))); got != "[null,3,null,true]" {
		t.Errorf("the fourth key has the limits %s", got)
	}
	stop()
	d.end()
}
