package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// retire takes a former key to its next state: enabled to disabled, disabled to gone. It does so under a claim, after
// ledger and record were read again, and only while the record holds another key that works.
func (j *job) retire(ctx context.Context, s Step) bool {
	if err := j.r.readEntry(ctx, j.st, j.p.Name); err != nil {
		j.r.noteSinkFailure(j.st, err)
		return false
	}
	key := j.stillRetiring(s)
	if key == nil {
		return true // somebody else has done it, or is at it
	}
	kind := CallDisable
	if s.Action == ActDelete {
		kind = CallDelete
	}
	call, err := j.newCall(kind)
	if err == nil {
		err = j.write(ctx, func(e *Entry) { j.takeClaim(e); e.key(s.KeyID).note(call) })
	}
	if err != nil {
		return j.notBegunRetiring(err)
	}
	if err := j.mayRetire(ctx, s.Action, key.KeyRef); err != nil {
		j.settled(call)
		return j.retireLater(ctx, s, failed(StageRetire, err))
	}
	if s.Reason == ReasonDisabledOutside {
		enabled, err := j.enabledAgain(ctx, key.KeyRef)
		if err != nil || enabled {
			j.settled(call)
		}
		if err != nil {
			return j.retireLater(ctx, s, failed(StageRetire, err))
		}
		if enabled {
			return j.release(ctx, nil) == nil
		}
	}
	err = j.send(ctx, call, key.KeyRef)
	gone := errors.Is(err, elevenlabs.ErrNotFound)
	if err != nil && !gone {
		return j.retireLater(ctx, s, failed(StageRetire, err))
	}
	if s.Action == ActDisable && !gone && !j.stillUnread(ctx, key.ID) {
		j.answered = nil // what we did may have to be undone
	}
	return j.retired(ctx, s, *key, gone || s.Action == ActDelete)
}

// stillRetiring returns the key if the entry, as just read, still says that the step is due.
func (j *job) stillRetiring(s Step) *Retiring {
	e := j.entry()
	if e == nil || e.MovedTo != "" || e.Claim != nil || currentID(e) == s.KeyID {
		return nil
	}
	key := e.retiring(s.KeyID)
	switch {
	case key == nil:
		return nil
	case s.Reason == ReasonRevoke:
		return clonePtr(key)
	case s.Reason == ReasonLateEnable && key.State == InQuarantine:
		return clonePtr(key)
	case (key.State == InOverlap) != (s.Action == ActDisable):
		return nil
	case s.Reason != ReasonDisabledOutside && j.r.Wall().Before(key.Until):
		return nil
	}
	return clonePtr(key)
}

// stillUnread reports that the record does not hold a key that was just disabled: others may have put it back after we
// looked. Where that is so, or not known, the note of the call stays, and so the key is enabled again.
func (j *job) stillUnread(ctx context.Context, id string) bool {
	_, err := j.r.readRecord(ctx, j.st, j.p.Sink)
	return err == nil && j.st.known.record.Match != id
}

func (j *job) notBegunRetiring(err error) bool {
	j.st.known.loaded = false
	if errors.Is(err, errClaimLost) || errors.Is(err, ErrConflict) {
		return true
	}
	j.r.noteSinkFailure(j.st, err)
	return false
}

