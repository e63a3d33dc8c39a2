package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/rotator/plan"
)

func TestPlanOfAnotherFileSession(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	w.env["REKEYD_FILE_DIR"] = dir // unused, and FOLDER in the golden file
	w.must(0, "rotate", "--all")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	write("same.yaml", "# the same\n"+twoPolicies)
	next := strings.NewReplacer(`"0 3 * * 1", timezone: Europe/Oslo`, `"0 4 * * 1", overlap: 12h, labels: {team: speech}, mode: manual`, "[text_to_speech]", "[text_to_speech, voices_read]").Replace(twoPolicies)
	next = next[:strings.Index(next, "  - {name: dubbing")]
	write("new.yaml", next+"  - {name: batch, service_account: svcacc_b, schedule: '@daily', permissions: all, sink: {path: app/batch}}\n")
	write("bad.yaml", next+"  - {name: batch}\n")
	w.session.Reset()
	before := len(w.kv.Paths())
	w.must(0, "plan", "--policy-file", file("same.yaml"))
	w.must(3, "plan", "--policy-file", file("new.yaml"))
	w.must(3, "plan", "--policy-file", file("new.yaml"), "-o", "json", "batch")
	w.must(2, "plan", "--policy-file", file("bad.yaml"))
	w.must(2, "plan", "--policy-file", file("none.yaml"))
	w.golden("plan_file")
	if len(w.kv.Paths()) != before || len(w.sim.State()[1].Keys) != 1 {
		t.Error("planning changed something")
	}
}

// TestEveryFieldIsCompared: each field of a policy, as the JSON Schema has them, but its name and its profile.
func TestEveryFieldIsCompared(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/policies.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties struct {
			Policies struct {
				Items struct{ Properties map[string]any }
			}
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	var compared []string
	for _, f := range policyFields(plan.Policy{}) {
		compared = append(compared, f[0])
	}
	for name := range schema.Properties.Policies.Items.Properties {
		if !slices.Contains(append(compared, "name", "profile"), name) {
			t.Errorf("%s is not compared", name)
		}
	}
}
