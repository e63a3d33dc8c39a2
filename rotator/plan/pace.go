package plan

import (
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Attempt is one thing that is tried until it is no longer called for: a step, or a look.
type Attempt struct {
	Action Action
	Reason ledger.Reason
	KeyID  string
}

// AttemptOf is what an attempt is counted as.
func AttemptOf(s Step) Attempt { return Attempt{s.Action, s.Reason, s.KeyID} }

// Pacing is what Plan knows of earlier tries.
type Pacing struct {
	Next    map[Attempt]time.Time // of what was tried within the last hours: when it may be tried again
	Affords map[Action]time.Time  // of what the budget does not allow: when it does
}

// planPace says of the steps of a decision which have to wait. The first try of what ends a leak waits for no budget.
func planPace(o Observed, now time.Time, d Decision) Decision {
	if o.Pacing.Next == nil && o.Pacing.Affords == nil {
		return d
	}
	for _, s := range d.Steps {
		next, tried := o.Pacing.Next[AttemptOf(s)]
		why := ledger.ReasonBackoff
		if at := o.Pacing.Affords[s.Action]; at.After(next) && (tried || !Urgent(s)) {
			next, why = at, ledger.ReasonCallBudget
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
			d.NextDue, d.NextReason = next, ledger.ReasonBackoff
		}
		if d.State != StateError && (s.Action == ActRotate || why == ledger.ReasonCallBudget) {
			d.Reason = why
		}
	}
	return d
}

// Urgent reports a step without which a key that must not work any more goes on working.
func Urgent(s Step) bool {
	return (s.Action == ActRotate && Exempt(s.Reason)) || (s.Action == ActDisable && s.Reason == ledger.ReasonRevoke)
}
