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

// budget is what all requests of a client share: a rate, and a pause after the remote said that it was too much.
type budget struct {
	limiter *rate.Limiter

	mu    sync.Mutex
	until time.Time     // nothing is sent before
	next  time.Duration // the next pause, if the remote does not name one
}

func newBudget(perSecond float64) *budget {
	limiter := rate.NewLimiter(rate.Inf, 0)
	if perSecond > 0 {
		limiter = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))
	}
	return &budget{limiter: limiter, next: firstPause}
}

// wait returns when one request may be sent, or with the context's error: at once where the deadline comes first.
func (b *budget) wait(ctx context.Context) error {
	for {
		if err := sleep(ctx, b.paused()); err != nil {
			return err
		}
		if err := b.limiter.Wait(ctx); err != nil {
			if ctx.Err() == nil { // the limiter saw that the deadline comes first
				return context.DeadlineExceeded
			}
			return ctx.Err()
		}
		if b.paused() <= 0 {
			return nil
		}
	}
}

// reserved is the key under which a context carries a budget that was waited for.
type reserved struct{}

// Reserve waits until one request may be sent, and returns a context with which the next call is sent at once. So a caller
// who has to check something right before a call does not wait in between.
func (c *Client) Reserve(ctx context.Context) (context.Context, error) {
	if err := c.budget.wait(ctx); err != nil {
		return ctx, fmt.Errorf("waiting for the rate budget: %w", err)
	}
	return context.WithValue(ctx, reserved{}, c.budget), nil
}

// ready waits for the budget, unless that was done for this call.
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

// learn pauses all requests after a 429 or a Retry-After, so that what was in flight is the last of a storm. Without
// a Retry-After pauses double, up to a minute. A concurrency limit asks for none: it ends when our own requests do.
func (b *budget) learn(e *Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	switch {
	case e != nil && e.RetryAfter > 0:
		if until := now.Add(min(e.RetryAfter, maxPause)); until.After(b.until) {
			b.until = until
		}
	case now.Before(b.until): // answers to what was sent before the pause say nothing new
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
