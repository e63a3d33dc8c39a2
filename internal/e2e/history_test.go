package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

// rotation is one of `rekeyd history -o json`, with all its fields.
type rotation struct {
	Policy, Rotation, By, Reason, Words            string
	KeyID                                          string `json:"key_id"`
	PreviousKeyID                                  string `json:"previous_key_id"`
	Started, Created, Published, Disabled, Deleted time.Time
	ProofAt                                        time.Time `json:"proof_at"`
	Probes                                         []struct {
		Path   string
		Status int
	}
	Proof string
}

// exported is what `rekeyd history -o json` says.
func (w *world) exported(args ...string) []rotation {
	w.t.Helper()
	var all []rotation
	dec := json.NewDecoder(strings.NewReader(w.verb(0, append([]string{"history", "-o", "json"}, args...)...)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&all); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// TestAnAuditorTakesTheHistory: beside a daemon and without it, whoever asked for the rotations.
func TestAnAuditorTakesTheHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	d := w.start(nil)
	first := w.becomes("")
	w.verb(0, "rotate", "tts-prod", "--reason", "<b>laptop</b> stolen")
	second := w.becomes(first)
	process.Eventually(t, process.Patience, func() error {
		const want = `"msg":"changed by a command","policy":"tts-prod","trigger":"requested","words":"<b>laptop</b> stolen"`
		if text := d.Stderr.String(); !strings.Contains(text, want) || !strings.Contains(text, fmt.Sprintf(`"key_id":%q,"previous_key_id":%q`, second, first)) {
			return errors.New("the daemon's log does not have the command")
		}
		return nil
	})
	w.disable(second, "exposed_publicly")
	third := w.becomes(second)
	if status, body := process.Request(t, http.MethodPost, d.url+"/api/v1/policies/tts-prod/rotate", "Authorization: Bearer "+w.adminToken, `{"revoke_now": true, "reason": "a drill"}`); status != http.StatusAccepted {
		t.Fatalf("HTTP %d %s", status, body)
	}
	fourth := w.becomes(third)
	process.Eventually(t, process.Patience, func() error {
		if !w.key(third).Disabled {
			return errors.New("the third key is still enabled")
		}
		return nil
	})

	all := w.exported()
	var got []string
	for _, r := range all {
		got = append(got, strings.Join([]string{r.Policy, r.By, r.Reason, r.Words, r.KeyID, r.PreviousKeyID}, "|"))
		if r.Rotation == "" || r.Started.IsZero() || r.Published.Before(r.Started) || time.Since(r.Started) > 10*time.Minute {
			t.Errorf("its times are %+v", r)
		}
	}
	want := []string{
		"tts-prod|schedule|first||" + first + "|", "tts-prod|command|requested|<b>laptop</b> stolen|" + second + "|" + first,
		"tts-prod|leak|exposed_publicly||" + third + "|" + second, "tts-prod|http|revoke_now|a drill|" + fourth + "|" + third,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the export has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	process.Eventually(t, process.Patience, func() error {
		if all := w.exported(); all[1].Disabled.IsZero() || all[3].Disabled.IsZero() {
			return fmt.Errorf("the ends of the keys that were revoked are not noted: %+v", all)
		}
		return nil
	})
	if n := len(w.exported("--since", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))); n != 0 {
		t.Errorf("%d rotations since an hour from now", n)
	}
	if n := len(w.exported("tts-prod", "--since", all[0].Published.Format(time.RFC3339))); n != 4 {
		t.Errorf("%d rotations since the first one", n)
	}
	w.says(w.verb(0, "status", "-o", "wide"), "; leaked, replaced ", " ago")
	process.Eventually(t, process.Patience, func() error {
		_, page := d.get("/policies/tts-prod")
		_, body := d.get("/api/v1/policies/tts-prod")
		var view struct{ History []rotation }
		if err := json.Unmarshal([]byte(body), &view); err != nil {
			return err
		}
		if !strings.Contains(page, "&lt;b&gt;laptop&lt;/b&gt; stolen") || !strings.Contains(page, "Leaked, replaced") || len(view.History) != 4 || view.History[3].Disabled.IsZero() {
			return fmt.Errorf("the page says\n%s\nand the API\n%s", page, body)
		}
		return nil
	})
	d.end()

	// The policy is removed, ElevenLabs is down, and so is the daemon.
	status, stdout, stderr := w.command(append(w.environment(map[string]string{"REKEYD_POLICY_FILE": "", "ELEVENLABS_BASE_URL": "http://127.0.0.1:1"}),
		"REKEYD_POLICIES=policies: [{name: other, service_account: "+account+", schedule: '@every 24h', permissions: all, sink: {path: elevenlabs/"+w.id+"/other}}]"), "history", "-o", "wide")
	if status != 0 || strings.Count(stdout, "\n") != 5 || !strings.Contains(strings.Join(strings.Fields(stdout), " "), " tts-prod leak exposed_publicly "+third+" "+second+" disabled already ") {
		t.Errorf("of a removed policy: exit status %d\n%s%s", status, stdout, stderr)
	}
	w.says(w.verb(2, "history", "tts-prd"), "did you mean tts-prod?")
}
