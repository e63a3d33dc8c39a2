package rotator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// Action is one kind of thing that can be done about a policy.
type Action string

// The actions. Each is carried out whole, then everything is looked at again.
const (
	ActRecover Action = "recover" // settle work that did not come to its end
	ActAdopt   Action = "adopt"   // take an existing key over as current; writes the ledger only
	ActInherit Action = "inherit" // take over the entry of the policy that this one replaces
	ActFollow  Action = "follow"  // the record was rolled back: make the ledger agree
	ActEnable  Action = "enable"  // undo a late disable of our own
	ActSweep   Action = "sweep"   // delete a key whose rotation was abandoned
	ActDisable Action = "disable" // overlap to quarantine
	ActDelete  Action = "delete"  // quarantine to gone
	ActRotate  Action = "rotate"  // a new key
	ActPatch   Action = "patch"   // give the current key the policy's settings
	ActProve   Action = "prove"   // ask with the sink's secret whether the current key lives
)

// Step is one thing to do, on which key, and why.
type Step struct {
	Action    Action `json:"action"`
	Reason    Reason `json:"reason"`
	KeyID     string `json:"key_id,omitempty"`
	Workspace string `json:"-"`
	Account   string `json:"-"`
}

// State is how a policy stands; the words are a metric label.
type State string

// The states of a policy.
const (
	StateOK        State = "ok"
	StateDue       State = "due"
	StateRotating  State = "rotating"
	StateFailing   State = "failing"
	StateThrottled State = "throttled"
	StatePaused    State = "paused"
	StateError     State = "error" // a person has to decide
)

// States is every state.
func States() []State {
	return []State{StateOK, StateDue, StateRotating, StateFailing, StateThrottled, StatePaused, StateError}
}

// ListedKey is a key with the place where it was listed.
type ListedKey struct {
	Workspace string
	elevenlabs.Key
}

// RecordView is what the planner needs of a record. It holds no secret, so it can be kept.
type RecordView struct {
	HasValue           bool
	Match              string // id of the key, current or retiring, whose salted hash the value has; else ""
	Hash               string // under the entry's salt; "" without an entry
	KeyID              string
	Policy             string
	RotatedAt          time.Time
	PreviousKeyID      string
	PreviousValidUntil time.Time
}

// Request is a person's wish for a rotation now.
type Request struct {
	NotKey string // the key that must not be current any more when it is done
	Revoke bool   // every older key is disabled before it is done
	Reason string // the person's words, for the log
	Failed bool   // it was tried; from now on it is backed off like any other rotation
}

// Observed is all that Plan knows of the world besides the policy. The zero value knows nothing, and so plans nothing.
type Observed struct {
	LedgerError string      // the entry exists and cannot be understood
	Entry       *Entry      // nil: none
	Inherits    string      // with no entry: the unloaded policy whose current key the record holds
	Record      *RecordView // nil: not read
	Listed      bool        // the policy's workspace answered a listing
	Found       bool        // … in which the service account was
	Keys        []ListedKey // the keys of the policy's account and of the current key's, and all that carry its name
	HomeListed  bool        // the current key's account was listed after the key was published

	Owner string   // this installation's id
	InUse []string // ids of retiring keys whose usage grew within the last two listings

	ClaimExpired bool // the claim was seen unchanged for a claim TTL
	ClaimOurs    bool // it is this process's own, and no work on it is under way

	MissingTwice bool            // two listings, one interval apart, lacked the current key
	Proof        elevenlabs.Life // what the sink's secret answered since
	Differs      bool            // other settings were applied after this process loaded the policy

	Rotations    int // of the workspace in the last hour, as far as this replica knows
	MaxRotations int
	RetryAt      time.Time // next attempt, where the ledger could not be told
	PatchAfter   time.Time // a patch failed: the next attempt
	Request      *Request
}

// Decision is what Plan concludes.
type Decision struct {
	Steps   []Step
	State   State
	Reason  Reason // why it is due, waits, or is in error; "" when all is well
	Message string // the error in a sentence
	NextDue time.Time
	Drift   []string
	Wake    time.Time // when time alone may change this decision; zero: never
}

// wakeAt has the policy looked at again at t.
func (d *Decision) wakeAt(t time.Time) {
	if d.Wake.IsZero() || t.Before(d.Wake) {
		d.Wake = t
	}
}

func (d *Decision) add(s Step) { d.Steps = append(d.Steps, s) }

func (d Decision) fail(reason Reason, format string, args ...any) Decision {
	d.State, d.Reason, d.Message = StateError, reason, fmt.Sprintf(format, args...)
	return d
}

