package rotator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// recover takes over a claim whose holder is gone, or takes up our own work that did not come to its end.
func (j *job) recover(ctx context.Context) bool {
	since := j.st.known.claimSince
	if err := j.write(ctx, j.takeClaim); err != nil {
		return j.claimFailed(err)
	}
	in := j.entry().Intent
	if in == nil {
		j.st.known.pending = nil
		// A retirement: what was noted of it stays in the entry and is simply tried again.
		return j.release(ctx, nil) == nil
	}
	j.log = j.log.With("rotation", in.Rotation)
	f := j.st.known.pending
	if f == nil {
		f = failedFor(ledger.StageCreate, ledger.ReasonInterrupted, "the process that worked on rotation %s went away", in.Rotation)
	}
	j.lost = since                     // its create was sent before, and may not be listed yet
	j.unsure, j.attempted = true, true // a frozen holder still knows a valid version of the record
	return j.settleIntent(ctx, in, f)
}

// settle ends our own rotation that failed after its create was sent. It counts the failure once, unless it turns out
// that the key was published after all.
func (j *job) settle(ctx context.Context, f *stageError) bool {
	if errors.Is(f, errClaimLost) {
		j.st.known.loaded = false // whoever took the claim over settles it
		j.r.noteFailure(j.st, j.p, f, j.begun)
		return true
	}
	j.st.known.pending = f
	settled := j.settleIntent(ctx, j.entry().Intent, f)
	if !settled {
		j.postpone(f)
		j.st.known.loaded = false
	}
	return settled
}

// settleIntent decides from what is found: a record that holds the intent's key is rolled forward; a key whose secret
// is nowhere is abandoned and deleted by id; where there is nothing, the rotation is forgotten.
func (j *job) settleIntent(ctx context.Context, in *ledger.Intent, f *stageError) bool {
	rec, err := j.fence(ctx, in)
	if err != nil {
		j.log.Error("recovery incomplete", "err", err)
		return false
	}
	var past history
	if j.attempted {
		if past, err = j.published(ctx, in, rec); err != nil {
			j.log.Error("recovery incomplete", "err", err)
			return false
		}
		if past.found && (!in.Rollback || rec.Publishes(in.KeyName)) {
			return j.rollForward(ctx, in, past.ours)
		}
	}
	if in.Rollback {
		return j.undoRollback(ctx, in, f)
	}
	key, found, err := j.search(ctx, in)
	if err != nil {
		j.log.Error("recovery incomplete", "err", err)
		return false
	}
	if !f.counted && !errors.Is(f, errNotDue) {
		j.r.noteFailure(j.st, j.p, f, j.begun)
		j.log.Error("rotation failed", "stage", f.stage, "outcome", "failed", "failure", f.reason, "err", f.err)
	}
	if found && past.hidden {
		return j.keep(ctx, in, f, key)
	}
	return j.abandon(ctx, f, key, found)
}

