package simulation_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	seeds   = flag.Int("seeds", 60, "how many seeds to run")
	first   = flag.Uint64("first", 1, "the first seed")
	verbose = flag.Bool("trace", false, "run the seeds here, and print what happened in them with what the replicas log")
)

// result is what a run of many seeds found.
type result struct {
	Seeds  int
	Hits   map[string]int    // fault × step
	Failed map[uint64]string // what was violated, and the end of the trace
}

// TestSimulation runs seeds in processes of one thread each: in one thread a seed plays exactly the same every time.
func TestSimulation(t *testing.T) {
	if os.Getenv("REKEYD_SIMULATE") != "" {
		simulateHere(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if *verbose {
		out, err := there(t.Context(), self, *first, uint64(*seeds), *direct, "-trace").CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	total := simulate(t, self, *first, *seeds, runtime.NumCPU(), *direct)
	for seed, what := range total.Failed {
		t.Errorf("seed %d: %s\nreplay it with: go test ./internal/simulation -v -args -trace -seeds=1 -first=%d", seed, what, seed)
	}
	t.Logf("%d seeds, %d of them clean", total.Seeds, total.Seeds-len(total.Failed))
	if *seeds >= 1000 {
		checkCoverage(t, total.Hits)
	}
}

// TestASeedReplaysExactly compares the traces of two processes, call by call and to the nanosecond.
func TestASeedReplaysExactly(t *testing.T) {
	if os.Getenv("REKEYD_SIMULATE") != "" {
		return
	}
	if raceDetector {
		t.Log("the race detector shuffles goroutines on purpose; make simulate runs this without it")
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range []uint64{3, 1168, 10239} {
		var traces [2]string
		for i := range traces {
			out, err := there(t.Context(), self, seed, 1, "", "-trace").CombinedOutput()
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, out)
			}
			traces[i], _, _ = strings.Cut(string(out), resultMark)
		}
		a, b := inOrder(strings.Split(traces[0], "\n")), inOrder(strings.Split(traces[1], "\n"))
		if len(a) < 500 {
			t.Errorf("seed %d: a trace of %d lines", seed, len(a))
		}
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("seed %d: line %d differs:\n%s\n%s", seed, i, a[i], b[i])
			}
		}
	}
}

// inOrder sorts what the workers of a process log at one instant: it does not hang on anything who of them comes first.
func inOrder(lines []string) []string {
	instant := func(line string) string {
		at, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if who, _, said := strings.Cut(rest, " says "); said {
			return at + who
		}
		return ""
	}
	for from := 0; from < len(lines); {
		to := from + 1
		for to < len(lines) && instant(lines[from]) != "" && instant(lines[to]) == instant(lines[from]) {
			to++
		}
		slices.Sort(lines[from:to])
		from = to
	}
	return lines
}

// simulate plays seeds in processes of the given test binary.
func simulate(t *testing.T, binary string, first uint64, n, workers int, profile string) result {
	t.Helper()
	total := result{Hits: map[string]int{}, Failed: map[uint64]string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	workers = min(workers, n)
	for i := range workers {
		from, to := first+uint64(n*i/workers), first+uint64(n*(i+1)/workers)
		wg.Go(func() {
			r, err := simulateThere(t.Context(), binary, from, to-from, profile)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("simulating seeds from %d: %v", from, err)
			}
			total.Seeds += r.Seeds
			maps.Copy(total.Failed, r.Failed)
			for k, v := range r.Hits {
				total.Hits[k] += v
			}
		})
	}
	wg.Wait()
	return total
}

const resultMark = "RESULT "

func simulateThere(ctx context.Context, binary string, first, n uint64, profile string) (result, error) {
	var r result
	out, err := there(ctx, binary, first, n, profile).CombinedOutput()
	scan := bufio.NewScanner(bytes.NewReader(out))
	scan.Buffer(nil, 64<<20)
	for scan.Scan() {
		if text, found := strings.CutPrefix(scan.Text(), resultMark); found {
			return r, json.Unmarshal([]byte(text), &r)
		}
	}
	return r, fmt.Errorf("it ended without a result: %w\n%s", err, out[max(0, len(out)-8000):])
}

