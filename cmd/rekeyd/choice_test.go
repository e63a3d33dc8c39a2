package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

const labelledPolicies = `workspaces:
  - {name: default, base_url: BASE, api_key: {env: ELEVENLABS_API_KEY}}
  - {name: eu, base_url: BASE, api_key: {env: ELEVENLABS_API_KEY}}
defaults: {schedule: "0 3 * * 1", permissions: all, labels: {stage: prod}}
policies:
  - {name: tts-prod, service_account: svcacc_a, sink: {path: app/tts}, labels: {team: speech}}
  - {name: tts-test, service_account: svcacc_a, sink: {path: app/test}, labels: {team: speech, stage: test}}
  - {name: dubbing, workspace: eu, service_account: svcacc_b, sink: {path: app/dubbing}, labels: {team: studio}}
`

func newLabelled(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.env["REKEYD_POLICIES"] = strings.ReplaceAll(labelledPolicies, "BASE", w.env["ELEVENLABS_BASE_URL"])
	return w
}

func TestChoiceSession(t *testing.T) {
	t.Parallel()
	w := newLabelled(t)
	for _, verb := range []string{"status", "plan", "schedule", "history", "prune", "rotate"} {
		w.must(2, verb, "--workspace", "ue")
		w.must(2, verb, "--label", "team=speec")
		w.must(2, verb, "--label", "team")
		w.must(2, verb, "--label", "team=studio", "--workspace", "default")
		w.must(2, verb, "tts-prod", "--label", "stage=test")
		w.must(2, verb, "tts-prd", "--label", "stage=test")
	}
	w.must(2, "rotate")
	w.must(2, "rotate", "--all", "tts-prod")
	w.must(2, "rotate", "--all", "--label", "team=speech")
	w.env["REKEYD_POLICIES"] = twoPolicies
	w.must(2, "status", "--label", "team=speech")
	w.golden("choice")
}

// TestChoice has the policies that each command takes.
func TestChoice(t *testing.T) {
	t.Parallel()
	w := newLabelled(t)
	rotated := func(args ...string) []string {
		before := w.policyVersions()
		w.must(0, append([]string{"rotate"}, args...)...)
		return w.changedSince(before)
	}
	if got := rotated("--label", "team=speech", "--label", "stage=prod"); !slices.Equal(got, []string{"app/tts"}) {
		t.Errorf("two labels chose %v", got)
	}
	if got := rotated("--workspace", "eu"); !slices.Equal(got, []string{"app/dubbing"}) {
		t.Errorf("a workspace chose %v", got)
	}
	if got := rotated("tts-test", "dubbing", "--label", "team=speech"); !slices.Equal(got, []string{"app/test"}) {
		t.Errorf("names and a label chose %v", got)
	}
	if got := rotated("--all"); len(got) != 3 {
		t.Errorf("all chose %v", got)
	}
	for _, verb := range []string{"status", "plan", "history", "schedule"} {
		out := w.must(0, verb, "--label", "team=speech")
		if !strings.Contains(out, "tts-prod") || !strings.Contains(out, "tts-test") || strings.Contains(out, "dubbing") {
			t.Errorf("%s: %s", verb, out)
		}
		if out := w.must(0, verb, "--json", "--workspace", "eu"); !strings.Contains(out, "dubbing") || strings.Contains(out, "tts-") {
			t.Errorf("%s: %s", verb, out)
		}
	}
	if out := w.must(0, "status", "-o", "json", "tts-prod"); !strings.Contains(out, `"team": "speech"`) {
		t.Errorf("no labels in %s", out)
	}
}

func TestCompletionKnowsWorkspacesAndLabels(t *testing.T) {
	t.Parallel()
	w := newLabelled(t)
	for flag, want := range map[string]string{"--workspace": "default\neu\n:4\n", "--label": "stage=prod\nstage=test\nteam=speech\nteam=studio\n:4\n"} {
		for _, verb := range []string{"status", "rotate"} {
			if got := w.must(0, "__complete", verb, flag, ""); got != want {
				t.Errorf("%s %s: %q", verb, flag, got)
			}
		}
	}
}

// policyVersions returns the records' data by path.
func (w *world) policyVersions() map[string]string {
	all := map[string]string{}
	for _, a := range w.sim.State() {
		for _, k := range a.Keys {
			all[k.ID] = k.Name
		}
	}
	return all
}

// changedSince returns the paths of the policies that have new keys.
func (w *world) changedSince(before map[string]string) []string {
	paths := map[string]string{"tts-prod": "app/tts", "tts-test": "app/test", "dubbing": "app/dubbing"}
	var changed []string
	after := w.policyVersions()
	for _, id := range slices.Sorted(maps.Keys(after)) {
		if before[id] == "" {
			changed = append(changed, paths[strings.Split(after[id], ".")[2]])
		}
	}
	return changed
}
