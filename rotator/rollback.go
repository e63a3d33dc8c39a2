package rotator

import (
	"context"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// keptVersions bounds the search for a secret; Vault keeps ten versions by default.
const keptVersions = 30

// keptSecret finds a key's secret in the kept versions of its record.
func (r *Rotator) keptSecret(ctx context.Context, key ledger.Retiring, salt string) (secret.Secret, error) {
	kept, found, err := r.keptVersion(ctx, key.KeyRef, func(s secret.Secret) bool { return ledger.HashValue(salt, s.Reveal()) == key.Hash })
	if err == nil && !found {
		err = fmt.Errorf("no kept version of %s holds the secret of the previous key %s", key.Sink, key.ID)
	}
	return kept, err
}

// keptVersion returns the newest kept value of the record that is the key's and that is wanted.
func (r *Rotator) keptVersion(ctx context.Context, key ledger.KeyRef, wanted func(secret.Secret) bool) (s secret.Secret, found bool, err error) {
	newest, err := r.opt.Store.Read(ctx, key.Sink.Ref, 0)
	if err != nil {
		return s, false, err
	}
	for v := newest.Version; v > max(0, newest.Version-keptVersions); v-- {
		doc, err := r.opt.Store.Read(ctx, key.Sink.Ref, v)
		if err != nil {
			return s, false, err
		}
		if rec := ledger.ParseRecord(doc, key.Sink.Field); rec.KeyID == key.ID && wanted(rec.Secret) {
			return rec.Secret, true, nil
		}
	}
	return s, false, nil
}

// rollback is a rotation with an existing key: claim and intent, enable, verify, publish, commit.
func (j *job) rollback(ctx context.Context, back ledger.Retiring, secret secret.Secret) outcome {
	if err := j.r.opt.Store.Check(ctx, append(j.ledgerRefs(), j.p.Sink.Ref)...); err != nil {
		return claimFailed(err)
	}
	in := &ledger.Intent{Rotation: back.Rotation, KeyName: back.Name, Workspace: back.Workspace, Account: back.Account, Sink: j.p.Sink,
		Reason: ledger.TriggerRollback, By: ledger.ByCommand, Started: j.r.opt.Wall(), Seen: j.seen(), Rollback: true}
	call, err := j.newCall(ledger.CallEnable)
	if err == nil {
		err = j.write(ctx, func(e *ledger.Entry) { j.takeClaim(e); e.Intent = in; e.Key(back.ID).Note(call) })
	}
	if err != nil {
		return claimFailed(err)
	}
	rec, err := j.r.readRecord(ctx, j.st, j.p.Sink, 0)
	if err == nil && j.st.known.record.Match != j.entry().Current.ID {
		err = failedFor(ledger.StageClaim, ledger.FailureRecordChanged, "%s does not hold the current key %s", j.p.Sink, j.entry().Current.ID)
	}
	if err == nil {
		err = j.stillOurs(ctx, rec, in.Seen)
	}
	if err == nil {
		err = j.takeGroup(ctx, in) // it bypasses the group: a person wants the key back now
	}
	if err != nil {
		j.settled(call)
		return j.releaseUnstarted(ctx, failed(ledger.StageClaim, err))
	}
	if err := j.putBack(ctx, in, *j.entry().RetiringKey(back.ID), call, rec, secret); err != nil {
		return j.settle(ctx, failed(ledger.StagePublish, err))
	}
	return outcome{again: true, progress: true}
}

// putBack enables the key, proves that it works and publishes it.
func (j *job) putBack(ctx context.Context, in *ledger.Intent, back ledger.Retiring, call ledger.Call, rec ledger.Record, secret secret.Secret) error {
	if err := j.send(ctx, call, back.KeyRef); err != nil {
		return err
	}
	j.audit("key enabled again", "key_id", back.ID)
	if err := j.verify(ctx, secret); err != nil {
		return failed(ledger.StageVerify, err)
	}
	pub := j.publication(in, in.Key(back.ID), secret)
	if err := j.publish(ctx, pub, rec); err != nil {
		return failed(ledger.StagePublish, err)
	}
	c := committed{KeyRef: j.restored(*j.entry().RetiringKey(back.ID), pub.Published), previousUntil: pub.PreviousUntil, applied: j.entry().Applied}
	c.Sink = j.p.Sink
	if err := j.commit(ctx, c); err != nil {
		return failed(ledger.StageCommit, err)
	}
	return nil
}

// restored describes a key that is current again.
func (j *job) restored(back ledger.Retiring, at time.Time) ledger.KeyRef {
	ref := back.KeyRef
	ref.Sink, ref.Published, ref.Verified = j.p.Sink, at, true
	return ref
}

// undoRollback ends a rollback that was not published: the key keeps retiring, and is disabled again if it was in quarantine.
func (j *job) undoRollback(ctx context.Context, in *ledger.Intent, f *stageError) outcome {
	now := j.r.opt.Wall()
	return j.releaseFailed(ctx, f, func(e *ledger.Entry) {
		for i := range e.Retiring {
			if k := &e.Retiring[i]; k.Name == in.KeyName && k.State == ledger.InQuarantine {
				k.State, k.Until = ledger.InOverlap, now // it may be enabled, so it is disabled again
			}
		}
	})
}
