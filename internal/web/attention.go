package web

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// runbook is what each alert's runbook_url begins with; the alert's name, in lower case, follows.
const runbook = "https://github.com/rekeyd/rekeyd/blob/main/docs/runbook.md#"

// alert is one of deploy/prometheus/alerts.yaml: the page says what the alert would, and links to the same section of the runbook.
// The worst come first.
type alert int

const (
	sinkDown alert = iota
	tokenEnding
	leakStorm
	keyDisabled
	keyVanished
	adminKeyRefused
	recordChanged
	keyTooOld
	loopStalled
	noFirstKey
	workspaceDown
	reloadFailed
	clockSkew
	replicasDisagree
	keyLimit
	rotationFailing
	retirementFailing
	oldKeyAccepted
	proofMissing
	throttled
	rotationOverdue
	oldKeyInUse
	lostKeys
	keyLimitNear
	workspaceLimitNear
	eventsNotDelivered
	drift
)

// Name is the alert's name.
func (a alert) Name() string {
	return [...]string{
		"RekeydSinkDown", "RekeydVaultTokenEnding", "RekeydLeakStorm", "RekeydKeyDisabled", "RekeydKeyVanished", "RekeydAdminKeyRefused",
		"RekeydRecordChanged", "RekeydKeyTooOld", "RekeydLoopStalled", "RekeydNoFirstKey", "RekeydWorkspaceDown", "RekeydReloadFailed",
		"RekeydClockSkew", "RekeydReplicasDisagree", "RekeydKeyLimit", "RekeydRotationFailing", "RekeydRetirementFailing", "RekeydOldKeyAccepted",
		"RekeydProofMissing", "RekeydThrottled", "RekeydRotationOverdue", "RekeydOldKeyInUse", "RekeydLostKeys", "RekeydKeyLimitNear",
		"RekeydWorkspaceLimitNear", "RekeydEventsNotDelivered", "RekeydDrift",
	}[a]
}

// Runbook is the address of what to do.
func (a alert) Runbook() string { return runbook + strings.ToLower(a.Name()) }

// The times for which the alerts of the same names wait as well.
const (
	overdueAfter  = 30 * time.Minute
	disabledShown = time.Hour
)

