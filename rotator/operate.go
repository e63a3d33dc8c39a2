package rotator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// These are the operators' commands. They use the same protocol and claims as the daemon's own work, so they are safe beside any
// number of daemons. They are for processes that do not call Run; a daemon uses Request.

// RotateOptions are the options of a requested rotation.
type RotateOptions struct {
	Revoke bool   // done only when every older key is disabled, those in overlap too
	Leaked bool   // the secret was reported, not seen by ElevenLabs
	Reason string // a person's words, for log and history
}

func (o RotateOptions) by(by ledger.By) ledger.By {
	if o.Leaked {
		return ledger.ByLeak
	}
	return by
}

// Request makes a running rotator rotate a policy soon. It fails if the policy does not exist or is paused. The cached state may
// be stale or empty, so the ledger is read before the key to replace is chosen.
func (r *Rotator) Request(name string, o RotateOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.policies[name]
	if st == nil {
		return unknownPolicy(name)
	}
	if st.policy.Mode == plan.ModePaused {
		return pausedPolicy(name)
	}
	revoke := o.Revoke || st.request != nil && st.request.Revoke
	st.request, st.inbox.hurry = &plan.Request{Pending: true, By: o.by(ledger.ByHTTP), Revoke: revoke, Reason: o.Reason}, true
	r.logLocked(slog.LevelInfo, "rotation requested", "policy", name, "revoke_now", o.Revoke, "reason", ledger.Words(o.Reason))
	r.enqueueLocked(st)
	return nil
}

// Rotate rotates a policy now: when it returns nil, the key that was current at the call no longer is. If another process works
// on the policy, it waits for that process until ctx ends.
func (r *Rotator) Rotate(ctx context.Context, name string, o RotateOptions) error {
	ctx = ledger.WithSession(ctx)
	st, seen, err := r.take(ctx, name)
	// What is seen under a claim may be long over; a claim that stays is that of a dead process.
	for newest, since := false, time.Now(); err == nil && !newest && time.Since(since) < ledger.ClaimOf(seen.Entry).Lasts(r.opt.ClaimTTL); seen.Entry = st.known.entry {
		if newest, err = r.prove(ctx, st, name); err == nil && !newest && sleep(ctx, poll) {
			err = r.readEntry(ctx, st, name)
		}
		err = cmp.Or(err, ctx.Err())
	}
	if err != nil {
		return err
	}
	req := plan.Request{NotKey: ledger.CurrentID(seen.Entry), By: o.by(ledger.ByCommand), Revoke: o.Revoke, Reason: o.Reason}
	if req.NotKey != "" {
		req.NotRotation = r.uncommitted(ctx, seen.Entry)
	}
	req.Pending = req.NotKey == "" && ledger.ClaimOf(seen.Entry) != nil // another process is about to publish the first key
	r.opt.Logger.Info("rotation requested", "policy", name, "revoke_now", o.Revoke, "reason", ledger.Words(o.Reason))
	r.mu.Lock()
	st.request = &req
	r.mu.Unlock()
	return r.drive(ctx, st, func(o plan.Observed) bool { return o.Request == nil }, func(s plan.Step) bool {
		return s.Action == plan.ActRecover || s.Action == plan.ActRotate || (s.Action == plan.ActDisable && req.Revoke)
	})
}

