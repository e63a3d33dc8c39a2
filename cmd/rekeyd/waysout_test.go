package main

import (
	"strings"
	"testing"
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
