package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// TestTheAuditPage runs the commands of docs/audit.md over the log of a real daemon.
func TestTheAuditPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	d := w.start(nil)
	w.settled("")
	first, _ := w.record()
	w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Status: 403, Code: "forbidden", Operation: "createAPIKey", Count: 1}}})
	d.rotate()
	process.Eventually(t, process.Patience, func() error {
		if !strings.Contains(d.Stderr.String(), `"outcome":"failed"`) {
			return fmt.Errorf("nothing failed yet")
		}
		return nil
	})
	d.rotate()
	w.settled(fmt.Sprint(first["key_id"]))
	second, _ := w.record()
	d.end()

	log := d.Stderr.String()
	ask := func(words, from, to string) string {
		t.Helper()
		script := strings.Replace(example(t, "audit.md", words), from, to, 1)
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Stdin, cmd.Env = strings.NewReader(log), []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	now := time.Now().UTC().Format(time.RFC3339)
	if got := ask("--arg at", "2026-03-03T23:59:59Z", now); strings.Count(got, "\n") != 1 || !strings.Contains(got, fmt.Sprint(second["key_id"])) || !strings.Contains(got, "requested") {
		t.Errorf("which keys exist:\n%s", got)
	}
	got := ask("--arg key", "KEY_ID", fmt.Sprint(first["key_id"]))
	for _, what := range []string{"key created", "record published", "rotated", "key disabled", "key deleted"} {
		if !strings.Contains(got, what) {
			t.Errorf("nothing of %q in what happened to the first key:\n%s", what, got)
		}
	}
	if got := ask("group_by", "", ""); !strings.HasPrefix(got, "tts-prod\t1\tforbidden") {
		t.Errorf("what failed:\n%s", got)
	}
}

// rotate asks the daemon for a rotation.
func (r *rekeyd) rotate() {
	r.w.t.Helper()
	status, body := process.Request(r.w.t, "POST", r.url+"/api/v1/policies/tts-prod/rotate", "Authorization: Bearer "+r.w.adminToken, "{}")
	if status != 202 {
		r.w.t.Fatalf("HTTP %d: %s", status, body)
	}
}
