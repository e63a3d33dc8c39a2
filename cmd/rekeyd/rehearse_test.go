package main

import (
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
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

// TestDryRunRefusesWhatRotateRefuses: with the same words and exit status, and it changes nothing.
func TestDryRunRefusesWhatRotateRefuses(t *testing.T) {
	t.Parallel()
	policy := func(fields string) string {
		return "policies: [{name: tts-prod, service_account: svcacc_a, schedule: \"0 3 * * 1\", permissions: all, sink: {path: app/tts}" + fields + "}]"
	}
	put := func(w *world) {
		if _, err := w.kv.Put("secret/app/tts", map[string]any{"api_key": "sk_" + strings.Repeat("0", 44) + "1111"}); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		prepare  func(*world)
		policies string
		says     string
	}{
		"account": {nil, strings.Replace(policy(""), "svcacc_a", "svcacc_x", 1), "has no service account svcacc_x"},
		"record":  {put, policy(""), "the ledger is empty and"},
		"adopt":   {nil, policy(", adopt: nosuchkey"), "has no key nosuchkey to adopt"},
		"paused":  {nil, policy(", mode: paused"), "policy tts-prod is paused"},
		"adopting": {func(w *world) {
			id, secret, err := w.sim.AddKey("svcacc_a", elevensim.KeySpec{Name: "by hand"})
			if err == nil {
				_, err = w.kv.Put("secret/app/tts", map[string]any{"api_key": secret, "key_id": id})
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}, policy(""), "other work comes first (adopt "},
		"group": {func(w *world) {
			w.env["REKEYD_POLICIES"] = strings.Replace(twoPolicies, "{name: ", "{group: g, name: ", 2)
			w.must(0, "rotate", "tts-prod")
			w.must(0, "rotate", "dubbing")
			w.must(0, "rotate", "dubbing")
		}, strings.Replace(twoPolicies, "{name: ", "{group: g, name: ", 2), "policy dubbing of its group g is between claim and end of overlap"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if c.prepare != nil {
				c.prepare(w)
			}
			w.env["REKEYD_POLICIES"] = c.policies
			keys, paths := len(w.sim.State()[0].Keys), len(w.kv.Paths())
			dry, promises, _ := w.run("rotate", "tts-prod", "--dry-run")
			if len(w.sim.State()[0].Keys) != keys || len(w.kv.Paths()) != paths {
				t.Error("the dry run changed something")
			}
			if dry != 0 || strings.Contains(promises, "create a key") || !strings.Contains(promises, c.says) {
				t.Errorf("the dry run (%d) says:\n%s", dry, promises)
			}
			status, _, does := w.run("rotate", "tts-prod")
			if refusal := strings.TrimSpace(does[max(0, strings.LastIndex(does, "policy tts-prod")):]); status != 1 || !strings.Contains(promises, refusal) {
				t.Errorf("the dry run says %q, and rotate %q (%d)", promises, does, status)
			}
		})
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
