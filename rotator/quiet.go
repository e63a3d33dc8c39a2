package rotator

import (
	"context"
	"log/slog"
	"sync"
)

// quietMutex is a mutex under which nothing is said. What is to be logged or observed is queued, and said by the goroutine
// that unlocks it, right after: a log that blocks holds up that goroutine, and none that waits for the mutex.
type quietMutex struct {
	mu     sync.Mutex
	queued []func()
}

func (m *quietMutex) Lock() { m.mu.Lock() }

func (m *quietMutex) Unlock() {
	queued := m.queued
	m.queued = nil
	m.mu.Unlock()
	for _, say := range queued {
		say()
	}
}

func (m *quietMutex) say(f func()) { m.queued = append(m.queued, f) }

// logLocked logs once Rotator.mu is unlocked.
func (r *Rotator) logLocked(level slog.Level, msg string, args ...any) {
	r.mu.say(func() { r.opt.Logger.Log(context.Background(), level, msg, args...) })
}

// observeLocked reports an event once Rotator.mu is unlocked.
func (r *Rotator) observeLocked(e Event) { r.mu.say(func() { r.opt.Observe(e) }) }
