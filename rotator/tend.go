package rotator

import (
	"context"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// follow makes a retiring key current again in the ledger because the record holds it: the record was rolled back, or a pruned
// policy is loaded again. The record is not rewritten and the last rotation does not change.
func (j *job) follow(ctx context.Context, s plan.Step) outcome {
	now, before := j.now(), ledger.CurrentID(j.entry())
	err := j.write(ctx, func(e *ledger.Entry) {
		ref, old := e.RetiringKey(s.KeyID).KeyRef, e.Current
		e.DropRetiring(s.KeyID)
		if v := j.st.known.record; v != nil && v.Match == s.KeyID && (old == nil || old.Sink == ref.Sink) {
			ref.Version = v.Version // a node that lags may still show the version before
		}
		if old == nil { // prune disabled it; that is undone like any late disable of ours
			ref.Note(ledger.Call{Kind: ledger.CallDisable, At: now})
		} else {
			e.Retiring = append(e.Retiring, j.retiringOf(*old, s.Reason, now, time.Time{}))
		}
		e.Current = &ref
	})
	if err == nil {
		j.r.redirect(j.st, before, s.KeyID)
	}
	out := j.noted(err, "record was rolled back", s.KeyID)
	out.progress = err == nil
	return out
}

// redirect points a pending request at the key that readers have now.
func (r *Rotator) redirect(st *policyState, before, now string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := st.request; q != nil && before != "" && q.NotKey == before {
		st.request = new(*q)
		st.request.NotKey = now
	}
}

// enable undoes a disable of our own that arrived after its key became current again.
func (j *job) enable(ctx context.Context, s plan.Step) outcome {
	call, err := j.newCall(ledger.CallEnable)
	if err == nil {
		err = j.write(ctx, func(e *ledger.Entry) { j.takeClaim(e); e.Current.Note(call) })
	}
	if err != nil {
		return claimFailed(err)
	}
	if err := j.send(ctx, call, *j.entry().Current); err != nil {
		_ = j.release(ctx, nil)
		return outcome{failure: failed(ledger.StageCommit, err), as: failedTending}
	}
	j.audit("key enabled again", "key_id", s.KeyID)
	j.r.updateListing(j.workspaceName, s.Account, s.KeyID, func(k *elevenlabs.Key) { k.Disabled = false })
	return released(j.release(ctx, nil))
}

// patch applies the policy's settings to the current key and reads them back. It does not enable or disable the key. The ledger
// notes the settings before the call, so that a replica with another policy file sees them in any case.
func (j *job) patch(ctx context.Context, s plan.Step) outcome {
	applied := &ledger.Applied{Digest: j.p.Settings.Digest(), At: j.r.opt.Wall()}
	if err := j.write(ctx, func(e *ledger.Entry) { j.takeClaim(e); e.Applied = applied }); err != nil {
		return claimFailed(err)
	}
	j.st.known.digest = applied.Digest
	before := j.listedKey(s.KeyID).Settings
	got, err := j.patchKey(ctx, s)
	if err != nil {
		f := failed(ledger.StageCommit, err)
		j.st.known.note().patchAfter = j.r.opt.Wall().Add(j.wait(1, f))
		_ = j.release(ctx, nil)
		return outcome{again: true, failure: f, as: failedTending}
	}
	settled := *applied
	settled.Ignored = got.Diff(j.p.Settings)
	j.r.updateListing(j.workspaceName, s.Account, s.KeyID, func(k *elevenlabs.Key) { k.Settings = got })
	j.audit("settings patched", "key_id", s.KeyID, "changes", changes(before, j.p.Settings), "ignored", settled.Ignored)
	j.r.opt.Observe(Event{Type: EventDrifted, Policy: j.p.Name, Workspace: j.workspaceName, KeyID: s.KeyID, KeyName: j.entry().Current.Name,
		Reason: s.Reason, At: j.r.opt.Wall()})
	return released(j.release(ctx, func(e *ledger.Entry) { e.Applied = &settled }))
}

func (j *job) patchKey(ctx context.Context, s plan.Step) (elevenlabs.Settings, error) {
	name := j.entry().Current.Name
	if err := j.guard(ctx); err != nil {
		return elevenlabs.Settings{}, err
	}
	want := j.p.Settings
	if err := j.api.UpdateKey(ctx, s.Account, s.KeyID, elevenlabs.Update{Name: name, Settings: &want}); err != nil {
		return want, fmt.Errorf("patching key %s: %w", s.KeyID, j.refusedSetting(err, want.Optional))
	}
	keys, err := j.api.Keys(ctx, s.Account)
	if err != nil {
		return want, fmt.Errorf("reading patched settings back: %w", err)
	}
	for _, k := range keys {
		if k.ID == s.KeyID {
			return k.Settings, nil
		}
	}
	return want, fmt.Errorf("reading patched settings back: the account no longer lists key %s", s.KeyID)
}

// prove probes the current key with the secret from the record. Where that has none to ask with, no answer can be had.
func (j *job) prove(ctx context.Context) outcome {
	rec, err := j.r.readRecord(ctx, j.st, j.entry().Current.Sink, 0)
	if ledger.IsOutage(err) {
		return outcome{} // it is asked once the store answers
	}
	before := j.st.known.proof
	j.st.known.proof = elevenlabs.Inconclusive
	if err == nil && !rec.Secret.IsZero() {
		defer j.r.redact(rec.Secret)()
		j.st.known.proof, err = j.api.Probe(ctx, rec.Secret)
	}
	if err != nil {
		j.log.Warn("probing the current key failed", "err", err)
	}
	return outcome{again: j.st.known.proof != before}
}
