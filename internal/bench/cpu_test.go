package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const clockTick = 10 * time.Millisecond // of /proc on Linux

// cpu returns what this process and those that it started have used of the processors so far, by their names.
func cpu() map[string]time.Duration {
	used := map[string]time.Duration{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		name, rest, _ := strings.Cut(string(text), ") ")
		_, name, _ = strings.Cut(name, " (")
		fields := strings.Fields(rest)
		pid, parent := filepath.Base(filepath.Dir(file)), fields[1]
		if self := strconv.Itoa(os.Getpid()); parent != self && pid != self {
			continue
		} else if pid == self {
			name = "loop"
		}
		for _, ticks := range fields[11:13] { // user and system
			n, _ := strconv.ParseInt(ticks, 10, 64)
			used[name] += time.Duration(n) * clockTick
		}
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
