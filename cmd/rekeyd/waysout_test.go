package main

import (
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// TestAnAccountThatIsGone: the error names both ways out, and both work.
func TestAnAccountThatIsGone(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*world){
		"another account": func(w *world) {
			w.env["REKEYD_POLICIES"] = strings.Replace(twoPolicies, "svcacc_a", "svcacc_b", 1)
			w.must(0, "rotate", "tts-prod")
		},
		"removed": func(w *world) {
			first, second, _ := strings.Cut(twoPolicies, "  - {name: dubbing")
			w.env["REKEYD_POLICIES"] = strings.SplitAfter(first, "\n")[0] + "  - {name: dubbing" + second
			w.must(0, "prune", "tts-prod", "--yes")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.must(0, "rotate", "tts-prod")
			if err := w.sim.RemoveAccount("svcacc_a"); err != nil {
				t.Fatal(err)
			}
			_, _, refused := w.run("rotate", "tts-prod")
			if !strings.Contains(refused, "has no service account svcacc_a; correct service_account of policy tts-prod, or remove the policy if the account is gone") {
				t.Errorf("rotate says %s", refused)
			}
			leave(w)
			if out := w.must(0, "status"); strings.Contains(out, "error") {
				t.Errorf("status says:\n%s", out)
			}
		})
	}
}

// TestAnUnknownValueAndAnEmptyLedger: what the error says works, with a candidate and without one.
func TestAnUnknownValueAndAnEmptyLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	value := map[string]any{"api_key": "sk_" + strings.Repeat("0", 44) + "1111", "other": "stays"}
	if _, err := w.kv.Put("secret/app/tts", value); err != nil {
		t.Fatal(err)
	}
	_, _, refused := w.run("rotate", "tts-prod")
	if !strings.Contains(refused, "service account svcacc_a has no key to adopt, so remove api_key from the record for a new key\n") {
		t.Errorf("without candidates rotate says %s", refused)
	}
	delete(value, "api_key")
	if _, err := w.kv.Put("secret/app/tts", value); err != nil {
		t.Fatal(err)
	}
	w.must(0, "rotate", "tts-prod")
	if data, _ := w.kv.Get("secret/app/tts", 0); data["api_key"] == nil || data["other"] != "stays" {
		t.Errorf("the record is %v", data)
	}
}

// TestErrorsOfAWorkspaceSayWhatToDo, in the commands that list it.
func TestErrorsOfAWorkspaceSayWhatToDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil  func(*world)
		advice string
	}{
		"refused key": {func(w *world) { w.env["ELEVENLABS_API_KEY"] = "sk_of_nobody_0123456789" }, "put a working admin key where the workspace's api_key says"},
		"permission": {func(w *world) {
			_, secret, err := w.sim.AddKey("svcacc_a", elevensim.KeySpec{Name: "weak", Permissions: []string{"text_to_speech"}})
			if err != nil {
				w.t.Fatal(err)
			}
			w.env["ELEVENLABS_API_KEY"] = secret
		}, "give the admin key the permission service_account_write"},
		"connection": {func(w *world) { w.env["ELEVENLABS_BASE_URL"] = "http://127.0.0.1:1" }, "check base_url and the network"},
		"path":       {func(w *world) { w.env["ELEVENLABS_BASE_URL"] += "/wrong" }, "and the path of base_url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.spoil(w)
			for _, args := range [][]string{{"status"}, {"plan"}, {"discover"}, {"rotate", "tts-prod"}, {"rotate", "tts-prod", "--dry-run"}} {
				_, _, stderr := w.run(args...)
				if last := stderr[strings.LastIndex(strings.TrimSpace(stderr), "\n")+1:]; strings.Count(last, c.advice) != 1 {
					t.Errorf("%v says %q, without %q", args, last, c.advice)
				}
			}
		})
	}
}
