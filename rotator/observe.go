package rotator

import (
	"context"
	"errors"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// observe gathers what Plan needs. It reads only what is unknown or must be fresh.
func (r *Rotator) observe(ctx context.Context, st *policyState) (plan.Policy, plan.Observed, error) {
	k := &st.known
	r.mu.Lock()
	p, ws, in, asked := *st.policy, st.ws, st.inbox, st.request
	st.inbox = inbox{}
	r.mu.Unlock()
	if in.edited {
		k.digestKnown, k.note().movedAway = false, ""
	}
	if in.edited || in.hurry {
		k.pace.hurry()
	}
	switch {
	case asked == nil || !asked.Pending:
		asked = nil
	case asked.Read:
		r.aim(ctx, st, asked)
		asked = nil
	}
	r.absorb(st)
	if r.tooSoon(st, p, ws, asked != nil) {
		r.requestResync(st, in.resync)
		if !k.loaded || k.record == nil && p.Mode != plan.ModeRemoved && plan.WantsRecord(p, k.entry) {
			return p, plan.Observed{}, errTooSoon
		}
		o := r.observed(st, p, ws)
		o.Inherits, o.GroupHeld = k.unusual().inherits, k.unusual().groupHeld
		return p, o, nil
	}
	claimed := ledger.ClaimOf(k.entry) != nil
	fresh := !k.loaded || in.resync || asked != nil || claimed && k.pace.waits(plan.Attempt{Action: lookClaimed}) <= 0
	if in.resync {
		k.record, k.note().elsewhere = nil, nil
	}
	if fresh {
		version := k.version
		err := r.readEntry(ctx, st, p.Name)
		r.noteCounted(st, err)
		if err != nil {
			refused := r.noteUnread(st, err)
			r.requestResync(st, in.resync || refused)
			return p, plan.Observed{}, err
		}
		k.note().unread = nil
		r.aim(ctx, st, asked)
		if k.version != version {
			k.pace.forget(lookClaimed)
		} else if claimed {
			r.tried(st, plan.Attempt{Action: lookClaimed})
		}
	}
	r.absorb(st)
	o, read := r.observed(st, p, ws), false
	if a := (plan.Attempt{Action: lookListed, KeyID: plan.Unexplained(o)}); !fresh && a.KeyID != "" && k.pace.waits(a) <= 0 && ws.seq(r) > k.unusual().explained {
		if err := r.readEntry(ctx, st, p.Name); err != nil {
			return p, o, err
		}
		k.note().explained, read = ws.seq(r), true
		r.tried(st, a)
	}
	// Once every entry is known each record is read, due or not, so that a missing right shows at once.
	if k.record == nil && p.Mode != plan.ModeRemoved && (in.resync || plan.WantsRecord(p, k.entry) || !k.recordTried && !o.Uncounted) {
		err := r.lookAtRecord(ctx, st, p)
		k.recordTried, k.note().unread = true, nil
		if err != nil {
			r.noteUnread(st, err)
			r.requestResync(st, true)
			return p, o, err
		}
		read = true
	}
	if read {
		r.absorb(st)
		o = r.observed(st, p, ws)
	}
	if e := mended(p, o, r.opt.Wall()); e != nil {
		if k.unusual().mended != k.version {
			r.opt.Logger.Warn("ledger entry has times in the future; a clock was wrong", "policy", p.Name, "last_rotation", k.entry.LastRotation)
		}
		e.Pack()
		k.entry, k.note().mended, read = e, k.version, true
		r.absorb(st)
		o = r.observed(st, p, ws)
	}
	k.pace.forget(look)
	e := o.Entry
	if moved := e != nil && e.MovedTo != "" && p.Mode != plan.ModeRemoved; moved || e == nil && o.Record != nil {
		if names := (plan.Attempt{Action: lookNames}); read || fresh || k.pace.waits(names) <= 0 {
			var err error
			if moved {
				k.note().inherits, err = r.returning(ctx, st, p, e)
			} else {
				k.note().inherits, err = r.predecessor(ctx, p, o.Record)
			}
			if err != nil {
				return p, o, err
			}
			r.tried(st, names)
		}
		o.Inherits = k.unusual().inherits
		return p, o, nil
	}
	err := r.lookAtGroup(ctx, st, p, &o)
	return p, o, err
}

// noteUnread notes that the policy's entry or record cannot be read, and reports whether that concerns this policy alone. Until a
// read succeeds the policy is shown as failing, although it is planned by what is known of it.
func (r *Rotator) noteUnread(st *policyState, err error) bool {
	if ledger.IsOutage(err) || errors.Is(err, context.Canceled) {
		return false
	}
	st.known.note().unread = r.storeFailure(err)
	return true
}

// aim sets which key a request replaces. It needs a ledger that was read after the request was accepted.
func (r *Rotator) aim(ctx context.Context, st *policyState, q *plan.Request) {
	if q == nil {
		return
	}
	if st.known.entry != nil {
		if newest, err := r.prove(ctx, st, st.known.entry.Policy); err != nil || !newest {
			return
		}
	}
	aimed, id := *q, ledger.CurrentID(st.known.entry)
	aimed.NotKey, aimed.Pending, aimed.Read = id, id == "", true
	if id != "" {
		aimed.NotRotation = r.uncommitted(ctx, st.known.entry)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.request == q { // a newer request stays as it is
		st.request = &aimed
	}
}

// uncommitted returns the rotation whose key the record holds, or may hold, although the ledger does not name it current yet.
func (r *Rotator) uncommitted(ctx context.Context, e *ledger.Entry) string {
	if e == nil || e.Intent == nil {
		return ""
	}
	doc, err := r.opt.Store.Read(ctx, e.Intent.Sink.Ref, 0)
	if err == nil && !ledger.ParseRecord(doc, e.Intent.Sink.Field).Publishes(e.Intent.KeyName) {
		return ""
	}
	return e.Intent.Rotation
}

// requestResync asks again for a resync that could not be done.
func (r *Rotator) requestResync(st *policyState, resync bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.inbox.resync = st.inbox.resync || resync
}

// lookAtRecord reads the record. If the record holds an unexpected value it reads the ledger again: under a stale entry another
// replica's new key would look like an unknown value.
func (r *Rotator) lookAtRecord(ctx context.Context, st *policyState, p plan.Policy) error {
	if _, err := r.readRecord(ctx, st, p.Sink, 0); err != nil {
		return err
	}
	v, version := st.known.record, st.known.version
	if !v.HasValue || v.Match == st.known.currentID && v.Match != "" {
		return nil
	}
	// An entry read before the record does not show what was written between the two reads.
	if err := r.readEntry(ctx, st, p.Name); err != nil {
		return err
	}
	if st.known.version == version && st.known.record != nil {
		return nil
	}
	_, err := r.readRecord(ctx, st, p.Sink, 0)
	return err
}
