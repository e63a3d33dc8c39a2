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

// retire moves a former key to its next state: from enabled to disabled, or from disabled to deleted. It does so under a claim,
// after reading ledger and record again, and only while the record holds another key that works. The claim is refused unless the
// known entry is the newest, and the record is read from a node that has shown the claim.
func (j *job) retire(ctx context.Context, s plan.Step) outcome {
	if !j.stillPlanned(s) {
		return outcome{again: true} // an earlier step has changed the entry, or shows that another process did
	}
	key := ledger.ClonePtr(j.entry().RetiringKey(s.KeyID))
	kind := ledger.CallDisable
	if s.Action == plan.ActDelete {
		kind = ledger.CallDelete
	}
	call, err := j.newCall(kind)
	if err == nil {
		err = j.write(ctx, func(e *ledger.Entry) { j.takeClaim(e); e.Key(s.KeyID).Note(call) })
	}
	switch {
	case claimLost(err):
		return outcome{again: true}
	case err != nil:
		return storeFailed(err)
	}
	err = j.r.readEntry(ctx, j.st, j.p.Name)
	if c := ledger.ClaimOf(j.entry()); err == nil && (c == nil || c.Holder != j.r.holder) {
		return outcome{again: true} // it was taken over, or Vault was restored; nothing was sent
	}
	if err == nil {
		err = j.mayRetire(ctx, s.Action, key.KeyRef)
	}
	if err != nil {
		j.settled(call)
		return j.retireLater(ctx, s, failed(ledger.StageRetire, err))
	}
	if s.Reason == ledger.TriggerDisabledOutside {
		enabled, err := j.enabledAgain(ctx, key.KeyRef)
		if err != nil || enabled {
			j.settled(call)
		}
		if err != nil {
			return j.retireLater(ctx, s, failed(ledger.StageRetire, err))
		}
		if enabled {
			return released(j.release(ctx, nil))
		}
	}
	err = j.send(ctx, call, key.KeyRef)
	gone := errors.Is(err, elevenlabs.ErrNotFound)
	if err != nil && !gone {
		return j.retireLater(ctx, s, failed(ledger.StageRetire, err))
	}
	proof := ledger.Proof("")
	if s.Action == plan.ActDisable && !gone {
		if !j.stillUnread(ctx, key.ID) {
			j.answered = nil // the disable may have to be undone
		}
		proof = j.endOf(ctx, key.KeyRef)
	}
	return j.retired(ctx, s, *key, gone || s.Action == plan.ActDelete, proof)
}

// stillUnread reports whether the record does not hold a key that was just disabled: another writer may have put it back after
// the last read. If it did, or that is unknown, the note of the call stays, so that the key is enabled again.
func (j *job) stillUnread(ctx context.Context, id string) bool {
	if j.r.mayLag(ctx) {
		return false
	}
	if ledger.SessionOf(ctx).Index() != "" { // what is read next is as new as this write, and so as the disable
		answered := j.answered
		j.answered = nil
		err := j.write(ctx, j.takeClaim)
		if j.answered = answered; err != nil {
			return false
		}
	}
	_, err := j.r.readRecord(ctx, j.st, j.p.Sink, 0)
	return err == nil && j.st.known.record.Match != id
}

// mayRetire returns nil if no reader can still depend on the key: the record holds the current key, which is enabled and proven
// to work unless it is being replaced. A key to be deleted must also be disabled.
func (j *job) mayRetire(ctx context.Context, what plan.Action, old ledger.KeyRef) error {
	if what == plan.ActDelete {
		enabled, err := j.listedEnabled(ctx, j.api, old)
		if err != nil {
			return fmt.Errorf("checking that key %s is disabled: %w", old.ID, err)
		}
		if enabled {
			return failedFor(ledger.StageRetire, ledger.FailureUnsafe, "key %s is in quarantine and listed as enabled", old.ID)
		}
	}
	if j.entry().Current == nil {
		return j.recordLacks(ctx, old)
	}
	c := *j.entry().Current
	rec, err := j.holdsCurrent(ctx, what, c)
	if err != nil {
		return err
	}
	if j.p.Sink.Ref != c.Sink.Ref {
		if v, err := j.r.readRecord(ctx, j.st, j.p.Sink, 0); err != nil {
			return err
		} else if v.KeyID == old.ID {
			return failedFor(ledger.StageRetire, ledger.FailureUnsafe, "%s still holds key %s", j.p.Sink, old.ID)
		}
		j.st.known.record = nil
	}
	if err := j.adminMoved(ctx, old, &c); err != nil {
		return err
	}
	if j.entry().Intent != nil {
		return nil // a rotation needs the place: the current key may be the one that leaked
	}
	return j.currentWorks(ctx, c, rec.Secret)
}

