package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type workflow struct {
	Permissions any // of all jobs; {} is none
	Jobs        map[string]struct {
		Permissions map[string]string
		Uses        string
		Steps       []struct{ Uses string }
	}
}

// pinned is an action by the digest of its commit, with the release in a comment, or a file of this repository.
var pinned = regexp.MustCompile(`^(\./|[\w.-]+/[\w./-]+@[0-9a-f]{40}$)`)

// faults says what in a workflow could change under us, or may do more than it says.
func (w workflow) faults() (faults []string) {
	if all, ok := w.Permissions.(map[string]any); !ok || len(all) > 0 {
		faults = append(faults, "it does not begin with permissions: {}")
	}
	for name, job := range w.Jobs {
		if job.Permissions == nil {
			faults = append(faults, name+" does not say what it may do")
		}
		used := []string{job.Uses}
		for _, step := range job.Steps {
			used = append(used, step.Uses)
			if job.Permissions["attestations"] == "write" && strings.HasPrefix(step.Uses, "actions/checkout@") {
				faults = append(faults, name+" may sign, and has the source, which could sign something else")
			}
		}
		for _, action := range used {
			if action != "" && !pinned.MatchString(action) {
				faults = append(faults, name+" uses "+action+", which is not pinned by the digest of its commit")
			}
		}
	}
	return faults
}

func TestWorkflowsArePinnedAndConfined(t *testing.T) {
	files, err := filepath.Glob("../../.github/workflows/*")
	if err != nil || len(files) < 2 {
		t.Fatalf("the workflows are %v (%v)", files, err)
	}
	files = append(files, "../../docs/examples/github-actions/policies.yaml") // others copy it
	all := ""
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
		var w workflow
		if err := yaml.Unmarshal(text, &w); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, fault := range w.faults() {
			t.Errorf("%s: %s", file, fault)
		}
	}
	if !strings.Contains(all, "run: .ci/run\n") {
		t.Error("no workflow runs .ci/run")
	}
}

func TestFaultsOfWorkflowsAreFound(t *testing.T) {
	const text = `
permissions: {contents: write}
jobs:
  a: {steps: [{uses: actions/checkout@v7}, {uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1}]}
  b: {uses: someone/else/.github/workflows/w.yaml@main, permissions: {contents: read}}
  c: {steps: [{uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1}], permissions: {attestations: write}}
`
	var w workflow
	if err := yaml.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	if got := w.faults(); len(got) != 5 {
		t.Errorf("a workflow with five faults has these: %q", got)
	}
}
