package elevenlabs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	firstPause = time.Second
	maxPause   = time.Minute

	// cut is what a refusal for too many requests leaves of the rate that was answered, growth what comes back a second: a rate
	// is found again after 80 seconds, and used to 92 % on the way, whatever it is.
	cut       = 0.85
	growth    = 0.002
	deepest   = 8    // one refusal divides the rate by no more, however little was answered
	few       = 4    // requests of late, counting those in flight
	lowest    = 0.05 // requests a second
	unbounded = 1000 // requests a second; a higher rate than this is none

	// recovery is how many answered requests let one more be in flight after a refusal for too many at once.
	recovery = 100
)

// budget decides when each request of a client is sent: in which order, how many a second, how many at once, and none in a
// pause. What ElevenLabs refuses lowers the rate or the number in flight; both recover slowly, and no further than configured.
type budget struct {
	mu      sync.Mutex
	waiting []*place    // in the order of their turns
	timer   *time.Timer // grants what time allows
	until   time.Time   // nothing is sent before
	next    time.Duration

	ceiling rate.Limit
	limiter *rate.Limiter
	grown   time.Time // when the rate last grew
	answers throughput

	inFlight, most, maxInFlight int
	narrowed                    time.Time // when most was last lowered
	answered                    int       // since most changed
}

func newBudget(perSecond float64, conns int) *budget {
	ceiling := rate.Inf
	if perSecond > 0 {
		ceiling = rate.Limit(perSecond)
	}
	return &budget{ceiling: ceiling, limiter: rate.NewLimiter(ceiling, burst(ceiling)), next: firstPause, most: conns, maxInFlight: conns}
}

func burst(r rate.Limit) int { return int(max(1, min(float64(r), math.MaxInt32))) }

// place is a request's place in the queue.
type place struct {
	at      time.Time // its turn comes before that of later ones; zero: it was never enqueued
	granted chan struct{}
}

// enqueue lets a request wait for its turn. p may wait already, for a later one.
func (b *budget) enqueue(p *place, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	waits := b.leaveLocked(p)
	if p.at.IsZero() || waits && at.Before(p.at) {
		p.at, waits = at, true
	}
	if waits {
		i := slices.IndexFunc(b.waiting, func(other *place) bool { return p.at.Before(other.at) })
		if i < 0 {
			i = len(b.waiting)
		}
		b.waiting = slices.Insert(b.waiting, i, p)
	}
	b.grantLocked()
}

// leaveLocked takes a request out of the queue, and reports whether it was there.
func (b *budget) leaveLocked(p *place) bool {
	i := slices.Index(b.waiting, p)
	if i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
	}
	return i >= 0
}

// grantLocked grants what may be sent now, and sets the timer for the rest.
func (b *budget) grantLocked() {
	now := time.Now()
	b.growLocked(now)
	for len(b.waiting) > 0 && b.inFlight < b.most {
		if wait := b.delayLocked(now); wait > 0 {
			if b.timer == nil {
				b.timer = time.AfterFunc(wait, b.grant)
			} else {
				b.timer.Reset(wait)
			}
			return
		}
		b.inFlight++
		close(b.waiting[0].granted)
		b.waiting = slices.Delete(b.waiting, 0, 1)
	}
}

func (b *budget) grant() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.grantLocked()
}

// delayLocked takes a token and returns 0, or returns how long to wait for one.
func (b *budget) delayLocked(now time.Time) time.Duration {
	if wait := b.until.Sub(now); wait > 0 {
		return wait
	}
	token := b.limiter.ReserveN(now, 1)
	wait := token.DelayFrom(now)
	if wait > 0 {
		token.CancelAt(now)
	}
	return wait
}

// try grants a request that need not wait; nil: it must.
func (b *budget) try() *slot {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.growLocked(now); len(b.waiting) > 0 || b.inFlight >= b.most || b.delayLocked(now) > 0 {
		return nil
	}
	b.inFlight++
	return &slot{b: b}
}

// wait returns when one request may be sent, or with the context's error.
func (b *budget) wait(ctx context.Context) (*slot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s := b.try(); s != nil {
		return s, nil
	}
	p := &place{granted: make(chan struct{})}
	b.enqueue(p, time.Now().Add(patience(ctx)))
	return b.granted(ctx, p)
}

// granted waits for a turn.
func (b *budget) granted(ctx context.Context, p *place) (*slot, error) {
	select {
	case <-p.granted:
		return &slot{b: b}, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case p.at.IsZero(): // it may still be enqueued
		p.at = time.Now()
	case b.leaveLocked(p):
	default: // it was granted meanwhile
		b.inFlight--
		b.grantLocked()
	}
	return nil, ctx.Err()
}

// slot is the leave to send one request. It counts as in flight until it is released.
type slot struct {
	b    *budget
	used atomic.Bool
	done atomic.Bool
}

