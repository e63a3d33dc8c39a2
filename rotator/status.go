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

// EventType is what a state change is called outside, after the prefix "rekeyd.".
type EventType string

// The state changes that Options.Observe is told.
const (
	EventRotated     EventType = "rotated"
	EventFailed      EventType = "failed"
	EventKeyDisabled EventType = "key_disabled" // by others
	EventRetired     EventType = "retired"      // a former key was disabled or deleted by us
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
	KeyID              string
	PreviousKeyID      string
	PreviousValidUntil time.Time
	Stage              ledger.Stage // of a failure
	Reason             ledger.Reason
	Duration           time.Duration // of a rotation or a failed one
}

// PolicyStatus is how a policy stood when it was last looked at.
type PolicyStatus struct {
	Policy       *plan.Policy // nobody may change it
	State        plan.State
	Reason       ledger.Reason
	Message      string               // an error in a sentence; "" otherwise
	HeldBy       string               // with ReasonGroup: the member of its group whose turn it is
	Loaded       bool                 // the ledger entry was read
	Steps        []plan.Step          // what is about to be done
	NextDue      time.Time            // zero: no rotation will begin
	NextReason   ledger.Reason        // what makes it due
	Leaves       map[string]time.Time // when each retiring key is disabled or deleted, at the latest: by its id
	LastRotation time.Time
	Current      *ledger.KeyRef
	Retiring     []ledger.Retiring
	MovedTo      string // the policy that took the ledger entry over; "": none
	Keys         plan.KeyCounts
	InUse        bool // a retiring key's usage still grows
	Drift        []string
	Failure      *ledger.Failure // since the last success
	Successes    int             // of this process
	Failures     int
	Disabled     map[ledger.Reason]time.Time // when a current key was last seen disabled by the provider
	Unswept      int                         // tries in a row of this process to delete an abandoned key that failed
}

// WorkspaceStatus is how a workspace answered last.
type WorkspaceStatus struct {
	Name          string
	LastReconcile time.Time // zero: not yet since the start
	LastTry       time.Time // of the last listing, answered or not; zero: none has ended yet
	Err           error
}

// Snapshot is what the rotator knows at one moment. Policies and workspaces are ordered by name.
type Snapshot struct {
	Policies   []PolicyStatus
	Removed    []PolicyStatus // of the ledger, but no longer loaded: the current key stays, retiring keys finish their way
	Workspaces []WorkspaceStatus
	StoreDown  error
}

// Snapshot returns what is known now, without asking anybody.
func (r *Rotator) Snapshot() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Snapshot{StoreDown: r.outage.down(r.opt.Ledger.Mount), Policies: make([]PolicyStatus, 0, len(r.policies))}
	for _, name := range slices.Sorted(maps.Keys(r.policies)) {
		s.Policies = append(s.Policies, r.policies[name].status)
	}
	for _, name := range slices.Sorted(maps.Keys(r.removed)) {
		s.Removed = append(s.Removed, r.removed[name].status)
	}
	for _, ws := range r.sortedWorkspaces {
		s.Workspaces = append(s.Workspaces, WorkspaceStatus{ws.name, ws.lastSuccess, ws.lastAttempt, ws.err})
	}
	return s
}

