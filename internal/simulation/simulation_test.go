package simulation_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"
)

var (
	seeds   = flag.Int("seeds", 50, "how many seeds to run")
	first   = flag.Uint64("first", 1, "the first seed")
	verbose = flag.Bool("trace", false, "print the trace of each seed, with what the replicas log")
)

func TestSimulation(t *testing.T) {
	for i := range *seeds {
		w := run(t, *first+uint64(i))
		if *verbose {
			fmt.Println(strings.Join(w.trace, "\n"))
		}
		if len(w.oracle.bad) > 0 {
			t.Errorf("seed %d: %s\n%s", w.seed, strings.Join(w.oracle.bad, "\n"), tail(w.trace, 150))
			return
		}
	}
}

func tail(lines []string, n int) string { return strings.Join(lines[max(0, len(lines)-n):], "\n") }
