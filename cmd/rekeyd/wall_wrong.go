//go:build wrongclock

package main

import (
	"os"
	"time"
)

// wall is this host's clock plus the duration in TEST_CLOCK_OFFSET, for one replica of the torture test.
func wall() time.Time {
	offset, err := time.ParseDuration(os.Getenv("TEST_CLOCK_OFFSET"))
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(offset)
}
