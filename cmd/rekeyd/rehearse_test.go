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
	w.env["ELEVENLABS_BASE_URL"] = "http://127.0.0.1:1"
	w.must(1, "status", "--exit-code")
}
