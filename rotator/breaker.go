package rotator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// breaker watches the calls to the store, so that an outage is known without each policy finding it out. It never
// refuses a call by itself: work that is to begin asks down first, work in flight goes on trying.
type breaker struct {
	store Store

	mu     sync.Mutex
	up     func() // called when the store answers again after an outage
	outage error
	logged Reason
}

func (b *breaker) Read(ctx context.Context, ref Ref, version int) (Doc, error) {
	doc, err := b.store.Read(ctx, ref, version)
	return doc, b.note(ctx, err)
}

func (b *breaker) Write(ctx context.Context, ref Ref, data map[string]any, cas int) (int, error) {
	v, err := b.store.Write(ctx, ref, data, cas)
	return v, b.note(ctx, err)
}

func (b *breaker) List(ctx context.Context, ref Ref) ([]string, error) {
	names, err := b.store.List(ctx, ref)
	return names, b.note(ctx, err)
}

func (b *breaker) Check(ctx context.Context, refs ...Ref) error {
	return b.note(ctx, b.store.Check(ctx, refs...))
}

func (b *breaker) note(ctx context.Context, err error) error {
	count(ctx, err)
	if err != nil && ctx.Err() != nil {
		return err // our own giving up says nothing about the store
	}
	b.mu.Lock()
	was := b.outage
	b.outage = nil
	if sinkOutage(err) {
		b.outage = err
	}
	up := b.up
	came := was != nil && b.outage == nil
	b.mu.Unlock()
	if came && up != nil {
		up()
	}
	return err
}

// setUp says whom to tell when the store answers again.
func (b *breaker) setUp(up func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.up = up
}

// down returns the outage, nil when the store served the last call.
func (b *breaker) down() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.outage
}

// log says once what is wrong with the store, and again when it changes.
func (b *breaker) log(l *slog.Logger, err error) {
	reason := Reason("")
	if err != nil {
		reason = reasonOf(err)
	}
	b.mu.Lock()
	changed := b.logged != reason
	b.logged = reason
	b.mu.Unlock()
	switch {
	case !changed:
	case err == nil:
		l.Info("store answers again")
	case !errors.Is(err, context.Canceled):
		l.Error("store does not serve", "reason", reason, "err", err)
	}
}
