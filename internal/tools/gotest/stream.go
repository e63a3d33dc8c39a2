package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// event is a line of go test -json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Output      string
	FailedBuild string
}

// results is what a run of go test said.
type results struct {
	ok      bool // its exit status was 0
	out     io.Writer
	verbose bool

	pkgs map[string]*pkgResult
}

// pkgResult is one package's part.
type pkgResult struct {
	tests  map[string]*testResult
	own    string // output of no test
	failed bool
	build  bool // it does not build
}

type testResult struct {
	output string
	state  string // "" while it runs
}

// failure is one test, or one package as a whole, that failed.
type failure struct {
	pkg, test, output, why string
	rerun                  bool
}

// pattern returns the flag that selects the test.
func (f failure) pattern() []string {
	if f.test == "" {
		return nil
	}
	return []string{"-run=^" + f.test + "$"}
}

// read takes the stream to its end.
func (r *results) read(stream io.Reader) error {
	r.pkgs = map[string]*pkgResult{}
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			r.take(e)
		} else {
			_, _ = r.out.Write(line) // go itself says something
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("reading what go test says: %w", err)
		}
	}
}

func (r *results) take(e event) {
	if e.Action == "build-output" {
		r.print(e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := r.pkgs[e.Package]
	if p == nil {
		p = &pkgResult{tests: map[string]*testResult{}}
		r.pkgs[e.Package] = p
	}
	if e.Test == "" {
		r.takePackage(p, e)
		return
	}
	t := p.tests[e.Test]
	if t == nil {
		t = &testResult{}
		p.tests[e.Test] = t
	}
	switch e.Action {
	case "output":
		if r.verbose {
			r.print(e.Output)
		}
		if !strings.HasPrefix(e.Output, "=== ") {
			t.output += e.Output
		}
	case "pass", "skip", "fail":
		if t.state = e.Action; t.state == "fail" && !r.verbose {
			r.print(t.output)
		}
	}
}

func (r *results) takePackage(p *pkgResult, e event) {
	switch e.Action {
	case "output":
		p.own += e.Output
		if r.verbose || strings.HasPrefix(e.Output, "ok ") || strings.HasPrefix(e.Output, "?") || strings.HasPrefix(e.Output, "\t") {
			r.print(e.Output)
		}
	case "fail":
		p.failed, p.build = true, e.FailedBuild != ""
		if r.verbose {
			return
		}
		for _, name := range sorted(p.tests) {
			if t := p.tests[name]; t.state == "" {
				r.print(t.output)
			}
		}
		r.print(p.own)
	}
}

func (r *results) print(text string) { _, _ = io.WriteString(r.out, text) }

// fatal is what a test cannot be excused for by passing the next time.
var fatal = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|SIGQUIT|signal: |exit status [02-9])|race detected during execution`)

// failures returns the tests that failed, by package; a package that failed as a whole is one.
func (r *results) failures() []failure {
	module := ""
	if out, err := exec.Command("go", "list", "-m").Output(); err == nil { //nolint:noctx // at once
		module = strings.TrimSpace(string(out))
	}
	var all []failure
	for _, name := range sorted(r.pkgs) {
		p := r.pkgs[name]
		if !p.failed {
			continue
		}
		whole := p.build || fatal.MatchString(p.own)
		for _, t := range p.tests {
			whole = whole || t.state == "" || fatal.MatchString(t.output)
		}
		var failed []failure
		for _, test := range sorted(p.tests) {
			if p.tests[test].state == "fail" && !strings.Contains(test, "/") {
				failed = append(failed, failure{pkg: short(name, module), test: test, output: p.outputOf(test), rerun: !whole})
			}
		}
		switch {
		case len(failed) == 0 && p.build:
			failed = []failure{{pkg: short(name, module), why: "does not build"}}
		case len(failed) == 0:
			failed = []failure{{pkg: short(name, module), why: "failed outside of its tests, or in " + strings.Join(p.unfinished(), ", ")}}
		}
		all = append(all, failed...)
	}
	return all
}

// outputOf returns what a test and those within it said.
func (p *pkgResult) outputOf(test string) string {
	var b strings.Builder
	for _, name := range sorted(p.tests) {
		if t := p.tests[name]; name == test || t.state == "fail" && strings.HasPrefix(name, test+"/") {
			b.WriteString(t.output)
		}
	}
	return b.String()
}

func (p *pkgResult) unfinished() []string {
	var all []string
	for _, name := range sorted(p.tests) {
		if p.tests[name].state == "" {
			all = append(all, name)
		}
	}
	return all
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names
}
