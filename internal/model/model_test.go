package model_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// search is one run of Spin over rekeyd.pml, or over adoption.pml where the switches say ADOPTION.
type search struct {
	name    string
	defines string
}

// configurations are the parts into which the whole is cut, each searched to its end.
func configurations() []search {
	return []search{
		{"rotate", rotate},
		{"retire", retire},
		{"rotate and retire", "REPLACED RETIRING ROTATIONS=1"},
		{"rollback", rollback},
		{"revoke", revoke},
		{"adopt", "ADOPTION"},
		{"adopt and prune", prune},
	}
}

const (
	rotate   = "ROTATIONS=2 PERSON=1"
	retire   = "REPLACED RETIRING PERSON=1"
	rollback = "REPLACED RETIRING ROLLBACKS=1"
	revoke   = "REPLACED ROTATIONS=1 ROLLBACKS=1 REVOKES=1"
	prune    = "ADOPTION PRUNED"
)

// mistakes are switches of the model, each of which must be found in the part that it is named with.
func mistakes() []search {
	return []search{
		{"NO_RENEWAL_BEFORE_RETRY", rotate},
		{"NO_RENEWAL_AFTER_LOOK", rotate},
		{"NO_FENCE", rotate},
		{"PUBLISH_WITHOUT_CAS", rotate},
		{"CLAIM_WITHOUT_CAS", rotate},
		{"SWEEP_WITHOUT_EVIDENCE", rotate},
		{"FORGET_ABANDONED", rotate},
		{"BELIEVE_THE_LISTING", rotate},
		{"FORGET_THE_OLD_KEY", rotate},
		{"NO_ROLL_FORWARD", rotate},
		{"RETIRE_FROM_A_CACHE", retire},
		{"NO_SECOND_LOOK", retire},
		{"FOLLOW_ENABLED_ONLY", retire},
		{"FOLLOW_OVER_DELETE", retire},
		{"DISABLE_NOT_NOTED", rollback},
		{"ENABLE_NOT_NOTED", rollback},
		{"DELETE_NOT_NOTED", rollback},
		{"ROLLBACK_OVER_DELETE", rollback},
		{"SUCCESS_SETTLES_ALL", rollback},
		{"REFUSAL_SETTLES_ALL", rollback},
		{"UNDO_SETTLES_DISABLE", rollback},
		{"LATE_ENABLE_STAYS", rollback},
		{"ROLLBACK_NOT_ASKED_AGAIN", revoke},
		{"ADOPT_WITHOUT_THE_DOCUMENT", "ADOPTION"},
		{"ADOPT_WITHOUT_CAS", prune},
		{"ADOPT_THE_ABANDONED", prune},
		{"PRUNE_WITHOUT_ABANDONING", prune},
		{"PRUNE_WITHOUT_CAS", prune},
	}
}

// yesterday is the protocol before it was mended, in which each kind of fault is there to be found.
func yesterday() []search {
	return []search{
		{"the record holds a deleted key after a rotation", rotate + " MISTAKEN TODAY ASK=1"},
		{"the record holds a deleted key after a rollback", rollback + " MISTAKEN TODAY ASK=1"},
		{"the record holds a key that we disabled and do not enable", rollback + " MISTAKEN TODAY ASK=2"},
		{"a key in quarantine stays enabled", rollback + " MISTAKEN TODAY ASK=3"},
	}
}

// TestModel searches every state of every part of the model; without REKEYD_MODEL, which make model sets, of the smallest.
func TestModel(t *testing.T) {
	dir := needSpin(t)
	parts := configurations()
	if os.Getenv("REKEYD_MODEL") == "" {
		parts = parts[:1]
	}
	for _, s := range parts {
		t.Run(s.name, func(t *testing.T) {
			states, fault := s.run(t, dir)
			if fault != "" {
				t.Fatalf("after %s states: %s", states, fault)
			}
			t.Logf("%s states, 0 errors", states)
		})
	}
}

// TestTheModelFindsMistakes makes each mistake in turn.
func TestTheModelFindsMistakes(t *testing.T) {
	if os.Getenv("REKEYD_MODEL") == "" {
		t.Skip("make model runs this")
	}
	dir := needSpin(t)
	for _, s := range mistakes() {
		t.Run(s.name, func(t *testing.T) { search{s.name, s.defines + " MISTAKEN BUG_" + s.name}.mustFind(t, dir) })
	}
	for _, s := range yesterday() {
		t.Run("before the mend "+s.name, func(t *testing.T) { s.mustFind(t, dir) })
	}
}

func (s search) mustFind(t *testing.T, dir string) {
	t.Helper()
	states, fault := s.run(t, dir)
	if fault == "" {
		t.Fatalf("not found in %s states", states)
	}
	t.Logf("found after %s states: %s", states, fault)
}

// needSpin skips where the tools are missing, unless that is CI, which installs them.
func needSpin(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed", tool)
			}
			t.Skipf("%s is not installed: the model is not searched (apt-get install spin gcc)", tool)
		}
	}
	if testing.Short() {
		t.Skip("the search takes a minute or two")
	}
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var (
	errorsFound = regexp.MustCompile(`errors: (\d+)`)
	statesFound = regexp.MustCompile(`(\d+) states, stored`)
	violated    = regexp.MustCompile(`pan:\d+: (.*)`)
)

// run builds the verifier, without any reduction or compression, and lets it search. It returns the number of states
// and what was violated.
func (s search) run(t *testing.T, dir string) (states, fault string) {
	t.Helper()
	work := t.TempDir()
	args := []string{"-a"}
	for _, d := range strings.Fields(s.defines) {
		args = append(args, "-D"+d)
	}
	file := "rekeyd.pml"
	if strings.Contains(s.defines, "ADOPTION") {
		file = "adoption.pml"
	}
	call(t, work, "spin", append(args, filepath.Join(dir, file))...)
	optimise := "-O2"
	if strings.Contains(s.defines, "MISTAKEN") {
		optimise = "-O0" // what is found at once takes longer to compile than to find
	}
	call(t, work, "gcc", optimise, "-DSAFETY", "-DNOREDUCE", "-DMEMLIM=6000", "-o", "pan", "pan.c")
	out := call(t, work, "./pan", "-m2000000", "-E", "-w22")
	found := errorsFound.FindStringSubmatch(out)
	stored := statesFound.FindStringSubmatch(out)
	switch {
	case found == nil || stored == nil || strings.Contains(out, "max search depth too small") || strings.Contains(out, "out of memory"):
		t.Fatalf("the search did not come to its end:\n%s", out)
	case found[1] != "0":
		return stored[1], violated.FindStringSubmatch(out + "\npan:0: ?")[1]
	}
	return stored[1], ""
}

func call(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}
