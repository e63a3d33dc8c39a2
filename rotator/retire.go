package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// retire takes a former key to its next state: enabled to disabled, disabled to gone. It does so under a claim, after
// ledger and record were read again, and only while the record holds another key that works.
func (j *job) retire(ctx context.Context, s plan.Step) bool {
	if err := j.r.readEntry(ctx, j.st, j.p.Name); err != nil {
		j.r.noteStoreFailure(j.st, err)
		return false
	}
	key := j.stillRetiring(s)
	if key == nil {
		return true // somebody else has done it, or is at it
	}
	kind := ledger.CallDisable
	if s.Action == plan.ActDelete {
		kind = ledger.CallDelete
	}
	call, err := j.newCall(kind)
	if err == nil {
		err = j.write(ctx, func(e *ledger.Entry) { j.takeClaim(e); e.Key(s.KeyID).Note(call) })
	}
	if err != nil {
		return j.notBegunRetiring(err)
	}
	if err := j.mayRetire(ctx, s.Action, key.KeyRef); err != nil {
		j.settled(call)
		return j.retireLater(ctx, s, failed(ledger.StageRetire, err))
	}
	if s.Reason == ledger.ReasonDisabledOutside {
		enabled, err := j.enabledAgain(ctx, key.KeyRef)
		if err != nil || enabled {
			j.settled(call)
		}
		if err != nil {
			return j.retireLater(ctx, s, failed(ledger.StageRetire, err))
		}
		if enabled {
			return j.release(ctx, nil) == nil
		}
	}
	err = j.send(ctx, call, key.KeyRef)
	gone := errors.Is(err, elevenlabs.ErrNotFound)
	if err != nil && !gone {
		return j.retireLater(ctx, s, failed(ledger.StageRetire, err))
	}
	if s.Action == plan.ActDisable && !gone && !j.stillUnread(ctx, key.ID) {
		j.answered = nil // what we did may have to be undone
	}
	return j.retired(ctx, s, *key, gone || s.Action == plan.ActDelete)
}

// stillRetiring returns the key if the entry, as just read, still says that the step is due.
func (j *job) stillRetiring(s plan.Step) *ledger.Retiring {
	e := j.entry()
	if e == nil || e.MovedTo != "" || e.Claim != nil || ledger.CurrentID(e) == s.KeyID {
		return nil
	}
	key := e.RetiringKey(s.KeyID)
	switch {
	case key == nil:
		return nil
	case s.Reason == ledger.ReasonRevoke:
		return ledger.ClonePtr(key)
	case s.Reason == ledger.ReasonLateEnable && key.State == ledger.InQuarantine:
		return ledger.ClonePtr(key)
	case (key.State == ledger.InOverlap) != (s.Action == plan.ActDisable):
		return nil
	case s.Reason != ledger.ReasonDisabledOutside && j.r.opt.Wall().Before(key.Until):
		return nil
	}
	return ledger.ClonePtr(key)
}

// stillUnread reports that the record does not hold a key that was just disabled: others may have put it back after we
// looked. Where that is so, or not known, the note of the call stays, and so the key is enabled again.
func (j *job) stillUnread(ctx context.Context, id string) bool {
	_, err := j.r.readRecord(ctx, j.st, j.p.Sink)
	return err == nil && j.st.known.record.Match != id
}

func (j *job) notBegunRetiring(err error) bool {
	j.st.known.loaded = false
	if errors.Is(err, errClaimLost) || errors.Is(err, ledger.ErrConflict) {
		return true
	}
	j.r.noteStoreFailure(j.st, err)
	return false
}

