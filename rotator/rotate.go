package rotator

import (
	"cmp"
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

// rotate replaces the current key with a new one.
//
// The order keeps readers safe and keys accounted for: claim and intent in one write, create once, verify, publish, read back,
// commit. Any failure after the create is left to settle.
func (j *job) rotate(ctx context.Context, why ledger.Trigger) outcome {
	in, err := j.intend(ctx, why)
	if err != nil {
		return claimFailed(err)
	}
	j.log = j.log.With("rotation", in.Rotation)
	rec, err := j.lookAgain(ctx, in)
	if err != nil {
		return j.releaseUnstarted(ctx, failed(ledger.StageClaim, err))
	}
	if err := j.takeGroup(ctx, in); err != nil {
		return j.releaseUnstarted(ctx, failed(ledger.StageClaim, err))
	}
	key, secret, err := j.create(ctx, in)
	if errors.Is(err, elevenlabs.ErrKeyLimit) && !elevenlabs.MaybeApplied(err) && j.makeRoom(ctx) {
		key, secret, err = j.create(ctx, in) // the first create was refused, so the name is still unused
	}
	switch {
	case err != nil && !elevenlabs.MaybeApplied(err):
		return j.releaseUnstarted(ctx, failed(ledger.StageCreate, err))
	case err != nil:
		j.lost = time.Now()
		return j.settle(ctx, &stageError{stage: ledger.StageCreate, reason: lostReason(err), err: err})
	}
	defer j.r.redact(secret)()
	if in.Verify {
		if err := j.verify(ctx, secret); err != nil {
			return j.settle(ctx, failed(ledger.StageVerify, err))
		}
	}
	probes, err := j.probePaths(ctx, secret)
	if err != nil {
		return j.settle(ctx, failed(ledger.StageVerify, err))
	}
	listed, err := j.inspect(ctx, in, &key)
	if err != nil {
		return j.settle(ctx, failed(ledger.StageVerify, err))
	}
	j.noteDropped(in, listed)
	pub := j.publication(in, key, secret)
	if err := j.publish(ctx, pub, rec); err != nil {
		return j.settle(ctx, failed(ledger.StagePublish, err))
	}
	applied := &ledger.Applied{Digest: j.p.Settings.Digest(), At: pub.Published, Ignored: listed.Settings.Diff(j.p.Settings)}
	if err := j.commit(ctx, committed{KeyRef: pub.KeyRef, previousUntil: pub.PreviousUntil, applied: applied, probes: probes}); err != nil {
		return j.settle(ctx, failed(ledger.StageCommit, err))
	}
	return outcome{again: true, progress: true}
}

func lostReason(err error) ledger.Failure {
	if errors.Is(err, elevenlabs.ErrBadAnswer) || errors.Is(err, elevenlabs.ErrServer) || errors.Is(err, elevenlabs.ErrUnreachable) {
		return ledger.FailureLostAnswer
	}
	return FailureOf(err)
}

// intend checks that a key could be stored, then takes the claim and notes the intent in one write.
func (j *job) intend(ctx context.Context, why ledger.Trigger) (*ledger.Intent, error) {
	if e := j.entry(); e != nil && (e.Claim != nil || e.Intent != nil) {
		j.st.known.loaded = false
		return nil, errClaimLost // an earlier step of the same plan left work that must be settled first
	}
	if err := j.r.opt.Store.Check(ctx, append(j.ledgerRefs(), j.p.Sink.Ref)...); err != nil {
		return nil, fmt.Errorf("checking that a key could be stored: %w", err)
	}
	rotation, err := j.r.newID(ledger.RotationLength)
	if err != nil {
		return nil, err
	}
	in := &ledger.Intent{
		Rotation: rotation, KeyName: ledger.KeyName(j.r.ownerID(), j.p.Name, rotation), Workspace: j.p.Workspace,
		Account: j.p.ServiceAccount, Sink: j.p.Sink, Reason: why, Started: j.r.opt.Wall(), Seen: j.seen(),
		Verify: j.p.Verify || j.p.AdminOf != "", Settings: j.newSettings(),
	}
	in.By, in.Words = j.askedBy(why)
	j.r.countRotation(j.st, in.Started)
	if err := j.write(ctx, func(e *ledger.Entry) { j.takeClaim(e); e.Intent = in }); err != nil {
		return nil, err
	}
	j.st.known.note().countedOutage = ""
	j.r.displayRotating(j.st)
	return in, nil
}

// askedBy returns who or what asked for a rotation, and a person's words.
func (j *job) askedBy(why ledger.Trigger) (ledger.By, string) {
	switch why {
	case ledger.TriggerRequested, ledger.TriggerRevoke, ledger.TriggerFirst:
		j.r.mu.Lock()
		defer j.r.mu.Unlock()
		switch q := j.st.request; {
		case q != nil:
			return q.By, ledger.Words(q.Reason)
		case why != ledger.TriggerFirst:
			return ledger.ByCommand, ""
		}
	case ledger.TriggerRollback:
		return ledger.ByCommand, ""
	case ledger.TriggerExposed, ledger.TriggerSelfDisabled:
		return ledger.ByLeak, ""
	case ledger.TriggerDrift:
		return ledger.ByDrift, ""
	case ledger.TriggerMoved:
		return ledger.ByMoved, ""
	case ledger.TriggerKeyMissing, ledger.TriggerRecordMissing:
		return ledger.ByMissing, ""
	}
	return ledger.BySchedule, ""
}

// seen returns the newest known version of the record; 0: none.
func (j *job) seen() int {
	if v := j.st.known.record; v != nil {
		return v.Version
	}
	if e := j.entry(); e != nil && e.Current != nil && e.Current.Sink == j.p.Sink {
		return e.Current.Version
	}
	return 0
}

// stillOurs renews the claim if the record's version has changed since before the claim: the change may be the fence of a
// takeover, and only the renewal tells that from an ordinary write.
func (j *job) stillOurs(ctx context.Context, rec ledger.Record, seen int) error {
	if rec.Doc.Version == seen {
		return nil
	}
	return j.write(ctx, j.takeClaim)
}

// lookAgain reads the record under the claim and plans again whether the rotation is due.
func (j *job) lookAgain(ctx context.Context, in *ledger.Intent) (ledger.Record, error) {
	rec, err := j.r.readRecord(ctx, j.st, j.p.Sink, 0)
	if err != nil {
		return rec, err
	}
	if plan.Due(j.p, j.observed(), j.r.opt.Wall()) {
		return rec, j.stillOurs(ctx, rec, in.Seen)
	}
	return rec, fmt.Errorf("%w (%s)", errNotDue, in.Reason)
}

// releaseUnstarted ends a rotation that made no key.
func (j *job) releaseUnstarted(ctx context.Context, f *stageError) outcome {
	return j.releaseFailed(ctx, f, func(e *ledger.Entry) {
		if mayHaveTwin(f) {
			e.Abandon(j.r.opt.Wall(), j.seen())
		}
	})
}

// releaseFailed notes a rotation's failure in the entry and drops the claim. If that cannot be written, recovery settles the
// rotation.
func (j *job) releaseFailed(ctx context.Context, f *stageError, change func(*ledger.Entry)) outcome {
	err := j.release(ctx, func(e *ledger.Entry) {
		change(e)
		j.failing(e, f)
	})
	if err != nil {
		return outcome{failure: f, as: failedUnsettled, cause: err}
	}
	return outcome{again: true, failure: f, as: failedRotation}
}

// mayHaveTwin reports whether a refused create may have made a key all the same: a proxy sent it twice, and the first used up the
// limit that refused the second. The rotation is abandoned, so that such a key is deleted once it is listed.
func mayHaveTwin(f *stageError) bool {
	return f.stage == ledger.StageCreate && (errors.Is(f.err, elevenlabs.ErrKeyLimit) || errors.Is(f.err, elevenlabs.ErrRateLimited))
}

// create makes the key, once. Neither it nor the client retries; rotate does, only after a full account refused the key.
func (j *job) create(ctx context.Context, in *ledger.Intent) (key ledger.KeyRef, s secret.Secret, err error) {
	ctx, err = j.ready(ctx)
	if err != nil {
		return key, s, err
	}
	settings := j.settings(in)
	c, err := j.api.CreateKey(ctx, in.Account, in.KeyName, settings)
	if err != nil {
		return key, s, fmt.Errorf("creating key for %s: %w", in.Account, j.refusedSetting(err, settings.Optional))
	}
	j.audit("key created", "key_id", c.ID, "service_account", in.Account)
	key = in.Key(c.ID)
	key.Created = j.r.opt.Wall()
	return key, c.Secret, nil
}

// verify probes the new key until it works: a new key may take a moment to be known everywhere (assumption A15).
func (j *job) verify(ctx context.Context, secret secret.Secret) error {
	deadline := time.Now().Add(j.r.opt.VerifyTimeout)
	for attempt := 1; ; attempt++ {
		result, err := j.probe(ctx, j.api, secret)
		if result == elevenlabs.Valid {
			return nil
		}
		if time.Now().After(deadline) || !j.pause(ctx, attempt) {
			return failedFor(ledger.StageVerify, ledger.FailureNotUsable, "the new key did not work within %s: %w", j.r.opt.VerifyTimeout, err)
		}
		if err := j.guard(ctx); err != nil {
			return err
		}
	}
}

// probePaths asks for the policy's paths with the new key, each until the answer is 2xx or will not change: a new key takes a
// moment to be known everywhere. A refusal of this host's address by the key's own allowlist says nothing about the path.
func (j *job) probePaths(ctx context.Context, secret secret.Secret) ([]ledger.ProbeAnswer, error) {
	var answers []ledger.ProbeAnswer
	deadline := time.Now().Add(j.r.opt.VerifyTimeout)
	for _, path := range j.p.Probes {
		for attempt := 1; ; attempt++ {
			status, err := j.api.ProbePath(ctx, secret, path)
			if err != nil && len(j.p.Settings.AllowedIPs) > 0 && elevenlabs.RefusesAddress(err) {
				j.log.Warn("path not probed: the key's allowed_ips leave out this host", "path", path, "status", status)
				err = nil
			}
			if err == nil {
				answers = append(answers, ledger.ProbeAnswer{Path: path, Status: status})
				break
			}
			if elevenlabs.MayChange(status) && time.Now().Before(deadline) && j.pause(ctx, attempt) {
				if err := j.guard(ctx); err != nil {
					return nil, err
				}
				continue
			}
			// The error is not wrapped: what the new key may not do says nothing about the admin key.
			return nil, failedFor(ledger.StageVerify, ledger.FailureProbeFailed, "probe %s with the new key: %v", path, err)
		}
	}
	return answers, nil
}

// inspect finds the new key in its account's listing, which shows whether it is enabled, which settings it got, and its id, if
// the answer to the create lacked it. A key whose id is known does not wait for a lagging listing; its settings are compared at
// the next reconcile. Only a rotation for drift waits, since what it was made for may be dropped again.
func (j *job) inspect(ctx context.Context, in *ledger.Intent, key *ledger.KeyRef) (elevenlabs.Key, error) {
	deadline := time.Now().Add(j.r.opt.VerifyTimeout)
	for attempt := 1; ; attempt++ {
		listed, found, err := j.findNew(ctx, in, key.ID)
		switch {
		case errors.Is(err, errTwins):
			return listed, failedFor(ledger.StageVerify, ledger.FailureNotUsable, "%w", err)
		case found && listed.Disabled:
			return listed, failedFor(ledger.StageVerify, ledger.FailureNotUsable, "the new key %s is already disabled (%s)", listed.ID, listed.DisableReason)
		case found:
			key.ID = listed.ID
			if !listed.CreatedAt.IsZero() {
				key.Created = listed.CreatedAt
			}
			return listed, nil
		case key.ID != "" && (in.Reason != ledger.TriggerDrift || time.Now().After(deadline)):
			return elevenlabs.Key{ID: key.ID, Settings: j.assumed(in)}, nil
		case time.Now().After(deadline) || !j.pause(ctx, attempt):
			if err == nil {
				err = errors.New("the listing does not show it")
			}
			return listed, failedFor(ledger.StageVerify, ledger.FailureNotUsable, "finding the new key in its account: %w", err)
		}
		if err := j.guard(ctx); err != nil {
			return listed, err
		}
	}
}

// findNew finds the new key by the id that the create returned, or without one by its name. The name must then be that of one
// key only: the create may have arrived twice.
func (j *job) findNew(ctx context.Context, in *ledger.Intent, id string) (elevenlabs.Key, bool, error) {
	keys, err := j.api.Keys(ctx, in.Account)
	if err != nil {
		return elevenlabs.Key{}, false, err
	}
	keys = slices.DeleteFunc(keys, func(k elevenlabs.Key) bool { return k.ID != id && (id != "" || k.Name != in.KeyName) })
	switch len(keys) {
	case 0:
		return elevenlabs.Key{}, false, nil
	case 1:
		return keys[0], true, nil
	}
	return elevenlabs.Key{}, false, fmt.Errorf("%w: %s and %s", errTwins, keys[0].ID, keys[1].ID)
}

var errTwins = errors.New("there are two new keys, and nothing tells which one the secret belongs to")

func (j *job) findByName(ctx context.Context, account, name string) (elevenlabs.Key, bool, error) {
	keys, err := j.api.Keys(ctx, account)
	if err != nil {
		return elevenlabs.Key{}, false, err
	}
	for _, k := range keys {
		if k.Name == name {
			return k, true, nil
		}
	}
	return elevenlabs.Key{}, false, nil
}

// publication is the new key as the record will have it.
func (j *job) publication(in *ledger.Intent, key ledger.KeyRef, s secret.Secret) ledger.Publication {
	now := j.now()
	key.Hash, key.Published, key.Verified = ledger.HashValue(j.entry().Salt, s.Reveal()), now.Truncate(time.Second), in.Verify
	pub := ledger.Publication{KeyRef: key, Secret: s, Policy: j.p.Name}
	if old := j.entry().Current; old != nil {
		pub.PreviousID, pub.PreviousUntil = old.ID, pub.Published
		if r := j.retiringOf(*old, in.Reason, now, time.Time{}); r.State == ledger.InOverlap {
			pub.PreviousUntil = r.Until
		}
	}
	return pub
}

// publish writes the key into the record by check-and-set and reads it back. After a conflict or a lost answer it reads the
// record again: fields that other writers changed are kept, but another value of the secret stops the rotation.
func (j *job) publish(ctx context.Context, pub ledger.Publication, rec ledger.Record) error {
	ours := 0 // the version that a write with a clear answer made; another one after it may be a person's rollback
	for attempt := 1; ; attempt++ {
		if err := j.guard(ctx); err != nil {
			return err
		}
		j.attempted = true
		known := rec.Doc.Version
		written, failure := j.r.opt.Store.Write(ctx, pub.Sink.Ref, rec.With(pub), rec.Doc.Version)
		j.unsure = j.unsure || failure == nil || ledger.MaybeWritten(failure)
		switch {
		case failure == nil:
			known, ours = written, written
		case errors.Is(failure, ledger.ErrConflict):
			known = max(ours, j.r.beyond(ctx, known))
		}
		if failure != nil && !errors.Is(failure, ledger.ErrConflict) && !ledger.MaybeWritten(failure) && !ledger.IsOutage(failure) {
			return fmt.Errorf("publishing record: %w", failure)
		}
		now, err := j.r.readRecord(ctx, j.st, pub.Sink, known)
		switch {
		case err == nil && now.Publishes(pub.Name) && now.Secret.Reveal() == pub.Secret.Reveal():
			j.audit("record published", "key_id", pub.ID, "sink", pub.Sink.String(), "version", now.Doc.Version)
			return nil
		case err == nil && ours != 0 && now.Doc.Version > ours:
			j.audit("record published, then changed by another writer", "key_id", pub.ID, "sink", pub.Sink.String())
			return nil // it is committed, and the next look handles the changed record
		case err == nil && !errors.Is(failure, ledger.ErrConflict) && now.DeletedAfter(rec):
			j.audit("record published, then deleted by another writer", "key_id", pub.ID, "sink", pub.Sink.String())
			return nil // readers may have the key, so it is committed; the next look finds the record empty
		case err == nil && !now.SameValue(rec):
			return failedFor(ledger.StagePublish, ledger.FailureRecordChanged, "%s was changed by another writer during the rotation", pub.Sink)
		case err == nil:
			if err := j.stillOurs(ctx, now, rec.Doc.Version); err != nil {
				return err
			}
			rec = now
		case failure == nil:
			failure = err
		}
		if attempt == publishTries || !j.pause(ctx, attempt) {
			return fmt.Errorf("publishing record: %w", cmp.Or(failure, ledger.ErrConflict))
		}
	}
}

// committed is a published key as it enters the ledger.
type committed struct {
	ledger.KeyRef
	previousUntil time.Time
	applied       *ledger.Applied
	probes        []ledger.ProbeAnswer
	recovered     bool
}

// commit makes the published key the current one and starts retiring the old one, in one write.
func (j *job) commit(ctx context.Context, c committed) error {
	c.Version = j.seen()
	j.switchAdminKey(ctx)
	old, in := j.entry().Current, j.entry().Intent
	err := j.release(ctx, func(e *ledger.Entry) {
		past := ledger.Past{Rotation: c.Rotation, By: cmp.Or(in.By, ledger.ByRecovered), Reason: in.Reason, Words: in.Words, KeyID: c.ID,
			Started: in.Started, Created: c.Created, Published: c.Published, Probes: c.probes}
		if old != nil && old.ID != c.ID {
			e.Retiring = append(e.Retiring, j.retiringOf(*old, in.Reason, c.Published, c.previousUntil))
			past.PreviousKeyID = old.ID
		}
		e.Remember(past)
		if in.Reason == ledger.TriggerRevoke {
			j.endOverlaps(e, c.Published)
		}
		if plan.Leaked(in.Reason) {
			e.Leaks = append(e.Leaks, c.Published)
		} else if in.Reason == ledger.TriggerRequested || in.Reason == ledger.TriggerRevoke {
			e.Leaks = nil
		}
		ref := c.KeyRef
		e.DropRetiring(c.ID)
		e.Current, e.Applied, e.Failure, e.Quarantine = &ref, c.applied, nil, ledger.Duration(j.p.Quarantine)
		if in.Reason != ledger.TriggerRollback {
			e.LastRotation = c.Published
		}
	})
	if err != nil {
		return err
	}
	j.rotated(c, in, old)
	return nil
}

// endOverlaps ends every overlap now, and makes keys that a person enabled in quarantine be disabled again. Rollback refuses all
// of these keys.
func (j *job) endOverlaps(e *ledger.Entry, now time.Time) {
	j.r.mu.Lock()
	defer j.r.mu.Unlock()
	for i := range e.Retiring {
		r := &e.Retiring[i]
		r.Reason = ledger.TriggerRevoke
		if disabled, found := j.r.listedLocked(r.KeyRef, time.Time{}); r.State == ledger.InOverlap || found && !disabled {
			r.State, r.Until, r.NextTry = ledger.InOverlap, now, time.Time{}
		}
	}
}

// rotated counts and reports a completed rotation.
func (j *job) rotated(c committed, in *ledger.Intent, old *ledger.KeyRef) {
	k := &j.st.known
	x := k.note()
	x.countedOutage, x.retryAt, k.digestKnown, x.unread, x.loggedFailure = "", time.Time{}, false, nil, nil
	k.record = &plan.RecordView{Version: c.Version, HasValue: true, Match: c.ID, KeyID: c.ID, Policy: j.p.Name}
	e := Event{Type: EventRotated, Policy: j.p.Name, Workspace: c.Workspace, KeyID: c.ID, KeyName: c.Name, Reason: in.Reason,
		Evidence: evidenceOf(c.KeyRef, j.entry()), At: c.Published, Duration: time.Since(j.begun)}
	if old != nil && old.ID != c.ID {
		e.PreviousKeyID, e.PreviousValidUntil = old.ID, c.previousUntil
	}
	j.r.mu.Lock()
	j.st.display.successes++
	j.r.mu.Unlock()
	j.audit("rotated", "key_id", c.ID, "previous_key_id", e.PreviousKeyID, "sink", c.Sink.String(), "recovered", c.recovered,
		"duration_ms", e.Duration.Milliseconds())
	j.r.opt.Observe(e)
}