// mayRetire returns nil when no reader can still depend on the key: the record where readers look now holds the
// current key, and that key is enabled and was proven to work. A key that is to be deleted must moreover be disabled.
func (j *job) mayRetire(ctx context.Context, what Action, old KeyRef) error {
	if what == ActDelete {
		enabled, err := j.listedEnabled(ctx, j.api, old)
		if err != nil {
			return fmt.Errorf("checking that key %s is disabled: %w", old.ID, err)
		}
		if enabled {
			return failedFor(StageRetire, ReasonUnsafe, "key %s is in quarantine and listed as enabled", old.ID)
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
		return failedFor(StageRetire, ReasonUnsafe, "%s does not hold the current key %s", c.Sink, c.ID)
	}
	if j.p.Sink.Ref != c.Sink.Ref {
		if v, err := j.r.readRecord(ctx, j.st, j.p.Sink); err != nil {
			return err
		} else if v.KeyID == old.ID {
			return failedFor(StageRetire, ReasonUnsafe, "%s still holds key %s", j.p.Sink, old.ID)
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
func (j *job) currentWorks(ctx context.Context, c KeyRef, secret elevenlabs.Secret) error {
	api := j.r.apiOf(c.Workspace)
	if api == nil {
		return failedFor(StageRetire, ReasonUnsafe, "workspace %s of the current key is no longer configured", c.Workspace)
	}
	enabled, err := j.listedEnabled(ctx, api, c)
	switch {
	case err != nil && c.Workspace != j.space: // not wrapped: it says nothing about the workspace of the old key
		return failedFor(StageRetire, reasonOf(err), "checking the current key in workspace %s: %v", c.Workspace, err)
	case err != nil:
		return fmt.Errorf("checking the current key: %w", err)
	}
	if !enabled {
		return failedFor(StageRetire, ReasonUnsafe, "the current key %s is not listed as enabled", c.ID)
	}
	if c.Verified || !j.p.Verify {
		return nil
	}
	defer j.r.holdSecret(secret)()
	life, err := j.probe(ctx, api, secret)
	if life != elevenlabs.Alive {
		return failedFor(StageRetire, ReasonUnsafe, "the current key %s could not be proven to work: %w", c.ID, orDead(err))
	}
	return nil
}

// listedEnabled asks for the keys of an account, once in this job, and reports that the key is an enabled one of them.
func (j *job) listedEnabled(ctx context.Context, api *elevenlabs.Client, key KeyRef) (bool, error) {
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
func (j *job) enabledAgain(ctx context.Context, key KeyRef) (bool, error) {
	keys, err := j.api.Keys(ctx, key.Account)
	if err != nil {
		return false, fmt.Errorf("checking whether key %s is disabled: %w", key.ID, err)
	}
	i := slices.IndexFunc(keys, func(k elevenlabs.Key) bool { return k.ID == key.ID && !k.Disabled })
	if i < 0 {
		return false, nil
	}
	j.r.amend(key.Workspace, key.Account, key.ID, func(k *elevenlabs.Key) { k.Disabled, k.DisableReason = false, "" })
	return true, nil
}

// retired notes that the step was done.
func (j *job) retired(ctx context.Context, s Step, key Retiring, gone bool) bool {
	err := j.release(ctx, func(e *Entry) {
		if gone {
			e.dropRetiring(s.KeyID)
			return
		}
		r := e.retiring(s.KeyID)
		if r.State == InOverlap {
			r.State, r.Until = InQuarantine, j.now().Add(time.Duration(r.Quarantine))
		}
		r.Tries, r.NextTry = 0, time.Time{}
		if s.Reason == ReasonRevoke {
			r.Reason = ReasonRevoke // never to be put back
		}
	})
	what := "key disabled"
	if gone {
		what = "key deleted"
		j.r.amend(key.Workspace, key.Account, key.ID, nil)
	} else {
		j.r.amend(key.Workspace, key.Account, key.ID, func(k *elevenlabs.Key) { k.Disabled = true })
	}
	j.audit(what, "key_id", key.ID, "rotation", key.Rotation, "service_account", key.Account)
	j.r.wakeGroup(j.p)
	kind := EventRetired
	if s.Reason == ReasonDisabledOutside {
		kind = EventKeyDisabled
	}
	j.r.Observe(Event{Type: kind, Policy: j.p.Name, Workspace: key.Workspace, KeyID: key.ID, Reason: s.Reason, At: j.r.Wall()})
	if err != nil {
		j.st.known.loaded = false // the call is repeated; it is harmless
	}
	return err == nil
}

// retireLater keeps a retirement that failed: it is tried for as long as it takes, and is never a failed rotation.
func (j *job) retireLater(ctx context.Context, s Step, f *stageError) bool {
	j.log.Error("retirement failed", "key_id", s.KeyID, "outcome", "failed", "failure", f.reason, "err", f.err)
	j.noteRetireFailure(f)
	j.st.known.problem = f
	if errors.Is(f, errClaimLost) {
		j.st.known.loaded = false
		return true
	}
	err := j.release(ctx, func(e *Entry) {
		if r := e.retiring(s.KeyID); r != nil {
			r.Tries++
			r.NextTry = j.r.Wall().Add(j.wait(r.Tries, f))
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
	var oldest *Retiring
	for i := range j.entry().Retiring {
		if k := &j.entry().Retiring[i]; k.State == InQuarantine && (oldest == nil || k.Until.Before(oldest.Until)) {
			oldest = clonePtr(k)
		}
	}
	if oldest == nil || oldest.Workspace != j.space || j.entry().madeRoom() {
		return false
	}
	call, err := j.newCall(CallDelete)
	if err == nil {
		err = j.write(ctx, func(e *Entry) {
			j.takeClaim(e)
			e.LimitUsed = clonePtr(&e.LastRotation)
			e.key(oldest.ID).note(call)
		})
	}
	if err == nil {
		if err = j.mayRetire(ctx, ActDelete, oldest.KeyRef); err != nil {
			j.settled(call)
		} else {
			err = j.send(ctx, call, oldest.KeyRef)
		}
	}
	if err != nil && !errors.Is(err, elevenlabs.ErrNotFound) {
		j.log.Error("no room made for a new key", "key_id", oldest.ID, "err", err)
		return false
	}
	j.audit("key deleted", "key_id", oldest.ID, "service_account", oldest.Account, "because", string(ReasonKeyLimit))
	j.r.amend(oldest.Workspace, oldest.Account, oldest.ID, nil)
	j.r.Observe(Event{Type: EventRetired, Policy: j.p.Name, Workspace: oldest.Workspace, KeyID: oldest.ID, Reason: ReasonKeyLimit, At: j.r.Wall()})
	return j.write(ctx, func(e *Entry) { j.takeClaim(e); e.dropRetiring(oldest.ID) }) == nil
}