// recordLacks returns nil if no record holds the retiring key of a policy without a current key: readers do not have it, so it
// may go. It does not check a removed policy, whose current key a person pruned.
func (j *job) recordLacks(ctx context.Context, old ledger.KeyRef) error {
	if j.p.Mode == plan.ModeRemoved {
		return nil
	}
	for _, sink := range slices.Compact([]ledger.Sink{old.Sink, j.p.Sink}) {
		if _, err := j.r.readRecord(ctx, j.st, sink, 0); err != nil {
			return err
		}
		if j.st.known.record.MayBe(old) {
			return failedFor(ledger.StageRetire, ledger.FailureUnsafe, "%s may hold key %s, and there is no current one", sink, old.ID)
		}
	}
	return nil
}

// holdsCurrent returns the record, which holds the current key. Where the answer may come from a node that lags, and nothing can be
// asked for, only a write shows whether it is the newest: the record is written again as it is. A key that is disabled already is
// deleted without that.
func (j *job) holdsCurrent(ctx context.Context, what plan.Action, c ledger.KeyRef) (ledger.Record, error) {
	known := 0
	for attempt := 1; ; attempt++ {
		rec, err := j.r.readRecord(ctx, j.st, c.Sink, known)
		if err != nil {
			return rec, err
		}
		if v := j.st.known.record; v.Match != c.ID && (c.Hash != "" || v.KeyID != c.ID) {
			return rec, failedFor(ledger.StageRetire, ledger.FailureUnsafe, "%s does not hold the current key %s", c.Sink, c.ID)
		}
		if what == plan.ActDelete || !j.r.mayLag(ctx) {
			return rec, nil
		}
		_, err = j.r.opt.Store.Write(ctx, c.Sink.Ref, rec.Fields, rec.Doc.Version)
		if err == nil {
			return rec, nil
		}
		if !errors.Is(err, ledger.ErrConflict) || attempt == publishTries || !j.pause(ctx, attempt) {
			return rec, fmt.Errorf("making sure that %s holds the current key: %w", c.Sink, err)
		}
		known = j.r.beyond(ctx, rec.Doc.Version)
	}
}

// currentWorks asks ElevenLabs, not a cache, whether the current key is enabled. It also probes a key that was never verified,
// such as an adopted one.
func (j *job) currentWorks(ctx context.Context, c ledger.KeyRef, secret secret.Secret) error {
	api := j.r.apiOf(c.Workspace)
	if api == nil {
		return failedFor(ledger.StageRetire, ledger.FailureUnsafe, "workspace %s of the current key is no longer configured", c.Workspace)
	}
	enabled, err := j.listedEnabled(ctx, api, c)
	switch {
	case err != nil && c.Workspace != j.workspaceName: // not wrapped: the old key's workspace is not at fault
		return failedFor(ledger.StageRetire, FailureOf(err), "checking the current key in workspace %s: %v", c.Workspace, err)
	case err != nil:
		return fmt.Errorf("checking the current key: %w", err)
	}
	if !enabled {
		return failedFor(ledger.StageRetire, ledger.FailureUnsafe, "the current key %s is not listed as enabled", c.ID)
	}
	if c.Verified || !j.p.Verify {
		return nil
	}
	defer j.r.redact(secret)()
	result, err := j.probe(ctx, api, secret)
	if result != elevenlabs.Valid {
		return failedFor(ledger.StageRetire, ledger.FailureUnsafe, "the current key %s was not proven to work: %w", c.ID, err)
	}
	return nil
}

// listedEnabled reports whether the key is listed as enabled. A job lists each account once.
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

// enabledAgain reports whether a key that a listing showed as disabled in its overlap is enabled after all: the listing may be
// from before a rollback to the key.
func (j *job) enabledAgain(ctx context.Context, key ledger.KeyRef) (bool, error) {
	j.keys = nil // listed anew
	enabled, err := j.listedEnabled(ctx, j.api, key)
	if err != nil {
		return false, fmt.Errorf("checking whether key %s is disabled: %w", key.ID, err)
	}
	if enabled {
		j.r.updateListing(key.Workspace, key.Account, key.ID, func(k *elevenlabs.Key) { k.Disabled, k.DisableReason = false, "" })
	}
	return enabled, nil
}