func (s *slot) release() {
	if s.done.Swap(true) {
		return
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.inFlight--
	s.b.grantLocked()
}

type (
	slotKey     struct{}
	patienceKey struct{}
)

// Reserve waits until one request may be sent, and returns a context whose next call is sent at once. A caller can then
// check a condition right before the call, without a wait in between. If it does not make the call, it calls Cancel.
func (c *Client) Reserve(ctx context.Context) (context.Context, error) {
	s, err := c.budget.wait(ctx)
	if err != nil {
		return ctx, fmt.Errorf("waiting for the rate budget: %w", err)
	}
	return context.WithValue(ctx, slotKey{}, s), nil
}

// Cancel gives back what Reserve reserved, if no call has used it.
func Cancel(ctx context.Context) {
	if s, ok := ctx.Value(slotKey{}).(*slot); ok && !s.used.Swap(true) {
		s.release()
	}
}

// WithPatience lets the calls under the context be overtaken by those that come up to d later. With a negative d they overtake
// those that came up to d earlier. A listing with patience also waits a moment for others to share it.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

func patience(ctx context.Context) time.Duration {
	d, _ := ctx.Value(patienceKey{}).(time.Duration)
	return d
}

// ready returns the slot that the context has reserved, or waits for one.
func (b *budget) ready(ctx context.Context) (*slot, error) {
	if s, ok := ctx.Value(slotKey{}).(*slot); ok && s.b == b && !s.used.Swap(true) {
		return s, ctx.Err()
	}
	return b.wait(ctx)
}

// learn adapts the budget to an answer; e is nil for a success. A 429 or a Retry-After pauses all requests, so that only those
// in flight follow; without a Retry-After pauses double, up to a minute. A concurrency limit needs no pause: it ends with our own
// requests.
func (b *budget) learn(e *Error, sent time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	limited := e != nil && errors.Is(e, ErrRateLimited) && !errors.Is(e, ErrConcurrent)
	switch {
	case e == nil:
		b.answers.add(now)
		b.widenLocked()
	case errors.Is(e, ErrConcurrent):
		b.narrowLocked(sent, now)
	}
	if limited && !now.Before(b.until) {
		b.slowLocked(now)
	}
	switch {
	case e != nil && e.RetryAfter > 0:
		if until := now.Add(min(e.RetryAfter, maxPause)); until.After(b.until) {
			b.until = until
		}
	case now.Before(b.until): // answers to requests from before the pause add nothing
	case limited:
		b.until = now.Add(b.next)
		b.next = min(2*b.next, maxPause)
	case e == nil || e.Status != 0:
		b.next = firstPause
	}
}

// slowLocked lowers the rate below what was answered of late. A refusal of one of few requests says little about the rate: others may
// have used the limit up.
func (b *budget) slowLocked(now time.Time) {
	limit := float64(b.limiter.Limit())
	if math.IsInf(limit, 1) {
		limit = unbounded
	}
	answered, least := b.answers.rate(now), limit/deepest
	if b.inFlight+b.answers.now+b.answers.last < few {
		least = limit
	}
	b.limitLocked(now, rate.Limit(max(cut*min(limit, max(answered, least)), min(lowest, limit))))
}

func (b *budget) growLocked(now time.Time) {
	limit := b.limiter.Limit()
	if limit >= b.ceiling {
		return
	}
	limit *= rate.Limit(math.Exp(growth * now.Sub(b.grown).Seconds()))
	if limit > unbounded && math.IsInf(float64(b.ceiling), 1) {
		limit = b.ceiling
	}
	b.limitLocked(now, min(limit, b.ceiling))
}

func (b *budget) limitLocked(now time.Time, limit rate.Limit) {
	b.grown = now
	b.limiter.SetLimitAt(now, limit)
	b.limiter.SetBurstAt(now, burst(limit))
}

// narrowLocked lowers the number in flight, once for all that were sent before it was lowered.
func (b *budget) narrowLocked(sent, now time.Time) {
	if sent.Before(b.narrowed) {
		return
	}
	b.most, b.narrowed, b.answered = max(1, b.inFlight*3/4), now, 0
}

func (b *budget) widenLocked() {
	if b.most == b.maxInFlight {
		return
	}
	if b.answered++; b.answered >= recovery {
		b.most, b.answered = b.most+1, 0
	}
}

// throughput is how many requests were answered of late.
type throughput struct {
	begun     time.Time
	now, last int // in this window, in the one before
}

const window = 2 * time.Second

func (t *throughput) add(now time.Time) {
	t.turn(now)
	t.now++
}

func (t *throughput) turn(now time.Time) {
	switch past := now.Sub(t.begun); {
	case past >= 2*window:
		t.begun, t.last, t.now = now, 0, 0
	case past >= window:
		t.begun, t.last, t.now = t.begun.Add(window), t.now, 0
	}
}

// rate returns the answers a second of the busier window.
func (t *throughput) rate(now time.Time) float64 {
	t.turn(now)
	return max(float64(t.last)/window.Seconds(), float64(t.now)/max(1, now.Sub(t.begun).Seconds()))
}
