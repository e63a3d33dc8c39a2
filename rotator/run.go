package rotator

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Load replaces the set of policies and the clients of their workspaces. Work in flight continues with the policy as claimed, and
// unchanged policies keep what is known about them. Every policy's workspace must be in clients.
func (r *Rotator) Load(policies []plan.Policy, clients map[string]*elevenlabs.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loadWorkspaces(clients)
	old := r.policies
	r.loads++
	r.policies, r.inOrder = make(map[string]*policyState, len(policies)), nil
	for i := range policies {
		p := &policies[i]
		st := old[p.Name]
		if st == nil {
			st = cmp.Or(r.removed[p.Name], &policyState{})
			st.loadedAt, st.mayTakeBack = r.loads, r.loads > 1
			delete(r.removed, p.Name)
		}
		st.load(p, r.workspaces[p.Workspace])
		r.policies[p.Name] = st
	}
	for name, st := range old {
		if r.policies[name] == nil {
			st.policy, r.removed[name] = new(*st.policy), st
			st.policy.Mode = plan.ModeRemoved
		}
	}
	for _, ws := range r.sortedWorkspaces {
		r.findStraysLocked(ws)
		ws.uncounted = 0
	}
	for _, st := range r.policies {
		if !st.counted {
			st.ws.uncounted++
		}
	}
	if slices.Compare(slices.Sorted(maps.Keys(old)), slices.Sorted(maps.Keys(r.policies))) != 0 {
		select {
		case r.reloaded <- struct{}{}:
		default:
		}
	}
	r.outage.Expect(r.foretell)
	for _, st := range r.orderedLocked() {
		r.enqueueLocked(st)
	}
}

// foretell yields the documents that rotations will check, in the order in which they will.
func (r *Rotator) foretell(yield func(ledger.Ref) bool) {
	r.mu.Lock()
	states := r.orderedLocked()
	r.mu.Unlock()
	for _, st := range states {
		if p, _ := r.policyOf(st); p.Mode != plan.ModeRemoved && (!yield(r.entryRef(p.Name)) || !yield(p.Sink.Ref)) {
			return
		}
	}
}

func (r *Rotator) loadWorkspaces(clients map[string]*elevenlabs.Client) {
	old := r.workspaces
	r.workspaces = make(map[string]*workspace, len(clients))
	for name, c := range clients {
		ws := old[name]
		if ws == nil {
			ws = &workspace{name: name, recent: map[string]time.Time{}}
		}
		ws.api = c
		r.workspaces[name] = ws
		if r.running && old[name] == nil {
			ws.beginLocked(r)
		}
	}
	r.sortedWorkspaces = slices.SortedFunc(maps.Values(r.workspaces), func(a, b *workspace) int { return strings.Compare(a.name, b.name) })
	for name, ws := range old {
		if r.workspaces[name] == nil && ws.stop != nil {
			ws.stop()
		}
	}
}

// Run works until ctx ends, then finishes the work in flight within the shutdown timeout. Unfinished work recovers at the next
// start. It is called once.
func (r *Rotator) Run(ctx context.Context) error {
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	r.awaitOwner(ctx)
	var workers sync.WaitGroup

	r.mu.Lock()
	r.running = true
	for _, ws := range r.workspaces {
		ws.beginLocked(r)
	}
	r.mu.Unlock()
	for range r.opt.Concurrency {
		workers.Go(func() { r.worker(work, &workers) })
	}
	r.loops.Go(func() { r.resyncLoop(ctx) })
	r.loops.Go(func() { r.probeLoop(ctx) })
	r.loops.Go(func() { r.announceLoop(ctx) })

	<-ctx.Done()
	r.stop()
	r.loops.Wait()
	defer r.leave(ctx)
	return r.drain(&workers, abort)
}

// stop keeps new work from starting.
func (r *Rotator) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping, r.running = true, false
	for _, ws := range r.workspaces {
		ws.stop()
	}
	for _, st := range r.policies {
		if st.timer != nil {
			st.timer.Stop()
		}
	}
	r.wakeUp.Broadcast()
}

func (r *Rotator) drain(workers *sync.WaitGroup, abort func()) error {
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	timer := time.NewTimer(r.opt.ShutdownTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		abort()
		<-done
		return errors.New("stopping: some work did not finish within the shutdown timeout; it recovers at the next start")
	}
}
