package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// startUp is how long the start may take up more memory, to be over sooner.
const startUp = 10 * time.Second

// Between two collections this much may be allocated: little while nothing is due, which saves memory, and more while collections
// follow one another, as they do when a thousand keys are made, which costs less of the processor's time.
const (
	garbage     = 6 << 20 // bytes
	garbageBusy = 10 << 20
	busy        = 2 * time.Second // since the last collection

	leastGOGC = 20
	mostGOGC  = 200 // of a few policies, which need no more
)

// limitGarbage sets GOGC after each collection, by what is alive then. A fixed share is too much for many policies, whose memory
// stays as large as it once had to be, and too little for a few, which are collected all the time.
func limitGarbage(last time.Time) {
	live, now := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}, time.Now()
	metrics.Read(live)
	debug.SetGCPercent(gogc(live[0].Value.Uint64(), now.Sub(last)))
	runtime.AddCleanup(&struct{ _ *byte }{}, limitGarbage, now) // runs after the next collection
}

func gogc(live uint64, since time.Duration) int {
	most := uint64(garbage)
	if since < busy {
		most = garbageBusy
	}
	return int(min(max(100*most/max(live, 1), leastGOGC), mostGOGC))
}
