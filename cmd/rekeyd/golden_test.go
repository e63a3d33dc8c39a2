package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/web"
)

func TestPlanSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(3, "plan")
	if paths := w.kv.Paths(); len(paths) != 0 || len(w.sim.State()[0].Keys) != 0 {
		t.Errorf("planning wrote %v, keys %v", paths, w.sim.State()[0].Keys)
	}
	w.must(3, "plan", "dubbing", "--json")
	w.must(0, "rotate", "tts-prod", "dubbing")
	w.must(0, "plan")
	w.must(0, "rotate", "tts-prod")
	w.must(0, "plan", "tts-prod")
	w.env["REKEYD_POLICIES"] = strings.Replace(twoPolicies, "[text_to_speech]", "[text_to_speech, models_read], allowed_ips: [127.0.0.1], character_limit: 5000", 1)
	w.must(3, "plan", "tts-prod")
	w.env["REKEYD_POLICIES"] = strings.Replace(twoPolicies, "{name: tts-prod,", "{name: tts-prod, mode: paused,", 1)
	w.must(0, "plan", "tts-prod")
	w.env["REKEYD_POLICIES"] = twoPolicies[:strings.Index(twoPolicies, "  - {name: dubbing")]
	w.must(0, "plan")
	w.must(2, "plan", "tts-pro")
	w.env["ELEVENLABS_BASE_URL"] = "http://127.0.0.1:1"
	if status, _, stderr := w.run("plan"); status != 1 || !strings.Contains(stderr, "listing workspace default") {
		t.Errorf("without ElevenLabs: exit status %d: %s", status, stderr)
	}
	w.golden("plan")
}

func TestRotateSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "tts-prod")
	w.must(0, "rotate", "tts-prod", "--reason", "a drill of the month")
	w.must(0, "rotate", "tts-prod", "--revoke-now")
	for i, k := range w.sim.State()[0].Keys {
		if last := i == 2; k.Disabled == last {
			t.Errorf("key %d: disabled %t", i+1, k.Disabled)
		}
	}
	w.must(0, "rotate", "dubbing", "--json", "dubbing")
	w.must(2, "rotate")
	w.must(2, "rotate", "tts-prd", "dubbing", "dub")
	w.must(2, "rotate", "tts-prod", "--fast")
	w.env["REKEYD_POLICIES"] = strings.Replace(twoPolicies, "{name: tts-prod,", "{name: tts-prod, mode: paused,", 1)
	w.must(1, "rotate", "tts-prod", "dubbing")
	w.tty = true
	w.must(0, "rotate", "dubbing")
	if !strings.Contains(w.log.String(), `"reason":"a drill of the month"`) {
		t.Error("the reason is not in the log")
	}
	w.golden("rotate")
}

func TestRollbackSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(1, "rollback", "tts-prod")
	w.must(0, "rotate", "tts-prod")
	w.must(1, "rollback", "tts-prod")
	w.must(0, "rotate", "tts-prod")
	w.must(0, "rollback", "tts-prod")
	record, _ := w.kv.Get("secret/app/tts", 0)
	if keys := w.sim.State()[0].Keys; record["key_id"] != keys[0].ID || record["api_key"] != keys[0].Secret || keys[0].Disabled {
		t.Error("the first key is not back")
	}
	w.must(0, "rotate", "tts-prod", "--revoke-now")
	w.must(1, "rollback", "tts-prod")
	w.must(2, "rollback")
	w.must(2, "rollback", "tts-prod", "dubbing")
	w.must(2, "rollback", "nobody")
	w.golden("rollback")
}

// lose adds a key that carries our name and that no ledger entry knows.
func (w *world) lose(account, policy, rotation string) string {
	w.t.Helper()
	owner, _ := w.kv.Get("secret/rekeyd/owner", 0)
	name, _ := owner["owner"].(string)
	id, _, err := w.sim.AddKey(account, elevensim.KeySpec{Name: "rekeyd." + name + "." + policy + "." + rotation})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) deleted(id string) bool {
	for _, a := range w.sim.State() {
		for _, k := range a.Keys {
			if k.ID == id {
				return k.Deleted()
			}
		}
	}
	w.t.Fatalf("there never was a key %s", id)
	return false
}

func TestPruneSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "tts-prod", "dubbing")
	w.must(0, "prune")
	lost := w.lose("svcacc_a", "tts-prod", "aaaaaaaaaa")
	w.must(2, "prune")
	w.must(2, "prune", "tts-pro")
	w.must(0, "prune", "dubbing")
	w.tty = true
	for _, typed := range []string{"", "no\n", "2\n", "y\n"} {
		w.typed = typed
		w.must(1, "prune")
	}
	if w.deleted(lost) {
		t.Error("deleted without a yes")
	}
	w.typed = "1\n"
	w.must(0, "prune")
	if !w.deleted(lost) {
		t.Error("not deleted after a yes")
	}
	w.tty, w.typed = false, ""
	lost = w.lose("svcacc_b", "gone", "bbbbbbbbbb")
	w.must(0, "prune", "gone", "--yes", "--json")
	if !w.deleted(lost) {
		t.Error("not deleted with --yes")
	}
	w.env["REKEYD_POLICIES"] = twoPolicies[:strings.Index(twoPolicies, "  - {name: dubbing")]
	w.must(0, "prune", "--yes")
	w.must(0, "prune", "dubbing", "--yes")
	if k := w.sim.State()[1].Keys[0]; !k.Disabled || k.Deleted() {
		t.Errorf("the removed policy's key is %+v", k)
	}
	w.must(0, "prune", "dubbing", "--yes")
	w.golden("prune")
}

func TestStatusSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "status")
	w.must(0, "rotate", "tts-prod", "dubbing", "tts-prod")
	w.must(0, "rotate", "tts-prod")
	w.must(0, "status")
	w.must(0, "status", "-o", "wide")
	w.must(0, "status", "tts-prod")
	w.must(0, "status", "tts-prod", "--json")
	w.must(0, "status", "tts-prod", "-o", "yaml")
	w.must(2, "status", "-o", "xml")
	w.must(2, "status", "--watch", "--exit-code")
	w.must(2, "status", "--watch", "--interval", "1ms")
	w.env["REKEYD_POLICIES"] = twoPolicies[:strings.Index(twoPolicies, "  - {name: dubbing")]
	w.must(0, "status")
	w.tty = true
	w.must(0, "status")
	w.env["NO_COLOR"] = "1"
	w.must(0, "status")
	w.golden("status")
}

func TestCheckSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "check")
	delete(w.env, "VAULT_ADDR")
	w.env["REKEYD_SINK"], w.env["REKEYD_FILE_DIR"] = "file", t.TempDir()
	w.must(0, "check", "--online")
	w.env["REKEYD_POLICIES"] = strings.Replace(twoPolicies, "{name: dubbing,", "{name: dubbing, third_party_disable_allowed: false,", 1)
	w.must(0, "rotate", "tts-prod", "dubbing")
	w.must(0, "check", "--online")
	w.must(0, "plan", "dubbing")
	w.env["REKEYD_POLICIES"] = strings.Replace(twoPolicies, "svcacc_b", "svcacc_c", 1)
	w.must(1, "check", "--online")
	w.must(1, "check", "--online", "--json")
	w.golden("check")
}

// TestEveryCommandOnATerminalAndInAPipe has each command once, with its output for a person and for what reads a pipe.
func TestEveryCommandOnATerminalAndInAPipe(t *testing.T) {
	t.Parallel()
	for name, terminal := range map[string]bool{"every_terminal": true, "every_pipe": false} {
		w := newWorld(t)
		w.pty, w.env["TERM"], w.env["REKEYD_LISTEN_ADDR"] = terminal, "xterm", "127.0.0.1:1"
		w.must(2, "run", "--fast")
		w.must(1, "health")
		w.must(0, "check")
		w.must(3, "plan")
		w.must(0, "rotate", "dubbing", "tts-prod") // in the order of their names, which is that of history within one second
		if _, _, err := w.sim.AddKey("svcacc_b", elevensim.KeySpec{Name: "by hand", Secret: "sk_" + strings.Repeat("0", 44) + "1111"}); err != nil {
			t.Fatal(err)
		}
		w.must(0, "discover")
		w.must(0, "rotate", "--all", "--dry-run")
		w.must(0, "rotate", "tts-prod", "--reason", "a drill")
		w.must(0, "rollback", "tts-prod")
		w.must(1, "rename", "tts-prod", "dubbing")
		w.must(0, "status")
		w.must(0, "status", "-o", "wide")
		w.must(0, "status", "tts-prod")
		w.must(0, "status", "-o", "yaml")
		w.must(0, "history")
		w.must(0, "history", "-o", "wide")
		w.must(0, "schedule", "--from", "2026-03-23T12:00:00Z", "-n", "1")
		w.lose("svcacc_a", "tts-prod", "aaaaaaaaaa")
		w.lose("svcacc_a", "tts-prod", "bbbbbbbbbb")
		if w.typed = "2\n"; terminal {
			w.must(0, "prune")
		} else {
			w.must(0, "prune", "--yes")
		}
		w.typed = "sk_0123456789abcdef0123456789abcdef0123456789abcdef\n"
		w.must(1, "leaked")
		w.typed = ""
		w.must(2, "conformance")
		w.must(1, "debug", "bundle", "-o", os.DevNull)
		w.must(0, "help", "status")
		w.must(2, "completion")
		w.must(0, "version")
		session := w.session.String()
		for _, c := range documented() {
			if !strings.Contains(session, "$ "+c.CommandPath()) {
				t.Errorf("%s is in no golden output", c.CommandPath())
			}
		}
		if colours := strings.Contains(session, "\x1b["); colours != terminal {
			t.Errorf("%s: colours %t", name, colours)
		}
		w.golden(name)
	}
}

// TestPlanOfEverything shows each kind of change, in colours and without.
func TestPlanOfEverything(t *testing.T) {
	t.Parallel()
	p := planOf(everything(t), instant)
	checkGolden(t, "plan_all", p.text(painter{}, instant))
	checkGolden(t, "plan_colored", p.text(painter{on: true}, instant))
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "plan_json", string(text)+"\n")
	if s := (planTable{}).Summary.text(); s != "Plan: nothing to do now." {
		t.Error(s)
	}
}

func TestStatusOfEverything(t *testing.T) {
	t.Parallel()
	view := web.ViewOf(everything(t))
	var out bytes.Buffer
	a := app{lookuper: envconfig.MapLookuper(nil), stdout: &out, terminal: func(any) bool { return true }}
	all := slices.Concat(view.Policies, view.Unmanaged)
	for _, wide := range []bool{false, true} {
		if err := a.table(statusRows(all, wide, instant), trouble(all)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range all {
		if err := errors.Join(a.print("\n"), a.detail(p, instant)); err != nil {
			t.Fatal(err)
		}
	}
	checkGolden(t, "status_all", out.String())
}
