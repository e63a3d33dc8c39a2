package rotator

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// EventType is the name of a state change in events, after the prefix "rekeyd.".
type EventType string

// The state changes that Options.Observe receives.
const (
	EventRotated     EventType = "rotated"
	EventFailed      EventType = "failed"
	EventKeyDisabled EventType = "key_disabled" // outside rekeyd
	EventRetired     EventType = "retired"      // rekeyd disabled or deleted a former key
	EventDrifted     EventType = "drifted"
	EventError       EventType = "error" // a person has to decide
	EventLostDeleted EventType = "lost_deleted"
	EventRetireError EventType = "retire_failed"
)

// Event is one state change. It never holds a secret.
type Event struct {
	Type               EventType
	At                 time.Time
	Policy, Workspace  string
	KeyID, KeyName     string
	PreviousKeyID      string
	PreviousValidUntil time.Time
	Stage              ledger.Stage // of a failure
	Reason             plan.Reason
	Evidence           []Evidence    // that the new key works, or that the old one does not
	Duration           time.Duration // of a rotation or a failed one
}

// PolicyStatus is the state of a policy at the last look.
type PolicyStatus struct {
	Policy       *plan.Policy // read-only
	State        plan.State
	Reason       plan.Reason            // nil when all is well
	Message      string                 // an error in a sentence; "" otherwise
	HeldBy       string                 // with plan.WaitGroup: the policy that holds the group
	Loaded       bool                   // the ledger entry was read
	Steps        []plan.Step            // what rekeyd will do next
	NextDue      time.Time              // zero: no rotation will begin
	NextReason   plan.Reason            // what makes it due
	Leaves       map[string]time.Time   // when each retiring key is disabled or deleted, at the latest: by its id
	Missing      map[string][]plan.Wait // the evidence that ends a key's overlap earlier: by its id
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
	Drift        []string
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
	Accounts      []AccountKeys // by id, as last listed; read-only
}