// mayRetire returns nil when no reader can still depend on the key: the record where readers look now holds the
// current key, and that key is enabled and was proven to work. A key that is to be deleted must moreover be disabled.
func (j *job) mayRetire(ctx context.Context, what plan.Action, old ledger.KeyRef) error {
	if what == plan.ActDelete {
		enabled, err := j.listedEnabled(ctx, j.api, old)
		if err != nil {
			return fmt.Errorf("checking that key %s is disabled: %w", old.ID, err)
		}
		if enabled {
			return failedFor(ledger.StageRetire, ledger.ReasonUnsafe, "key %s is in quarantine and listed as enabled", old.ID)
		}
	}
	if j.entry().Current == nil {
		return j.recordLacks(ctx, old)
	}
	c := *j.entry().Current
	rec, err := j.r.readRecord(ctx, j.st, c.Sink)
	if err != nil {
		return err
	}
	if v := j.st.known.record; v.Match != c.ID && (c.Hash != "" || v.KeyID != c.ID) {
		return failedFor(ledger.StageRetire, ledger.ReasonUnsafe, "%s does not hold the current key %s", c.Sink, c.ID)
	}
	if j.p.Sink.Ref != c.Sink.Ref {
		if v, err := j.r.readRecord(ctx, j.st, j.p.Sink); err != nil {
			return err
		} else if v.KeyID == old.ID {
			return failedFor(ledger.StageRetire, ledger.ReasonUnsafe, "%s still holds key %s", j.p.Sink, old.ID)
		}
		j.st.known.record = nil
	}
	if err := j.adminMoved(ctx, old, &c); err != nil {
		return err
	}
	return j.currentWorks(ctx, c, rec.Secret)
}

// currentWorks asks ElevenLabs, not a cache, whether the current key is enabled; a key that was adopted, and so never
// verified by us, is asked itself.
func (j *job) currentWorks(ctx context.Context, c ledger.KeyRef, secret secret.Secret) error {
	api := j.r.apiOf(c.Workspace)
	if api == nil {
		return failedFor(ledger.StageRetire, ledger.ReasonUnsafe, "workspace %s of the current key is no longer configured", c.Workspace)
	}
	enabled, err := j.listedEnabled(ctx, api, c)
	switch {
	case err != nil && c.Workspace != j.workspaceName: // not wrapped: it says nothing about the workspace of the old key
		return failedFor(ledger.StageRetire, reasonOf(err), "checking the current key in workspace %s: %v", c.Workspace, err)
	case err != nil:
		return fmt.Errorf("checking the current key: %w", err)
	}
	if !enabled {
		return failedFor(ledger.StageRetire, ledger.ReasonUnsafe, "the current key %s is not listed as enabled", c.ID)
	}
	if c.Verified || !j.p.Verify {
		return nil
	}
	defer j.r.redact(secret)()
	life, err := j.probe(ctx, api, secret)
	if life != elevenlabs.Valid {
		return failedFor(ledger.StageRetire, ledger.ReasonUnsafe, "the current key %s could not be proven to work: %w", c.ID, orDead(err))
	}
	return nil
}

// listedEnabled asks for the keys of an account, once in this job, and reports that the key is an enabled one of them.
func (j *job) listedEnabled(ctx context.Context, api *elevenlabs.Client, key ledger.KeyRef) (bool, error) {
	at := [2]string{key.Workspace, key.Account}
	keys, listed := j.keys[at]
	if !listed {
		var err error
		if keys, err = api.Keys(ctx, key.Account); err != nil {
			return false, err
		}
		if j.keys == nil {
			j.keys = map[[2]string][]elevenlabs.Key{}
		}
		j.keys[at] = keys
	}
	return slices.ContainsFunc(keys, func(k elevenlabs.Key) bool { return k.ID == key.ID && !k.Disabled }), nil
}

// enabledAgain asks whether a key that a listing showed disabled in its overlap works all the same: that listing may be
// of the time before somebody rolled back to the key.
func (j *job) enabledAgain(ctx context.Context, key ledger.KeyRef) (bool, error) {
	keys, err := j.api.Keys(ctx, key.Account)
	if err != nil {
		return false, fmt.Errorf("checking whether key %s is disabled: %w", key.ID, err)
	}
	i := slices.IndexFunc(keys, func(k elevenlabs.Key) bool { return k.ID == key.ID && !k.Disabled })
	if i < 0 {
		return false, nil
	}
	j.r.updateListing(key.Workspace, key.Account, key.ID, func(k *elevenlabs.Key) { k.Disabled, k.DisableReason = false, "" })
	return true, nil
}

