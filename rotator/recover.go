package rotator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// recover takes over a claim whose holder is gone, or resumes unfinished work of our own.
func (j *job) recover(ctx context.Context) outcome {
	since := j.st.known.unusual().claimSince
	if err := j.write(ctx, j.takeClaim); err != nil {
		return claimFailed(err)
	}
	in := j.entry().Intent
	if in == nil {
		return released(j.release(ctx, nil)) // a retirement: its notes stay in the entry, and it is tried again
	}
	j.log = j.log.With("rotation", in.Rotation)
	f := failedFor(ledger.StageCreate, ledger.FailureInterrupted, "the process that worked on rotation %s stopped", in.Rotation)
	if u := j.st.known.unusual().unsettled; u != nil && u.rotation == in.Rotation {
		f = u.failure
	}
	j.lost = since                     // the create was sent before that; its key may not be listed yet
	j.unsure, j.attempted = true, true // a frozen holder may still know the record's current version
	return j.settleIntent(ctx, in, f)
}

// settle ends a rotation of our own that failed after its create was sent.
func (j *job) settle(ctx context.Context, f *stageError) outcome {
	if errors.Is(f, errClaimLost) {
		return outcome{again: true, failure: f, as: failedRotation} // the new claim holder settles it
	}
	return j.settleIntent(ctx, j.entry().Intent, f)
}

// settleIntent decides from what it finds: if the record holds the intent's key, the rotation is rolled forward; a key whose
// secret is stored nowhere is abandoned and deleted by id; if there is neither, the rotation is dropped.
func (j *job) settleIntent(ctx context.Context, in *ledger.Intent, f *stageError) outcome {
	open := func(cause error) outcome { return outcome{failure: f, as: failedUnsettled, cause: cause} }
	rec, err := j.fence(ctx, in)
	if err != nil {
		return open(err)
	}
	var past history
	if j.attempted {
		if past, err = j.published(ctx, in, rec); err != nil {
			return open(err)
		}
		if past.found && (!in.Rollback || rec.Publishes(in.KeyName)) {
			if err := j.rollForward(ctx, in, past.ours); err != nil {
				return open(err)
			}
			return outcome{again: true, progress: true}
		}
	}
	if in.Rollback {
		return j.undoRollback(ctx, in, f)
	}
	key, found, err := j.search(ctx, in)
	switch {
	case err != nil:
		return open(err)
	case found && past.hidden:
		return j.keep(ctx, in, f, key)
	}
	return j.abandon(ctx, f, key, found)
}

// fence makes every write of the record that began under the old claim fail: it moves the record to a new version with the same
// content. It returns the record as read.
func (j *job) fence(ctx context.Context, in *ledger.Intent) (ledger.Record, error) {
	known := 0
	for attempt := 1; ; attempt++ {
		rec, err := j.r.readRecord(ctx, j.st, in.Sink, known)
		if err == nil && (rec.Publishes(in.KeyName) || !j.unsure) {
			return rec, nil
		}
		if err == nil {
			data := maps.Clone(rec.Fields)
			if data == nil {
				data = map[string]any{ledger.FieldPolicy: j.p.Name} // a record without the secret's field counts as empty
			}
			if err = j.guard(ctx); err == nil {
				_, err = j.r.opt.Store.Write(ctx, in.Sink.Ref, data, rec.Doc.Version)
			}
			if errors.Is(err, ledger.ErrConflict) {
				known = j.r.beyond(ctx, rec.Doc.Version)
			}
			if err == nil {
				j.unsure = false
				return rec, nil
			}
		}
		retry := errors.Is(err, ledger.ErrConflict) || ledger.MaybeWritten(err)
		if !retry || attempt == publishTries || !j.pause(ctx, attempt) {
			return rec, fmt.Errorf("fencing record: %w", err)
		}
	}
}

// rollForward commits a rotation that was published but not committed. The key counts as created when the rotation began, so it
// is never older than it counts.
func (j *job) rollForward(ctx context.Context, in *ledger.Intent, rec ledger.Record) error {
	c := committed{KeyRef: in.Key(rec.KeyID), previousUntil: rec.PreviousValidUntil, recovered: true}
	c.Hash, c.Created, c.Published, c.Verified = ledger.HashValue(j.entry().Salt, rec.Secret.Reveal()), in.Started, rec.RotatedAt, in.Verify
	if c.Published.IsZero() {
		c.Published = in.Started
	}
	if back := j.entry().RetiringKey(rec.KeyID); back != nil {
		c.KeyRef = j.restored(*back, c.Published)
	}
	return j.commit(ctx, c)
}

