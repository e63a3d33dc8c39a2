package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestThePlanOfAPullRequest runs the script of the documented workflow on a real git repository whose last commit is a merge, as
// GitHub checks it out.
func TestThePlanOfAPullRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	dir, temp := t.TempDir(), t.TempDir()
	script := stepOf(t, "../../docs/examples/github-actions/policies.yaml", "plan", "Plan").Run
	run := func(stdin string, name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
		w.policyFile = filepath.Join(temp, "before.yaml")
		cmd.Env = append(w.environment(map[string]string{"REKEYD_LOG_LEVEL": ""}), "PATH="+filepath.Dir(w.binary)+":"+os.Getenv("PATH"),
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		w.heard(string(out))
		if err != nil {
			return string(out) + err.Error()
		}
		return string(out)
	}
	commit := func(schedule, message string) {
		t.Helper()
		w.policyFile = filepath.Join(dir, "policies.yaml")
		w.policy(schedule)
		run("", "git", "add", "policies.yaml")
		if said := run("", "git", "commit", "-q", "-m", message); said != "" {
			t.Fatal(said)
		}
	}
	comment := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "comment.md"))
		if err != nil {
			t.Fatal(err)
		}
		w.heard(string(text))
		return string(text)
	}
	run("", "git", "init", "-q", "-b", "main")
	run("", "git", "commit", "-q", "--allow-empty", "-m", "no policies yet")
	commit("@every 1h", "before")
	if said := run(script, "bash", "-e"); said != "" {
		t.Fatal(said)
	}
	if text := comment(); strings.Contains(text, "Loading the file") || !strings.Contains(text, "      + create a key of svcacc_prod") {
		t.Errorf("of a new file the comment is\n%s", text)
	}
	commit("@every 2h", "after")
	if said := run(script, "bash", "-e"); said != "" {
		t.Fatal(said)
	}
	if text := comment(); !strings.HasPrefix(text, "rekeyd: what loading this policy file changes.\n\n    Loading the file changes:\n") ||
		!strings.Contains(text, `      ~ policy tts-prod: schedule "@every 1h" becomes "@every 2h"`) || !strings.Contains(text, "      + create a key of svcacc_prod") {
		t.Errorf("the comment is\n%s", text)
	}
	commit("@every 2 hours", "a fault")
	if said := run(script, "bash", "-e"); !strings.HasSuffix(said, "exit status 1") {
		t.Errorf("it said %s", said)
	}
	if text := comment(); !strings.HasPrefix(text, "rekeyd: the plan failed with exit status 2.\n") || !strings.Contains(text, "    rekeyd: error: policies.yaml:4:15: policy \"tts-prod\": ") {
		t.Errorf("the comment is\n%s", text)
	}
	if paths := w.history("createAPIKey"); len(paths) > 0 {
		t.Error("planning made a key")
	}
}

// TestTheMatcherOfTheWorkflow: it finds file, line and column in what rekeyd check says.
func TestTheMatcherOfTheWorkflow(t *testing.T) {
	t.Parallel()
	var matcher struct {
		ProblemMatcher []struct{ Pattern []struct{ Regexp string } }
	}
	if err := json.Unmarshal([]byte(stepOf(t, "../../docs/examples/github-actions/policies.yaml", "check", "Check").Env["MATCHER"]), &matcher); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, common.vault)
	w.policy("@every 2 hours")
	finds := func(line, column, says string) {
		t.Helper()
		_, _, stderr := w.command([]string{"PATH=/bin"}, "check", w.policyFile)
		found := regexp.MustCompile(matcher.ProblemMatcher[0].Pattern[0].Regexp).FindStringSubmatch(strings.TrimSpace(stderr))
		if len(found) != 6 || !slices.Equal(found[1:5], []string{"error", w.policyFile, line, column}) || !strings.HasPrefix(found[5], says) {
			t.Errorf("%q in\n%s", found, stderr)
		}
	}
	finds("4", "15", `policy "tts-prod": schedule `)
	w.write(w.policyFile, "policies:\n  - {name: a\n")
	finds("1", "1", "not valid YAML")
	w.write(w.policyFile, "")
	finds("1", "1", "the policy file is empty")
}

type workflowStep struct {
	Name, Run string
	Env       map[string]string
}

// stepOf returns a step of a workflow.
func stepOf(t *testing.T, file, job, step string) workflowStep {
	t.Helper()
	var workflow struct {
		Jobs map[string]struct {
			Steps []workflowStep
		}
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(text, &workflow)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range workflow.Jobs[job].Steps {
		if s.Name == step {
			return s
		}
	}
	t.Fatalf("%s has no step %s in job %s", file, step, job)
	return workflowStep{}
}
