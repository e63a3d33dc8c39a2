package plan

import (
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Plan decides what to do about a policy. It is a pure function, and the daemon acts only on its decisions.
func Plan(p Policy, o Observed, now time.Time) Decision { return decide(p, o, now, false) }

// Due reports whether a rotation that has taken its claim is due: by all that Plan looks at, but for the claim itself and the
// hourly limit, which has counted the rotation.
func Due(p Policy, o Observed, now time.Time) bool {
	o.MaxRotations = 0
	return decide(p, o, now, true).Rotates()
}

// DueUnread reports whether a rotation is due as far as is known without a record that cannot be read.
func DueUnread(p Policy, o Observed, now time.Time) bool {
	if o.Record == nil && (o.Entry == nil || o.Entry.Current == nil) {
		o.Record = &RecordView{} // as if a first key were due
	}
	return Plan(p, o, now).Rotates()
}

func decide(p Policy, o Observed, now time.Time, claimed bool) Decision {
	d := Decision{Outlook: Outlook{State: StateOK}}
	if o.LedgerError != "" {
		return d.fail(FaultLedgerInvalid, "%s", o.LedgerError)
	}
	if slices.Contains(ledger.RecordFields(), p.Sink.Field) {
		return d.fail(FaultSinkField, "policy %s publishes its secret in field %s, which rekeyd itself writes; choose another sink.field", p.Name, p.Sink.Field)
	}
	d = planPace(o, now, planSkew(o, plan(p, o, now, claimed, d)))
	if p.Mode == ModePaused {
		d.Steps, d.State, d.Reason, d.NextDue = nil, StatePaused, WaitPaused, time.Time{}
	}
	return d
}

// plan takes a claim for another process's, unless claimed says that it is the asker's.
func plan(p Policy, o Observed, now time.Time, claimed bool, d Decision) Decision {
	e := o.Entry
	if p.Mode == ModeRemoved && (e == nil || e.MovedTo != "") {
		return d // nothing is left under this name
	}
	if e == nil {
		return planWithoutKey(p, o, now, d)
	}
	if e.MovedTo != "" && o.Inherits != "" {
		d.add(Step{Action: ActInherit, Reason: ledger.TriggerRenamedBack})
		return d
	}
	if e.MovedTo != "" {
		return d.fail(FaultMovedAway, "policy %s was taken over by policy %s; remove it from this replica's policy file, or, where the rename is undone, run: rekeyd rename %s %s",
			p.Name, e.MovedTo, e.MovedTo, p.Name)
	}
	if !claimed && (e.Claim != nil || e.Intent != nil) {
		return planClaimed(p, o, d)
	}
	planSweep(o, &d)
	planRetiring(p, o, now, &d)
	if p.Mode == ModeRemoved {
		d.Reason = WaitRemoved
		return d
	}
	if e.Current == nil {
		return planWithoutKey(p, o, now, d)
	}
	return planCurrent(p, o, now, d)
}

// planClaimed leaves the work to the claim holder, unless that is gone.
func planClaimed(p Policy, o Observed, d Decision) Decision {
	if o.Entry.Current != nil && p.Mode != ModeRemoved {
		d.NextDue, d.NextReason = NextDue(p, o.Entry) // the rotation under way is still due
	}
	step := Step{Action: ActRecover, Reason: ledger.TriggerUnsettled}
	if in := o.Entry.Intent; in != nil {
		step.Workspace = in.Workspace // recovery waits for this workspace
	}
	switch {
	case o.ClaimOurs:
		d.add(step)
	case o.ClaimExpired:
		step.Reason = ledger.TriggerClaimExpired
		d.add(step)
	}
	d.State, d.Reason = StateRotating, WaitClaimed
	return d
}

// planSweep deletes keys only on evidence: the ledger says that their rotation is abandoned, or that it made another key, which
// exists. It spares a key that is in use: its secret is stored somewhere after all.
func planSweep(o Observed, d *Decision) {
	for _, k := range o.Keys {
		owner, _, rotation, ok := ledger.ParseKeyName(k.Name)
		if o.Entry.Spares(k.ID, rotation) {
			continue
		}
		if ok && owner == o.Entry.Owner && (o.Entry.IsAbandoned(k.ID, rotation) || o.twin(k.ID, rotation)) && k.CharacterCount == 0 {
			d.add(Step{ActSweep, ledger.TriggerAbandonedKey, k.ID, k.Workspace, k.ServiceAccount})
		}
	}
}

// twin reports whether a key is the second of a create that arrived twice, so that its secret was lost.
func (o Observed) twin(id, rotation string) bool {
	if o.Entry.Key(id) != nil {
		return false
	}
	first := o.Entry.TwinOf(id, rotation)
	if first == nil {
		return false
	}
	_, listed := o.Key(first.ID)
	return listed
}

// planRetiring moves each former key to its next state when that is due.
func planRetiring(p Policy, o Observed, now time.Time, d *Decision) {
	defer planProofs(o, d)
	for _, r := range o.Entry.Retiring {
		if r.ID == ledger.CurrentID(o.Entry) {
			continue // an entry that was changed by hand; readers have this key
		}
		if o.Entry.Current == nil && p.Mode != ModeRemoved && (o.Record == nil || o.Record.MayBe(r.KeyRef)) {
			continue // readers have no other key
		}
		until := r.Until
		if r.State == ledger.InOverlap {
			var missing []Wait
			if until, missing = o.overlapUntil(p, r); until.After(now) {
				d.missing(r.ID, missing)
			}
		}
		d.leaves(r, until)
		enabled := r.State == ledger.InQuarantine && slices.Contains(o.Enabled, r.ID)
		if enabled && !r.Outstanding(ledger.CallEnable, now) {
			d.Reason = WaitQuarantineEnabled // a person enabled it; it stays so until it is revoked
		}
		switch {
		case (r.State == ledger.InOverlap || o.enabled(r.ID)) && o.revoking(): // by any listing: disabling a key twice is harmless
			d.add(Step{ActDisable, ledger.TriggerRevoke, r.ID, r.Workspace, r.Account})
		case soonest(r.NextTry, now).After(now):
			d.wakeAt(r.NextTry)
		case r.State == ledger.InOverlap && !r.Outstanding(ledger.CallDisable, now) && o.disabled(r.ID):
			d.add(Step{ActDisable, ledger.TriggerDisabledOutside, r.ID, r.Workspace, r.Account})
		case enabled && r.Outstanding(ledger.CallEnable, now):
			d.add(Step{ActDisable, ledger.TriggerLateEnable, r.ID, r.Workspace, r.Account})
		case now.Before(until):
			d.wakeAt(until)
		case r.State == ledger.InOverlap:
			d.add(Step{ActDisable, ledger.TriggerOverlapEnded, r.ID, r.Workspace, r.Account})
		case o.disabled(r.ID) || !o.lists(r.ID):
			d.add(Step{ActDelete, ledger.TriggerQuarantineEnded, r.ID, r.Workspace, r.Account})
		}
	}
}

// planProofs tries each key in quarantine once more, until it is known to be rejected.
func planProofs(o Observed, d *Decision) {
	for _, r := range o.Entry.Retiring {
		if r.State == ledger.InQuarantine && r.Proof.Open() && r.Hash != "" && o.disabled(r.ID) && !slices.Contains(o.Enabled, r.ID) {
			d.add(Step{ActProve, ledger.TriggerProof, r.ID, r.Workspace, r.Account})
		}
	}
}

// missing notes which evidence an overlap waits for.
func (d *Decision) missing(keyID string, evidence []Wait) {
	if len(evidence) == 0 {
		return
	}
	if d.Missing == nil {
		d.Missing = map[string][]Wait{}
	}
	d.Missing[keyID] = evidence
}

// leaves notes when a retiring key leaves its state, at the latest.
func (d *Decision) leaves(r ledger.Retiring, until time.Time) {
	if d.Leaves == nil {
		d.Leaves = map[string]time.Time{}
	}
	if r.NextTry.After(until) {
		until = r.NextTry
	}
	d.Leaves[r.ID] = until
}

// revoking reports whether a request to disable every older key has its new key in place.
func (o Observed) revoking() bool {
	c := o.Entry.Current
	return o.Request != nil && !o.Request.Pending && o.Request.Revoke && c != nil && !o.Request.wants(*c)
}

// overlapUntil extends the overlap of a key that is not known to be idle, or whose successor is not known to be used, within the
// policy's bounds. missing is the evidence that would end it.
func (o Observed) overlapUntil(p Policy, r ledger.Retiring) (until time.Time, missing []Wait) {
	idle, used := p.WaitUntilIdle, p.WaitUntilUsed
	if p.Mode == ModeRemoved { // only here: another replica may have it loaded
		idle, used = time.Duration(r.WaitUntilIdle), time.Duration(r.WaitUntilUsed)
	}
	if slices.Contains(o.Idle, r.ID) {
		idle = 0
	}
	if o.Used {
		used = 0
	}
	wait := max(idle, used)
	if wait == 0 || r.Reason == ledger.TriggerRevoke {
		return r.Until, nil
	}
	if idle > 0 {
		missing = append(missing, WaitOldKeyInUse)
	}
	if used > 0 {
		missing = append(missing, WaitNewKeyUnused)
	}
	until = r.Until.Add(wait)
	if p.MaxAge == 0 {
		return until, missing
	}
	return earlier(until, r.Created.Add(p.MaxAge)), missing
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Key returns the listed key with this id, and whether there is one.
func (o Observed) Key(id string) (ListedKey, bool) {
	i := slices.IndexFunc(o.Keys, func(k ListedKey) bool { return k.ID == id })
	if i < 0 {
		return NoKey(), false
	}
	return o.Keys[i], true
}

func (o Observed) lists(id string) bool {
	_, listed := o.Key(id)
	return listed
}

func (o Observed) enabled(id string) bool {
	k, ok := o.Key(id)
	return ok && !k.Disabled
}

func (o Observed) disabled(id string) bool {
	k, ok := o.Key(id)
	return ok && k.Disabled
}

// planWithoutKey handles a policy without a current key in the ledger: it makes the first key or adopts one. An unread record does
// not count as empty.
func planWithoutKey(p Policy, o Observed, now time.Time, d Decision) Decision {
	switch {
	case o.Record == nil || !o.Listed:
		d.State, d.Reason = StateDue, WaitNotObserved
		return d
	case !o.Found:
		return failUnknownAccount(p, d)
	case o.pruned() != nil:
		return planReturn(p, o, now, d)
	case p.Adopt != "" && !o.everOwned(p.Adopt):
		return planAdopt(p, o, p.Adopt, ledger.TriggerAdoptNamed, d)
	case o.Record.foreignFields(p) != "":
		return failForeignFields(p, o, d)
	case !o.Record.HasValue:
		return planRotation(p, o, now, ledger.TriggerFirst, d)
	case o.Inherits != "":
		d.add(Step{Action: ActInherit, Reason: ledger.TriggerRecordFound, KeyID: o.Record.KeyID})
		return d
	case o.Record.KeyID != "" && (o.inAccount(p, o.Record.KeyID) || o.otherOwner(p, o.Record.KeyID) != ""):
		return planAdopt(p, o, o.Record.KeyID, ledger.TriggerRecordFound, d)
	}
	wayOut := "service account " + p.ServiceAccount + " has no key to adopt, so"
	if all := candidates(p, o); all != noCandidate {
		wayOut = "set adopt to the id of its key, one of: " + all + "; or"
	}
	return d.fail(FaultRecordChanged, "the ledger is empty and %s holds a value that belongs to no known key; %s remove %s from the record for a new key",
		p.Sink, wayOut, p.Sink.Field)
}

// pruned returns the key that was pruned from the policy while it was removed, if the record still holds it.
func (o Observed) pruned() *ledger.Retiring {
	if o.Entry == nil {
		return nil
	}
	if k := o.Entry.RetiringKey(o.Record.Match); k != nil && k.Reason == ledger.TriggerRemoved {
		return k
	}
	return nil
}

// planReturn makes a pruned key current again, since the policy is loaded and readers have no other key. A key whose delete is
// outstanding is replaced instead.
func planReturn(p Policy, o Observed, now time.Time, d Decision) Decision {
	k := o.pruned()
	if k.Deleting() {
		return planRotation(p, o, now, ledger.TriggerKeyMissing, d)
	}
	d.add(Step{ActFollow, ledger.TriggerReturned, k.ID, k.Workspace, k.Account})
	return d
}

func failUnknownAccount(p Policy, d Decision) Decision {
	return d.fail(FaultUnknownAccount, "workspace %s has no service account %s; correct service_account of policy %s, or remove the policy if the account is gone", p.Workspace, p.ServiceAccount, p.Name)
}

// planCurrent checks the current key: is it valid, is it in the record, does it match the policy, is it due.
func planCurrent(p Policy, o Observed, now time.Time, d Decision) Decision {
	d.NextDue, d.NextReason = NextDue(p, o.Entry)
	if why, urgent := o.urgent(p); urgent {
		return planRequested(p, o, now, why, d)
	}
	if future, found := planFuture(p, o.Entry, now, d); found && o.Skew == 0 {
		return future
	}
	if !o.hasUnknownValue(p) { // even a broken key of ours is no reason to overwrite it
		health, found := planHealth(p, o, now, d)
		if found {
			return health
		}
		d.Reason = health.Reason
	}
	if o.Displaced { // or two replicas would move the key back and forth
		c := o.Entry.Current
		return d.fail(FaultReplicasDiffer, "another replica moved to key %s of account %s in workspace %s, at %s, after this one loaded its policy file; give all replicas the same file",
			c.ID, c.Account, c.Workspace, c.Sink)
	}
	if Moved(p, *o.Entry.Current) {
		return planMove(p, o, now, d)
	}
	if changed, found := planRecord(p, o, now, d); found {
		return changed
	}
	d = planDrift(p, o, now, d)
	if d.Rotates() {
		return d // the schedule no longer matters
	}
	d.NextDue, d.NextReason = NextDue(p, o.Entry)
	due := planSchedule(p, o, now, d)
	if d.State == StateError { // the key rotates on time even if its settings are in error
		due.State, due.Reason, due.Message = d.State, d.Reason, d.Message
	}
	return due
}

// planRequested plans a requested rotation. While that waits for its next try, a rolled back record is followed: no key retires
// before the ledger knows which key readers have, and the rotation may wait for that.
func planRequested(p Policy, o Observed, now time.Time, why ledger.Trigger, d Decision) Decision {
	asked := planRotation(p, o, now, why, d)
	if len(asked.Steps) > len(d.Steps) {
		return asked
	}
	record, _ := planRecord(p, o, now, d)
	for _, s := range record.Steps {
		if s.Action == ActFollow {
			asked.add(s)
		}
	}
	return asked
}

// urgent reports whether a person's request is unfulfilled.
func (o Observed) urgent(Policy) (ledger.Trigger, bool) {
	if o.Request == nil || o.Request.Pending || !o.Request.wants(*o.Entry.Current) {
		return "", false
	}
	if o.Request.Revoke {
		return ledger.TriggerRevoke, true
	}
	return ledger.TriggerRequested, true
}

const leakLimit = 3

// planHealth compares the current key with its listing: leaked, disabled or missing.
func planHealth(p Policy, o Observed, now time.Time, d Decision) (Decision, bool) {
	if !o.HomeListed {
		return d, false
	}
	c := o.Entry.Current
	k, listed := o.Key(c.ID)
	switch {
	case !listed:
		return planMissing(p, o, now, d)
	case !k.Disabled:
		return d, false
	}
	switch cause := CauseOf(k.DisableReason); cause {
	case DisabledExposed, DisabledItself:
		recent := 0
		for _, t := range o.Entry.Leaks {
			if now.Sub(t) < time.Hour {
				recent++
			}
		}
		if recent >= leakLimit {
			return d.fail(FaultLeakStorm, "key %s was disabled (%s) after %d leak rotations within an hour; find the leak, then run: rekeyd rotate %s",
				c.ID, k.DisableReason, recent, p.Name), true
		}
		return planRotation(p, o, now, ledger.Trigger(cause), d), true
	case DisabledTrialEnded, DisabledDowngraded: // until the key is enabled again: assumption A07
		return d.fail(Fault(cause), "ElevenLabs disabled key %s: %s; a new key would not help, settle the subscription", c.ID, k.DisableReason), true
	}
	if c.Outstanding(ledger.CallDisable, now) {
		d.add(Step{ActEnable, ledger.TriggerLateDisable, c.ID, c.Workspace, c.Account})
		return d, true
	}
	return d.fail(FaultKeyDisabled, "key %s was disabled by a person or for an unknown reason; enable it again, or run: rekeyd rotate %s", c.ID, p.Name), true
}

// planMissing replaces a missing key only if two listings lack it and the key itself is refused. Without its account there is nothing
// to replace it with.
func planMissing(p Policy, o Observed, now time.Time, d Decision) (Decision, bool) {
	switch {
	case o.Listed && !o.Found:
		return failUnknownAccount(p, d), true
	case !o.MissingTwice:
		d.Reason = ledger.TriggerKeyMissing // only shown until the next listing
		return d, false
	case o.Proof == elevenlabs.Invalid:
		return planRotation(p, o, now, ledger.TriggerKeyMissing, d), true
	case o.Record != nil && !o.Record.HasValue:
		return planRotation(p, o, now, ledger.TriggerRecordMissing, d), true // there is no secret to probe with, and no reader to break
	}
	d.add(Step{Action: ActProve, Reason: ledger.TriggerKeyMissing, KeyID: o.Entry.Current.ID})
	if o.Proof == elevenlabs.Unprobed {
		d.State, d.Reason = StateDue, ledger.TriggerKeyMissing
		return d, true
	}
	return d.fail(FaultKeyVanished, "key %s is missing from the listing, but nothing proves that it is gone; if it is, run: rekeyd rotate %s",
		o.Entry.Current.ID, p.Name), true
}

// Moved reports whether the policy names another workspace, account or sink than its current key has.
func Moved(p Policy, c ledger.KeyRef) bool {
	return c.Workspace != p.Workspace || c.Account != p.ServiceAccount || c.Sink != p.Sink
}

// hasUnknownValue reports whether the record holds a value that the ledger does not know.
func (o Observed) hasUnknownValue(p Policy) bool {
	r, c := o.Record, o.Entry.Current
	if r == nil || !r.HasValue || r.Match != "" {
		return false
	}
	return c.Hash != "" || r.KeyID != c.ID || c.Sink != p.Sink // an adopted key's value was never seen
}

func planMove(p Policy, o Observed, now time.Time, d Decision) Decision {
	switch {
	case o.Record != nil && o.Record.foreignFields(p) != "" && o.Entry.Current.Sink.Ref != p.Sink.Ref:
		return failForeignFields(p, o, d)
	case !o.hasUnknownValue(p):
	case p.Adopt != "" && !o.everOwned(p.Adopt):
		return planAdopt(p, o, p.Adopt, ledger.TriggerAdoptNamed, d)
	case o.otherOwner(p, o.Record.KeyID) != "":
		return failOthersKey(p, o, o.Record.KeyID, ledger.TriggerRecordFound, d)
	default:
		return d.fail(FaultRecordChanged, "policy %s now publishes to %s, which holds a value that is not this policy's; remove it, choose another place, or set adopt to its key's id", p.Name, p.Sink)
	}
	return planRotation(p, o, now, ledger.TriggerMoved, d)
}

// planRecord compares the record with the ledger: deleted, rolled back or overwritten.
func planRecord(p Policy, o Observed, now time.Time, d Decision) (Decision, bool) {
	r, c := o.Record, o.Entry.Current
	switch {
	case r == nil:
		return d, false
	case !r.HasValue:
		return planRotation(p, o, now, ledger.TriggerRecordMissing, d), true
	case r.Match == c.ID, c.Hash == "" && r.KeyID == c.ID:
		return d, false
	case r.Match != "" && o.Entry.Key(r.Match).Deleting():
		return d.fail(FaultRecordChanged, "%s holds key %s again, of which a delete is not answered yet; run: rekeyd rotate %s", p.Sink, r.Match, p.Name), true
	case r.Match != "":
		if k, ok := o.Key(r.Match); ok && o.mayReturn(k, now) {
			d.add(Step{ActFollow, ledger.TriggerRolledBack, r.Match, k.Workspace, k.ServiceAccount})
			return d, true
		}
	case p.Adopt != "" && !o.everOwned(p.Adopt):
		return planAdopt(p, o, p.Adopt, ledger.TriggerAdoptNamed, d), true
	case o.otherOwner(p, r.KeyID) != "":
		return failOthersKey(p, o, r.KeyID, ledger.TriggerRecordFound, d), true
	case o.forgotten(r.KeyID):
		return planAdopt(p, o, r.KeyID, ledger.TriggerRecordFound, d), true
	}
	return d.fail(FaultRecordChanged, "%s holds a value that rekeyd did not put there; set adopt to its key's id, or run: rekeyd rotate %s", p.Sink, p.Name), true
}

// forgotten reports whether a rotation of this policy made a working key that the ledger does not know, as when the entry was
// deleted during the rotation.
func (o Observed) forgotten(id string) bool {
	k, listed := o.Key(id)
	owner, policy, rotation, ours := ledger.ParseKeyName(k.Name)
	return listed && !k.Disabled && ours && owner == o.Entry.Owner && policy == o.Entry.Policy && !o.Entry.Knows(id, rotation)
}

// mayReturn reports whether a key to which the record was rolled back works, or was disabled by a call of ours that may have
// arrived after the rollback.
func (o Observed) mayReturn(k ListedKey, now time.Time) bool {
	return !k.Disabled || k.DisableReason == "" && o.Entry.Key(k.ID).Outstanding(ledger.CallDisable, now)
}

// planDrift compares the current key's settings with the policy's. What a create or a patch left different was ignored: by a plan
// that drops it (assumptions A23 and A25) or, until the next change, in a listing that lagged (A19).
func planDrift(p Policy, o Observed, now time.Time, d Decision) Decision {
	k, listed := o.Key(o.Entry.Current.ID)
	if !listed || !o.HomeListed {
		return d
	}
	if d.Drift = k.Settings.Diff(p.Settings); len(d.Drift) == 0 {
		return d
	}
	a, answer := o.Entry.Applied, p.OnDrift
	if p.AdminOf != "" && answer == DriftPatch {
		answer = DriftRotate // a patch cannot be tested before it applies
	}
	switch {
	case o.Differs:
		return d.fail(FaultReplicasDiffer, "another replica applied other settings to key %s after this one loaded its policy file; give all replicas the same file", k.ID)
	case a != nil && a.Digest == p.Settings.Digest() && subset(d.Drift, a.Ignored):
		return d.fail(FaultSettingsIgnored, "ElevenLabs did not take over %s of key %s; the workspace's plan may not offer it", strings.Join(d.Drift, ", "), k.ID)
	case answer == DriftPatch && o.PatchAfter.After(now):
	case answer == DriftPatch:
		d.add(Step{ActPatch, ledger.TriggerDrift, k.ID, k.Workspace, k.ServiceAccount})
	case answer == DriftRotate && p.Mode != ModeManual:
		return planRotation(p, o, now, ledger.TriggerDrift, d)
	}
	return d
}

func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}
