package rotator

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// slow is how long a worker may spend on one policy before another worker replaces it, so that a workspace whose every call runs
// into its timeout does not block the others.
const slow = 3 * time.Second

// worker works on one policy at a time until the rotator stops or a slow policy got it replaced. Its place keeps two workers off
// one policy.
func (r *Rotator) worker(ctx context.Context, workers *sync.WaitGroup) {
	var replacement *time.Timer
	work, m := metered(ledger.WithSession(ctx))
	for {
		st, ws := r.next()
		if st == nil {
			return
		}
		if replacement == nil {
			replacement = time.AfterFunc(slow, func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				if !r.stopping {
					workers.Go(func() { r.worker(ctx, workers) })
				}
			})
		} else {
			replacement.Reset(slow)
		}
		r.work(work, m, st)
		replaced := !replacement.Stop()
		r.mu.Lock()
		st.place = idle
		ws.busy--
		if st.inbox.wake {
			st.inbox.wake = false
			r.enqueueLocked(st)
		}
		r.wakeUp.Signal() // a worker may wait for this workspace
		r.mu.Unlock()
		if replaced {
			return
		}
	}
}

// maxPasses bounds the steps for one policy before the next policy in the queue.
const maxPasses = 8

// work advances one policy: observe, plan, perform the first step, and again.
func (r *Rotator) work(ctx context.Context, m *meter, st *policyState) {
	r.mu.Lock()
	m.policy = st.policy.Name
	r.mu.Unlock()
	ledger.SessionOf(ctx).Begin()
	defer func() { st.known.pace.charge(int(m.calls.Swap(0))) }()
	for range maxPasses {
		if r.isStopping() {
			return
		}
		// probeLoop probes an outage once per reconcile interval for all policies.
		err := r.storeDown(st)
		var p plan.Policy
		var o plan.Observed
		switch {
		case err == nil:
			if p, o, err = r.observe(ctx, st); err != nil && !errors.Is(err, errTooSoon) {
				r.lookLater(st, err)
			}
		case !st.known.loaded && r.outage.down(r.opt.Ledger.Mount) == nil:
			r.readForLimit(ctx, st)
		}
		if errors.Is(err, errTooSoon) {
			return
		}
		if err != nil {
			r.noteStoreFailure(st, err)
			r.countIfDue(st, err)
			return
		}
		d := plan.Plan(p, o, r.opt.Wall())
		r.updateStatus(st, p, o, d)
		r.wakeLater(st, d)
		if !r.performFirst(ctx, m, st, p, d) {
			return
		}
	}
	r.mu.Lock()
	st.inbox.wake = true
	r.mu.Unlock()
}

// readForLimit reads a policy's entry for the hourly limit: while only the record's mount is down, or for a survey of other policies.
func (r *Rotator) readForLimit(ctx context.Context, st *policyState) {
	r.mu.Lock()
	name := st.policy.Name
	r.mu.Unlock()
	if st.known.pace.waits(plan.Attempt{Action: look}) > 0 {
		return
	}
	err := r.readEntry(ctx, st, name)
	r.noteCounted(st, err)
	if err != nil {
		r.lookLater(st, err)
	}
}

// countIfDue counts a failure of the store for a policy that is due as far as is known.
func (r *Rotator) countIfDue(st *policyState, err error) {
	if !st.known.loaded || errors.Is(err, context.Canceled) {
		return
	}
	p, ws := r.policyOf(st)
	if plan.DueUnread(p, r.observed(st, p, ws), r.opt.Wall()) {
		r.noteOnce(st, failed(ledger.StageClaim, err))
	}
}

// wakesAfter is for how many reconcile intervals ahead a policy has a timer: each interval looks at it anyway, and most wait for
// days.
const wakesAfter = 10

