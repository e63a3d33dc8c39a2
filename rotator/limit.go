package rotator

import (
	"context"
	"errors"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// noteRotationLocked counts a rotation towards the hourly limit.
func (ws *workspace) noteRotationLocked(policy string, at time.Time) {
	if len(ws.recent) == 0 || at.Before(ws.oldest) {
		ws.oldest = at
	}
	ws.recent[policy] = at
}

// rotationsLocked counts the workspace's rotations of the last hour, as this replica knows them, without those of one policy. It
// runs at every look at every policy, so it scans the rotations only when the oldest expires.
func (ws *workspace) rotationsLocked(now time.Time, but string) int {
	if now.Sub(ws.oldest) > time.Hour {
		ws.oldest = now
		for policy, at := range ws.recent {
			switch {
			case now.Sub(at) > time.Hour:
				delete(ws.recent, policy)
			case at.Before(ws.oldest):
				ws.oldest = at
			}
		}
	}
	n := len(ws.recent)
	if _, counted := ws.recent[but]; counted {
		n--
	}
	return n
}

// noteRecent counts the entry's last rotation towards the hourly limit.
func (r *Rotator) noteRecent(st *policyState, e *ledger.Entry) {
	at := e.LastRotation
	if e.Intent != nil && e.Intent.Started.After(at) {
		at = e.Intent.Started
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.opt.Wall(); now.Sub(at) < time.Hour && !plan.InFuture(at, now) {
		st.ws.noteRotationLocked(st.policy.Name, at)
	}
}

// noteCounted notes that a policy's entry was read, or cannot be parsed. The last entry of a workspace lets its rotations begin.
func (r *Rotator) noteCounted(st *policyState, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.counted || ledger.IsOutage(err) || errors.Is(err, context.Canceled) {
		return
	}
	st.counted = true
	if r.policies[st.policy.Name] != st {
		return
	}
	if st.ws.uncounted--; st.ws.uncounted > 0 {
		return
	}
	for _, other := range r.orderedLocked() {
		if other.ws == st.ws {
			r.enqueueLocked(other)
		}
	}
}

// countRotation counts a rotation towards the hourly limit before the ledger is written.
func (r *Rotator) countRotation(st *policyState, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.ws.noteRotationLocked(st.policy.Name, at)
}

// admit counts a rotation that is about to begin, unless the hourly limit is reached.
func (r *Rotator) admit(st *policyState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opt.Wall()
	if r.opt.MaxRotationsPerHour > 0 && st.ws.rotationsLocked(now, st.policy.Name) >= r.opt.MaxRotationsPerHour {
		return false
	}
	st.ws.noteRotationLocked(st.policy.Name, now)
	return true
}
