package metrics

import (
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// The problems of a policy in addition to the reason for its state.
const (
	problemOldKeyInUse   = string(ledger.ReasonOldKeyInUse)
	problemNewKeyUnused  = string(ledger.ReasonNewKeyUnused)
	problemStillAccepted = string(ledger.StillAccepted)
	problemRetireFailing = "retire_failing"
	problemOther         = "other"
	overlapEnds          = time.Hour // before the end of an overlap every reader should have the new key
	retireFailsAt        = 2         // attempts in a row: a single failure may be transient
)

// problems are the reasons for a person to look at the policy. A refused workspace counts before any work is due.
func problems(s *rotator.PolicyStatus, refused string, now time.Time) []string {
	var all []string
	reason := stateProblem(s)
	if reason != "" {
		all = append(all, reason)
	}
	if refused != "" && refused != reason && s.State != plan.StatePaused {
		all = append(all, refused)
	}
	ends := func(r ledger.Retiring) bool { return r.State == ledger.InOverlap && r.Until.Sub(now) < overlapEnds }
	if s.InUse && slices.ContainsFunc(s.Retiring, ends) {
		all = append(all, problemOldKeyInUse)
	}
	if slices.ContainsFunc(s.Retiring, func(r ledger.Retiring) bool {
		return ends(r) && slices.Contains(s.Missing[r.ID], ledger.ReasonNewKeyUnused)
	}) {
		all = append(all, problemNewKeyUnused)
	}
	if slices.ContainsFunc(s.Retiring, func(r ledger.Retiring) bool { return r.Proof == ledger.StillAccepted }) {
		all = append(all, problemStillAccepted)
	}
	if s.Unswept >= retireFailsAt || slices.ContainsFunc(s.Retiring, func(r ledger.Retiring) bool { return r.Tries >= retireFailsAt }) {
		all = append(all, problemRetireFailing)
	}
	return all
}

// refusedIn is the workspaces whose admin key is refused or lacks a permission, with the reason.
func refusedIn(all []rotator.WorkspaceStatus) map[string]string {
	refused := map[string]string{}
	for _, ws := range all {
		if r := rotator.ReasonOf(ws.Err); r == ledger.ReasonAdminKeyRefused || r == ledger.ReasonMissingPermissions {
			refused[ws.Name] = string(r)
		}
	}
	return refused
}

// stateProblem is why the policy is in the state failing or error; "" in the others.
func stateProblem(s *rotator.PolicyStatus) string {
	reason := s.Reason
	switch {
	case s.State != plan.StateError && s.State != plan.StateFailing:
		return ""
	case s.State == plan.StateFailing && s.Failure != nil: // the state's own reason may be that the next try has its time
		reason = s.Failure.Reason
	}
	if !slices.Contains(ledger.ErrorReasons(), reason) && !ledger.IsFailure(reason) {
		return problemOther // keeps the label set closed
	}
	return string(reason)
}
