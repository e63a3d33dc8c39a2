package rotator

import "sync"

// quietMutex is a mutex under which nothing is logged or observed. Such calls are queued, and made by the goroutine that unlocks
// the mutex, right after: a log that blocks delays only that goroutine, not those that wait for the mutex.
type quietMutex struct {
	mu     sync.Mutex
	queued []func()
}

func (m *quietMutex) Lock() { m.mu.Lock() }

func (m *quietMutex) Unlock() {
	queued := m.queued
	m.queued = nil
	m.mu.Unlock()
	for _, call := range queued {
		call()
	}
}

func (m *quietMutex) afterUnlock(f func()) { m.queued = append(m.queued, f) }
