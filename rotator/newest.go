package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// How often a document is read until it shows what is known of it: for two seconds, or for twelve from a store that lags.
const (
	newestTries  = 4
	laggingTries = 7
)

// newest reads the newest version of a document that had at least the version known, as a write or an earlier read showed. A lower
// version comes from a replica that lags, or from a store that was restored, and only a write tells: one with the content as read
// succeeds if that is the newest. empty returns the content for a document that is not there; without any, and in
// a context without a session, nothing is written, and the answer is what was read.
func (r *Rotator) newest(ctx context.Context, ref ledger.Ref, known int, empty func() (any, error)) (doc ledger.Doc, restored bool, err error) {
	for attempt := 1; ; attempt++ {
		doc, err = r.opt.Store.Read(ctx, ref, 0)
		if err != nil || doc.Version >= known {
			if err == nil && attempt > 1 {
				r.noteLag(ref)
			}
			return doc, false, err
		}
		enough := attempt == newestTries && !r.lags.Load() || attempt == laggingTries
		if enough || !sleep(ctx, min(250*time.Millisecond<<(attempt-1), 4*time.Second)) {
			break
		}
	}
	if empty == nil || ledger.SessionOf(ctx) == nil || ctx.Err() != nil {
		return doc, false, ctx.Err()
	}
	var data any = doc.JSON
	if doc.JSON == nil {
		if data, err = empty(); err != nil || data == nil {
			return doc, false, err
		}
	}
	version, err := r.opt.Store.Write(ctx, ref, data, doc.Version)
	switch {
	case errors.Is(err, ledger.ErrConflict) && !r.lags.Load():
		r.noteLag(ref)
		return r.newest(ctx, ref, known, empty) // now that it is known to lag, for longer
	case errors.Is(err, ledger.ErrConflict):
		return doc, false, &ledger.Error{Op: "reading " + ref.String(), Reason: ledger.FailureSinkStandby,
			Err:    fmt.Errorf("version %d was written, the answer is %d", known, doc.Version),
			Advice: "the node that answers lags far behind; point VAULT_ADDR at the active node"}
	case err != nil:
		return doc, false, err
	}
	doc.Version = version
	return doc, true, nil
}

// noteLag notes that the store answers from a replica that lags.
func (r *Rotator) noteLag(ref ledger.Ref) {
	if !r.lags.Swap(true) {
		r.opt.Logger.Info("reads from the store lag behind writes; steps that rest on a read wait for it", "document", ref.String())
	}
}

// beyond returns the version that a document is known to have reached when a write on top of this one conflicts. Where no read lags,
// the next one shows it, and need not be repeated if it does not.
func (r *Rotator) beyond(ctx context.Context, version int) int {
	if r.lags.Load() || r.opt.Store.Lags(ctx) {
		return version + 1
	}
	return version
}

// mayLag reports whether a read may lag although an earlier one in the session did not: the node that answers may be another, and
// the session has no index to ask for.
func (r *Rotator) mayLag(ctx context.Context) bool {
	return ledger.SessionOf(ctx).Index() == "" && (r.lags.Load() || r.opt.Store.Lags(ctx))
}