// Rollback puts a policy's previous key back: it is enabled, proven to work, and published again with the secret from the newest
// kept version of the record that has it. The current key goes through its overlap. Rollback changes nothing if no version holds
// the secret any more, ElevenLabs disabled the key, or --revoke-now retired it.
func (r *Rotator) Rollback(ctx context.Context, name string) error {
	ctx = ledger.WithSession(ctx)
	st, o, err := r.take(ctx, name)
	if err != nil {
		return err
	}
	first, err := previous(*st.policy, o)
	if err != nil {
		return fmt.Errorf("rolling back policy %s: %w", name, err)
	}
	for ledger.ClaimOf(o.Entry) != nil { // another process works on it, or did
		if err := r.drive(ctx, st, func(plan.Observed) bool { return true }, func(s plan.Step) bool { return s.Action == plan.ActRecover }); err != nil {
			return err
		}
		if r.reconcile(ctx, st.ws); st.ws.err != nil {
			return fmt.Errorf("listing workspace %s: %w", st.ws.name, st.ws.err)
		}
		if _, o, err = r.observe(ctx, st); err != nil {
			return err
		}
	}
	// The entry that the claim replaces, after other processes' work, decides whether the key may come back.
	back, err := previous(*st.policy, o)
	if err == nil && back.ID != first.ID {
		err = errStateChanged
	}
	if err != nil {
		return fmt.Errorf("rolling back policy %s: %w", name, err)
	}
	secret, err := r.keptSecret(ctx, *back, o.Entry.Salt)
	if err != nil {
		return fmt.Errorf("rolling back policy %s: %w", name, err)
	}
	defer r.redact(secret)()
	p, _ := r.policyOf(st)
	s := plan.Step{Action: plan.ActRotate, Reason: ledger.TriggerRollback, Workspace: back.Workspace}
	j := r.newJob(st, p, s)
	out := j.rollback(ctx, *back, secret)
	j.conclude(s, out)
	switch {
	case out.failure != nil:
		err = out.failure
	case !out.progress:
		err = errStateChanged
	default:
		return nil
	}
	return fmt.Errorf("rolling back policy %s: %w", name, err)
}

// previous returns the key to roll back to: the last one published before the current one.
func previous(p plan.Policy, o plan.Observed) (*ledger.Retiring, error) {
	if o.LedgerError != "" {
		return nil, errors.New(o.LedgerError)
	}
	if o.Entry != nil && o.Entry.MovedTo != "" {
		return nil, fmt.Errorf("it was taken over by policy %s; roll that one back", o.Entry.MovedTo)
	}
	if o.Entry == nil || o.Entry.Current == nil {
		return nil, errors.New("there is no key yet")
	}
	var back *ledger.Retiring
	for i := range o.Entry.Retiring {
		if k := &o.Entry.Retiring[i]; back == nil || !k.Published.Before(back.Published) {
			back = k
		}
	}
	if back == nil {
		return nil, errors.New("there is no previous key: it was deleted, or there never was one")
	}
	k, listed := o.Key(back.ID)
	switch {
	case back.Deleting():
		return nil, fmt.Errorf("the previous key %s is being deleted: a delete of it is not answered yet", back.ID)
	case p.AdminOf != "" && back.Outstanding(ledger.CallDisable, time.Time{}): // only an admin key that works could enable it again
		return nil, fmt.Errorf("the previous admin key %s is being disabled: a disable of it is not answered yet; rotate the policy instead", back.ID)
	case back.Reason == ledger.TriggerRevoke:
		return nil, fmt.Errorf("the previous key %s was retired by --revoke-now and stays so", back.ID)
	case !listed:
		return nil, fmt.Errorf("the previous key %s no longer exists", back.ID)
	case k.Disabled && (plan.Leaked(back.Reason) || k.DisableReason != ""):
		return nil, fmt.Errorf("the previous key %s was disabled by ElevenLabs (%s) and stays so", back.ID, plan.CauseOf(k.DisableReason))
	}
	return back, nil
}

// Refusal returns why Rotate would not rotate a policy now that Survey has just observed: nil if it would, or would wait for another
// process. It changes nothing.
func (r *Rotator) Refusal(ctx context.Context, name string, o RotateOptions) error {
	r.mu.Lock()
	st := r.policies[name]
	r.mu.Unlock()
	switch {
	case st == nil:
		return unknownPolicy(name)
	case st.policy.Mode == plan.ModePaused:
		return pausedPolicy(name)
	}
	p, seen, err := r.observe(ctx, st)
	if err != nil {
		return err
	}
	seen.Request = &plan.Request{NotKey: ledger.CurrentID(seen.Entry), Revoke: o.Revoke}
	if err := r.lookAtGroup(ctx, st, p, &seen); err != nil { // the survey had no reason to
		return err
	}
	if d := plan.Plan(p, seen, r.opt.Wall()); !d.Rotates() && d.State != plan.StateRotating {
		return waiting(p, d)
	}
	return nil
}