// retired notes that the step is done.
func (j *job) retired(ctx context.Context, s plan.Step, key ledger.Retiring, gone bool, proof ledger.Proof) outcome {
	err := j.release(ctx, func(e *ledger.Entry) {
		noteEnd(e, key.ID, j.now(), gone)
		noteProof(e, key.ID, proof, j.now())
		if gone {
			e.DropRetiring(s.KeyID)
			return
		}
		r := e.RetiringKey(s.KeyID)
		if r.State == ledger.InOverlap {
			r.State, r.Until = ledger.InQuarantine, j.now().Add(time.Duration(r.Quarantine))
		}
		r.Tries, r.NextTry = 0, time.Time{}
		if s.Reason == ledger.TriggerRevoke {
			r.Reason = ledger.TriggerRevoke // rollback refuses it
		}
	})
	what := keyDisabled
	if gone {
		what = keyDeleted
		j.r.updateListing(key.Workspace, key.Account, key.ID, nil)
	} else {
		j.r.updateListing(key.Workspace, key.Account, key.ID, func(k *elevenlabs.Key) { k.Disabled = true })
	}
	j.audit(what, "key_id", key.ID, "rotation", key.Rotation, "service_account", key.Account)
	j.tellProof(key.KeyRef, proof)
	j.r.wakeGroup(j.p)
	kind := EventRetired
	if s.Reason == ledger.TriggerDisabledOutside {
		kind = EventKeyDisabled
	}
	j.r.opt.Observe(Event{Type: kind, Policy: j.p.Name, Workspace: key.Workspace, KeyID: key.ID, KeyName: key.Name, Reason: s.Reason,
		Evidence: endEvidence(key.ID, j.entry()), At: j.r.opt.Wall()})
	if err != nil {
		j.st.known.tell(end{what, key.ID})
		return outcome{} // recovery drops the claim, and the call is repeated, which is harmless
	}
	return outcome{again: true, progress: true}
}

// noteEnd notes in the history when a key was disabled or deleted.
func noteEnd(e *ledger.Entry, keyID string, now time.Time, gone bool) {
	past := e.PastOf(keyID)
	switch {
	case past == nil:
	case gone:
		past.Deleted = now.Truncate(time.Second)
	default:
		past.Disabled = now.Truncate(time.Second)
	}
}

// retireLater schedules the next try of a failed retirement. It is retried without limit, and does not count as a failed rotation.
func (j *job) retireLater(ctx context.Context, s plan.Step, f *stageError) outcome {
	if !errors.Is(f, errClaimLost) {
		err := j.release(ctx, func(e *ledger.Entry) {
			if r := e.RetiringKey(s.KeyID); r != nil {
				r.Tries++
				r.NextTry = j.r.opt.Wall().Add(j.wait(r.Tries, f))
			}
		})
		if err != nil {
			return outcome{failure: f, as: failedRetirement}
		}
	}
	return outcome{again: true, failure: f, as: failedRetirement}
}

// makeRoom deletes the key that is longest in quarantine, since the account is full. It does so once per due time, which the
// entry notes; no other key makes room for a new one.
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
		j.log.Error("making room for a new key failed", "key_id", oldest.ID, "err", err)
		return false
	}
	j.audit(keyDeleted, "key_id", oldest.ID, "service_account", oldest.Account, "because", string(ledger.TriggerKeyLimit))
	j.r.updateListing(oldest.Workspace, oldest.Account, oldest.ID, nil)
	j.r.opt.Observe(Event{Type: EventRetired, Policy: j.p.Name, Workspace: oldest.Workspace, KeyID: oldest.ID, KeyName: oldest.Name, Reason: ledger.TriggerKeyLimit,
		Evidence: endEvidence(oldest.ID, j.entry()), At: j.r.opt.Wall()})
	err = j.write(ctx, func(e *ledger.Entry) {
		j.takeClaim(e)
		noteEnd(e, oldest.ID, j.now(), true)
		e.DropRetiring(oldest.ID)
	})
	if err != nil {
		j.st.known.tell(end{keyDeleted, oldest.ID})
	}
	return err == nil
}
