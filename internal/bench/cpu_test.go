package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

const clockTick = 10 * time.Millisecond // of /proc on Linux

// running is a process, and what it has used of the processors.
type running struct {
	pid  int
	name string
	used time.Duration
}

// processes returns this process, which makes the loop's calls, and those that it started.
func processes() []running {
	var all []running
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		name, rest, _ := strings.Cut(string(text), ") ")
		_, name, _ = strings.Cut(name, " (")
		fields := strings.Fields(rest)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if pid == os.Getpid() {
			name = "loop"
		} else if fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		p := running{pid: pid, name: name}
		for _, ticks := range fields[11:13] { // user and system
			n, _ := strconv.ParseInt(ticks, 10, 64)
			p.used += time.Duration(n) * clockTick
		}
		all = append(all, p)
	}
	return all
}

// cpu returns what this process and those that it started have used of the processors so far, by their names.
func cpu() map[string]time.Duration {
	used := map[string]time.Duration{}
	for _, p := range processes() {
		used[p.name] += p.used
	}
	return used
}

// cpuSince says what each process used per rotation since then.
func cpuSince(before map[string]time.Duration, names ...string) string {
	now := cpu()
	words := make([]string, len(names))
	for i, name := range names {
		words[i] = fmt.Sprintf("%s %.2f", name, float64((now[name]-before[name]).Microseconds())/1000/accounts)
	}
	return strings.Join(words, ", ")
}

// apart gives the remotes the last processor, and the others to this process and what it starts from then on, as where Vault has a
// machine of its own.
func apart(t *testing.T) {
	t.Helper()
	last := runtime.NumCPU() - 1
	for _, p := range processes() {
		if p.name == "vault" || p.name == "elevensim" {
			place(t, p.pid, strconv.Itoa(last))
		}
	}
	place(t, os.Getpid(), fmt.Sprint("0-", last-1))
	runtime.GOMAXPROCS(last)
}

// together undoes apart.
func together(t *testing.T) {
	t.Helper()
	for _, p := range processes() {
		place(t, p.pid, fmt.Sprint("0-", runtime.NumCPU()-1))
	}
	runtime.GOMAXPROCS(runtime.NumCPU())
}

func place(t *testing.T, pid int, processors string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "taskset", "-acp", processors, strconv.Itoa(pid)).CombinedOutput(); err != nil {
		t.Fatalf("taskset: %v\n%s", err, out)
	}
}
