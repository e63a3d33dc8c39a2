// Command mutants measures how many small mistakes in a package its tests notice. It makes every mistake in one copy of
// the package, each behind a switch, compiles the tests once, and runs for each mistake the tests that reach it:
//
//	go run ./internal/mutants [-files rotate.go,plan.go] [-sample 100] [-timeout 2m] rotator
//
// A mistake is: a condition turned round, an operand of && or || left out, or a statement left out. What survives is
// printed with its place.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

func main() {
	files := flag.String("files", "", "only these files of the package, separated by commas")
	sample := flag.Int("sample", 0, "try only so many, drawn at random, always the same; 0: all")
	timeout := flag.Duration("timeout", 2*time.Minute, "for the tests of one mutant; a mutant that hangs is killed")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: mutants [-files a.go,b.go] [-sample N] [-timeout 2m] FOLDER")
		os.Exit(2)
	}
	var only []string
	if *files != "" {
		only = strings.Split(*files, ",")
	}
	if err := run(context.Background(), flag.Arg(0), only, *sample, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, only []string, sample int, timeout time.Duration) error {
	work, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	mutants, err := plant(dir, work, only)
	if err != nil {
		return err
	}
	if sample > 0 && sample < len(mutants) {
		draw := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same draw each time is the point
		draw.Shuffle(len(mutants), func(i, j int) { mutants[i], mutants[j] = mutants[j], mutants[i] })
		mutants = mutants[:sample]
		slices.SortFunc(mutants, func(a, b mutant) int { return cmp.Compare(a.id, b.id) })
	}
	l := lab{dir: dir, binary: filepath.Join(work, "tests"), work: work, timeout: timeout}
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

// lab runs the tests of one package that has every mutant in it.
type lab struct {
	dir, binary, work string
	timeout           time.Duration
}

func (l lab) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", filepath.Join(l.work, "overlay.json"), "-o", l.binary, "./"+l.dir) //nolint:gosec // a folder that the caller names
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the mutants: %w\n%s", err, out)
	}
	return nil
}

// test runs the tests whose names the pattern matches.
func (l lab) test(ctx context.Context, pattern string, env ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.binary, "-test.failfast", "-test.run", pattern) //nolint:gosec // the binary that was just built
	cmd.Dir, cmd.Env = l.dir, append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	return cmd.CombinedOutput()
}

// trace runs each test once, without a mutant, and returns the tests that reach each place, quickest first.
func (l lab) trace(ctx context.Context) (map[int][]string, error) {
	out, err := exec.CommandContext(ctx, l.binary, "-test.list", ".").Output() //nolint:gosec // likewise
	if err != nil {
		return nil, fmt.Errorf("listing the tests: %w", err)
	}
	tests := slices.DeleteFunc(strings.Fields(string(out)), func(s string) bool { return !strings.HasPrefix(s, "Test") })
	var mu sync.Mutex
	took := map[string]time.Duration{}
	reached := map[int][]string{}
	var failures []error
	each(tests, func(i int, name string) {
		file := filepath.Join(l.work, fmt.Sprint("trace", i))
		begun := time.Now()
		out, err := l.test(ctx, "^"+name+"$", "MUTANT_TRACE="+file)
		text, _ := os.ReadFile(file) //nolint:gosec // written by the test process just now
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failures = append(failures, fmt.Errorf("%s fails without a mutant: %w\n%s", name, err, out))
		}
		took[name] = time.Since(begun)
		for _, line := range strings.Fields(string(text)) {
			if id, err := strconv.Atoi(line); err == nil {
				reached[id] = append(reached[id], name)
			}
		}
	})
	for _, names := range reached {
		slices.SortFunc(names, func(a, b string) int { return cmp.Compare(took[a], took[b]) })
	}
	return reached, errors.Join(failures...)
}

func (l lab) try(ctx context.Context, mutants []mutant, reached map[int][]string) []verdict {
	verdicts := make([]verdict, len(mutants))
	var mu sync.Mutex
	done := 0
	each(mutants, func(i int, m mutant) {
		verdicts[i] = unreached
		if tests := reached[m.id]; len(tests) > 0 {
			verdicts[i] = survived
			if _, err := l.test(ctx, "^("+strings.Join(tests, "|")+")$", fmt.Sprint("MUTANT=", m.id)); err != nil {
				verdicts[i] = killed
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if done++; done%100 == 0 {
			fmt.Fprintf(os.Stderr, "mutants: %d of %d tried\n", done, len(mutants))
		}
	})
	return verdicts
}

// each calls do for every item, on as many processors as there are.
func each[T any](items []T, do func(i int, item T)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for i := range next {
				do(i, items[i])
			}
		})
	}
	for i := range items {
		next <- i
	}
	close(next)
	workers.Wait()
}

// report prints what survived, and the score of each file.
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
			continue
		}
		fmt.Printf("%s:%d: %s: %s\n", m.file, m.line, verdicts[i], m.what)
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
