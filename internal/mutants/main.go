// Command mutants measures how many small mistakes the tests of a package notice. It makes every mistake in one copy of the
// source, each behind a switch, compiles the tests once, and runs for each mistake the tests that reach it, quickest first:
//
//	go run ./internal/mutants [-tests rotator,rotator/ledger] [-sample 100] rotator/rotate.go rotator/plan rotator/ledger
//
// It takes files and folders. A mistake is: a condition turned round, an operand of && or || left out, or a statement left out.
// What survives is printed with its place; -again tries only what such an output names, as long as the source is the same.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// verdict is what the tests made of one mutant.
type verdict string

const (
	killed    verdict = "killed"
	survived  verdict = "survived"
	unreached verdict = "not reached" // by any test; counts as survived
)

// options are what the command line says beside the places.
type options struct {
	tests   []string // folders
	sample  int
	again   string
	run     string
	slow    time.Duration
	workers int
}

func main() {
	var o options
	tests := flag.String("tests", "", "the folders whose tests are run, separated by commas (default: those of the places)")
	flag.IntVar(&o.sample, "sample", 0, "try only so many of each folder, drawn at random, always the same; 0: all")
	flag.StringVar(&o.again, "again", "", "try only the mutants that this file, an earlier output, names")
	flag.StringVar(&o.run, "run", ".", "run only the tests that this regular expression matches")
	flag.DurationVar(&o.slow, "slow", time.Minute, "leave out tests that take longer than this without a mutant")
	flag.IntVar(&o.workers, "workers", 1, "test so many mutants at a time")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: mutants [-tests FOLDER,...] [-sample N] [-again FILE] [-run REGEXP] [-slow 1m] [-workers 1] FILE|FOLDER ...")
		os.Exit(2)
	}
	if *tests != "" {
		o.tests = strings.Split(*tests, ",")
	}
	if err := run(context.Background(), flag.Args(), o); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, places []string, o options) error {
	work, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	mutants, folders, err := plant(places, work)
	if err != nil {
		return err
	}
	if mutants, err = choose(mutants, o); err != nil {
		return err
	}
	if len(o.tests) == 0 {
		o.tests = folders
	}
	l := lab{work: work, options: o}
	if err := l.build(ctx); err != nil {
		return err
	}
	reached, err := l.trace(ctx)
	if err != nil {
		return err
	}
	report(mutants, l.try(ctx, mutants, reached))
	return nil
}

// choose returns the mutants to try.
func choose(mutants []mutant, o options) ([]mutant, error) {
	if o.again != "" {
		text, err := os.ReadFile(o.again)
		if err != nil {
			return nil, err
		}
		named := strings.Split(string(text), "\n")
		mutants = slices.DeleteFunc(mutants, func(m mutant) bool {
			return !slices.Contains(named, m.line(survived)) && !slices.Contains(named, m.line(unreached))
		})
	}
	if o.sample > 0 {
		draw := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same draw each time is the point
		draw.Shuffle(len(mutants), func(i, j int) { mutants[i], mutants[j] = mutants[j], mutants[i] })
		drawn := map[string]int{}
		mutants = slices.DeleteFunc(mutants, func(m mutant) bool { drawn[filepath.Dir(m.file)]++; return drawn[filepath.Dir(m.file)] > o.sample })
		slices.SortFunc(mutants, func(a, b mutant) int { return cmp.Compare(a.id, b.id) })
	}
	return mutants, nil
}

// lab runs tests that have every mutant in them.
type lab struct {
	work string
	options
}

// test is one test, and how long it takes without a mutant.
type test struct {
	dir, name string
	took      time.Duration
}

func (l lab) binary(dir string) string {
	return filepath.Join(l.work, strings.ReplaceAll(dir, "/", "_")+".test")
}

func (l lab) build(ctx context.Context) error {
	for _, dir := range l.tests {
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", filepath.Join(l.work, "overlay.json"), "-o", l.binary(dir), "./"+dir) //nolint:gosec // a folder that the caller names
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("compiling the tests of %s with the mutants: %w\n%s", dir, err, out)
		}
	}
	return nil
}

// run runs the tests of one folder whose names the pattern matches.
func (l lab) test(ctx context.Context, timeout time.Duration, dir, pattern string, env ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.binary(dir), "-test.failfast", "-test.run", pattern) //nolint:gosec // the binary that was just built
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	return cmd.CombinedOutput()
}

