package rotator

import (
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Problem is a reason for a person to look at a policy; the words are a metric label.
type Problem string

// The problems of a policy in addition to the reason for its state.
const (
	ProblemOldKeyInUse   = Problem(plan.WaitOldKeyInUse)
	ProblemNewKeyUnused  = Problem(plan.WaitNewKeyUnused)
	ProblemStillAccepted = Problem(ledger.StillAccepted)
	ProblemProofMissing  = Problem("proof_missing")
	ProblemKeyLimitNear  = Problem("key_limit_near")
	ProblemRetireFailing = Problem("retire_failing")
	ProblemOther         = Problem("other")
)

const (
	overlapEnds   = time.Hour // before the end of an overlap every reader should have the new key
	retireFailsAt = 2         // attempts in a row: a single failure may be transient
)

// saysDisabled reports whether a problem says by itself that the current key is disabled.
func saysDisabled(p Problem) bool {
	switch plan.Fault(p) {
	case plan.FaultKeyDisabled, plan.FaultTrialEnded, plan.FaultDowngraded, plan.FaultLeakStorm:
		return true
	}
	return false
}

// Problems are the reasons for a person to look at the policy. A refused workspace counts before any work is due.
func (s *PolicyStatus) Problems(refused ledger.Failure, now time.Time) []Problem {
	var all []Problem
	reason := s.stateProblem()
	if reason != "" {
		all = append(all, reason)
	}
	if refused != "" && Problem(refused) != reason && s.State != plan.StatePaused {
		all = append(all, Problem(refused))
	}
	if s.CutOff != "" && !saysDisabled(reason) {
		all = append(all, Problem(plan.FaultKeyDisabled)) // as long as it lasts, whatever keeps it from being replaced
	}
	ends := func(r ledger.Retiring) bool { return r.State == ledger.InOverlap && r.Until.Sub(now) < overlapEnds }
	if s.InUse && slices.ContainsFunc(s.Retiring, ends) {
		all = append(all, ProblemOldKeyInUse)
	}
	if slices.ContainsFunc(s.Retiring, func(r ledger.Retiring) bool {
		return ends(r) && slices.Contains(s.Missing[r.ID], plan.WaitNewKeyUnused)
	}) {
		all = append(all, ProblemNewKeyUnused)
	}
	if s.Accepted {
		all = append(all, ProblemStillAccepted)
	}
	if s.Unproven {
		all = append(all, ProblemProofMissing)
	}
	if s.RoomMade {
		all = append(all, ProblemKeyLimitNear)
	}
	if s.Unswept >= retireFailsAt || slices.ContainsFunc(s.Retiring, func(r ledger.Retiring) bool { return r.Tries >= retireFailsAt }) {
		all = append(all, ProblemRetireFailing)
	}
	return all
}

// stateProblem is why the policy is in the state failing or error; "" in the others.
func (s *PolicyStatus) stateProblem() Problem {
	word := plan.Word(s.Reason)
	switch {
	case s.State != plan.StateError && s.State != plan.StateFailing:
		return ""
	case s.State == plan.StateFailing && s.Failure != nil: // the state's own reason may be that the next try has its time
		word = string(s.Failure.Reason)
	}
	if !slices.Contains(plan.Faults(), plan.Fault(word)) && !ledger.Failure(word).Known() {
		return ProblemOther // keeps the label set closed
	}
	return Problem(word)
}

// Refused is the workspaces whose admin key is refused or lacks a permission, with the reason.
func (s Snapshot) Refused() map[string]ledger.Failure {
	refused := map[string]ledger.Failure{}
	for _, ws := range s.Workspaces {
		if r := FailureOf(ws.Err); r == ledger.FailureAdminKeyRefused || r == ledger.FailureMissingPermissions {
			refused[ws.Name] = r
		}
	}
	return refused
}
