package rotator

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// outcome is what became of a step. A step makes its own writes, and reports what it changed where it changes it; everything
// that follows from a failure is done by conclude.
type outcome struct {
	again    bool        // look at the policy again at once
	progress bool        // a rotation was committed, or a key reached its next state
	failure  *stageError // nil: the step did not fail
	as       failureKind
	cause    error // of an unsettled rotation: what kept it from being settled
}

// failureKind says what a failure counts as.
type failureKind int

const (
	failedRotation   failureKind = iota // it ended without a new key; the entry has the time of the next try
	failedClaim                         // nothing began, since the ledger could not be written; counted once for each reason
	failedUnsettled                     // what became of the rotation is still open; it counts when it is settled
	failedRetirement                    // the entry has the time of the next try; it is no failed rotation
	failedStore                         // a read or write of the store failed before anything began
	failedTending                       // a change to the current key's settings or state; it is only logged
)

// conclude logs, counts and reports the failure of a step, and decides when it may be tried again where the ledger cannot say so.
func (j *job) conclude(s plan.Step, out outcome) {
	r, f := j.r, out.failure
	if out.progress || f != nil && out.as == failedRotation {
		j.st.known.note().unsettled = nil // a rollback to its key would have its rotation id
	}
	if f == nil {
		return
	}
	switch out.as {
	case failedUnsettled:
		j.st.known.note().unsettled = &unsettled{j.entry().Intent.Rotation, f}
		if out.cause != nil {
			j.log.Error("recovery incomplete", "err", out.cause)
		}
	case failedRotation:
		if errors.Is(f, errNotDue) {
			return // it was called off, so it did not fail
		}
		r.noteFailure(j.st, j.p, f, j.begun)
		if logs(&j.st.known.note().loggedFailure, f.stage, f.reason) {
			j.log.Error("rotation failed", "stage", f.stage, "outcome", "failed", "failure", f.reason, "err", f.err)
		}
	case failedClaim:
		j.st.known.note().retryAt = r.opt.Wall().Add(j.wait(1, f))
		if ledger.IsOutage(f.err) {
			j.st.known.note().retryAt = time.Time{} // an outage is probed, not backed off
		}
		r.noteOnce(j.st, f)
	case failedRetirement:
		msg := "retirement failed"
		if s.Action == plan.ActSweep {
			msg = "abandoned key not deleted"
		}
		j.log.Error(msg, "key_id", s.KeyID, "outcome", "failed", "failure", f.reason, "err", f.err)
		r.noteRetireFailure(j.p, j.workspaceName, f)
	case failedStore:
		r.noteStoreFailure(j.st, f.err)
	case failedTending:
		j.log.Error("step failed", "key_id", s.KeyID, "outcome", "failed", "failure", f.reason, "err", f.err)
	}
}

// claimFailed is the outcome of a step whose first write, the claim, failed.
func claimFailed(err error) outcome {
	if claimLost(err) {
		return outcome{again: true} // another process works on it
	}
	return outcome{failure: failed(ledger.StageClaim, err), as: failedClaim}
}

// storeFailed is the outcome of a step that failed before anything began.
func storeFailed(err error) outcome {
	return outcome{failure: failed(ledger.StageClaim, err), as: failedStore}
}

// released is the outcome of a step whose last write, which drops the claim, had this result. If that failed, the claim is still
// there, and recovery drops it.
func released(err error) outcome { return outcome{again: err == nil} }

// noted ends a step that only wrote to the ledger.
func (j *job) noted(err error, msg, keyID string, args ...any) outcome {
	j.st.known.record = nil
	if err != nil {
		return claimFailed(err)
	}
	j.audit(msg, append(args, "key_id", keyID)...)
	return outcome{again: true}
}

// noteOutage counts an outage as one failure of each due policy when it begins, and again when its reason changes.
func (r *Rotator) noteOutage(st *policyState, s plan.Step, err error) {
	if s.Action != plan.ActRotate {
		return
	}
	stage := ledger.StageCreate
	if r.storeDown(st) != nil {
		stage = ledger.StageClaim
	}
	r.noteOnce(st, failed(stage, err))
}

// noteOnce counts a failure unless the last counted one has the same reason.
func (r *Rotator) noteOnce(st *policyState, f *stageError) {
	if st.known.unusual().countedOutage == f.reason {
		return
	}
	st.known.note().countedOutage = f.reason
	p, _ := r.policyOf(st)
	r.noteFailure(st, p, f, time.Now())
	r.opt.Logger.Error("rotation failed", "policy", p.Name, "stage", f.stage, "outcome", "failed", "failure", f.reason, "err", f.err)
}

// noteFailure counts a failed rotation.
func (r *Rotator) noteFailure(st *policyState, p plan.Policy, f *stageError, begun time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteRefusedLocked(p.Workspace, f.err)
	if q := st.request; q != nil && !q.Pending { // a pending request came after the rotation that failed
		st.request = new(*q)
		st.request.Failed = true
	}
	st.display.failures++
	st.display.state, st.display.reason, st.last.failed = plan.StateFailing, f.reason, true
	st.display.failure = &ledger.LastFailure{Stage: f.stage, Reason: f.reason, Message: message(f.err, f.reason), At: r.opt.Wall(), Count: 1}
	r.observeLocked(Event{Type: EventFailed, Policy: p.Name, Workspace: p.Workspace, Stage: f.stage, Reason: f.reason, At: r.opt.Wall(), Duration: time.Since(begun)})
}

// noteRetireFailure counts a failed retirement.
func (r *Rotator) noteRetireFailure(p plan.Policy, workspace string, f *stageError) {
	r.mu.Lock()
	r.noteRefusedLocked(workspace, f.err)
	r.mu.Unlock()
	r.opt.Observe(Event{Type: EventRetireError, Policy: p.Name, Workspace: p.Workspace, Stage: ledger.StageRetire, Reason: f.reason, At: r.opt.Wall()})
}

// noteStoreFailure puts a failed read or write of the store into the policy's status.
func (r *Rotator) noteStoreFailure(st *policyState, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &st.display
	s.failure = r.storeFailure(err)
	s.state, s.reason, st.last.failed = plan.StateFailing, s.failure.Reason, true
	if logs(&st.known.note().loggedOutage, ledger.StageClaim, s.failure.Reason) {
		r.logLocked(slog.LevelError, "reading policy state failed", "policy", st.policy.Name, "failure", s.failure.Reason, "err", err)
	}
}

// storeFailure is how a failed read or write of the store is displayed.
func (r *Rotator) storeFailure(err error) *ledger.LastFailure {
	reason := FailureOf(err)
	return &ledger.LastFailure{Stage: ledger.StageClaim, Reason: reason, Message: message(err, reason), At: r.opt.Wall(), Count: 1}
}

// storeDown returns the outage that affects a policy: of the server, the ledger's mount or the record's.
func (r *Rotator) storeDown(st *policyState) error {
	r.mu.Lock()
	mount := st.policy.Sink.Mount
	r.mu.Unlock()
	return r.outage.down(r.opt.Ledger.Mount, mount)
}