// trace runs each test once, without a mutant, and returns the tests that reach each place, quickest first.
func (l lab) trace(ctx context.Context) (map[int][]test, error) {
	var tests []test
	for _, dir := range l.tests {
		out, err := exec.CommandContext(ctx, l.binary(dir), "-test.list", l.run).Output() //nolint:gosec // likewise
		if err != nil {
			return nil, fmt.Errorf("listing the tests of %s: %w", dir, err)
		}
		for _, name := range strings.Fields(string(out)) {
			if strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") {
				tests = append(tests, test{dir: dir, name: name})
			}
		}
	}
	var mu sync.Mutex
	reached := map[int][]test{}
	l.each(len(tests), func(i int) {
		t := tests[i]
		file := filepath.Join(l.work, fmt.Sprint("trace", i))
		begun := time.Now()
		out, err := l.test(ctx, 5*time.Minute, t.dir, "^"+t.name+"$", "MUTANT_TRACE="+file)
		t.took = time.Since(begun)
		text, _ := os.ReadFile(file) //nolint:gosec // written by the test process just now
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil: // it counts allocations, or is broken
			fmt.Fprintf(os.Stderr, "mutants: %s fails without a mutant and is left out: %v\n%s", t.name, err, out)
			return
		case t.took > l.slow:
			fmt.Fprintf(os.Stderr, "mutants: %s takes %s and is left out\n", t.name, t.took.Round(time.Second))
			return
		}
		for _, line := range strings.Fields(string(text)) {
			if id, err := strconv.Atoi(line); err == nil {
				reached[id] = append(reached[id], t)
			}
		}
	})
	for _, names := range reached {
		slices.SortFunc(names, func(a, b test) int { return cmp.Compare(a.took, b.took) })
	}
	return reached, nil
}

// try returns what the tests make of each mutant, and prints what survives.
func (l lab) try(ctx context.Context, mutants []mutant, reached map[int][]test) []verdict {
	verdicts := make([]verdict, len(mutants))
	var mu sync.Mutex
	done := 0
	l.each(len(mutants), func(i int) {
		m := mutants[i]
		verdicts[i] = l.verdict(ctx, m, reached[m.id])
		mu.Lock()
		defer mu.Unlock()
		if verdicts[i] != killed {
			fmt.Println(m.line(verdicts[i]))
		}
		if done++; done%20 == 0 {
			fmt.Fprintf(os.Stderr, "mutants: %d of %d tried\n", done, len(mutants))
		}
	})
	return verdicts
}

// verdict runs the tests that reach a mutant in batches, the quick ones first, and kills a batch that hangs.
func (l lab) verdict(ctx context.Context, m mutant, tests []test) verdict {
	if len(tests) == 0 {
		return unreached
	}
	for most := 100 * time.Millisecond; len(tests) > 0; most *= 4 {
		names := map[string][]string{}
		var took time.Duration
		for len(tests) > 0 && (took == 0 || took+tests[0].took <= most) {
			names[tests[0].dir] = append(names[tests[0].dir], tests[0].name)
			took += tests[0].took
			tests = tests[1:]
		}
		for dir, names := range names {
			if _, err := l.test(ctx, 5*took+10*time.Second, dir, "^("+strings.Join(names, "|")+")$", fmt.Sprint("MUTANT=", m.id)); err != nil {
				return killed
			}
		}
	}
	return survived
}

// each calls do for every index below n, as many at a time as there are workers.
func (l lab) each(n int, do func(i int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range l.workers {
		workers.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
}

// report prints the score of each file.
func report(mutants []mutant, verdicts []verdict) {
	type score struct{ killed, all int }
	scores := map[string]*score{}
	for i, m := range mutants {
		s := scores[m.file]
		if s == nil {
			s = &score{}
			scores[m.file] = s
		}
		s.all++
		if verdicts[i] == killed {
			s.killed++
		}
	}
	var total score
	fmt.Println()
	for _, file := range slices.Sorted(maps.Keys(scores)) {
		s := scores[file]
		total.killed, total.all = total.killed+s.killed, total.all+s.all
		fmt.Printf("%-28s %4d of %4d killed, %3d %%\n", file, s.killed, s.all, 100*s.killed/s.all)
	}
	if total.all > 0 {
		fmt.Printf("%-28s %4d of %4d killed, %3d %%\n", "all", total.killed, total.all, 100*total.killed/total.all)
	}
}

// writeOverlay tells the compiler which files to take in place of those of the package.
func writeOverlay(work string, replace map[string]string) error {
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(work, "overlay.json"), text, 0o600)
}
