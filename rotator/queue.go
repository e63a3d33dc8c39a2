package rotator

import (
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"time"
)

// wake enqueues a policy.
func (r *Rotator) wake(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.policies[name]
	if st == nil {
		st = r.removed[name]
	}
	if st != nil {
		r.enqueueLocked(st)
	}
}

// storeAnswers enqueues all policies, which waited for the store. Only a lasting outage also ends their other waits, so that a
// flapping store does not.
func (r *Rotator) storeAnswers(lasted time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range r.orderedLocked() {
		st.inbox.hurry = st.inbox.hurry || lasted >= r.opt.ReconcileInterval/2
		r.enqueueLocked(st)
	}
}

// enqueueLocked puts a policy into the queue, unless it is there already.
func (r *Rotator) enqueueLocked(st *policyState) {
	switch {
	case r.stopping:
	case st.place == working:
		st.inbox.wake = true
	case st.place == idle:
		st.urgent = r.urgentLocked(st)
		r.queueLocked(st)
	case !st.urgent && r.urgentLocked(st):
		st.urgent = true
		at := slices.Index(r.queue, st)
		r.queue = slices.Delete(r.queue, at, at+1)
		r.queueLocked(st)
	}
}

func (r *Rotator) queueLocked(st *policyState) {
	st.place = queued
	if st.urgent {
		r.queue = slices.Insert(r.queue, 0, st)
	} else {
		r.queue = append(r.queue, st)
	}
	r.wakeUp.Signal()
}

// urgentLocked reports whether a person waits for the policy, or readers whose key is listed as disabled.
func (r *Rotator) urgentLocked(st *policyState) bool {
	if st.request != nil {
		return true
	}
	e := st.last.entry
	if e == nil || e.Current == nil {
		return false
	}
	key, _, found := r.listedKeyLocked(*e.Current)
	return found && key.Disabled
}

// orderedLocked returns all policies, loaded and removed, in this replica's own order: replicas with different orders collide less
// over claims. The result is read-only.
func (r *Rotator) orderedLocked() []*policyState {
	if r.inOrder != nil {
		return r.inOrder
	}
	states := make([]*policyState, 0, len(r.policies)+len(r.removed))
	states = slices.AppendSeq(slices.AppendSeq(states, maps.Values(r.policies)), maps.Values(r.removed))
	for _, st := range states {
		if st.order == 0 {
			h := fnv.New64a()
			_, _ = io.WriteString(h, r.holder+"/"+st.policy.Name)
			st.order = h.Sum64()
		}
	}
	slices.SortFunc(states, func(a, b *policyState) int {
		if a.order < b.order {
			return -1
		}
		return 1
	})
	r.inOrder = states
	return states
}

// next takes a policy from the queue, with the workspace that it counts for; nil when the rotator stops.
func (r *Rotator) next() (*policyState, *workspace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.turnLocked()
	for ; !r.stopping && i < 0; i = r.turnLocked() {
		r.wakeUp.Wait()
	}
	if r.stopping {
		return nil, nil
	}
	st := r.queue[i]
	copy(r.queue[1:i+1], r.queue[:i])
	r.queue[0] = nil
	r.queue = r.queue[1:]
	st.place = working
	st.ws.busy++
	return st, st.ws
}

// turnLocked returns the index in the queue of the first policy whose workspace has fewer workers than the limit; -1: none. What is
// urgent does not wait for the workers that others keep waiting for the budget.
func (r *Rotator) turnLocked() int {
	return slices.IndexFunc(r.queue, func(st *policyState) bool {
		return st.ws.busy < r.opt.Concurrency || st.urgent && st.ws.busy < 2*r.opt.Concurrency
	})
}
