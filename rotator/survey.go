package rotator

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Survey reads and plans the named policies, or all loaded and removed ones, without changing anything. It is for read-only
// commands, and must not be used beside Run.
func (r *Rotator) Survey(ctx context.Context, names ...string) (Snapshot, error) {
	if err := r.loadOwner(ctx, false); err != nil {
		return Snapshot{}, err
	}
	wanted := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	if len(names) == 0 {
		r.discover(ctx)
	}
	r.mu.Lock()
	states := slices.DeleteFunc(slices.Clone(r.orderedLocked()), func(st *policyState) bool { return !wanted(st.policy.Name) })
	workspaces := slices.Collect(maps.Values(r.workspaces))
	r.mu.Unlock()
	// A key missing from a listing means something only if the ledger was read before the listing.
	for i, st := range states {
		Progress(ctx, i, len(states))
		r.requestResync(st, true)
		if _, _, err := r.observe(ctx, st); err != nil {
			r.noteStoreFailure(st, err)
		}
	}
	for _, ws := range workspaces {
		r.reconcile(ctx, ws)
	}
	for _, st := range states {
		p, o, err := r.observe(ctx, st)
		if err == nil && slices.ContainsFunc(plan.Plan(p, o, r.opt.Wall()).Steps, func(s plan.Step) bool { return s.Action == plan.ActRotate && !plan.Exempt(s.Reason) }) {
			r.countOthers(ctx, st)
			p, o, err = r.observe(ctx, st)
		}
		if err != nil {
			r.noteStoreFailure(st, err)
			continue
		}
		r.updateStatus(st, p, o, plan.Plan(p, o, r.opt.Wall()))
	}
	s := r.Snapshot()
	s.Policies = slices.DeleteFunc(s.Policies, func(p PolicyStatus) bool { return !wanted(p.Policy.Name) })
	return s, ctx.Err()
}

// countOthers reads the entries of a workspace's policies that were not read yet: their rotations count towards its hourly limit.
func (r *Rotator) countOthers(ctx context.Context, due *policyState) {
	if r.opt.MaxRotationsPerHour == 0 {
		return
	}
	r.mu.Lock()
	others := slices.DeleteFunc(slices.Clone(r.orderedLocked()), func(st *policyState) bool { return st.ws != due.ws || st.counted })
	r.mu.Unlock()
	for i, st := range others {
		Progress(ctx, i, len(others))
		r.readForLimit(ctx, st)
	}
}

// PolicyHistory is what the ledger remembers of one policy's rotations.
type PolicyHistory struct {
	Policy    string
	Rotations []ledger.Past // oldest first
	Err       error         // why the entry was not read
}

// History reads what the ledger remembers of these policies, loaded or not. It reads nothing else, so it works while ElevenLabs
// does not answer.
func (r *Rotator) History(ctx context.Context, policies ...string) []PolicyHistory {
	all := make([]PolicyHistory, 0, len(policies))
	for _, name := range policies {
		h := PolicyHistory{Policy: name}
		switch e, err := r.entryOf(ctx, name); {
		case err != nil:
			h.Err = fmt.Errorf("reading the history of %s: %w", name, err)
		case e != nil && e.MovedTo != "":
			h.Err = &MovedError{name, e.MovedTo}
		case e != nil:
			h.Rotations = e.Rotations()
		}
		all = append(all, h)
	}
	return all
}

// MovedError says that a policy's entry, with its history, belongs to another policy now.
type MovedError struct{ Policy, To string }

// Error implements error.
func (e *MovedError) Error() string {
	return fmt.Sprintf("reading the history of %s: policy %s took its ledger entry over; run: rekeyd history %s", e.Policy, e.To, e.To)
}
