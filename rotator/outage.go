package rotator

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// outageTracker watches the calls to the store, so that policies share what is known of an outage. It never refuses a call
// itself: new work asks down first, work in flight keeps trying.
type outageTracker struct {
	store ledger.Store

	mu      sync.Mutex
	up      func(lasted time.Duration) // called when the store, or a mount, answers again
	outages map[string]outage          // by mount; "" is the server as a whole
	refused outage                     // of the ledger's owner, at the last probe
	logged  map[string]ledger.Failure
}

// outage is why and since when a mount or the server fails, and the last document that was requested.
type outage struct {
	err   error
	since time.Time
	ref   ledger.Ref
}

func newOutageTracker(s ledger.Store) *outageTracker {
	return &outageTracker{store: s, outages: map[string]outage{}, logged: map[string]ledger.Failure{}}
}

func (b *outageTracker) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	doc, err := b.store.Read(ctx, ref, version)
	return doc, b.note(ctx, ref, err)
}

func (b *outageTracker) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	v, err := b.store.Write(ctx, ref, data, cas)
	return v, b.note(ctx, ref, err)
}

func (b *outageTracker) Lags(ctx context.Context) bool { return b.store.Lags(ctx) }

func (b *outageTracker) List(ctx context.Context, ref ledger.Ref) ([]string, error) {
	names, err := b.store.List(ctx, ref)
	return names, b.note(ctx, ref, err)
}

func (b *outageTracker) Check(ctx context.Context, refs ...ledger.Ref) error {
	ref := refs[len(refs)-1]
	for _, other := range refs {
		if other.Mount != ref.Mount {
			ref = ledger.Ref{} // no single mount is to blame
		}
	}
	return b.note(ctx, ref, b.store.Check(ctx, refs...))
}

// Expect implements ledger.Foresight, for a store that has it.
func (b *outageTracker) Expect(refs iter.Seq[ledger.Ref]) {
	if store, ok := b.store.(ledger.Foresight); ok {
		store.Expect(refs)
	}
}

// note learns from an answer. A rate limit counts for its mount, any other outage for the whole server.
func (b *outageTracker) note(ctx context.Context, ref ledger.Ref, err error) error {
	count(ctx, err)
	if err != nil && ctx.Err() != nil {
		return err // our own cancellation says nothing about the store
	}
	b.mu.Lock()
	place, out := "", ledger.IsOutage(err)
	if out && FailureOf(err) == ledger.FailureSinkRateLimited {
		place = ref.Mount
	}
	lasted, came := time.Duration(0), false
	for _, over := range []string{"", ref.Mount} {
		was, down := b.outages[over]
		if down && (!out || over != place && place != "") {
			lasted, came = max(lasted, time.Since(was.since)), true
			delete(b.outages, over)
		}
	}
	if out {
		was, down := b.outages[place]
		if !down {
			was.since = time.Now()
		}
		b.outages[place] = outage{err, was.since, ref}
	}
	up := b.up
	b.mu.Unlock()
	if came && up != nil {
		up(lasted)
	}
	return err
}

// setUp sets the function to call when the store answers again.
func (b *outageTracker) setUp(up func(lasted time.Duration)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.up = up
}

// down returns the outage of the server or of one of the mounts, nil if they served the last call.
func (b *outageTracker) down(mounts ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, place := range mounts {
		if o, down := b.outages[place]; down {
			return o.err
		}
	}
	return b.outages[""].err
}

// unusable returns the outage of the server or of the ledger's mount, or why the ledger is refused; nil if it can be used.
func (b *outageTracker) unusable(mount string) error {
	if err := b.down(mount); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused.err
}

// probe asks the store, so that an outage or refusal is noticed although nothing is due, retries the last document that met each
// outage, and logs the result. A refusal stops nothing: policies whose documents can be read go on.
func (b *outageTracker) probe(ctx context.Context, l *slog.Logger, owner ledger.Ref) {
	b.mu.Lock()
	outages := maps.Clone(b.outages)
	b.mu.Unlock()
	outages[""] = outage{ref: owner}
	for _, place := range slices.Sorted(maps.Keys(outages)) {
		_, err := b.Read(ctx, outages[place].ref, 0) // note records the result
		if place == "" {
			b.noteRefusal(ctx, err)
		}
	}
	b.mu.Lock()
	places := maps.Clone(b.outages)
	if _, down := places[""]; !down && b.refused.err != nil {
		places[""] = b.refused
	}
	for place := range b.logged {
		if _, down := places[place]; !down {
			places[place] = outage{}
		}
	}
	b.mu.Unlock()
	for _, place := range slices.Sorted(maps.Keys(places)) {
		b.log(l, place, places[place].err)
	}
}

// noteRefusal notes whether the ledger's owner is refused. The end of a refusal is told like that of an outage.
func (b *outageTracker) noteRefusal(ctx context.Context, err error) {
	if ledger.IsOutage(err) || ctx.Err() != nil {
		return
	}
	b.mu.Lock()
	was, up := b.refused, b.up
	switch {
	case err == nil:
		b.refused = outage{}
	case was.err == nil:
		b.refused = outage{err: err, since: time.Now()}
	default:
		b.refused.err = err
	}
	b.mu.Unlock()
	if err == nil && was.err != nil && up != nil {
		up(time.Since(was.since))
	}
}

// log logs an outage of the store or one of its mounts once, and again when its reason changes.
func (b *outageTracker) log(l *slog.Logger, place string, err error) {
	reason := ledger.Failure("")
	if err != nil {
		reason = FailureOf(err)
	}
	b.mu.Lock()
	changed := b.logged[place] != reason
	b.logged[place] = reason
	b.mu.Unlock()
	if place != "" {
		l = l.With("mount", place)
	}
	switch {
	case !changed:
	case err == nil:
		l.Info("store available again")
	case !errors.Is(err, context.Canceled):
		l.Error("store unavailable", "failure", reason, "err", err)
	}
}
