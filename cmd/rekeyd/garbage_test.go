package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"

	"github.com/rekeyd/rekeyd/internal/process"
)

// TestGarbageIsLimited while the heap grows and when it shrinks again.
func TestGarbageIsLimited(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	for live, want := range map[uint64]int{0: mostGOGC, 1 << 20: mostGOGC, 16 << 20: 50, 60 << 20: leastGOGC, 1 << 40: leastGOGC} {
		if got := gogc(live); got != want {
			t.Errorf("%d bytes are alive: GOGC is %d, not %d", live, got, want)
		}
	}
	limitGarbage()
	var policies []byte
	for _, size := range []int{1 << 20, 200 << 20, 1 << 20} {
		policies = make([]byte, size)
		process.Eventually(t, process.Patience, func() error {
			runtime.GC()
			now := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/heap/live:bytes"}}
			metrics.Read(now)
			if got, live := int(now[0].Value.Uint64()), now[1].Value.Uint64(); got != gogc(live) || (len(policies) > 100<<20) != (got == leastGOGC) {
				return fmt.Errorf("%d bytes were made, %d are alive, and GOGC is %d", len(policies), live, got)
			}
			return nil
		})
		runtime.KeepAlive(policies)
	}
}
