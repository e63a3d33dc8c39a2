package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// Rollback puts a policy's previous key back: it is enabled, proven to work, and published again with the secret from
// the newest kept version of the record that has it. The key that was current goes through its overlap. Nothing is
// changed where that cannot be done: no version holds the secret any more, others disabled the key, or --revoke-now
// retired it.
func (r *Rotator) Rollback(ctx context.Context, name string) error {
	st, o, err := r.take(ctx, name)
	if err != nil {
		return err
	}
	first, err := previous(o)
	if err != nil {
		return fmt.Errorf("rolling back policy %s: %w", name, err)
	}
	for claimOf(o.Entry) != nil { // another process is at work, or was
		if err := r.drive(ctx, st, func(Observed) bool { return true }, func(s Step) bool { return s.Action == ActRecover }); err != nil {
			return err
		}
		if r.reconcile(ctx, st.ws); st.ws.err != nil {
			return fmt.Errorf("listing workspace %s: %w", st.ws.name, st.ws.err)
		}
		if _, o, err = r.observe(ctx, st); err != nil {
			return err
		}
	}
	// Whether the key may come back is decided from the entry that the claim replaces, after the work of others.
	back, err := previous(o)
	if err == nil && back.ID != first.ID {
		err = orUnknown(nil)
	}
	if err != nil {
		return fmt.Errorf("rolling back policy %s: %w", name, err)
	}
	secret, err := r.keptSecret(ctx, *back, o.Entry.Salt)
	if err != nil {
		return fmt.Errorf("rolling back policy %s: %w", name, err)
	}
	defer r.holdSecret(secret)()
	r.mu.Lock()
	p := *st.policy
	r.mu.Unlock()
	st.known.problem = nil
	j := r.newJob(st, p, Step{Action: ActRotate, Reason: ReasonRollback, Workspace: back.Workspace})
	if !j.rollback(ctx, *back, secret) || st.known.problem != nil {
		return fmt.Errorf("rolling back policy %s: %w", name, orUnknown(st.known.problem))
	}
	return nil
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("somebody else changed the policy's state meanwhile; look at its status and try again")
	}
	return err
}

// previous returns the key to go back to: the one that was published last before the current one.
func previous(o Observed) (*Retiring, error) {
	if o.LedgerError != "" {
		return nil, errors.New(o.LedgerError)
	}
	if o.Entry == nil || o.Entry.Current == nil {
		return nil, errors.New("there is no key yet")
	}
	var back *Retiring
	for i := range o.Entry.Retiring {
		if k := &o.Entry.Retiring[i]; back == nil || !k.Published.Before(back.Published) {
			back = k
		}
	}
	if back == nil {
		return nil, errors.New("there is no previous key: it was deleted, or there never was one")
	}
	k, listed := o.key(back.ID)
	switch {
	case back.deleting():
		return nil, fmt.Errorf("the previous key %s is being deleted: a delete of it is not answered yet", back.ID)
	case back.Reason == ReasonRevoke:
		return nil, fmt.Errorf("the previous key %s was retired by --revoke-now and stays so", back.ID)
	case !listed:
		return nil, fmt.Errorf("the previous key %s no longer exists", back.ID)
	case k.Disabled && (leaked(back.Reason) || k.DisableReason != ""):
		return nil, fmt.Errorf("the previous key %s was disabled by ElevenLabs (%s) and stays so", back.ID, disableReason(k.DisableReason))
	}
	return back, nil
}

// keptVersions bounds the search for a secret; Vault keeps ten versions unless it is told otherwise.
const keptVersions = 30

// keptSecret finds a key's secret in the kept versions of the record where it was published.
func (r *Rotator) keptSecret(ctx context.Context, key Retiring, salt string) (elevenlabs.Secret, error) {
	newest, err := r.Store.Read(ctx, key.Sink.Ref, 0)
	if err != nil {
		return elevenlabs.Secret{}, err
	}
	for v := newest.Version; v > max(0, newest.Version-keptVersions); v-- {
		doc, err := r.Store.Read(ctx, key.Sink.Ref, v)
		if err != nil {
			return elevenlabs.Secret{}, err
		}
		rec := parseRecord(doc, key.Sink.Field)
		if rec.KeyID == key.ID && hashValue(salt, rec.Secret.Reveal()) == key.Hash {
			return rec.Secret, nil
		}
	}
	return elevenlabs.Secret{}, fmt.Errorf("no kept version of %s holds the secret of the previous key %s", key.Sink, key.ID)
}

