package main

import (
	"strings"
	"testing"
)

// TestWhatElevenLabsDoesNotList: commands see one listing, and say what it lacks.
func TestWhatElevenLabsDoesNotList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env["REKEYD_SINK"], w.env["REKEYD_FILE_DIR"], w.env["VAULT_ADDR"] = "file", t.TempDir(), ""
	w.must(0, "rotate", "--all")
	key := w.sim.State()[0].Keys[0].ID
	if err := w.sim.DeleteKey(key); err != nil {
		t.Fatal(err)
	}
	if err := w.sim.RemoveAccount("svcacc_b"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status int
		args   string
		says   []string
	}{
		{0, "status tts-prod --exit-code", []string{"its key is missing from the last listing"}},
		{3, "status dubbing --exit-code", []string{"error: workspace default has no service account svcacc_b"}},
		{0, "plan", []string{"dubbing: error: workspace default has no service account svcacc_b", "1 policy in error"}},
		{1, "check --online", []string{"key_missing: ElevenLabs does not list key " + key, "no such service account, named by dubbing"}},
	} {
		out := w.must(c.status, strings.Fields(c.args)...)
		for _, text := range c.says {
			if !strings.Contains(out, text) {
				t.Errorf("rekeyd %s lacks %q:\n%s", c.args, text, out)
			}
		}
	}
}
