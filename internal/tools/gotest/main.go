// Command gotest runs go test with the given flags and packages, prints what go test prints, and ends with a line for
// each test that failed: how to run it alone.
//
// With -flaky=FILE a test that failed is run again alone, twice. Where both runs pass it counts as passed, and its name and
// the output of its failure are appended to FILE, which takes at most three tests. A package that does not build,
// panics, runs into its timeout or has a data race has failed, whatever a second run would say.
//
// Packages begin with a dot and flags are written as -flag=value.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// most is how many flaky tests the file takes: where more fail, something else than the machine is at fault.
const most = 3

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout))
}

func run(ctx context.Context, args []string, out io.Writer) int {
	file, flags, packages := split(args)
	result, err := goTest(ctx, out, slices.Concat(flags, packages)...)
	if err != nil {
		_, _ = fmt.Fprintln(out, "gotest:", err)
		return 1
	}
	failed := 0
	for _, f := range result.failures() {
		command := slices.Concat([]string{"-count=1"}, alone(flags), f.pattern(), []string{f.pkg})
		if file != "" && f.rerun && passesTwice(ctx, command) && report(file, f) {
			_, _ = fmt.Fprintf(out, "gotest: FLAKY: %s %s passed twice when it was run alone\n", f.pkg, f.test)
			continue
		}
		failed++
		_, _ = fmt.Fprintf(out, "gotest: FAILED: %s %s%s\n  go test %s\n", f.pkg, f.test, f.why, quoted(command))
	}
	if failed > 0 || !result.ok && len(result.failures()) == 0 {
		return 1
	}
	return 0
}

// split takes the arguments apart.
func split(args []string) (file string, flags, packages []string) {
	for _, a := range args {
		name, isFlaky := strings.CutPrefix(a, "-flaky=")
		switch {
		case isFlaky:
			file = name
		case strings.HasPrefix(a, "."):
			packages = append(packages, a)
		default:
			flags = append(flags, a)
		}
	}
	return file, flags, packages
}

// alone returns the flags for a test that is run alone.
func alone(flags []string) []string {
	return slices.DeleteFunc(slices.Clone(flags), func(f string) bool {
		return strings.HasPrefix(f, "-run=") || strings.HasPrefix(f, "-shuffle") || strings.HasPrefix(f, "-count") || f == "-v"
	})
}

func quoted(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if strings.ContainsAny(a, "^$| *") {
			a = "'" + a + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}

func passesTwice(ctx context.Context, command []string) bool {
	for range 2 {
		if r, err := goTest(ctx, io.Discard, command...); err != nil || !r.ok {
			return false
		}
	}
	return true
}

// report adds a flaky test to the file, and says whether there was room for it.
func report(file string, f failure) bool {
	const mark = "FLAKY: "
	have, err := os.ReadFile(file) //nolint:gosec // named on the command line
	if err != nil && !os.IsNotExist(err) || strings.Count("\n"+string(have), "\n"+mark) >= most {
		return false
	}
	text := fmt.Sprintf("%s%s %s\n%s", mark, f.pkg, f.test, indent(f.output))
	return os.WriteFile(file, append(have, text...), 0o600) == nil //nolint:gosec // named on the command line
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// goTest runs go test -json and prints its stream as go test would.
func goTest(ctx context.Context, out io.Writer, args ...string) (*results, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...) //nolint:gosec // what the caller asked for
	cmd.Stderr = out
	stream, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting go test: %w", err)
	}
	r := &results{out: out, verbose: slices.Contains(args, "-v")}
	readErr := r.read(stream)
	r.ok = cmd.Wait() == nil
	return r, readErr
}

// short is the package as a person would name it inside the module.
func short(pkg, module string) string {
	if pkg == module {
		return "."
	}
	return "./" + path.Clean(strings.TrimPrefix(pkg, module+"/"))
}
