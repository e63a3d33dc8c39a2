package rotator

import (
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// PolicyStatus is the state of a policy at the last look.
type PolicyStatus struct {
	Policy       *plan.Policy // read-only
	plan.Outlook              // with the state and the reason of a failure since
	Loaded       bool         // the ledger entry was read
	LastRotation time.Time
	Current      *ledger.KeyRef
	Retiring     []ledger.Retiring
	History      ledger.Packed
	MovedTo      string // the policy that took the ledger entry over; "": none
	Keys         plan.KeyCounts
	InUse        bool              // a retiring key's usage still grows
	Accepted     bool              // a disabled key is still accepted
	CutOff       plan.DisableCause // for which the current key is listed as disabled, so that its readers are refused; "" while it is enabled
	RoomMade     bool              // the last rotation found its account full, and cut a quarantine short
	Unproven     bool              // of a disabled key it is not known whether it is still accepted
	// ThirdPartyDisable is whether ElevenLabs may disable the current key when it leaks, as far as that is known.
	ThirdPartyDisable elevenlabs.Value[bool]
	Failure           *ledger.LastFailure // since the last success
	Successes         int                 // of this process
	Failures          int
	Disabled          map[plan.DisableCause]time.Time // when a current key was last seen disabled by the provider
	Unswept           int                             // failed tries in a row of this process to delete an abandoned key
}

// WorkspaceStatus is the last answer of a workspace.
type WorkspaceStatus struct {
	Name          string
	LastReconcile time.Time // zero: none since the start
	LastTry       time.Time // of the last listing, successful or not; zero: none has ended yet
	Err           error
	Accounts      []elevenlabs.ServiceAccount // as last listed, with the keys of others; read-only
}

// Snapshot is the rotator's state at one moment. Policies and workspaces are ordered by name.
type Snapshot struct {
	Policies   []PolicyStatus
	Removed    []PolicyStatus // in the ledger, but no longer loaded: the current key stays, retiring keys are still retired
	Workspaces []WorkspaceStatus
	StoreDown  error
}

// Snapshot returns the cached state, without any remote call.
func (r *Rotator) Snapshot() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Snapshot{StoreDown: r.outage.unusable(r.opt.Ledger.Mount), Policies: make([]PolicyStatus, 0, len(r.policies))}
	for _, name := range slices.Sorted(maps.Keys(r.policies)) {
		s.Policies = append(s.Policies, r.policies[name].statusLocked())
	}
	for _, name := range slices.Sorted(maps.Keys(r.removed)) {
		s.Removed = append(s.Removed, r.removed[name].statusLocked())
	}
	for _, ws := range r.sortedWorkspaces {
		status := WorkspaceStatus{Name: ws.name, LastReconcile: ws.lastSuccess, LastTry: ws.lastAttempt, Err: ws.err}
		if ws.listing != nil {
			status.Accounts = ws.listing.answer
		}
		s.Workspaces = append(s.Workspaces, status)
	}
	return s
}

// ListedKey returns a policy's current key as the last listing shows it.
func (r *Rotator) ListedKey(policy string) (elevenlabs.Key, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.policies[policy]
	if st == nil || st.last.entry == nil || st.last.entry.Current == nil {
		return elevenlabs.Key{}, false
	}
	key, _, listed := r.listedKeyLocked(*st.last.entry.Current)
	return key, listed
}

// Ready returns why the rotator cannot work, nil if it can.
func (r *Rotator) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(r.policies) == 0:
		return errors.New("no policies are loaded")
	case r.owner == "":
		return errors.New("the ledger has not been read yet")
	}
	for _, st := range r.policies {
		if !st.counted {
			return errors.New("not every ledger entry has been read yet")
		}
	}
	for _, ws := range r.workspaces {
		if !ws.lastSuccess.IsZero() {
			return nil
		}
	}
	return errors.New("no workspace has answered yet")
}

// statusLocked is what is displayed of the policy.
func (st *policyState) statusLocked() PolicyStatus {
	x := st.display
	s := PolicyStatus{Policy: st.policy, Outlook: st.last.decision, Loaded: st.last.planned, Keys: x.keys, InUse: x.inUse, CutOff: x.cutOff,
		Accepted: x.accepted, Unproven: x.unproven, ThirdPartyDisable: x.thirdPartyDisable, Failure: x.failure, Successes: int(x.successes), Failures: int(x.failures), Disabled: x.disabled, Unswept: int(x.unswept)}
	s.State, s.Reason = x.state, x.reason
	if e := st.last.entry; e != nil {
		s.Current, s.Retiring, s.History, s.LastRotation, s.MovedTo = e.Current, e.Retiring, e.Packed(), e.LastRotation, e.MovedTo
		s.RoomMade = e.RoomMade()
	}
	return s
}

