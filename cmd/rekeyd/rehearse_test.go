package main

import (
	"strings"
	"testing"
)

// TestDryRunSession: it ends with 0, and no key, record or ledger entry is made or changed.
func TestDryRunSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "--all", "--dry-run")
	if paths := w.kv.Paths(); len(paths) > 0 || len(w.sim.State()[0].Keys) > 0 {
		t.Errorf("a dry run wrote %v", paths)
	}
	w.must(0, "rotate", "tts-prod")
	w.must(0, "rotate", "tts-prod")
	keys, paths := len(w.sim.State()[0].Keys), len(w.kv.Paths())
	w.session.Reset()
	w.must(0, "rotate", "tts-prod", "--dry-run")
	w.must(0, "rotate", "tts-prod", "--dry-run", "--revoke-now")
	w.must(0, "rotate", "dubbing", "--dry-run", "-o", "json")
	w.env["REKEYD_POLICIES"] = strings.Replace(twoPolicies, "{name: tts-prod,", "{name: tts-prod, mode: paused,", 1)
	w.must(0, "rotate", "tts-prod", "--dry-run")
	w.must(2, "rotate", "--dry-run")
	w.must(2, "rotate", "tts-prd", "--dry-run")
	w.golden("dry_run")
	if len(w.sim.State()[0].Keys) != keys || len(w.kv.Paths()) != paths {
		t.Error("a dry run changed something")
	}
}

func TestStatusExitCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "--all")
	w.must(0, "status", "--exit-code")
	if err := w.sim.DisableKey(w.sim.State()[0].Keys[0].ID, ""); err != nil {
		t.Fatal(err)
	}
	w.must(0, "status")
	w.must(3, "status", "--exit-code")
	w.must(3, "status", "--exit-code", "--json")
	w.must(0, "status", "--exit-code", "dubbing")
	w.must(0, "status", "--exit-code", "--state", "ok,due")
	if out := w.must(0, "status", "--state", "failing,error"); !strings.Contains(out, "\ntts-prod  ") || strings.Contains(out, "dubbing") {
		t.Errorf("in error: %s", out)
	}
	if out := w.must(0, "status", "--state", "rotating", "-o", "json"); !strings.Contains(out, `"policies": []`) {
		t.Errorf("rotating: %s", out)
	}
	w.must(2, "status", "--state", "erorr")
	if got := w.must(0, "__complete", "status", "--state", ""); !strings.HasPrefix(got, "ok\ndue\nrotating\n") {
		t.Errorf("completion offers %q", got)
	}
	w.env["ELEVENLABS_BASE_URL"] = "http://127.0.0.1:1"
	w.must(1, "status", "--exit-code")
}