// fence makes sure that no write of the record that was begun under the old claim can still succeed: it moves the
// record to a new version, with the same content. It returns the record as it then is.
func (j *job) fence(ctx context.Context, in *ledger.Intent) (ledger.Record, error) {
	for attempt := 1; ; attempt++ {
		rec, err := j.r.readRecord(ctx, j.st, in.Sink)
		if err == nil && (rec.Publishes(in.KeyName) || !j.unsure) {
			return rec, nil
		}
		if err == nil {
			data := maps.Clone(rec.Fields)
			if data == nil {
				data = map[string]any{ledger.FieldPolicy: j.p.Name} // without the secret's field it counts as empty
			}
			if err = j.guard(ctx); err == nil {
				_, err = j.r.opt.Store.Write(ctx, in.Sink.Ref, data, rec.Doc.Version)
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

// rollForward commits a rotation that was published, but not committed. Its key is never older than it is taken for.
func (j *job) rollForward(ctx context.Context, in *ledger.Intent, rec ledger.Record) bool {
	c := committed{
		KeyRef: ledger.KeyRef{ID: rec.KeyID, Name: in.KeyName, Rotation: in.Rotation, Workspace: in.Workspace, Account: in.Account, Sink: in.Sink,
			Hash: ledger.HashValue(j.entry().Salt, rec.Secret.Reveal()), Created: in.Started, Published: rec.RotatedAt, Verified: in.Verify},
		reason: in.Reason, previousUntil: rec.PreviousValidUntil, recovered: true,
	}
	if c.Published.IsZero() {
		c.Published = in.Started
	}
	if back := j.entry().RetiringKey(rec.KeyID); back != nil {
		c.KeyRef = j.restored(*back, c.Published)
	}
	if err := j.commit(ctx, c); err != nil {
		j.log.Error("recovery incomplete", "err", err)
		return false
	}
	j.st.known.pending = nil
	return true
}

// keep retires a key that may have been published in a version of the record that cannot be read any more, as if it had
// been current: readers may have it.
func (j *job) keep(ctx context.Context, in *ledger.Intent, f *stageError, key elevenlabs.Key) bool {
	now := j.now()
	ref := ledger.KeyRef{ID: key.ID, Name: in.KeyName, Rotation: in.Rotation, Workspace: in.Workspace, Account: in.Account, Sink: in.Sink,
		Created: key.CreatedAt, Published: now}
	if ref.Created.IsZero() {
		ref.Created = in.Started
	}
	j.log.Warn("record deleted during its rotation, so the key counts as read", "record", in.Sink.String(), "key_id", key.ID)
	return j.releaseFailed(ctx, func(e *ledger.Entry) {
		j.failing(e, f)
		if e.Current == nil {
			e.Current = &ref // the next look misses its value in the record, and has it replaced
			return
		}
		e.Retiring = append(e.Retiring, ledger.Retiring{KeyRef: ref, State: ledger.InOverlap, Until: plan.OverlapEnd(j.p, ref, now), Quarantine: ledger.Duration(j.p.Quarantine),
			WaitUntilIdle: ledger.Duration(j.p.WaitUntilIdle), Reason: ledger.ReasonRecordMissing})
	})
}

// history is what the versions of a record say of a key.
type history struct {
	ours   ledger.Record // the version in which we put it
	found  bool
	hidden bool // a version since the rotation was decided cannot be read, and may have been ours
}

// published looks for the version of the record in which we put the intent's key, also where somebody has overwritten,
// deleted or rolled it back since: readers may have that key. Its oldest version is ours, of later ones only the fields
// beside the secret may be.
func (j *job) published(ctx context.Context, in *ledger.Intent, newest ledger.Record) (h history, err error) {
	h.hidden = newest.Doc.Version < in.Seen // deleted with all its versions, so that they are counted anew
	rec := newest
	for v := newest.Doc.Version; v > max(0, newest.Doc.Version-keptVersions); v-- {
		if v != newest.Doc.Version {
			doc, err := j.r.opt.Store.Read(ctx, in.Sink.Ref, v)
			if err != nil {
				return h, fmt.Errorf("reading an earlier version of the record: %w", err)
			}
			rec = ledger.ParseRecord(doc, in.Sink.Field)
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

// search looks for the intent's key by its name. Where a create's answer was lost, or its sender, it looks until the verify
// timeout after that, since listings may lag.
func (j *job) search(ctx context.Context, in *ledger.Intent) (elevenlabs.Key, bool, error) {
	api := j.r.apiOf(in.Workspace)
	if api == nil { // the ledger remembers the key for a while, should the workspace come back
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
			return key, false, nil // the whole account is gone, and its keys with it
		}
		expired := !j.lost.IsZero() && time.Since(j.lost) > j.r.opt.VerifyTimeout
		if (err != nil && (expired || attempt == publishTries)) || !j.pause(ctx, attempt) {
			return key, false, fmt.Errorf("looking for key %s: %w", in.KeyName, orDead(err))
		}
		if err := j.guard(ctx); err != nil {
			return key, false, err
		}
	}
}

// abandon notes in the ledger that the rotation's secret is nowhere, deletes its key by id, and gives the claim back.
func (j *job) abandon(ctx context.Context, f *stageError, key elevenlabs.Key, found bool) bool {
	now, version := j.r.opt.Wall(), j.seen()
	j.st.known.pending = f
	if found && key.CharacterCount > 0 {
		j.log.Warn("abandoned key is in use, so it stays and counts as lost", "key_id", key.ID, "key_name", key.Name)
	}
	if !found || key.CharacterCount > 0 {
		return j.releaseFailed(ctx, func(e *ledger.Entry) { e.Abandon(now, version); j.failing(e, f) })
	}
	if err := j.write(ctx, func(e *ledger.Entry) { e.Abandon(now, version); j.takeClaim(e) }); err != nil {
		return false
	}
	if err := j.deleteLost(ctx, key); err != nil {
		j.log.Error("abandoned key not deleted", "key_id", key.ID, "outcome", "failed", "err", err) // the sweep tries again
	}
	return j.releaseFailed(ctx, func(e *ledger.Entry) { j.failing(e, f) })
}

func (j *job) releaseFailed(ctx context.Context, change func(*ledger.Entry)) bool {
	if err := j.release(ctx, change); err != nil {
		return false
	}
	j.st.known.pending = nil
	return true
}

// deleteLost deletes a key whose secret nobody holds.
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

// sweep deletes a listed key of which the ledger says that it was abandoned; of the twin of another one it says so first.
func (j *job) sweep(ctx context.Context, s plan.Step) bool {
	k := j.listedKey(s.KeyID)
	if k.ID == "" {
		return true // it is gone
	}
	_, _, rotation, _ := ledger.ParseKeyName(k.Name)
	if !j.entry().IsAbandoned(k.ID, rotation) {
		twin := ledger.Abandoned{Rotation: rotation, KeyName: k.Name, Workspace: k.Workspace, Account: k.ServiceAccount, Since: j.r.opt.Wall(), KeyID: k.ID}
		if err := j.write(ctx, func(e *ledger.Entry) { e.Abandoned = append(e.Abandoned, twin) }); err != nil {
			return j.claimFailed(err)
		}
	}
	err := j.deleteLost(ctx, k.Key)
	if err != nil {
		j.log.Error("abandoned key not deleted", "key_id", s.KeyID, "outcome", "failed", "err", err)
		j.noteRetireFailure(failed(ledger.StageRetire, err))
		j.r.mu.Lock()
		defer j.r.mu.Unlock()
		j.st.status.Unswept++
	}
	return err == nil
}