// AccountKeys counts the keys of a service account, whoever made them, disabled ones included.
type AccountKeys struct {
	Account string
	Keys    int
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
		s.Workspaces = append(s.Workspaces, WorkspaceStatus{ws.name, ws.lastSuccess, ws.lastAttempt, ws.err, ws.listing.counts()})
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

// Survey reads and plans the named policies, or all loaded and removed ones, without changing anything. It is for read-only
// commands, and must not be used beside Run.
func (r *Rotator) Survey(ctx context.Context, names ...string) (Snapshot, error) {
	if err := r.loadOwner(ctx, false); err != nil {
		return Snapshot{}, err
	}
	wanted := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	if len(names) == 0 {
		r.discover(ctx)
	}
	r.mu.Lock()
	states := slices.DeleteFunc(slices.Clone(r.orderedLocked()), func(st *policyState) bool { return !wanted(st.policy.Name) })
	workspaces := slices.Collect(maps.Values(r.workspaces))
	r.mu.Unlock()
	// A key missing from a listing means something only if the ledger was read before the listing.
	for i, st := range states {
		Progress(ctx, i, len(states))
		r.requestResync(st, true)
		if _, _, err := r.observe(ctx, st); err != nil {
			r.noteStoreFailure(st, err)
		}
	}
	for _, ws := range workspaces {
		r.reconcile(ctx, ws)
	}
	for _, st := range states {
		p, o, err := r.observe(ctx, st)
		if err == nil && slices.ContainsFunc(plan.Plan(p, o, r.opt.Wall()).Steps, func(s plan.Step) bool { return s.Action == plan.ActRotate && !plan.Exempt(s.Reason) }) {
			r.countOthers(ctx, st)
			p, o, err = r.observe(ctx, st)
		}
		if err != nil {
			r.noteStoreFailure(st, err)
			continue
		}
		r.updateStatus(st, p, o, plan.Plan(p, o, r.opt.Wall()))
	}
	s := r.Snapshot()
	s.Policies = slices.DeleteFunc(s.Policies, func(p PolicyStatus) bool { return !wanted(p.Policy.Name) })
	return s, ctx.Err()
}

// countOthers reads the entries of a workspace's policies that were not read yet: their rotations count towards its hourly limit.
func (r *Rotator) countOthers(ctx context.Context, due *policyState) {
	if r.opt.MaxRotationsPerHour == 0 {
		return
	}
	r.mu.Lock()
	others := slices.DeleteFunc(slices.Clone(r.orderedLocked()), func(st *policyState) bool { return st.ws != due.ws || st.counted })
	r.mu.Unlock()
	for i, st := range others {
		Progress(ctx, i, len(others))
		r.readForLimit(ctx, st)
	}
}

// display is what is shown of a policy beside its last entry and decision.
type display struct {
	state             plan.State // the decision's, or that of a failure since
	reason            plan.Reason
	cutOff            plan.DisableCause
	failure           *ledger.LastFailure
	keys              plan.KeyCounts
	inUse             bool
	accepted          bool
	unproven          bool
	thirdPartyDisable elevenlabs.Value[bool]
	disabled          map[plan.DisableCause]time.Time
	successes         int
	failures          int
	unswept           int
}

// statusLocked is what is displayed of the policy.
func (st *policyState) statusLocked() PolicyStatus {
	d, x := st.last.decision, st.display
	s := PolicyStatus{Policy: st.policy, State: x.state, Reason: x.reason, Message: d.Message, HeldBy: d.HeldBy, Loaded: st.last.planned, Steps: d.Steps,
		NextDue: d.NextDue, NextReason: d.NextReason, Leaves: d.Leaves, Missing: d.Missing, Keys: x.keys, InUse: x.inUse, CutOff: x.cutOff, Accepted: x.accepted, Unproven: x.unproven, Drift: d.Drift,
		ThirdPartyDisable: x.thirdPartyDisable, Failure: x.failure, Successes: x.successes, Failures: x.failures, Disabled: x.disabled, Unswept: x.unswept}
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
	st.last = last{entry: o.Entry, decision: d, planned: true, failed: o.Entry != nil && o.Entry.Failure != nil}
	s := &st.display
	s.state, s.reason = d.State, d.Reason
	if o.Entry != nil {
		s.failure = o.Entry.Failure
	}
	if u := st.known.unread; u != nil && (s.state == plan.StateOK || s.state == plan.StateDue) {
		s.state, s.reason, s.failure, st.last.failed = plan.StateFailing, u.Reason, u, true
	}
	if s.state == plan.StateOK {
		st.known.loggedOutage = nil
	}
	if st.known.countedOutage != "" && (s.state == plan.StateDue || s.state == plan.StateFailing) && (o.Entry == nil || o.Entry.Failure == nil) {
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
}

// displayRotating displays, until the next look, what others see in the claimed entry.
func (r *Rotator) displayRotating(st *policyState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.display.state, st.display.reason = plan.StateRotating, plan.WaitClaimed
}

// noteDisabled notes when a current key was seen disabled. Snapshots have the old map.
func (d *display) noteDisabled(why plan.DisableCause, at time.Time) {
	disabled := maps.Clone(d.disabled)
	if disabled == nil {
		disabled = map[plan.DisableCause]time.Time{}
	}
	disabled[why] = at
	d.disabled = disabled
}

// noteLeaks notes the leaks in an entry's history that this process did not see: those before its start, or that another replica
// was faster to heal.
func (d *display) noteLeaks(e *ledger.Entry, now time.Time) {
	var since time.Time // when the key that leaked was published
	for _, past := range e.Rotations() {
		if cause := plan.DisableCause(past.Reason); plan.Leaked(past.Reason) && !d.disabled[cause].After(since) && !plan.InFuture(past.Started, now) {
			d.noteDisabled(cause, past.Started)
		}
		since = past.Published
	}
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
	if listed && !k.Disabled {
		st.known.disabledKey = "" // it may be disabled again
	}
	if !listed || !k.Disabled {
		return
	}
	cause := plan.CauseOf(k.DisableReason)
	e.Type, e.Reason = EventKeyDisabled, cause
	if _, told := s.Disabled[cause]; told && st.known.disabledKey == k.ID {
		return
	}
	st.known.disabledKey = k.ID
	st.display.noteDisabled(cause, e.At)
	r.observeLocked(e)
	r.logLocked(slog.LevelWarn, "current key was disabled by others", "policy", s.Policy.Name, "key_id", k.ID, "disable_reason", cause)
}

// rotated counts and reports a completed rotation.
func (j *job) rotated(c committed, old *ledger.KeyRef) {
	k := &j.st.known
	k.countedOutage, k.retryAt, k.digestKnown, k.unread, k.loggedFailure = "", time.Time{}, false, nil, nil
	k.record = &plan.RecordView{Version: c.Version, HasValue: true, Match: c.ID, Hash: c.Hash, KeyID: c.ID, Policy: j.p.Name, RotatedAt: c.Published}
	e := Event{Type: EventRotated, Policy: j.p.Name, Workspace: c.Workspace, KeyID: c.ID, KeyName: c.Name, Reason: c.reason,
		Evidence: evidenceOf(c.KeyRef, j.entry()), At: c.Published, Duration: time.Since(j.begun)}
	if old != nil && old.ID != c.ID {
		e.PreviousKeyID, e.PreviousValidUntil = old.ID, c.previousUntil
	}
	j.r.mu.Lock()
	j.st.display.successes++
	j.r.mu.Unlock()
	j.audit("rotated", "key_id", c.ID, "previous_key_id", e.PreviousKeyID, "sink", c.Sink.String(), "recovered", c.recovered,
		"duration_ms", e.Duration.Milliseconds())
	j.r.opt.Observe(e)
}

// countRotation counts a rotation towards the hourly limit before the ledger is written.
func (r *Rotator) countRotation(st *policyState, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.ws.noteRotationLocked(st.policy.Name, at)
}

func (r *Rotator) countLost(workspace string) {
	r.opt.Observe(Event{Type: EventLostDeleted, Workspace: workspace, At: r.opt.Wall()})
}

func (r *Rotator) apiOf(workspace string) *elevenlabs.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ws := r.workspaces[workspace]; ws != nil {
		return ws.api
	}
	return nil
}

// redact removes a secret from all that remotes answer, until release is called.
func (r *Rotator) redact(s secret.Secret) (release func()) {
	if r.opt.Redactor == nil {
		return func() {}
	}
	return r.opt.Redactor.Add(s)
}

// updateListing applies our own change of a key to the last listing, so that it is not planned again. A nil change removes the
// key.
func (r *Rotator) updateListing(workspace, account, id string, change func(*elevenlabs.Key)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := r.workspaces[workspace]
	if ws == nil || ws.listing == nil {
		return
	}
	l := ws.listing
	keys, listed := l.accounts[account]
	if !listed {
		return
	}
	for _, k := range keys {
		if _, policy, _, ok := ledger.ParseKeyName(k.Name); ok && k.ID == id && l.owned[policy] != nil {
			l.owned[policy] = updatedKeys(l.owned[policy], id, change)
		}
	}
	l.accounts[account] = updatedKeys(keys, id, change)
}

// updatedKeys returns a changed copy: observations share the old slice.
func updatedKeys(keys []elevenlabs.Key, id string, change func(*elevenlabs.Key)) []elevenlabs.Key {
	keys = slices.Clone(keys)
	for i := range keys {
		if keys[i].ID == id && change != nil {
			change(&keys[i])
		}
	}
	if change == nil {
		keys = slices.DeleteFunc(keys, func(k elevenlabs.Key) bool { return k.ID == id })
	}
	return keys
}