// retired notes that the step was done.
func (j *job) retired(ctx context.Context, s plan.Step, key ledger.Retiring, gone bool) bool {
	err := j.release(ctx, func(e *ledger.Entry) {
		if gone {
			e.DropRetiring(s.KeyID)
			return
		}
		r := e.RetiringKey(s.KeyID)
		if r.State == ledger.InOverlap {
			r.State, r.Until = ledger.InQuarantine, j.now().Add(time.Duration(r.Quarantine))
		}
		r.Tries, r.NextTry = 0, time.Time{}
		if s.Reason == ledger.ReasonRevoke {
			r.Reason = ledger.ReasonRevoke // never to be put back
		}
	})
	what := "key disabled"
	if gone {
		what = "key deleted"
		j.r.updateListing(key.Workspace, key.Account, key.ID, nil)
	} else {
		j.r.updateListing(key.Workspace, key.Account, key.ID, func(k *elevenlabs.Key) { k.Disabled = true })
	}
	j.audit(what, "key_id", key.ID, "rotation", key.Rotation, "service_account", key.Account)
	j.r.wakeGroup(j.p)
	kind := EventRetired
	if s.Reason == ledger.ReasonDisabledOutside {
		kind = EventKeyDisabled
	}
	j.r.opt.Observe(Event{Type: kind, Policy: j.p.Name, Workspace: key.Workspace, KeyID: key.ID, Reason: s.Reason, At: j.r.opt.Wall()})
	if err != nil {
		j.st.known.loaded = false // the call is repeated; it is harmless
	}
	return err == nil
}

// retireLater keeps a retirement that failed: it is tried for as long as it takes, and is never a failed rotation.
func (j *job) retireLater(ctx context.Context, s plan.Step, f *stageError) bool {
	j.log.Error("retirement failed", "key_id", s.KeyID, "outcome", "failed", "failure", f.reason, "err", f.err)
	j.noteRetireFailure(f)
	j.st.known.problem = f
	if errors.Is(f, errClaimLost) {
		j.st.known.loaded = false
		return true
	}
	err := j.release(ctx, func(e *ledger.Entry) {
		if r := e.RetiringKey(s.KeyID); r != nil {
			r.Tries++
			r.NextTry = j.r.opt.Wall().Add(j.wait(r.Tries, f))
		}
	})
	if err != nil {
		j.st.known.loaded = false
	}
	return err == nil
}

// makeRoom ends the quarantine of the policy's oldest quarantined key, since the account may hold no more keys. It does
// so once per due time, which the intent notes; nothing else is given up for a new key.
func (j *job) makeRoom(ctx context.Context) bool {
	var oldest *ledger.Retiring
	for i := range j.entry().Retiring {
		if k := &j.entry().Retiring[i]; k.State == ledger.InQuarantine && (oldest == nil || k.Until.Before(oldest.Until)) {
			oldest = ledger.ClonePtr(k)
		}
	}
	if oldest == nil || oldest.Workspace != j.workspaceName || j.entry().MadeRoom() {
		return false
	}
	call, err := j.newCall(ledger.CallDelete)
	if err == nil {
		err = j.write(ctx, func(e *ledger.Entry) {
			j.takeClaim(e)
			e.LimitUsed = ledger.ClonePtr(&e.LastRotation)
			e.Key(oldest.ID).Note(call)
		})
	}
	if err == nil {
		if err = j.mayRetire(ctx, plan.ActDelete, oldest.KeyRef); err != nil {
			j.settled(call)
		} else {
			err = j.send(ctx, call, oldest.KeyRef)
		}
	}
	if err != nil && !errors.Is(err, elevenlabs.ErrNotFound) {
		j.log.Error("no room made for a new key", "key_id", oldest.ID, "err", err)
		return false
	}
	j.audit("key deleted", "key_id", oldest.ID, "service_account", oldest.Account, "because", string(ledger.ReasonKeyLimit))
	j.r.updateListing(oldest.Workspace, oldest.Account, oldest.ID, nil)
	j.r.opt.Observe(Event{Type: EventRetired, Policy: j.p.Name, Workspace: oldest.Workspace, KeyID: oldest.ID, Reason: ledger.ReasonKeyLimit, At: j.r.opt.Wall()})
	return j.write(ctx, func(e *ledger.Entry) { j.takeClaim(e); e.DropRetiring(oldest.ID) }) == nil
}