// alertsOf are what a person should look at, the worst first: the policy's problems, and what the other metrics show.
func alertsOf(s *rotator.PolicyStatus, refused ledger.Failure, now time.Time) []alert {
	var all []alert
	for _, p := range s.Problems(refused, now) {
		if p != rotator.ProblemNewKeyUnused { // shown with the old key
			all = append(all, alertFor(p))
		}
	}
	if s.Failure != nil && len(all) == 0 {
		all = append(all, rotationFailing) // it is being tried again at the moment
	}
	if s.Current == nil && s.Loaded && (len(all) > 0 || s.State == plan.StateThrottled) && s.State != plan.StatePaused {
		all = append(all, noFirstKey)
	}
	for _, at := range s.Disabled {
		if now.Sub(at) < disabledShown {
			all = append(all, keyDisabled)
		}
	}
	if c := s.Current; c != nil && s.Policy.MaxAge > 0 && now.Sub(c.Created) > s.Policy.MaxAge && s.State != plan.StatePaused {
		all = append(all, keyTooOld)
	}
	if !s.NextDue.IsZero() && now.Sub(s.NextDue) > overdueAfter {
		late := rotationOverdue
		if s.State == plan.StateThrottled {
			late = throttled
		}
		all = append(all, late)
	}
	if s.Keys.Lost > 0 {
		all = append(all, lostKeys)
	}
	if len(s.Drift) > 0 {
		all = append(all, drift)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// alertFor is about the rotation where no other alert has the problem's name.
func alertFor(p rotator.Problem) alert {
	a, known := map[string]alert{
		string(plan.FaultLeakStorm):              leakStorm,
		string(plan.FaultKeyDisabled):            keyDisabled,
		string(plan.FaultTrialEnded):             keyDisabled,
		string(plan.FaultDowngraded):             keyDisabled,
		string(plan.FaultKeyVanished):            keyVanished,
		string(ledger.FailureAdminKeyRefused):    adminKeyRefused,
		string(ledger.FailureMissingPermissions): adminKeyRefused,
		string(ledger.FailureRecordChanged):      recordChanged,
		string(ledger.FailureSinkConflict):       recordChanged,
		string(plan.FaultReplicasDiffer):         replicasDisagree,
		string(ledger.FailureKeyLimit):           keyLimit,
		string(rotator.ProblemRetireFailing):     retirementFailing,
		string(rotator.ProblemStillAccepted):     oldKeyAccepted,
		string(rotator.ProblemKeyLimitNear):      keyLimitNear,
		string(rotator.ProblemProofMissing):      proofMissing,
		string(rotator.ProblemOldKeyInUse):       oldKeyInUse,
	}[string(p)]
	if !known {
		return rotationFailing
	}
	return a
}

// matter is one thing that a person should look at: of a policy, or of many.
type matter struct {
	alert
	row   *row   // nil: not of one policy
	words string // of what is not
}

// Policy is the policy's name; "" where it is not one's.
func (m matter) Policy() string {
	if m.row == nil {
		return ""
	}
	return m.row.Policy.Name
}

// Words say in a sentence why the alert is up.
func (m matter) Words() string {
	if m.row == nil {
		return m.words
	}
	s, now := m.row.PolicyStatus, m.row.now
	switch m.alert {
	case keyDisabled:
		return m.row.cutOff()
	case keyTooOld:
		return fmt.Sprintf("The key is %s old, and max_age is %s.", Span(now.Sub(s.Current.Created)), Span(s.Policy.MaxAge))
	case throttled:
		return fmt.Sprintf("Due for %s: its workspace has had its rotations for this hour.", Span(now.Sub(s.NextDue)))
	case rotationOverdue:
		return fmt.Sprintf("The rotation was due %s ago.", Span(now.Sub(s.NextDue)))
	case lostKeys:
		return fmt.Sprintf("Keys whose secret is stored nowhere: %d.", s.Keys.Lost)
	case drift:
		return "The key differs from the policy in " + strings.Join(s.Drift, ", ") + "."
	case oldKeyInUse:
		return "The old key is still in use, and its overlap ends within the hour."
	case oldKeyAccepted:
		return "ElevenLabs still accepts a key that is disabled."
	case keyLimitNear:
		return "The last rotation found the service account full, and deleted an old key before its quarantine ended."
	case proofMissing:
		return "A key is disabled, and nothing shows that ElevenLabs refuses it."
	case retirementFailing:
		return "An old key could not be disabled or deleted."
	}
	return m.row.trouble()
}

// trouble says why the policy is in error, or what failed last.
func (r *row) trouble() string {
	switch f := r.Failure; {
	case r.State == plan.StateError:
		return sentence(cmp.Or(r.Message, plan.Word(r.Reason)))
	case f != nil:
		text := fmt.Sprintf("Failed at %s, %s: %s", f.Stage, momentOf(f.At, r.now, r.zone(), "").Relative, sentence(f.Message))
		if f.Count > 1 {
			text += fmt.Sprintf(" %d times in a row.", f.Count)
		}
		if f.NextTry.After(r.now) {
			text += " Tries again in " + Span(f.NextTry.Sub(r.now)) + "."
		}
		return text
	case r.State == plan.StateThrottled:
		return sentence(r.Message)
	case r.State == plan.StateFailing:
		return sentence(plan.Word(r.Reason))
	}
	return ""
}

// cutOff says whether readers are refused for a key that was disabled outside rekeyd, or have been.
func (r *row) cutOff() string {
	if words := viewOf(r.PolicyStatus).CutOff(); words != "" {
		return strings.TrimSpace("R" + words[1:] + ". " + r.trouble())
	}
	last, why := time.Time{}, plan.DisableCause("")
	for reason, at := range r.Disabled {
		if at.After(last) {
			last, why = at, reason
		}
	}
	became := "it is enabled again"
	if c := r.Current; c != nil && !c.Published.Before(last.Truncate(time.Second)) { // it has whole seconds
		became = "it is replaced: readers must read the record again"
	}
	return fmt.Sprintf("The key was disabled (%s), seen %s ago, and %s.", why, Span(r.now.Sub(last)), became)
}

// sentence gives words their full stop.
func sentence(words string) string { return strings.TrimSuffix(words, ".") + "." }

// attention is what the page shows above its table.
type attention struct {
	Matters  []matter
	More     int // beyond those
	Policies int // that need attention
}

const mattersShown = 4

// attentionOf returns the worst of all matters, or all but those of policies, which the list shows too. What stops many policies is
// shown once, without what follows from it.
func attentionOf(s rotator.Snapshot, rows []row, v vitals, now time.Time, every bool) attention {
	all := v.matters(now)
	if s.StoreDown != nil {
		all = append(all, matter{alert: sinkDown, words: "Ledger and records cannot be used: " + text(s.StoreDown)})
	}
	refused, down := s.Refused(), map[string]bool{}
	for _, ws := range s.Workspaces {
		down[ws.Name] = ws.Err != nil
		all = append(all, v.workspaceMatters(ws, refused[ws.Name] != "", now)...)
	}
	needing := 0
	for i := range rows {
		r := &rows[i]
		if !r.Needs {
			continue
		}
		needing++
		follows := r.worst == adminKeyRefused || r.worst == rotationFailing && r.State == plan.StateFailing
		if !follows || !down[r.Policy.Workspace] && s.StoreDown == nil {
			all = append(all, matter{alert: r.worst, row: r})
		}
	}
	slices.SortStableFunc(all, func(x, y matter) int { return cmp.Compare(x.alert, y.alert) })
	shown := slices.Clone(all[:min(len(all), mattersShown)])
	for _, m := range all[len(shown):] {
		if every && m.row == nil {
			shown = append(shown, m)
		}
	}
	return attention{shown, len(all) - len(shown), needing}
}
