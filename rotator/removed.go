package rotator

import (
	"context"
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// discover finds the ledger entries of removed policies, so that their retiring keys are still retired. An entry that cannot be
// read now is found at the next resync.
func (r *Rotator) discover(ctx context.Context) {
	names, err := r.EntryNames(ctx)
	if err != nil {
		return
	}
	slices.Sort(names)
	for _, name := range names {
		r.mu.Lock()
		known := r.policies[name] != nil || r.removed[name] != nil
		r.mu.Unlock()
		if known || !ledger.ValidName(name) {
			continue
		}
		e, err := r.entryOf(ctx, name)
		if err != nil || e == nil || e.MovedTo != "" || r.nothingLeft(e) {
			continue
		}
		r.addRemoved(plan.RemovedPolicy(e))
	}
}

// nothingLeft reports whether an entry has no keys, and no listing shows one of its abandoned keys.
func (r *Rotator) nothingLeft(e *ledger.Entry) bool {
	if e.Current != nil || len(e.Retiring) > 0 || e.Claim != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ws := range r.sortedWorkspaces {
		if ws.listing == nil {
			continue
		}
		for _, k := range ws.listing.owned[e.Policy] {
			if _, _, rotation, _ := ledger.ParseKeyName(k.Name); e.IsAbandoned(k.ID, rotation) {
				return false
			}
		}
	}
	return true
}

func (r *Rotator) addRemoved(p plan.Policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := r.workspaces[p.Workspace]
	if ws == nil || r.policies[p.Name] != nil || r.removed[p.Name] != nil {
		return // this process cannot reach its keys
	}
	st := &policyState{}
	st.load(&p, ws)
	r.removed[p.Name], r.inOrder = st, nil
	r.enqueueLocked(st)
}