// rollback is a rotation whose key exists already: claim and intent, enable, verify, publish, commit.
func (j *job) rollback(ctx context.Context, back Retiring, secret elevenlabs.Secret) bool {
	if err := j.r.Store.Check(ctx, append(j.ledgerRefs(), j.p.Sink.Ref)...); err != nil {
		return j.notBegun(err)
	}
	in := &Intent{Rotation: back.Rotation, KeyName: back.Name, Workspace: back.Workspace, Account: back.Account, Sink: j.p.Sink,
		Reason: ReasonRollback, Started: j.r.Wall(), Seen: j.seen(), Rollback: true}
	call, err := j.newCall(CallEnable)
	if err == nil {
		err = j.write(ctx, func(e *Entry) { j.takeClaim(e); e.Intent = in; e.key(back.ID).note(call) })
	}
	if err != nil {
		j.st.known.problem = err
		return j.notBegun(err)
	}
	rec, err := j.r.readRecord(ctx, j.st, j.p.Sink)
	if err == nil && j.st.known.record.Match != j.entry().Current.ID {
		err = failedFor(StageClaim, ReasonRecordChanged, "%s does not hold the current key %s", j.p.Sink, j.entry().Current.ID)
	}
	if err == nil {
		err = j.stillOurs(ctx, rec, in.Seen)
	}
	if err == nil {
		err = j.takeGroup(ctx, in) // ahead of it: a person wants the key back now
	}
	if err != nil {
		j.settled(call)
		return j.giveBack(ctx, failed(StageClaim, err))
	}
	if err := j.putBack(ctx, in, *j.entry().retiring(back.ID), call, rec, secret); err != nil {
		return j.settle(ctx, failed(StagePublish, err))
	}
	return true
}

// putBack enables the key, proves that it works and publishes it.
func (j *job) putBack(ctx context.Context, in *Intent, back Retiring, call Call, rec Record, secret elevenlabs.Secret) error {
	if err := j.send(ctx, call, back.KeyRef); err != nil {
		return err
	}
	j.audit("key enabled again", "key_id", back.ID)
	if err := j.verify(ctx, secret); err != nil {
		return failed(StageVerify, err)
	}
	pub := j.publication(in, newKey{id: back.ID, name: back.Name, secret: secret})
	if err := j.publish(ctx, pub, rec); err != nil {
		return failed(StagePublish, err)
	}
	c := committed{KeyRef: j.restored(*j.entry().retiring(back.ID), pub.at), reason: ReasonRollback, previousUntil: pub.previousUntil, applied: j.entry().Applied}
	c.Sink = j.p.Sink
	if err := j.commit(ctx, c); err != nil {
		return failed(StageCommit, err)
	}
	return nil
}

// restored describes a key that is current again.
func (j *job) restored(back Retiring, at time.Time) KeyRef {
	ref := back.KeyRef
	ref.Sink, ref.Published, ref.Verified = j.p.Sink, at, true
	return ref
}

// undoRollback ends a rollback that was not published: the key leaves again, at once where it had been disabled.
func (j *job) undoRollback(ctx context.Context, in *Intent, f *stageError) bool {
	if !f.counted {
		j.r.noteFailure(j.st, j.p, f, j.begun)
		j.log.Error("rollback failed", "stage", f.stage, "failure", f.reason, "err", f.err)
	}
	j.st.known.pending = f
	now := j.r.Wall()
	return j.givenUp(ctx, func(e *Entry) {
		for i := range e.Retiring {
			if k := &e.Retiring[i]; k.Name == in.KeyName && k.State == InQuarantine {
				k.State, k.Until = InOverlap, now // it may be enabled: it is disabled again
			}
		}
		j.failing(e, f)
	})
}