// take prepares a command's work on one policy: it reads the installation's id, a listing, the ledger entry and the record.
func (r *Rotator) take(ctx context.Context, name string) (*policyState, plan.Observed, error) {
	r.mu.Lock()
	st := r.policies[name]
	if st != nil {
		st.inbox.resync, st.place = true, working
	}
	r.mu.Unlock()
	if st == nil {
		return nil, plan.Observed{}, unknownPolicy(name)
	}
	if st.policy.Mode == plan.ModePaused {
		return nil, plan.Observed{}, pausedPolicy(name)
	}
	if err := r.loadOwner(ctx, true); err != nil {
		return nil, plan.Observed{}, err
	}
	r.reconcile(ctx, st.ws)
	if st.ws.err != nil {
		return nil, plan.Observed{}, fmt.Errorf("listing workspace %s: %w", st.ws.name, st.ws.err)
	}
	_, o, err := r.observe(ctx, st)
	return st, o, err
}

// poll is how often a command looks again while another process works on the policy.
const poll = time.Second

// drive works on a policy until done. It performs only the command's own steps.
func (r *Rotator) drive(ctx context.Context, st *policyState, done func(plan.Observed) bool, mine func(plan.Step) bool) error {
	for {
		p, o, err := r.observe(ctx, st)
		if err != nil {
			return err
		}
		d := plan.Plan(p, o, r.opt.Wall())
		r.updateStatus(st, p, o, d)
		if done(o) && ledger.ClaimOf(o.Entry) == nil {
			return nil
		}
		acted, err := r.driveStep(ctx, st, p, d, mine)
		switch {
		case err != nil:
			return err
		case acted:
		case d.State != plan.StateRotating:
			return waiting(p, d)
		case !sleep(ctx, poll):
			return fmt.Errorf("waiting for the process that works on policy %s: %w", p.Name, ctx.Err())
		}
	}
}

// driveStep performs the first of the command's own steps.
func (r *Rotator) driveStep(ctx context.Context, st *policyState, p plan.Policy, d plan.Decision, mine func(plan.Step) bool) (bool, error) {
	for _, s := range d.Steps {
		if !mine(s) {
			continue
		}
		if err := r.remoteDown(st, s); err != nil {
			return false, err
		}
		if n := r.tried(st, plan.AttemptOf(s)); n > 1 && !sleep(ctx, min(poll<<min(n-1, 5), r.opt.ReconcileInterval)) {
			return false, fmt.Errorf("policy %s: %s keeps failing: %w", p.Name, s.Action, ctx.Err())
		}
		out := r.perform(ctx, r.newJob(st, p, s), s)
		switch {
		case out.again && s.Action == plan.ActRecover:
			r.untried(st) // the settled rotation, failed or not, was another process's
		case out.failure != nil:
			return false, out.failure
		case !out.again:
			return false, fmt.Errorf("policy %s: %s failed; see the log", p.Name, s.Action)
		}
		return true, nil
	}
	return false, nil
}

// untried clears the request's failure mark, so that an earlier rotation's failure does not delay it.
func (r *Rotator) untried(st *policyState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := st.request; q != nil {
		st.request = new(*q)
		st.request.Failed = false
	}
}

// waiting returns why a command cannot proceed now.
func waiting(p plan.Policy, d plan.Decision) error {
	if d.Message != "" {
		return fmt.Errorf("policy %s: %s", p.Name, d.Message)
	}
	switch d.Reason {
	case plan.WaitThrottled:
		return fmt.Errorf("policy %s: its workspace has had its rotations for this hour (REKEYD_MAX_ROTATIONS_PER_HOUR); wait, or use --revoke-now", p.Name)
	case plan.WaitGroup:
		return fmt.Errorf("policy %s: policy %s of its group %s is between claim and end of overlap; wait, or use --revoke-now", p.Name, d.HeldBy, p.Group)
	case nil:
		if len(d.Steps) > 0 {
			return fmt.Errorf("policy %s: other work comes first (%s %s); let the daemon do it, then rotate", p.Name, d.Steps[0].Action, d.Steps[0].KeyID)
		}
		return fmt.Errorf("policy %s: nothing can be done now", p.Name)
	}
	return fmt.Errorf("policy %s: it has to wait (%s)", p.Name, d.Reason)
}
