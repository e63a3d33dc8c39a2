package rotator

import (
	"context"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// beginLocked starts the workspace's reconcile loop.
func (ws *workspace) beginLocked(r *Rotator) {
	ctx, stop := context.WithCancel(context.Background())
	ws.stop = stop
	r.loops.Go(func() { r.reconcileLoop(ctx, ws) })
}

// reconcileLoop lists the workspace and wakes its policies, once at the start and then once per reconcile interval. Only these
// listings probe an outage of the workspace.
func (r *Rotator) reconcileLoop(ctx context.Context, ws *workspace) {
	r.reconcile(ctx, ws)
	for wait := r.firstWait(ws); sleep(ctx, wait); wait = r.opt.ReconcileInterval {
		r.reconcile(ctx, ws)
	}
}

// firstWait spreads the listings of the workspaces, which all begin at once, over the interval from their second on. No two listings
// are less than an interval apart: what two of them agree on, such as that a key is missing or not used, counts.
func (r *Rotator) firstWait(ws *workspace) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	turn, of := max(slices.Index(r.sortedWorkspaces, ws), 0), max(len(r.sortedWorkspaces), 1)
	return r.opt.ReconcileInterval + r.opt.ReconcileInterval*time.Duration(turn)/time.Duration(of)
}

func (r *Rotator) reconcile(ctx context.Context, ws *workspace) {
	begun := time.Now()
	r.mu.Lock()
	api := ws.api // a reload may change it
	r.mu.Unlock()
	accounts, err := api.ServiceAccounts(elevenlabs.WithPatience(ctx, urgent)) // it shows the leaks
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.advisedLocked(ws, err)
	r.logListing(ws, err)
	r.logSkewLocked(ws)
	ws.lastAttempt = r.opt.Wall()
	if ws.listing == nil || ws.err != nil {
		ws.healthySince = ws.lastAttempt
	}
	back := ws.err != nil && err == nil
	if ws.err = err; err == nil {
		ws.lastSuccess = ws.lastAttempt
		ws.listing = r.index(ws, accounts, begun)
		r.findStraysLocked(ws)
	}
	for _, st := range r.orderedLocked() {
		if st.ws == ws {
			st.inbox.hurry = st.inbox.hurry || back
			r.enqueueLocked(st)
		}
	}
}
