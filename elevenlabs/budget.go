package elevenlabs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	firstPause = time.Second
	maxPause   = time.Minute
)

// budget is shared by all requests of a client: a rate, and a pause after the remote refuses for too many requests.
type budget struct {
	limiter *rate.Limiter

	mu    sync.Mutex
	until time.Time     // nothing is sent before
	next  time.Duration // the next pause without a Retry-After
}

func newBudget(perSecond float64) *budget {
	limiter := rate.NewLimiter(rate.Inf, 0)
	if perSecond > 0 {
		limiter = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))
	}
	return &budget{limiter: limiter, next: firstPause}
}

// wait returns when one request may be sent, or with the context's error, at once if the deadline comes first.
func (b *budget) wait(ctx context.Context) error {
	for {
		if err := sleep(ctx, b.paused()); err != nil {
			return err
		}
		if err := b.limiter.Wait(ctx); err != nil {
			if ctx.Err() == nil { // the limiter sees that the deadline comes first
				return context.DeadlineExceeded
			}
			return ctx.Err()
		}
		if b.paused() <= 0 {
			return nil
		}
	}
}

// reserved is the context key of a budget that was waited for.
type reserved struct{}

// Reserve waits until one request may be sent, and returns a context whose next call is sent at once. A caller can then
// check a condition right before the call, without a wait in between.
func (c *Client) Reserve(ctx context.Context) (context.Context, error) {
	if err := c.budget.wait(ctx); err != nil {
		return ctx, fmt.Errorf("waiting for the rate budget: %w", err)
	}
	return context.WithValue(ctx, reserved{}, c.budget), nil
}

// ready waits for the budget, unless the context has reserved it.
func (b *budget) ready(ctx context.Context) error {
	if ctx.Value(reserved{}) == b {
		return ctx.Err()
	}
	return b.wait(ctx)
}

func (b *budget) paused() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Until(b.until)
}

// learn pauses all requests after a 429 or a Retry-After, so that only requests already in flight follow. Without a
// Retry-After pauses double, up to a minute. A concurrency limit needs no pause: it ends with our own requests.
func (b *budget) learn(e *Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	switch {
	case e != nil && e.RetryAfter > 0:
		if until := now.Add(min(e.RetryAfter, maxPause)); until.After(b.until) {
			b.until = until
		}
	case now.Before(b.until): // answers to requests from before the pause add nothing
	case e != nil && errors.Is(e, ErrRateLimited) && !errors.Is(e, ErrConcurrent):
		b.until = now.Add(b.next)
		b.next = min(2*b.next, maxPause)
	case e == nil || e.Status != 0:
		b.next = firstPause
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
