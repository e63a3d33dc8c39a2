//go:build wrongclock

package main

import (
	"os"
	"time"
)

// wall is this host's clock, set wrong by the duration in TEST_CLOCK_OFFSET: torture runs one replica like that.
func wall() time.Time {
	offset, err := time.ParseDuration(os.Getenv("TEST_CLOCK_OFFSET"))
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(offset)
}
