package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// startUp is how long the start may take up more memory, to be over sooner.
const startUp = 10 * time.Second

const (
	garbage   = 8 << 20 // bytes that may be allocated between two collections
	leastGOGC = 40      // of many policies: 15 saves 10 MiB of 10,000, and takes a quarter more CPU
	mostGOGC  = 200     // of a few, which need no more
)

// limitGarbage sets GOGC after each collection, by what is alive then. A fixed share is too much for many policies, whose memory
// stays as large as it once had to be, and too little for a few, which are collected all the time.
func limitGarbage() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetGCPercent(gogc(live[0].Value.Uint64()))
	runtime.AddCleanup(&struct{ _ *byte }{}, func(struct{}) { limitGarbage() }, struct{}{}) // runs after the next collection
}

func gogc(live uint64) int {
	return int(min(max(100*garbage/max(live, 1), leastGOGC), mostGOGC))
}