// Plan decides what is to be done about a policy. It is a pure function: the same answers for the same arguments,
// and everything that the daemon ever does was first said by it.
func Plan(p Policy, o Observed, now time.Time) Decision {
	d := Decision{State: StateOK}
	if o.LedgerError != "" {
		return d.fail(ReasonLedgerInvalid, "%s", o.LedgerError)
	}
	d = plan(p, o, now, d)
	if p.Mode == ModePaused {
		d.Steps, d.State, d.Reason = nil, StatePaused, ReasonPaused
	}
	return d
}

func plan(p Policy, o Observed, now time.Time, d Decision) Decision {
	e := o.Entry
	if e == nil && p.Mode == modeRemoved {
		return d
	}
	if e == nil {
		return planWithoutKey(p, o, now, d)
	}
	if e.MovedTo != "" {
		return d.fail(ReasonMovedAway, "policy %s was taken over by policy %s; remove it from this replica's policy file", p.Name, e.MovedTo)
	}
	if e.Claim != nil || e.Intent != nil {
		return planClaimed(o, d)
	}
	planSweep(o, &d)
	planRetiring(p, o, now, &d)
	if p.Mode == modeRemoved {
		d.Reason = ReasonUnmanaged
		return d
	}
	if e.Current == nil {
		return planWithoutKey(p, o, now, d)
	}
	return planCurrent(p, o, now, d)
}

// planClaimed leaves the work to whoever holds the claim, unless that one is gone.
func planClaimed(o Observed, d Decision) Decision {
	switch {
	case o.ClaimOurs:
		d.add(Step{Action: ActRecover, Reason: ReasonUnsettled})
	case o.ClaimExpired:
		d.add(Step{Action: ActRecover, Reason: ReasonClaimExpired})
	}
	d.State, d.Reason = StateRotating, ReasonClaimed
	return d
}

// planSweep deletes keys on positive evidence only: the ledger says that their rotation was abandoned.
func planSweep(o Observed, d *Decision) {
	for _, k := range o.Keys {
		owner, _, rotation, ok := parseKeyName(k.Name)
		if ok && owner == o.Entry.Owner && o.Entry.isAbandoned(rotation) {
			d.add(Step{ActSweep, ReasonAbandonedKey, k.ID, k.Workspace, k.ServiceAccount})
		}
	}
}

// planRetiring takes each former key to its next state when its time has come.
func planRetiring(p Policy, o Observed, now time.Time, d *Decision) {
	for _, r := range o.Entry.Retiring {
		until := r.Until
		if r.State == InOverlap {
			until = o.overlapUntil(p, r)
		}
		switch {
		case r.State == InOverlap && o.revoking():
			d.add(Step{ActDisable, ReasonRevoke, r.ID, r.Workspace, r.Account})
		case r.NextTry.After(now):
			d.wakeAt(r.NextTry)
		case r.State == InOverlap && !r.Disabling && o.disabled(r.ID):
			d.add(Step{ActDisable, ReasonDisabledOutside, r.ID, r.Workspace, r.Account})
		case now.Before(until):
			d.wakeAt(until)
		case r.State == InOverlap:
			d.add(Step{ActDisable, ReasonOverlapEnded, r.ID, r.Workspace, r.Account})
		default:
			d.add(Step{ActDelete, ReasonQuarantineEnded, r.ID, r.Workspace, r.Account})
		}
	}
}

// revoking reports a request that every older key be disabled, whose new key is in place.
func (o Observed) revoking() bool {
	c := o.Entry.Current
	return o.Request != nil && o.Request.Revoke && c != nil && c.ID != o.Request.NotKey
}

