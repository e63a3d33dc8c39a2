package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fileOrder is the files of package rotator from the bottom up: each may use what those before it declare.
var fileOrder = []string{
	// Words and values that know no Rotator.
	"doc.go", "progress.go", "failure.go", "event.go", "quiet.go", "pace.go", "outage.go",
	// What a process knows of a workspace and of a policy, and the Rotator that has both.
	"workspace.go", "state.go", "rotator.go",
	// What is known without a decision: clocks, listings, the queue, the hourly limit, entries and records.
	"clock.go", "listing.go", "queue.go", "limit.go", "newest.go", "history.go", "read.go",
	// What is shown of a policy, and the observation that is planned by.
	"status.go", "problem.go", "observed.go",
	// A step's work, its outcome, and when it may be tried again.
	"job.go", "outcome.go", "pacing.go", "owner.go", "replicas.go",
	// The protocol: what steps share, then the steps.
	"calls.go", "admin.go", "settings.go", "probe.go",
	"adopt.go", "rename.go", "group.go", "observe.go",
	"retire.go", "rotate.go", "rollback.go", "recover.go", "tend.go",
	// The loops, then the commands and Run.
	"reconcile.go", "removed.go", "work.go",
	"survey.go", "prune.go", "operate.go", "leaked.go", "run.go",
}

// againstOrder is the arrows that point up nevertheless, and why.
var againstOrder = map[arrow]string{
	{"rotate.go", "recover.go"}:   "a rotation that fails after its create is settled as one that another process left, and settling may commit it",
	{"rollback.go", "recover.go"}: "so is a rollback",
}

// TestNoFilePointsUp: package rotator can be read from its lowest file to its highest. go/types finds what a file uses: names,
// methods and fields that another file of the package declares.
func TestNoFilePointsUp(t *testing.T) {
	t.Parallel()
	for _, fault := range upward(arrowsBetween(t, "../../rotator"), fileOrder, againstOrder) {
		t.Error(fault)
	}
}

// arrow is a file and another one that declares what it uses.
type arrow struct{ from, to string }

// uses is what each file uses of each other file of its package. A file that uses none has an entry.
type uses map[string]map[string][]string

// upward returns what contradicts the order and its exceptions.
func upward(files uses, order []string, exceptions map[arrow]string) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !slices.Contains(order, name) {
			faults = append(faults, fmt.Sprintf("%s has no place in the order", name))
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(files[name])) {
			_, excepted := exceptions[arrow{name, other}]
			if !excepted && slices.Index(order, other) > slices.Index(order, name) {
				faults = append(faults, fmt.Sprintf("%s uses %s of %s, which lies above it", name, strings.Join(slices.Sorted(slices.Values(files[name][other])), ", "), other))
			}
		}
	}
	for _, name := range order {
		if files[name] == nil {
			faults = append(faults, fmt.Sprintf("there is no file %s", name))
		}
	}
	for a, reason := range exceptions {
		if files[a.from][a.to] == nil || slices.Index(order, a.to) < slices.Index(order, a.from) || reason == "" {
			faults = append(faults, fmt.Sprintf("the exception for %s, which uses %s, is needless or without a reason", a.from, a.to))
		}
	}
	return faults
}

// arrowsBetween finds the uses between the files of a package.
func arrowsBetween(t *testing.T, dir string) uses {
	t.Helper()
	set := token.NewFileSet()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := uses{}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files, found[filepath.Base(path)] = append(files, file), map[string][]string{}
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	checker := types.Config{Importer: importer.ForCompiler(set, "gc", compiled(t, dir))}
	pkg, err := checker.Check(dir, set, files, &info)
	if err != nil {
		t.Fatal(err)
	}
	for id, used := range info.Uses {
		name, declared := filepath.Base(set.Position(id.Pos()).Filename), filepath.Base(set.Position(used.Pos()).Filename)
		if used.Pkg() == pkg && name != declared && !slices.Contains(found[name][declared], used.Name()) {
			found[name][declared] = append(found[name][declared], used.Name())
		}
	}
	return found
}

// compiled returns what opens the export data of the packages that a package imports, from the build cache.
func compiled(t *testing.T, dir string) importer.Lookup {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".")
	list.Dir = dir
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	exports := map[string]string{}
	for line := range bytes.Lines(out) {
		path, file, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		exports[path] = file
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
}

// The rules themselves are tried on files that break them.
func TestFileRulesFindFaults(t *testing.T) {
	t.Parallel()
	files := uses{
		"low.go":  {"high.go": {"climb"}},
		"mid.go":  {"low.go": {"base"}, "high.go": {"peak", "roof"}},
		"high.go": {"low.go": {"base"}},
		"new.go":  {},
	}
	order := []string{"low.go", "mid.go", "gone.go", "high.go"}
	got := upward(files, order, map[arrow]string{{"low.go", "high.go"}: "it is explained", {"high.go", "mid.go"}: "it is not used"})
	slices.Sort(got)
	want := []string{
		"mid.go uses peak, roof of high.go, which lies above it",
		"new.go has no place in the order",
		"the exception for high.go, which uses mid.go, is needless or without a reason",
		"there is no file gone.go",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the faults are %q", got)
	}
	delete(files, "new.go")
	order = []string{"low.go", "mid.go", "high.go"}
	for reason, faults := range map[string]int{"it is explained": 0, "": 2} {
		exceptions := map[arrow]string{{"low.go", "high.go"}: reason, {"mid.go", "high.go"}: reason}
		if got := upward(files, order, exceptions); len(got) != faults {
			t.Errorf("exceptions for the reason %q leave the faults %q", reason, got)
		}
	}
	downward := map[arrow]string{{"low.go", "high.go"}: "up", {"mid.go", "high.go"}: "up", {"high.go", "low.go"}: "an arrow down needs no exception"}
	if got := upward(files, order, downward); len(got) != 1 {
		t.Errorf("an exception for an arrow down leaves the faults %q", got)
	}
}
