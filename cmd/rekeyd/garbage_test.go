package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

func TestGOGC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		live  uint64
		since time.Duration
		want  int
	}{
		{0, time.Hour, mostGOGC}, {0, 0, mostGOGC}, {1 << 20, time.Hour, mostGOGC},
		{12 << 20, time.Hour, 50}, {12 << 20, time.Second, 83},
		{32 << 20, time.Hour, leastGOGC}, {32 << 20, time.Second, 31}, {1 << 40, time.Second, leastGOGC},
	} {
		if got := gogc(c.live, c.since); got != c.want {
			t.Errorf("%d bytes are alive, %s after the last collection: GOGC is %d, not %d", c.live, c.since, got, c.want)
		}
	}
}

// TestGarbageIsLimited while the heap grows and when it shrinks again.
func TestGarbageIsLimited(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	limitGarbage(time.Now())
	var policies []byte
	for _, size := range []int{1 << 20, 200 << 20, 1 << 20} {
		policies = make([]byte, size)
		process.Eventually(t, process.Patience, func() error {
			runtime.GC()
			now := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/heap/live:bytes"}}
			metrics.Read(now)
			if got, live := int(now[0].Value.Uint64()), now[1].Value.Uint64(); got != gogc(live, 0) || (len(policies) > 100<<20) != (got == leastGOGC) {
				return fmt.Errorf("%d bytes were made, %d are alive, and GOGC is %d", len(policies), live, got)
			}
			return nil
		})
		runtime.KeepAlive(policies)
	}
}
