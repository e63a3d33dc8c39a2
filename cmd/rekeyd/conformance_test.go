package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/conformance"
)

// onlyAPI is a world without policies and Vault.
func onlyAPI(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	for _, name := range []string{"REKEYD_POLICIES", "VAULT_ADDR", "VAULT_TOKEN"} {
		delete(w.env, name)
	}
	return w
}

// nothingMade checks that no key was ever made.
func (w *world) nothingMade() {
	w.t.Helper()
	for _, r := range w.sim.History() {
		if r.Method != "GET" {
			w.t.Errorf("%s %s", r.Method, r.Path)
		}
	}
}

func TestConformanceReports(t *testing.T) {
	t.Parallel()
	w := onlyAPI(t)
	text := w.must(0, "conformance", "--account", "svcacc_a", "--yes")
	for _, part := range []string{"A01  holds  ", "A20  could not be asked  ", "until a new key works: at once (asked after ", "20 hold, 0 differ, 5 could not be asked; ", "a host that is not ElevenLabs'"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
	if err := w.sim.SetFaults(elevensim.Faults{UniqueNames: true}); err != nil {
		t.Fatal(err)
	}
	status, text, stderr := w.run("conformance", "--account", "svcacc_a", "--yes", "-o", "json")
	var r conformance.Report
	if err := json.Unmarshal([]byte(text), &r); err != nil || status != 1 || r.Format != 1 || r.Count(conformance.Differs) != 1 || r.Checks[8].Verdict != conformance.Differs {
		t.Errorf("exit status %d, %v: %s", status, err, text)
	}
	if want := "rekeyd: error: asking ElevenLabs: 1 assumption does not hold; docs/conformance.md says how to send the report\n"; stderr != want {
		t.Errorf("%q, want %q", stderr, want)
	}
	if strings.Contains(text, "svcacc_a") || strings.Contains(text, "127.0.0.1") {
		t.Errorf("an id is in: %s", text)
	}
	if _, text, _ := w.run("conformance", "--account", "svcacc_a", "--yes", "--redact=false", "--json"); !strings.Contains(text, `"service_account": "svcacc_a"`) || !strings.Contains(text, "There is an API key with this name.") {
		t.Errorf("no id in: %s", text)
	}
}

func TestConformanceAsksFirst(t *testing.T) {
	t.Parallel()
	w := onlyAPI(t)
	w.tty, w.env["NO_COLOR"] = true, "1"
	for _, answer := range []string{"", "no\n", "y\n", "yes please\n"} {
		w.typed = answer
		status, stdout, stderr := w.run("conformance", "--account", "svcacc_a")
		if status != 1 || stdout != "" || !strings.Contains(stderr, "not confirmed, nothing was changed") {
			t.Errorf("%q: exit status %d: %s%s", answer, status, stdout, stderr)
		}
		for _, c := range conformance.Checks() {
			if !strings.Contains(stderr, c.ID+" "+c.How) {
				t.Errorf("%s is not said:\n%s", c.ID, stderr)
			}
		}
	}
	w.nothingMade()
	if _, _, err := w.sim.AddKey("svcacc_a", elevensim.KeySpec{Name: "rekeyd-conformance.abcdefghij.01"}); err != nil {
		t.Fatal(err)
	}
	w.typed = "yes\n"
	status, stdout, stderr := w.run("conformance", "--account", "svcacc_a")
	if status != 0 || !strings.Contains(stdout, "ID   VERDICT") || !strings.Contains(stderr, "1 key that an earlier run left") || !strings.Contains(stderr, "  25 of 25: A25 ") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
	for _, k := range w.sim.State()[0].Keys {
		if !k.Deleted() {
			t.Errorf("left: %s", k.Name)
		}
	}
}

func TestConformanceRefuses(t *testing.T) {
	t.Parallel()
	w := onlyAPI(t)
	for want, args := range map[string][]string{
		"there is no terminal to ask at; add --yes":        {"--account", "svcacc_a"},
		"name a service account with --account ID":         {"--yes"},
		"holds what looks like a secret":                   {"--yes", "--account", "sk_0123456789abcdef0123456789abcdef0123456789abcdef"},
		`there is no workspace "other"; known are default`: {"--yes", "--account", "svcacc_a", "--workspace", "other"},
		"1 argument is given":                              {"--yes", "--account", "svcacc_a", "more"},
		"write table, wide, json or yaml":                  {"--yes", "--account", "svcacc_a", "-o", "xml"},
	} {
		status, stdout, stderr := w.run(append([]string{"conformance"}, args...)...)
		if status != 2 || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, "sk_") {
			t.Errorf("%q: exit status %d: %s%s", args, status, stdout, stderr)
		}
	}
	for want, change := range map[string][2]string{
		"ELEVENLABS_API_KEY is not set": {"ELEVENLABS_API_KEY", ""},
		"REKEYD_API_RATE is":            {"REKEYD_API_RATE", "fast"},
		"ELEVENLABS_BASE_URL is":        {"ELEVENLABS_BASE_URL", "ftp://nowhere"},
		"VAULT_ADDR is not set":         {"REKEYD_POLICIES", twoPolicies},
	} {
		old := w.env[change[0]]
		w.env[change[0]] = change[1]
		if status, _, stderr := w.run("conformance", "--yes", "--account", "svcacc_a"); status != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit status %d: %s", change, status, stderr)
		}
		w.env[change[0]] = old
	}
	w.must(1, "conformance", "--yes", "--account", "svcacc_unknown")
	w.env["ELEVENLABS_BASE_URL"] = "http://127.0.0.1:1"
	if status, _, stderr := w.run("conformance", "--yes", "--account", "svcacc_a"); status != 1 || !strings.Contains(stderr, "connection refused") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	w.nothingMade()
}

// TestConformanceOfAWorkspace of a policy file, with its admin key in a variable or in Vault.
func TestConformanceOfAWorkspace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	policies := strings.ReplaceAll(twoPolicies, "{name: ", "{workspace: speech, name: ")
	for _, key := range []string{"{env: ELEVENLABS_SPEECH}", "{vault: {mount: secret, path: admin/speech, field: key}}"} {
		w.env["REKEYD_POLICIES"] = "workspaces:\n  - {name: speech, base_url: " + w.env["ELEVENLABS_BASE_URL"] + ", api_key: " + key + "}\n" + policies
		if strings.Contains(key, "vault") {
			if _, err := w.kv.Put("secret/admin/speech", map[string]any{"key": w.env["ELEVENLABS_SPEECH"]}); err != nil {
				t.Fatal(err)
			}
		} else {
			w.env["ELEVENLABS_SPEECH"] = w.env["ELEVENLABS_API_KEY"]
			delete(w.env, "ELEVENLABS_API_KEY")
		}
		w.must(0, "conformance", "--account", "svcacc_a", "--yes")
		w.must(0, "conformance", "--account", "svcacc_b", "--yes", "--workspace", "speech")
	}
	w.must(2, "conformance", "--account", "svcacc_b", "--yes", "--workspace", "default")
}