// Ready says why the rotator cannot do its work yet, or any more; nil when it can.
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
		if !st.status.Loaded {
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

// Survey reads what there is to know about the named policies, or about all that are loaded and those that no longer
// are, and plans them, without changing anything anywhere. It is for commands that only look; it must not be used
// beside Run.
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
	spaces := slices.Collect(maps.Values(r.workspaces))
	r.mu.Unlock()
	// What a listing lacks means something only where the ledger was read before it.
	for _, st := range states {
		r.requestResync(st, true)
		if _, _, err := r.observe(ctx, st); err != nil {
			r.noteStoreFailure(st, err)
		}
	}
	for _, ws := range spaces {
		r.reconcile(ctx, ws)
	}
	for _, st := range states {
		p, o, err := r.observe(ctx, st)
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

// updateStatus makes what was just observed and planned visible.
func (r *Rotator) updateStatus(st *policyState, p plan.Policy, o plan.Observed, d plan.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.last = last{entry: o.Entry, decision: d, planned: true, failed: o.Entry != nil && o.Entry.Failure != nil}
	s := &st.status
	was := *s
	s.State, s.Reason, s.Message, s.Steps = d.State, d.Reason, d.Message, d.Steps
	s.NextReason, s.Leaves = d.NextReason, d.Leaves
	s.NextDue, s.Drift, s.HeldBy, s.Loaded = d.NextDue, d.Drift, d.HeldBy, true
	s.Current, s.Retiring, s.LastRotation, s.MovedTo = nil, nil, time.Time{}, ""
	if e := o.Entry; e != nil {
		s.Current, s.Retiring, s.LastRotation, s.MovedTo = e.Current, e.Retiring, e.LastRotation, e.MovedTo
		s.Failure = e.Failure
	}
	if s.State == plan.StateOK {
		st.known.loggedOutage = ""
	}
	if st.known.countedOutage != "" && (s.State == plan.StateDue || s.State == plan.StateFailing) && (o.Entry == nil || o.Entry.Failure == nil) {
		s.State, s.Failure, st.last.failed = plan.StateFailing, was.Failure, true // the ledger could not be told
	}
	s.Keys = plan.CountKeys(p, o)
	s.InUse = len(o.InUse) > 0
	if !slices.ContainsFunc(d.Steps, func(x plan.Step) bool { return x.Action == plan.ActSweep }) {
		s.Unswept = 0
	}
	r.emitTransitions(st, was, o)
}

// emitTransitions reports what has changed since the policy was last shown. Of one that is no longer loaded nobody wants to know,
// and where it has a new name, what is known under the old one is out of date.
func (r *Rotator) emitTransitions(st *policyState, was PolicyStatus, o plan.Observed) {
	s := &st.status
	if s.Policy.Mode == plan.ModeRemoved {
		return
	}
	e := Event{Policy: s.Policy.Name, Workspace: s.Policy.Workspace, KeyID: ledger.CurrentID(o.Entry), At: r.opt.Wall()}
	if s.HeldBy != "" && s.HeldBy != was.HeldBy {
		r.logLocked(slog.LevelInfo, "rotation waits for its group", "policy", s.Policy.Name, "reason", s.Reason, "group", s.Policy.Group, "held_by", s.HeldBy)
	}
	if s.State == plan.StateError && (was.State != plan.StateError || was.Reason != s.Reason) {
		e.Type, e.Reason = EventError, s.Reason
		r.observeLocked(e)
		r.logLocked(slog.LevelError, "policy needs a decision", "policy", s.Policy.Name, "reason", s.Reason, "err", s.Message)
	}
	if len(s.Drift) > 0 && len(was.Drift) == 0 {
		e.Type, e.Reason = EventDrifted, ledger.ReasonDrift
		r.observeLocked(e)
	}
	k, listed := o.Key(ledger.CurrentID(o.Entry))
	if !listed || !k.Disabled || st.known.disabledKey == k.ID {
		return
	}
	st.known.disabledKey = k.ID
	e.Type, e.Reason = EventKeyDisabled, plan.DisableReason(k.DisableReason)
	disabled := maps.Clone(s.Disabled)
	if disabled == nil {
		disabled = map[ledger.Reason]time.Time{}
	}
	disabled[e.Reason] = e.At
	s.Disabled = disabled
	r.observeLocked(e)
	r.logLocked(slog.LevelWarn, "current key was disabled by others", "policy", s.Policy.Name, "key_id", k.ID, "reason", e.Reason)
}

// noteStoreFailure shows that the policy could not be looked at.
func (r *Rotator) noteStoreFailure(st *policyState, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &st.status
	changed := st.known.loggedOutage != reasonOf(err)
	st.known.loggedOutage = reasonOf(err)
	s.State, s.Reason, st.last.failed = plan.StateFailing, reasonOf(err), true
	s.Failure = &ledger.Failure{Stage: ledger.StageClaim, Reason: s.Reason, Message: sentence(err), At: r.opt.Wall(), Count: 1}
	if changed {
		r.logLocked(slog.LevelError, "reading policy state failed", "policy", st.policy.Name, "reason", s.Reason, "err", err)
	}
}

// noteOutage counts an outage as one failure of each policy that is due: when it begins, and when its reason changes.
func (r *Rotator) noteOutage(st *policyState, s plan.Step, err error) {
	if s.Action != plan.ActRotate {
		return
	}
	stage := ledger.StageCreate
	if r.storeDown(st) != nil {
		stage = ledger.StageClaim
	}
	r.noteOnce(st, failed(stage, err))
}

// noteOnce counts a failure unless it is the one that was counted last.
func (r *Rotator) noteOnce(st *policyState, f *stageError) {
	if st.known.countedOutage == f.reason {
		return
	}
	st.known.countedOutage = f.reason
	r.mu.Lock()
	p := *st.policy
	r.mu.Unlock()
	r.noteFailure(st, p, f, time.Now())
	r.opt.Logger.Error("rotation failed", "policy", p.Name, "stage", f.stage, "outcome", "failed", "failure", f.reason, "err", f.err)
}

// noteFailure counts a failed rotation.
func (r *Rotator) noteFailure(st *policyState, p plan.Policy, f *stageError, begun time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.counted, st.known.problem = true, f
	r.noteRefusedLocked(p.Workspace, f.err)
	if q := st.request; q != nil && !q.Pending { // else what failed was begun before it
		tried := *q
		tried.Failed = true
		st.request = &tried
	}
	st.status.Failures++
	st.status.State, st.status.Reason, st.last.failed = plan.StateFailing, f.reason, true
	st.status.Failure = &ledger.Failure{Stage: f.stage, Reason: f.reason, Message: sentence(f.err), At: r.opt.Wall(), Count: 1}
	r.observeLocked(Event{Type: EventFailed, Policy: p.Name, Workspace: p.Workspace, Stage: f.stage, Reason: f.reason, At: r.opt.Wall(), Duration: time.Since(begun)})
}

// noteRetireFailure counts a failed retirement, which is no failed rotation.
func (j *job) noteRetireFailure(f *stageError) {
	r, p := j.r, j.p
	r.mu.Lock()
	r.noteRefusedLocked(j.workspaceName, f.err)
	r.mu.Unlock()
	r.opt.Observe(Event{Type: EventRetireError, Policy: p.Name, Workspace: p.Workspace, Stage: ledger.StageRetire, Reason: f.reason, At: r.opt.Wall()})
}

// rotated counts and reports a completed rotation.
func (j *job) rotated(c committed, old *ledger.KeyRef) {
	k := &j.st.known
	k.countedOutage, k.retryAt, k.digestKnown = "", time.Time{}, false
	k.record = &plan.RecordView{Version: c.Version, HasValue: true, Match: c.ID, Hash: c.Hash, KeyID: c.ID, Policy: j.p.Name, RotatedAt: c.Published}
	e := Event{Type: EventRotated, Policy: j.p.Name, Workspace: c.Workspace, KeyID: c.ID, Reason: c.reason, At: c.Published, Duration: time.Since(j.begun)}
	if old != nil && old.ID != c.ID {
		e.PreviousKeyID, e.PreviousValidUntil = old.ID, c.previousUntil
	}
	j.r.mu.Lock()
	j.st.status.Successes++
	j.r.mu.Unlock()
	j.audit("rotated", "key_id", c.ID, "previous_key_id", e.PreviousKeyID, "sink", c.Sink.String(), "recovered", c.recovered,
		"duration_ms", e.Duration.Milliseconds())
	j.r.opt.Observe(e)
}

// countRotation feeds the brake before the ledger is written.
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

// redact has a secret cut out of whatever remotes say, for as long as this process holds it.
func (r *Rotator) redact(s secret.Secret) (release func()) {
	if r.opt.Redactor == nil {
		return func() {}
	}
	return r.opt.Redactor.Add(s)
}

// updateListing applies what we did to a key to the last listing, which would otherwise have it done again. A nil change
// removes the key.
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

// updatedKeys leaves the slice as it is, since plans are made from parts of it.
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