// wakeLater sets a timer for the time at which the plan may change by itself, so that overlaps end to the second.
func (r *Rotator) wakeLater(st *policyState, d plan.Decision) {
	wait := time.Duration(0)
	if c := ledger.ClaimOf(st.known.entry); c != nil { // another replica's, or our own unsettled work
		wait = time.Until(st.known.unusual().claimSince.Add(c.Lasts(r.opt.ClaimTTL)))
	}
	if wait <= 0 && !d.Wake.IsZero() {
		wait = d.Wake.Sub(r.opt.Wall())
	}
	if wait <= 0 || wait > wakesAfter*r.opt.ReconcileInterval {
		return // it is under way, does not wait for a time, or a later look sets the timer
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch name := st.policy.Name; {
	case r.stopping:
	case st.timer == nil:
		st.timer = time.AfterFunc(wait, func() { r.wake(name) })
	default:
		st.timer.Reset(wait)
	}
}

// performFirst performs the first step that can be performed now, and reports whether to look again.
func (r *Rotator) performFirst(ctx context.Context, m *meter, st *policyState, p plan.Policy, d plan.Decision) bool {
	for _, step := range d.Steps {
		if d.Later[step].After(r.opt.Wall()) || !plan.Urgent(step) && st.known.pace.affords(costOf(step.Action)) > 0 {
			continue // earlier steps may have used up the budget
		}
		if err := r.remoteDown(st, step); err != nil {
			r.noteOutage(st, step, err)
			continue
		}
		if step.Action == plan.ActRotate && !plan.Exempt(step.Reason) && !r.admit(st) {
			return true // another policy reached the hourly limit since the look
		}
		st.known.pace.charge(int(m.calls.Swap(0)))
		m.conflict.Store(false)
		version := st.known.version
		out := r.perform(elevenlabs.WithPatience(ctx, patience(step)), r.newJob(st, p, step), step)
		if ctx.Err() == nil {
			r.paceStep(st, step, m, version, out)
		}
		if out.again {
			return true
		}
	}
	return false
}

// remoteDown returns the outage that keeps the step from starting.
func (r *Rotator) remoteDown(st *policyState, step plan.Step) error {
	if err := r.storeDown(st); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := st.ws
	if step.Workspace != "" {
		ws = r.workspaces[step.Workspace]
	}
	if ws == nil && step.Action == plan.ActRecover {
		return nil // recovery settles the rotation without the workspace
	}
	if ws == nil {
		return &ledger.Error{Op: "reaching workspace " + step.Workspace, Reason: ledger.FailureOther, Err: errors.New("it is no longer configured")}
	}
	return ws.err
}

// perform performs one step and settles its outcome.
func (r *Rotator) perform(ctx context.Context, j *job, s plan.Step) outcome {
	out := j.perform(ctx, s)
	j.conclude(s, out)
	return out
}

func (j *job) perform(ctx context.Context, s plan.Step) outcome {
	switch s.Action {
	case plan.ActRecover:
		return j.recover(ctx)
	case plan.ActRotate:
		return j.rotate(ctx, s.Reason)
	case plan.ActDisable, plan.ActDelete:
		return j.retire(ctx, s)
	case plan.ActSweep:
		return j.sweep(ctx, s)
	case plan.ActAdopt:
		return j.adopt(ctx, s)
	case plan.ActInherit:
		return j.inherit(ctx)
	case plan.ActFollow:
		return j.follow(ctx, s)
	case plan.ActEnable:
		return j.enable(ctx, s)
	case plan.ActPatch:
		return j.patch(ctx, s)
	case plan.ActProve:
		if s.Reason == ledger.TriggerProof {
			return j.proveEnd(ctx, s)
		}
		return j.prove(ctx)
	}
	return outcome{}
}

// resyncLoop makes every ledger entry and record be read again once per resync interval, spread evenly.
func (r *Rotator) resyncLoop(ctx context.Context) {
	var turn []*policyState
	for {
		if len(turn) == 0 {
			r.discover(ctx)
		}
		r.mu.Lock()
		if len(turn) == 0 {
			turn = r.orderedLocked()
		}
		tick := max(r.opt.ResyncInterval/time.Duration(max(len(r.policies), 1)), min(time.Second, r.opt.ResyncInterval))
		n := max(int(time.Duration(len(r.policies))*tick/r.opt.ResyncInterval), 1)
		r.mu.Unlock()
		if !sleep(ctx, tick) {
			return
		}
		r.mu.Lock()
		for _, st := range turn[:min(n, len(turn))] {
			st.inbox.resync = true
			r.enqueueLocked(st)
		}
		turn = turn[min(n, len(turn)):]
		r.mu.Unlock()
	}
}

// probeLoop asks the store once per reconcile interval; after an outage storeAnswers wakes the policies.
func (r *Rotator) probeLoop(ctx context.Context) {
	r.outage.setUp(r.storeAnswers)
	for sleep(ctx, r.opt.ReconcileInterval) {
		r.outage.probe(ctx, r.opt.Logger, r.opt.Ledger.Join("owner"))
	}
}