// keep retires a key that may have been published in a version of the record that can no longer be read. Readers may have it, so
// it is treated as a former current key.
func (j *job) keep(ctx context.Context, in *ledger.Intent, f *stageError, key elevenlabs.Key) outcome {
	now := j.now()
	ref := in.Key(key.ID)
	ref.Created, ref.Published = key.CreatedAt, now
	if ref.Created.IsZero() {
		ref.Created = in.Started
	}
	j.log.Warn("record deleted during its rotation, key treated as published", "record", in.Sink.String(), "key_id", key.ID)
	return j.releaseFailed(ctx, f, func(e *ledger.Entry) {
		e.Remember(ledger.Past{Rotation: in.Rotation, By: cmp.Or(in.By, ledger.ByRecovered), Reason: in.Reason, Words: in.Words, KeyID: ref.ID,
			Started: in.Started, Created: ref.Created, Published: now})
		if e.Current == nil {
			e.Current = &ref // the next look finds the record empty and replaces the key
			return
		}
		e.Retiring = append(e.Retiring, ledger.Retiring{KeyRef: ref, State: ledger.InOverlap, Until: plan.OverlapEnd(j.p, ref, now), Quarantine: ledger.Duration(j.p.Quarantine),
			WaitUntilIdle: ledger.Duration(j.p.WaitUntilIdle), WaitUntilUsed: ledger.Duration(j.p.WaitUntilUsed), Reason: ledger.TriggerRecordMissing})
	})
}

// history is what the versions of a record show of a key.
type history struct {
	ours   ledger.Record // the version that we wrote
	found  bool
	hidden bool // a version written since the rotation was decided cannot be read; it may be ours
}

// published looks for the version of the record in which we published the intent's key, even if the record was overwritten,
// deleted or rolled back since: readers may have that key. The oldest version with the key is ours; later versions may keep
// only our fields beside the secret. Versions that were there before the intent are not read.
func (j *job) published(ctx context.Context, in *ledger.Intent, newest ledger.Record) (h history, err error) {
	h.hidden = newest.Doc.Version < in.Seen // it was deleted with all its versions, and numbering began anew
	before := newest.Doc.Version - keptVersions
	if !h.hidden {
		before = max(before, min(in.Seen, newest.Doc.Version-1)) // the newest is looked at in any case
	}
	rec := newest
	for v := newest.Doc.Version; v > max(0, before); v-- {
		if v != newest.Doc.Version {
			if rec, err = j.earlier(ctx, in.Sink, v); err != nil {
				return h, err
			}
		}
		switch {
		case rec.Publishes(in.KeyName):
			h.ours, h.found = rec, true
		case h.found:
			return h, nil
		}
		h.hidden = h.hidden || v > in.Seen && rec.Doc.JSON == nil
	}
	return h, nil
}

// earlier reads an earlier version of a record. One refused read of many does not end the look at all of them.
func (j *job) earlier(ctx context.Context, sink ledger.Sink, version int) (ledger.Record, error) {
	for attempt := 1; ; attempt++ {
		doc, err := j.r.opt.Store.Read(ctx, sink.Ref, version)
		if err == nil {
			return ledger.ParseRecord(doc, sink.Field), nil
		}
		if attempt == publishTries || !j.pause(ctx, attempt) {
			return ledger.Record{}, fmt.Errorf("reading an earlier version of the record: %w", err)
		}
		if err := j.guard(ctx); err != nil {
			return ledger.Record{}, err
		}
	}
}