// overlapUntil prolongs the overlap of a key that is still in use, within the policy's bounds.
func (o Observed) overlapUntil(p Policy, r Retiring) time.Time {
	if p.WaitUntilIdle == 0 || r.Reason == ReasonRevoke || !slices.Contains(o.InUse, r.ID) {
		return r.Until
	}
	until := r.Until.Add(p.WaitUntilIdle)
	if p.MaxAge == 0 {
		return until
	}
	return earlier(until, r.Created.Add(p.MaxAge))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (o Observed) key(id string) (ListedKey, bool) {
	i := slices.IndexFunc(o.Keys, func(k ListedKey) bool { return k.ID == id })
	if i < 0 {
		return ListedKey{}, false
	}
	return o.Keys[i], true
}

func (o Observed) disabled(id string) bool {
	k, ok := o.key(id)
	return ok && k.Disabled
}

// planWithoutKey handles a policy that has no current key in the ledger: the first key, or one to be taken over.
// What is not known is never taken for empty.
func planWithoutKey(p Policy, o Observed, now time.Time, d Decision) Decision {
	switch {
	case o.Record == nil || !o.Listed:
		d.State, d.Reason = StateDue, ReasonNotObserved
		return d
	case !o.Found:
		return failUnknownAccount(p, d)
	case p.Adopt != "" && !o.had(p.Adopt):
		return planAdopt(p, o, p.Adopt, ReasonAdoptNamed, d)
	case !o.Record.HasValue:
		return planRotation(p, o, now, ReasonFirst, d)
	case o.Inherits != "":
		d.add(Step{Action: ActInherit, Reason: ReasonRecordFound, KeyID: o.Record.KeyID})
		return d
	case o.Record.KeyID != "" && o.inAccount(p, o.Record.KeyID):
		return planAdopt(p, o, o.Record.KeyID, ReasonRecordFound, d)
	}
	return d.fail(ReasonRecordChanged, "the ledger is empty and %s holds a value that nobody can place; set adopt to the id of its key, one of: %s",
		p.Sink, candidates(p, o))
}

func failUnknownAccount(p Policy, d Decision) Decision {
	return d.fail(ReasonUnknownAccount, "workspace %s has no service account %s; correct service_account of policy %s", p.Workspace, p.ServiceAccount, p.Name)
}

func planAdopt(p Policy, o Observed, id string, why Reason, d Decision) Decision {
	if !o.inAccount(p, id) {
		return d.fail(ReasonAdoptUnknown, "service account %s has no key %s to adopt; its keys are: %s", p.ServiceAccount, id, candidates(p, o))
	}
	d.add(Step{ActAdopt, why, id, p.Workspace, p.ServiceAccount})
	return d
}

func (o Observed) inAccount(p Policy, id string) bool {
	k, ok := o.key(id)
	return ok && k.Workspace == p.Workspace && k.ServiceAccount == p.ServiceAccount
}

// had reports whether the policy ever had this key: adopt names only strangers, or a stale setting would undo rotations.
func (o Observed) had(id string) bool {
	k, _ := o.key(id)
	_, policy, rotation, ours := parseKeyName(k.Name)
	if o.Entry == nil {
		return false
	}
	return o.Entry.knows(id, rotation) || (ours && policy == o.Entry.Policy)
}

func candidates(p Policy, o Observed) string {
	var s []string
	for _, k := range o.Keys {
		if k.Workspace == p.Workspace && k.ServiceAccount == p.ServiceAccount {
			s = append(s, fmt.Sprintf("%s (%s, hint %s, created %s)", k.ID, k.Name, k.Hint, k.CreatedAt.UTC().Format(time.DateOnly)))
		}
	}
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

// planCurrent looks after the current key: is it alive, is it in the record, does it look as it should, is it due.
func planCurrent(p Policy, o Observed, now time.Time, d Decision) Decision {
	d.NextDue, _ = nextDue(p, o.Entry)
	if why, urgent := o.urgent(p); urgent {
		return planRotation(p, o, now, why, d)
	}
	if bad, found := planHealth(p, o, now, d); found {
		return bad
	}
	if moved(p, *o.Entry.Current) {
		return planMove(p, o, now, d)
	}
	if changed, found := planRecord(p, o, now, d); found {
		return changed
	}
	d = planDrift(p, o, now, d)
	if d.State == StateError {
		return d
	}
	return planSchedule(p, o, now, d)
}

// urgent reports a request of a person that is not yet fulfilled.
func (o Observed) urgent(Policy) (Reason, bool) {
	if o.Request == nil || o.Entry.Current.ID != o.Request.NotKey {
		return "", false
	}
	if o.Request.Revoke {
		return ReasonRevoke, true
	}
	return ReasonRequested, true
}

const leakLimit = 3

// planHealth compares the current key with its listing: leaked, disabled, gone.
func planHealth(p Policy, o Observed, now time.Time, d Decision) (Decision, bool) {
	if !o.HomeListed {
		return d, false
	}
	c := o.Entry.Current
	k, listed := o.key(c.ID)
	switch {
	case !listed:
		return planMissing(p, o, now, d)
	case !k.Disabled:
		return d, false
	}
	switch Reason(k.DisableReason) {
	case ReasonExposed, ReasonSelfDisabled:
		recent := 0
		for _, t := range o.Entry.Leaks {
			if now.Sub(t) < time.Hour {
				recent++
			}
		}
		if recent >= leakLimit {
			return d.fail(ReasonLeakStorm, "key %s was disabled (%s) after %d leak rotations within an hour; find the leak, then run: rekeyd rotate %s",
				c.ID, k.DisableReason, recent, p.Name), true
		}
		return planRotation(p, o, now, Reason(k.DisableReason), d), true
	case ReasonTrialEnded, ReasonDowngraded:
		return d.fail(Reason(k.DisableReason), "ElevenLabs disabled key %s: %s; a new key would not help, settle the subscription", c.ID, k.DisableReason), true
	}
	if c.Disabling {
		d.add(Step{ActEnable, ReasonLateDisable, c.ID, c.Workspace, c.Account})
		return d, true
	}
	return d.fail(ReasonKeyDisabled, "key %s was disabled by a person or for an unknown reason; enable it again, or run: rekeyd rotate %s", c.ID, p.Name), true
}

// planMissing believes that a key is gone only when two listings agree and the key itself is refused.
func planMissing(p Policy, o Observed, now time.Time, d Decision) (Decision, bool) {
	switch {
	case !o.MissingTwice:
		return d, false
	case o.Proof == elevenlabs.Dead:
		return planRotation(p, o, now, ReasonKeyMissing, d), true
	}
	d.add(Step{Action: ActProve, Reason: ReasonKeyMissing, KeyID: o.Entry.Current.ID})
	return d.fail(ReasonKeyVanished, "key %s is missing from the listing, but nothing proves that it is gone; if it is, run: rekeyd rotate %s",
		o.Entry.Current.ID, p.Name), true
}

// moved reports that the policy names another place than the one where its current key lives and is published.
func moved(p Policy, c KeyRef) bool {
	return c.Workspace != p.Workspace || c.Account != p.ServiceAccount || c.Sink != p.Sink
}

func planMove(p Policy, o Observed, now time.Time, d Decision) Decision {
	r, c := o.Record, o.Entry.Current
	switch {
	case r == nil || !r.HasValue || r.Match != "":
	case c.Sink == p.Sink && c.Hash == "" && r.KeyID == c.ID:
	case p.Adopt != "" && !o.had(p.Adopt):
		return planAdopt(p, o, p.Adopt, ReasonAdoptNamed, d)
	default:
		return d.fail(ReasonRecordChanged, "policy %s is to publish to %s now, which holds a value that is not this policy's; remove it, choose another place, or set adopt to its key's id", p.Name, p.Sink)
	}
	return planRotation(p, o, now, ReasonMoved, d)
}

// planRecord compares the record with the ledger: deleted, rolled back, overwritten.
func planRecord(p Policy, o Observed, now time.Time, d Decision) (Decision, bool) {
	r, c := o.Record, o.Entry.Current
	switch {
	case r == nil:
		return d, false
	case !r.HasValue:
		return planRotation(p, o, now, ReasonRecordMissing, d), true
	case r.Match == c.ID, c.Hash == "" && r.KeyID == c.ID:
		return d, false
	case r.Match != "":
		if k, ok := o.key(r.Match); ok && !k.Disabled {
			d.add(Step{ActFollow, ReasonRolledBack, r.Match, k.Workspace, k.ServiceAccount})
			return d, true
		}
	case p.Adopt != "" && !o.had(p.Adopt):
		return planAdopt(p, o, p.Adopt, ReasonAdoptNamed, d), true
	}
	return d.fail(ReasonRecordChanged, "%s holds a value that rekeyd did not put there; set adopt to its key's id, or run: rekeyd rotate %s", p.Sink, p.Name), true
}

// planDrift compares the current key's settings with the policy's.
func planDrift(p Policy, o Observed, now time.Time, d Decision) Decision {
	k, listed := o.key(o.Entry.Current.ID)
	if !listed || !o.HomeListed {
		return d
	}
	if d.Drift = k.Settings.Diff(p.Settings); len(d.Drift) == 0 {
		return d
	}
	a := o.Entry.Applied
	switch {
	case o.Differs:
		return d.fail(ReasonReplicasDiffer, "another replica applied other settings to key %s after this one loaded its policy file; give all replicas the same file", k.ID)
	case a != nil && a.Digest == p.Settings.Digest() && len(a.Ignored) > 0 && subset(d.Drift, a.Ignored):
		return d.fail(ReasonSettingsIgnored, "ElevenLabs did not take over %s of key %s; the workspace's plan may not offer it", strings.Join(d.Drift, ", "), k.ID)
	case p.OnDrift == DriftPatch && o.PatchAfter.After(now):
	case p.OnDrift == DriftPatch:
		d.add(Step{ActPatch, ReasonDrift, k.ID, k.Workspace, k.ServiceAccount})
	case p.OnDrift == DriftRotate && p.Mode != ModeManual:
		return planRotation(p, o, now, ReasonDrift, d)
	}
	return d
}

func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

// planSchedule asks whether the schedule or max_age makes the policy due.
func planSchedule(p Policy, o Observed, now time.Time, d Decision) Decision {
	due, why := nextDue(p, o.Entry)
	if why == ReasonSchedule && !due.After(now) {
		if late, wait := lateRun(p, due, now); wait {
			byAge, ok := ageDue(p, o.Entry)
			if !ok || byAge.After(now) {
				d.NextDue, d.Reason = late, ReasonWindow
				d.wakeAt(late)
				return d
			}
			why = ReasonMaxAge
		}
	}
	switch {
	case due.IsZero():
		return d
	case due.After(now):
		d.wakeAt(due)
		return d
	}
	return planRotation(p, o, now, why, d)
}

// nextDue returns when the next rotation is due and what makes it so; zero means never.
func nextDue(p Policy, e *Entry) (time.Time, Reason) {
	var due time.Time
	why := ReasonSchedule
	if p.Mode != ModeManual {
		if next := p.Schedule.Next(e.LastRotation); !next.IsZero() {
			due = next.Add(SplayOf(p.Name, p.Splay))
		}
	}
	if age, ok := ageDue(p, e); ok && (due.IsZero() || age.Before(due)) {
		return age, ReasonMaxAge
	}
	return due, why
}

func ageDue(p Policy, e *Entry) (time.Time, bool) {
	if p.MaxAge == 0 || e.Current == nil {
		return time.Time{}, false
	}
	return e.Current.Created.Add(p.MaxAge - p.Overlap - p.WaitUntilIdle), true
}

// lateRun says whether a run that was due waits for the next one because its window has closed.
func lateRun(p Policy, due, now time.Time) (next time.Time, wait bool) {
	if p.Window == 0 || now.Sub(due) <= p.Window {
		return due, false
	}
	splay := SplayOf(p.Name, p.Splay)
	next = p.Schedule.Next(now.Add(-p.Window - splay)).Add(splay)
	return next, next.After(now)
}

// planRotation is where every reason to rotate ends: it applies what can make a rotation wait.
func planRotation(p Policy, o Observed, now time.Time, why Reason, d Decision) Decision {
	d.State, d.Reason = StateDue, why
	if o.Entry != nil && o.Entry.Failure != nil {
		d.State = StateFailing
	}
	wait := func(s State, r Reason) Decision { d.State, d.Reason = s, r; return d }
	asked := o.Request != nil && !o.Request.Failed && (why == ReasonRequested || why == ReasonRevoke)
	switch {
	case !o.Listed:
		return wait(d.State, ReasonNotObserved)
	case !o.Found:
		return failUnknownAccount(p, d)
	case !asked && retryAt(o).After(now):
		d.NextDue = retryAt(o)
		d.wakeAt(d.NextDue)
		return wait(StateFailing, ReasonBackoff)
	case waitsForOverlap(why) && o.inOverlap():
		return wait(StateDue, ReasonOverlap)
	case !exempt(why) && o.MaxRotations > 0 && o.Rotations >= o.MaxRotations:
		return wait(StateThrottled, ReasonThrottled)
	}
	d.add(Step{Action: ActRotate, Reason: why, Workspace: p.Workspace, Account: p.ServiceAccount})
	return d
}

func retryAt(o Observed) time.Time {
	at := o.RetryAt
	if o.Entry != nil && o.Entry.Failure != nil && o.Entry.Failure.NextTry.After(at) {
		at = o.Entry.Failure.NextTry
	}
	return at
}

func waitsForOverlap(why Reason) bool { return why == ReasonSchedule }

func exempt(why Reason) bool {
	return why == ReasonExposed || why == ReasonSelfDisabled || why == ReasonRevoke
}

func (o Observed) inOverlap() bool {
	return o.Entry != nil && slices.ContainsFunc(o.Entry.Retiring, func(r Retiring) bool { return r.State == InOverlap })
}

// leaked reports that the key being replaced must not get an overlap.
func leaked(why Reason) bool { return why == ReasonExposed || why == ReasonSelfDisabled }

// overlapEnd returns until when the key that is being replaced now may be used: the overlap, cut short where the key
// would otherwise outlive max_age.
func overlapEnd(p Policy, old KeyRef, now time.Time) time.Time {
	end := now.Add(p.Overlap)
	if p.MaxAge == 0 {
		return end
	}
	return earlier(end, old.Created.Add(p.MaxAge))
}
