package rotator_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// hot is what runs most often: for each policy at each look, or several times in each rotation.
type hot struct {
	name   string
	do     func()
	allocs float64 // at most, with half as much again as was measured
}

func hotPaths(tb testing.TB) []hot {
	tb.Helper()
	p, o := planStage(tb)
	o.Entry.Schema, o.Entry.Salt = 1, "salt"
	text, err := json.Marshal(o.Entry) // as it comes back from the store
	if err != nil {
		tb.Fatal(err)
	}
	at := planNow
	return []hot{
		{"plan", func() { plan.Plan(p, o, planNow) }, 6},
		{"entry to document", func() {
			if _, err := json.Marshal(o.Entry); err != nil {
				tb.Fatal(err)
			}
		}, 50},
		{"document to entry", func() {
			if _, err := ledger.ParseEntry(text, p.Name); err != nil {
				tb.Fatal(err)
			}
		}, 75},
		{"next run", func() { at = p.Schedule.Next(at.Add(time.Hour)) }, 0},
		{"settings' digest", func() { _ = p.Settings.Digest() }, 10},
	}
}

func TestHotPathsAllocateNoMoreThanTheyDid(t *testing.T) {
	for _, h := range hotPaths(t) {
		if got := testing.AllocsPerRun(100, h.do); got > h.allocs {
			t.Errorf("%s: %.0f allocations, at most %.0f are expected", h.name, got, h.allocs)
		}
	}
}

func BenchmarkHotPaths(b *testing.B) {
	for _, h := range hotPaths(b) {
		b.Run(h.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.do()
			}
		})
	}
}