// there returns a process of one thread that plays the seeds.
func there(ctx context.Context, binary string, first, n uint64, profile string, more ...string) *exec.Cmd {
	args := append([]string{"-test.run=^TestSimulation$", "-test.timeout=80m", fmt.Sprintf("-first=%d", first), fmt.Sprintf("-seeds=%d", n), "-profile=" + profile}, more...)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "REKEYD_SIMULATE=1", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", "GOGC=off", "GOMEMLIMIT=1GiB")
	return cmd
}

// simulateHere plays the seeds in this process. A violated invariant ends the run: the rest would say the same.
func simulateHere(t *testing.T) {
	r := result{Hits: map[string]int{}, Failed: map[uint64]string{}}
	for i := range *seeds {
		w := run(t, *first+uint64(i))
		runtime.GC() // between seeds only: in the middle of one it would move goroutines about
		if *verbose {
			_, _ = fmt.Fprintln(os.Stdout, strings.Join(w.lines(), "\n"))
		}
		r.Seeds++
		for k, v := range w.hits {
			r.Hits[k] += v
		}
		if len(w.oracle.bad) > 0 {
			r.Failed[w.seed] = strings.Join(w.oracle.bad, "\n") + "\n…\n" + w.around()
			break
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintln(os.Stdout, resultMark+string(text))
}

// around returns the part of the trace that leads to the first violation, without the calls that only look.
func (w *world) around() string {
	all := w.lines()
	at := slices.IndexFunc(all, func(s string) bool { return strings.Contains(s, "VIOLATION") })
	var lines []string
	for _, line := range all[:at+1] {
		if !strings.Contains(line, "read →") && !strings.Contains(line, "list ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// checkCoverage fails when a fault never struck a step: then nothing was learnt about it.
func checkCoverage(t *testing.T, hits map[string]int) {
	steps := []string{"claim and intent", "claim", "commit", "create", "record write", "disable", "delete", "ledger read", "record read", "verify read", "probe read", "list keys", "list accounts", "group read", "group write"}
	faults := append(undone(), done()...)
	var table strings.Builder
	for _, step := range steps {
		fmt.Fprintf(&table, "\n%-18s", step)
		all := faults
		if !strings.HasSuffix(step, "read") && !strings.HasPrefix(step, "list") {
			all = append(slices.Clone(faults), "crash before", "crash after", "freeze", "late", "suspended")
		}
		for _, f := range all {
			n := hits[f+" × "+step]
			fmt.Fprintf(&table, " %s=%d", strings.ReplaceAll(f, " ", "_"), n)
			if n == 0 {
				t.Errorf("%s never struck %s", f, step)
			}
		}
	}
	for _, m := range meddlings() {
		fmt.Fprintf(&table, "\nothers: %s=%d", m, hits["others × "+m])
		if hits["others × "+m] == 0 {
			t.Errorf("nobody ever did this: %s", m)
		}
	}
	for _, what := range []string{"others × in mid-rotation", "others × after a death in mid-rotation", "others × a working key came back", "start × adopted key", "start × full account", "start × ignored allowlist", "start × standbys that lag", "start × wrong assumptions", "start × admin key", "old key × used",
		"listing × under the claim", "create × doubled", "start × copied record", "outage × one mount", "outage × one mount to the end", "others × name taken back", "others × place taken back",
		"others × policy added again", "others × pruned policy added again", "others × snapshot in mid-rotation", "command done: rename",
		"request × accepted", "request × after a rotation", "request × after the first publication", "late × disabled the current key", "late × enabled an old key", "others × limit changed",
		"probe × answered before a publication", "probe × refused", "voice × shared with one key", "voice × shared with the account again", "counter × began anew",
		"overlap × waited until the new key was used", "overlap × ended though the new key was not used",
		"proof × rejected", "proof × still_accepted", "proof × still accepted, then rejected", "proof × not_tried", "history × has a publication"} {
		fmt.Fprintf(&table, "\n%s=%d", what, hits[what])
		if hits[what] == 0 {
			t.Errorf("this never happened: %s", what)
		}
	}
	for _, outcome := range []string{"done", "failed", "crashed"} {
		for _, verb := range []string{"rotate", "rollback", "prune", "leaked"} {
			n := hits["command "+outcome+": "+verb]
			fmt.Fprintf(&table, "\ncommand %s: %s=%d", outcome, verb, n)
			if n == 0 {
				t.Errorf("no command ever %s: %s", outcome, verb)
			}
		}
	}
	t.Log(table.String())
}
