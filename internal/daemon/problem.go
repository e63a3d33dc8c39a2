package daemon

import (
	"errors"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
)

// The problems that a policy can have beside the reason for its state.
const (
	problemOldKeyInUse   = "old_key_in_use"
	problemRetireFailing = "retire_failing"
	problemOther         = "other"
	overlapEnds          = time.Hour // before the end of an overlap every reader should have the new key
	retireFailsAt        = 2         // tries in a row: a single failure is no news
)

// problemReasons is every value of the label: what policies are in error for, what stages fail with, and the two of
// old keys.
func problemReasons() []string {
	all := []string{problemOldKeyInUse, problemRetireFailing}
	for _, r := range slices.Concat(rotator.ErrorReasons(), rotator.FailureReasons()) {
		if !slices.Contains(all, string(r)) {
			all = append(all, string(r))
		}
	}
	return all
}

// problems is why a person should look at the policy. Where its workspace is refused, that is so before anything is due.
func problems(s *rotator.PolicyStatus, refused string, now time.Time) []string {
	var all []string
	reason := stateProblem(s)
	if reason != "" {
		all = append(all, reason)
	}
	if refused != "" && refused != reason && s.State != rotator.StatePaused {
		all = append(all, refused)
	}
	ends := func(r rotator.Retiring) bool { return r.State == rotator.InOverlap && r.Until.Sub(now) < overlapEnds }
	if s.InUse && slices.ContainsFunc(s.Retiring, ends) {
		all = append(all, problemOldKeyInUse)
	}
	if s.Unswept >= retireFailsAt || slices.ContainsFunc(s.Retiring, func(r rotator.Retiring) bool { return r.Tries >= retireFailsAt }) {
		all = append(all, problemRetireFailing)
	}
	return all
}

// refusedIn is the workspaces whose admin key is refused or may not do its work, with the reason.
func refusedIn(all []rotator.WorkspaceStatus) map[string]string {
	refused := map[string]string{}
	for _, ws := range all {
		switch {
		case errors.Is(ws.Err, elevenlabs.ErrInvalidKey):
			refused[ws.Name] = string(rotator.ReasonAdminKeyRefused)
		case errors.Is(ws.Err, elevenlabs.ErrMissingPermissions):
			refused[ws.Name] = string(rotator.ReasonMissingPermissions)
		}
	}
	return refused
}

// stateProblem is why the policy is in the state failing or error; "" in the others.
func stateProblem(s *rotator.PolicyStatus) string {
	reason := s.Reason
	switch {
	case s.State != rotator.StateError && s.State != rotator.StateFailing:
		return ""
	case s.State == rotator.StateFailing && s.Failure != nil: // the state's own reason may be that the next try has its time
		reason = s.Failure.Reason
	}
	if !slices.Contains(rotator.ErrorReasons(), reason) && !slices.Contains(rotator.FailureReasons(), reason) {
		return problemOther // keeps the label set closed
	}
	return string(reason)
}
