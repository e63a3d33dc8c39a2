package rotator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// paceStep makes a step wait before its next try, longer each time. A rotation that succeeds, or a key that reaches its next
// state, costs the policy nothing. version is the entry's before the step.
func (r *Rotator) paceStep(st *policyState, s plan.Step, m *meter, version int, out outcome) {
	k := &st.known
	calls := int(m.calls.Swap(0))
	rotates := s.Action == plan.ActRotate || s.Action == plan.ActRecover
	if out.progress && rotates {
		k.pace.forget(plan.ActRotate, plan.ActRecover, lookNames)
		return
	}
	if !out.progress {
		k.pace.charge(calls)
	}
	if s.Action == plan.ActRecover && k.loaded && ledger.ClaimOf(k.entry) == nil {
		k.pace.forget(plan.ActRecover)
		return
	}
	a := plan.AttemptOf(s)
	n := r.tried(st, a)
	t := k.pace.noted(a)
	before := t.version
	t.version = version
	moved := before != version            // other writers changed the entry, which usually explains it
	answered := s.Action == plan.ActProve // it is asked again because of the answer that it had
	if out.again && !out.progress && out.failure == nil && !answered && (n > 1 && !moved || n > explainedFor) {
		r.noteInVain(st, s, m.conflict.Load())
	}
}

// explainedFor is for how many tries the progress of other processes explains the lack of it here.
const explainedFor = 4

// waitOf returns how long to wait after the n-th try. Unsettled work waits less: its leftovers must be accounted for soon after
// the remotes answer again.
func (r *Rotator) waitOf(a plan.Attempt, n int) time.Duration {
	d := backoff(r.opt.ReconcileInterval, n, r.jitter())
	switch a.Action {
	case plan.ActRecover:
		return min(d, r.opt.ClaimTTL+r.opt.ReconcileInterval)
	case lookGroup:
		return min(d, r.opt.ResyncInterval)
	}
	return d
}

// noteInVain counts and logs once that a step keeps having no effect, if nothing else says why.
func (r *Rotator) noteInVain(st *policyState, s plan.Step, conflict bool) {
	reason := ledger.FailureUnsafe
	if conflict {
		reason = ledger.FailureSinkConflict
	}
	if !st.known.pace.news(plan.AttemptOf(s), reason) {
		return
	}
	p, _ := r.policyOf(st)
	switch s.Action {
	case plan.ActRotate:
		r.noteOnce(st, failedFor(ledger.StageClaim, reason, "the rotation (%s) keeps failing to start, and neither ledger nor record shows why", s.Reason))
		return
	case plan.ActDisable, plan.ActDelete:
		r.opt.Observe(Event{Type: EventRetireError, Policy: p.Name, Workspace: p.Workspace, Stage: ledger.StageRetire, Reason: reason, At: r.opt.Wall()})
	}
	r.opt.Logger.Error("step has no effect", "policy", p.Name, "action", string(s.Action), "trigger", string(s.Reason), "key_id", s.KeyID, "failure", reason)
}

// errTooSoon means that a look has to wait.
var errTooSoon = errors.New("the policy was read a moment ago, without success")

// tooSoon reports whether the policy must not be read yet. A step that ends a leak gets its first try in any case.
func (r *Rotator) tooSoon(st *policyState, p plan.Policy, ws *workspace, asked bool) bool {
	k := &st.known
	k.pace.hour = min(time.Hour, 60*r.opt.ReconcileInterval, 4*r.opt.ResyncInterval)
	spent := k.pace.affords(costOfALook) > 0
	if asked && k.pace.waits(lookAsked()) <= 0 && (!spent || k.pace.noted(lookAsked()) == nil) {
		return false
	}
	if !spent && k.pace.waits(plan.Attempt{Action: look}) <= 0 {
		return false
	}
	if len(r.pressing(st, p, ws)) > 0 {
		return false
	}
	if spent && !k.loaded {
		r.mu.Lock()
		defer r.mu.Unlock()
		st.display.reason = plan.WaitCallBudget
	}
	return true
}

// pressing returns the urgent steps that are due, as far as is known, and were not tried yet.
func (r *Rotator) pressing(st *policyState, p plan.Policy, ws *workspace) []plan.Step {
	o := r.observed(st, p, ws)
	return slices.DeleteFunc(plan.Plan(p, o, r.opt.Wall()).Steps, func(s plan.Step) bool {
		_, tried := o.Pacing.Next[plan.AttemptOf(s)]
		return tried || !plan.Urgent(s)
	})
}

// lookLater makes a failed look wait before the next. After a lasting outage, which is probed once for all, no policy waits.
func (r *Rotator) lookLater(st *policyState, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	p, ws := r.policyOf(st)
	for _, s := range r.pressing(st, p, ws) {
		r.tried(st, plan.AttemptOf(s))
	}
	r.tried(st, plan.Attempt{Action: look})
	r.tried(st, lookAsked())
}

func (r *Rotator) tried(st *policyState, a plan.Attempt) int {
	return st.known.pace.tried(a, func(n int) time.Duration { return r.waitOf(a, n) })
}
