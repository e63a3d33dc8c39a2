package plan

import (
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// MaxBackoff is the longest wait between two tries.
const MaxBackoff = time.Hour

// Attempt is a step or a look that is retried for as long as it is due.
type Attempt struct {
	Action Action
	Reason ledger.Trigger
	KeyID  string
}

// AttemptOf returns the attempt that a step counts as.
func AttemptOf(s Step) Attempt { return Attempt{s.Action, s.Reason, s.KeyID} }

// Pacing is when earlier tries and the call budget allow the next ones.
type Pacing struct {
	Next    map[Attempt]time.Time // when attempts of the last hours may be tried again
	Affords map[Action]time.Time  // when the budget allows actions that it does not allow now
}

// planPace marks the steps that have to wait. The first try of an urgent step does not wait for the budget.
func planPace(o Observed, now time.Time, d Decision) Decision {
	if o.Pacing.Next == nil && o.Pacing.Affords == nil {
		return d
	}
	for _, s := range d.Steps {
		next, tried := o.Pacing.Next[AttemptOf(s)]
		why := WaitBackoff
		if at := o.Pacing.Affords[s.Action]; at.After(next) && (tried || !Urgent(s)) {
			next, why = at, WaitCallBudget
		}
		if !next.After(now) {
			continue
		}
		if d.Later == nil {
			d.Later = map[Step]time.Time{}
		}
		d.Later[s] = next
		d.wakeAt(next)
		if s.Action == ActRotate {
			d.NextDue, d.NextReason = next, Delayed{WaitBackoff, s.Reason}
		}
		if d.State != StateError && (s.Action == ActRotate || why == WaitCallBudget) {
			d.Reason = why
		}
	}
	return d
}

// Urgent reports whether a leaked or revoked key keeps working until the step is done.
func Urgent(s Step) bool {
	return (s.Action == ActRotate && Exempt(s.Reason)) || (s.Action == ActDisable && s.Reason == ledger.TriggerRevoke)
}