// search looks for the intent's key by name. If the answer to the create or its sender was lost, it looks until the verify
// timeout after that, since listings may lag (assumption A16).
func (j *job) search(ctx context.Context, in *ledger.Intent) (elevenlabs.Key, bool, error) {
	api := j.r.apiOf(in.Workspace)
	if api == nil { // the ledger remembers the key for a while, in case the workspace comes back
		j.log.Warn("workspace is no longer configured, a key may be left in it", "workspace", in.Workspace, "key_name", in.KeyName)
		return elevenlabs.Key{}, false, nil
	}
	j.api, j.workspaceName = api, in.Workspace
	for attempt := 1; ; attempt++ {
		key, found, err := j.findByName(ctx, in.Account, in.KeyName)
		if found || (err == nil && (j.lost.IsZero() || time.Since(j.lost) > j.r.opt.VerifyTimeout)) {
			return key, found, nil
		}
		if errors.Is(err, elevenlabs.ErrNotFound) {
			return key, false, nil // the account is gone, and its keys with it
		}
		expired := !j.lost.IsZero() && time.Since(j.lost) > j.r.opt.VerifyTimeout
		if (err != nil && (expired || attempt == publishTries)) || !j.pause(ctx, attempt) {
			return key, false, fmt.Errorf("looking for key %s: %w", in.KeyName, cmp.Or(err, ctx.Err()))
		}
		if err := j.guard(ctx); err != nil {
			return key, false, err
		}
	}
}

// abandon notes in the ledger that the rotation's secret is stored nowhere, deletes its key by id, and releases the claim.
func (j *job) abandon(ctx context.Context, f *stageError, key elevenlabs.Key, found bool) outcome {
	note := func(e *ledger.Entry) { e.Abandon(j.r.opt.Wall(), j.seen()) }
	if found && key.CharacterCount > 0 {
		j.log.Warn("abandoned key is in use, kept and counted as lost", "key_id", key.ID, "key_name", key.Name)
		return j.releaseFailed(ctx, f, func(e *ledger.Entry) { note(e); e.Spare(key.Name) })
	}
	if !found {
		return j.releaseFailed(ctx, f, note)
	}
	err := j.write(ctx, func(e *ledger.Entry) {
		note(e)
		j.failing(e, f)
		j.takeClaim(e)
	})
	if err != nil {
		return outcome{failure: f, as: failedUnsettled, cause: err}
	}
	if err := j.deleteLost(ctx, key); err != nil {
		j.log.Error("abandoned key not deleted", "key_id", key.ID, "outcome", "failed", "err", err) // the sweep tries again
	}
	err = j.release(ctx, nil) // if that fails, the rotation is settled all the same, and recovery drops the claim
	return outcome{again: err == nil, failure: f, as: failedRotation}
}

// deleteLost deletes a key whose secret is stored nowhere.
func (j *job) deleteLost(ctx context.Context, key elevenlabs.Key) error {
	err := j.api.DeleteKey(ctx, key.ServiceAccount, key.ID)
	if err != nil && !errors.Is(err, elevenlabs.ErrNotFound) {
		return fmt.Errorf("deleting abandoned key %s: %w", key.ID, err)
	}
	j.audit("abandoned key deleted", "key_id", key.ID, "key_name", key.Name)
	j.r.updateListing(j.workspaceName, key.ServiceAccount, key.ID, nil)
	j.r.countLost(j.workspaceName)
	return nil
}

// sweep deletes a listed key that the ledger marks as abandoned. It first adds that mark for the twin of another key.
func (j *job) sweep(ctx context.Context, s plan.Step) outcome {
	k := j.listedKey(s.KeyID)
	if k.ID == "" {
		return outcome{again: true} // it is gone
	}
	_, _, rotation, _ := ledger.ParseKeyName(k.Name)
	if !j.entry().IsAbandoned(k.ID, rotation) {
		twin := ledger.Abandoned{Rotation: rotation, KeyName: k.Name, Workspace: k.Workspace, Account: k.ServiceAccount, Since: j.r.opt.Wall(), KeyID: k.ID}
		if err := j.write(ctx, func(e *ledger.Entry) { e.Abandoned = append(e.Abandoned, twin) }); err != nil {
			return claimFailed(err)
		}
	}
	if err := j.deleteLost(ctx, *k.Key); err != nil {
		j.r.mu.Lock()
		j.st.display.unswept++
		j.r.mu.Unlock()
		return outcome{failure: failed(ledger.StageRetire, err), as: failedRetirement}
	}
	return outcome{again: true}
}

func (r *Rotator) countLost(workspace string) {
	r.opt.Observe(Event{Type: EventLostDeleted, Workspace: workspace, At: r.opt.Wall()})
}