// updateStatus displays the new observation and decision.
func (r *Rotator) updateStatus(st *policyState, p plan.Policy, o plan.Observed, d plan.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := st.statusLocked()
	if st.known.leaked && o.Entry != st.last.entry {
		st.display.noteLeaks(o.Entry, r.opt.Wall())
	}
	st.last = last{entry: o.Entry, decision: d.Outlook, planned: true, failed: o.Entry != nil && o.Entry.Failure != nil}
	s := &st.display
	s.state, s.reason = d.State, d.Reason
	if o.Entry != nil {
		s.failure = o.Entry.Failure
	}
	if u := st.known.unusual().unread; u != nil && (s.state == plan.StateOK || s.state == plan.StateDue) {
		s.state, s.reason, s.failure, st.last.failed = plan.StateFailing, u.Reason, u, true
	}
	if s.state == plan.StateOK && st.known.rare != nil {
		st.known.rare.loggedOutage = nil
	}
	if st.known.unusual().countedOutage != "" && (s.state == plan.StateDue || s.state == plan.StateFailing) && (o.Entry == nil || o.Entry.Failure == nil) {
		s.state, s.failure, st.last.failed = plan.StateFailing, was.Failure, true // the ledger could not be written
	}
	s.keys = plan.CountKeys(p, o)
	s.inUse, s.cutOff = len(o.InUse) > 0, ""
	if k, listed := o.Key(ledger.CurrentID(o.Entry)); listed && k.Disabled {
		s.cutOff = plan.CauseOf(k.DisableReason)
	}
	s.accepted, s.unproven = openEnds(o, r.opt.Wall(), r.opt.KeepsVersions)
	s.thirdPartyDisable = plan.CurrentSettings(o).ThirdPartyDisable
	if !slices.ContainsFunc(d.Steps, func(x plan.Step) bool { return x.Action == plan.ActSweep }) {
		s.unswept = 0
	}
	r.emitTransitions(st, was, o)
	if x := st.known.rare; x != nil && reflect.ValueOf(*x).IsZero() {
		st.known.rare = nil
	}
}

// displayRotating displays, until the next look, what others see in the claimed entry.
func (r *Rotator) displayRotating(st *policyState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.display.state, st.display.reason = plan.StateRotating, plan.WaitClaimed
}

// emitTransitions reports what changed since the last status. It skips removed policies: they need no report, and after a rename
// the state under the old name is out of date.
func (r *Rotator) emitTransitions(st *policyState, was PolicyStatus, o plan.Observed) {
	s := st.statusLocked()
	if s.Policy.Mode == plan.ModeRemoved {
		return
	}
	e := Event{Policy: s.Policy.Name, Workspace: s.Policy.Workspace, At: r.opt.Wall()}
	if c := s.Current; c != nil {
		e.KeyID, e.KeyName = c.ID, c.Name
	}
	if s.HeldBy != "" && s.HeldBy != was.HeldBy {
		r.logLocked(slog.LevelInfo, "rotation waits for its group", "policy", s.Policy.Name, "group", s.Policy.Group, "held_by", s.HeldBy)
	}
	if s.State == plan.StateThrottled && was.State != plan.StateThrottled {
		r.logLocked(slog.LevelInfo, "rotation waits for the hourly limit", "policy", s.Policy.Name, "why", s.Message)
	}
	if s.State == plan.StateError && (was.State != plan.StateError || was.Reason != s.Reason) {
		e.Type, e.Reason = EventError, s.Reason
		r.observeLocked(e)
		r.logLocked(slog.LevelError, "policy needs a decision", "policy", s.Policy.Name, "failure", s.Reason, "err", s.Message)
	}
	if len(s.Drift) > 0 && len(was.Drift) == 0 {
		e.Type, e.Reason = EventDrifted, ledger.TriggerDrift
		r.observeLocked(e)
	}
	k, listed := o.Key(ledger.CurrentID(o.Entry))
	if listed && !k.Disabled && st.known.rare != nil {
		st.known.rare.disabledKey = "" // it may be disabled again
	}
	if !listed || !k.Disabled {
		return
	}
	cause := plan.CauseOf(k.DisableReason)
	e.Type, e.Reason = EventKeyDisabled, cause
	if _, told := s.Disabled[cause]; told && st.known.unusual().disabledKey == k.ID {
		return
	}
	st.known.note().disabledKey = k.ID
	st.display.noteDisabled(cause, e.At)
	r.observeLocked(e)
	r.logLocked(slog.LevelWarn, "current key was disabled by others", "policy", s.Policy.Name, "key_id", k.ID, "disable_reason", cause)
}

// proofTakes is after how long an answer that is not clear is no delay.
const proofTakes = 10 * time.Minute

// openEnds says what is open about the keys in quarantine that are listed as disabled: is one still accepted, and is there one
// that nothing shows to be refused? One that is not listed any more was deleted. A store that keeps no versions has no secret to try.
func openEnds(o plan.Observed, now time.Time, keepsVersions bool) (accepted, unproven bool) {
	if o.Entry == nil {
		return false, false
	}
	for _, r := range o.Entry.Retiring {
		since := now.Sub(r.Until.Add(-time.Duration(r.Quarantine)))
		if k, listed := o.Key(r.ID); r.State != ledger.InQuarantine || !listed || !k.Disabled {
			continue
		}
		accepted = accepted || r.Proof == ledger.StillAccepted
		unproven = unproven || keepsVersions && (r.Proof == "" && since > proofTakes || r.Proof == ledger.NotTried)
	}
	return accepted, unproven
}
