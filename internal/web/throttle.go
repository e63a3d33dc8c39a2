package web

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	failuresAtOnce = 5
	failureEvery   = 10 * time.Second // allows one more failure
	maxClients     = 1024             // remembered addresses
)

// throttle lets each client try one credential at a time, and a limited number of wrong ones: concurrent attempts are
// judged one after another, and a failure counts before the next attempt is judged. Its memory is bounded: to make room
// it forgets a client that tries nothing at the moment, or refuses the new one. A token of 16 characters stays beyond
// guessing all the same.
type throttle struct {
	mu      sync.Mutex
	clients map[string]*attempts // by address
}

// attempts are those of one client.
type attempts struct {
	turn     chan struct{} // full while a credential is judged
	failures *rate.Limiter
	pending  atomic.Int32 // requests that have or await the turn; leaves zero only under throttle.mu
}

func newThrottle() *throttle { return &throttle{clients: map[string]*attempts{}} }

// begin waits for the client's turn; !ok means that it failed too often, or that too many clients try at once. The caller
// reports the verdict by judged, whose first call counts and ends the turn.
func (t *throttle) begin(ctx context.Context, from string) (judged func(failed bool), ok bool) {
	c := t.enter(from)
	if c == nil {
		return nil, false
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		c.pending.Add(-1)
		return nil, false
	}
	var once sync.Once
	judged = func(failed bool) {
		once.Do(func() {
			if failed {
				c.failures.Allow()
			}
			<-c.turn
			c.pending.Add(-1)
		})
	}
	if c.failures.Tokens() < 1 {
		judged(false)
		return nil, false
	}
	return judged, true
}

// enter returns nil when there is no room for another client.
func (t *throttle) enter(from string) *attempts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.clients[from]
	if c == nil {
		if !t.makeRoomLocked() {
			return nil
		}
		c = &attempts{turn: make(chan struct{}, 1), failures: rate.NewLimiter(rate.Every(failureEvery), failuresAtOnce)}
		t.clients[from] = c
	}
	c.pending.Add(1)
	return c
}

func (t *throttle) makeRoomLocked() bool {
	if len(t.clients) < maxClients {
		return true
	}
	for from, c := range t.clients {
		if c.pending.Load() == 0 {
			delete(t.clients, from)
			return true
		}
	}
	return false
}
