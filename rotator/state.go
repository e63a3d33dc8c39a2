package rotator

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// policyState is one policy and all that this process knows about it.
type policyState struct {
	// Guarded by Rotator.mu.
	policy      *plan.Policy // replaced whole, never changed
	ws          *workspace
	place       place
	inbox       inbox // for the next look, which takes it whole
	urgent      bool  // as it was enqueued
	counted     bool  // its entry was read for the hourly limit, or found unreadable
	mayTakeBack bool  // it was added by a reload and has not taken its entry back since
	request     *plan.Request
	timer       *time.Timer // the next look at a known time
	loadedAt    int         // the Load that added it; 0: it is only in the ledger
	order       uint64      // differs between replicas, so that each works in its own order
	display     display     // no decision reads it
	last        last

	known knowledge // owned by the one worker that has the policy
}

// place is where a policy is.
type place int8

const (
	idle    place = iota
	queued        // for a worker
	working       // a worker has it, or a command until its process ends
)

// inbox is what reached a policy since its last look.
type inbox struct {
	wake   bool // look again once the worker is done
	resync bool // read ledger and record again
	edited bool // the policy was changed by a reload
	hurry  bool // skip the waits for a next try once
}

// last is the last entry and decision of a policy, for decisions about other policies.
type last struct {
	entry    *ledger.Entry // never changed
	decision plan.Decision
	planned  bool // there was a decision
	failed   bool // the policy failed since the decision, or its entry has a failure
}

// rotated returns when the policy was last rotated.
func (l last) rotated() time.Time {
	if l.entry == nil {
		return time.Time{}
	}
	return l.entry.LastRotation
}

// due reports whether the due time of the last decision has come.
func (l last) due(now time.Time) bool {
	return l.planned && !l.decision.NextDue.IsZero() && !l.decision.NextDue.After(now)
}

// knowledge is what was read about a policy. Only the worker that has the policy touches it.
type knowledge struct {
	loaded      bool
	followed    bool // entry is what was read last, so that what commands add to it is noticed
	recordTried bool // it was read, or its read failed, since the start
	used        bool // the current key was seen in use
	digestKnown bool
	leaked      bool // the entry's history has a leak; most are not unpacked to look for one
	proof       elevenlabs.ProbeResult

	ledgerError   string
	entry         *ledger.Entry // nil: the ledger has none
	version       int
	told          map[end]bool        // ends of keys that were logged here and may not be in the entry yet
	record        *plan.RecordView    // nil: must be read before it is used
	unread        *ledger.LastFailure // why entry or record cannot be read; nil: they could be at the last try
	explained     int                 // listing whose unknown keys have already caused a new read of the ledger
	renumbered    string              // the current key, if the versions of its record began anew since it was published
	currentID     string
	lastPublished time.Time // by the history: a key that was replaced and put back meanwhile is current anew
	currentSince  time.Time // when this process first saw that key as current
	changedSince  time.Time // the same, but zero where it saw no other before
	claimVersion  int
	claimSince    time.Time            // when this version of the claim was first seen; monotonic
	missingSeq    int                  // listing in which the current key was first missing; 0: it is there
	disabledKey   string               // the current key whose disabling was already reported
	usage         map[string]usage     // of retiring keys, by id
	credits       int64                // of the current key, at its last listing
	quarantined   map[string]time.Time // when this process first saw each key in quarantine there; monotonic
	retryAt       time.Time            // next attempt, if the ledger could not be written
	countedOutage ledger.Failure       // the outage that was already counted as this policy's failure
	loggedOutage  *logged              // the last failure of the store; forgotten once the policy is ok
	loggedFailure *logged              // the last failed rotation
	patchAfter    time.Time
	pace          pace
	mended        int    // version of the entry whose future times were logged
	inherits      string // the predecessor that was last found
	groupHeld     string // the holder of the group when it was last read
	unsettled     *unsettled
	movedAway     string            // the current key, if another replica moved it away from the policy's place
	elsewhere     map[string]string // keys that the ledger reserves for other policies, as seen at an adoption
	digest        string            // of the settings applied when the policy was loaded
}

// logged is a failure that was logged.
type logged struct {
	stage  ledger.Stage
	reason ledger.Failure
	at     time.Time
}

// logs reports whether a failure is to be logged, and notes it: one that repeats is logged once a day.
func logs(last **logged, stage ledger.Stage, reason ledger.Failure) bool {
	if l := *last; l != nil && l.stage == stage && l.reason == reason && time.Since(l.at) < 24*time.Hour {
		return false
	}
	*last = &logged{stage, reason, time.Now()}
	return true
}

// load sets the policy, at the start and at each reload.
func (st *policyState) load(p *plan.Policy, ws *workspace) {
	// A policy that did not change costs no call at a reload.
	changed := st.ws != nil && !reflect.DeepEqual(*st.policy, *p)
	st.inbox.resync, st.inbox.edited = st.inbox.resync || changed, st.inbox.edited || changed
	st.policy, st.ws = p, ws
	if st.display.state == "" {
		st.display.state, st.display.reason = plan.StateDue, plan.WaitNotObserved
	}
}

// policyOf returns the policy as it is loaded now, and its workspace.
func (r *Rotator) policyOf(st *policyState) (plan.Policy, *workspace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *st.policy, st.ws
}

// setEntry stores the entry that was read or written at this version.
func (k *knowledge) setEntry(e *ledger.Entry, version int, now time.Time) {
	var last time.Time // when the newest rotation of the history published its key
	k.leaked = false
	if e != nil {
		for _, past := range e.Rotations() {
			k.leaked = k.leaked || plan.Leaked(past.Reason)
			last = past.Published
		}
		e.Pack()
	}
	k.loaded, k.ledgerError, k.entry, k.version = true, "", e, version
	if id := ledger.CurrentID(e); id != k.currentID || !last.Equal(k.lastPublished) {
		if k.currentID != "" {
			k.changedSince = now
		}
		k.currentID, k.lastPublished, k.currentSince, k.missingSeq, k.proof = id, last, now, 0, elevenlabs.Unprobed
		k.credits, k.used = unknownCredits, false
	}
	k.quarantined = inQuarantine(e, k.quarantined, now)
	switch {
	case e == nil || e.Claim == nil:
		k.claimVersion = 0
	case k.claimVersion != version:
		k.claimVersion, k.claimSince = version, now
	}
}

// inQuarantine returns since when each key in quarantine is known to be there.
func inQuarantine(e *ledger.Entry, known map[string]time.Time, now time.Time) map[string]time.Time {
	if e == nil || len(e.Retiring) == 0 {
		return nil
	}
	since := make(map[string]time.Time, len(e.Retiring))
	for _, r := range e.Retiring {
		if r.State != ledger.InQuarantine {
			continue
		}
		if since[r.ID] = now; !known[r.ID].IsZero() {
			since[r.ID] = known[r.ID]
		}
	}
	return since
}

// readEntry reads the ledger entry. An entry that cannot be parsed is kept as an error, not as missing.
func (r *Rotator) readEntry(ctx context.Context, st *policyState, name string) error {
	return r.readEntryAt(ctx, st, name, st.known.version)
}

// readEntryAt reads an entry that is known to have reached a version.
func (r *Rotator) readEntryAt(ctx context.Context, st *policyState, name string, known int) error {
	k := &st.known
	doc, restored, err := r.newest(ctx, r.entryRef(name), known, r.blankData(name))
	if err != nil {
		return fmt.Errorf("reading ledger entry of %s: %w", name, err)
	}
	switch {
	case restored:
		r.ledgerRestored(name, k.version, doc.Version)
	case k.loaded && doc.Version == k.version && k.ledgerError == "":
		return nil
	}
	k.record = nil
	if doc.JSON == nil {
		k.followed = true
		k.setEntry(nil, doc.Version, time.Now())
		return nil
	}
	e, err := ledger.ParseEntry(doc.JSON, name)
	if err == nil && e.Owner != r.ownerID() {
		err = fmt.Errorf("reading ledger entry of %s: its owner is %s, this installation is %s; two ledgers were mixed", name, e.Owner, r.ownerID())
	}
	if err != nil {
		k.loaded, k.entry, k.version, k.ledgerError, k.followed = true, nil, doc.Version, err.Error(), false
		return nil
	}
	r.mu.Lock()
	p := st.policy
	r.mu.Unlock()
	k.followPlace(*p, e, doc.Version)
	if k.followed {
		r.logOthers(name, k.entry, e)
		r.logEnds(name, k.entry, e, k.told)
	}
	k.followed, k.told = true, nil
	k.setEntry(e, doc.Version, time.Now())
	r.noteRecent(st, e)
	return nil
}

// followPlace compares an entry that another replica wrote with the known one. If the key was at the policy's place and a new key
// is not, the other replica has a different policy file. A key from a rollback or a restored ledger is not new, and a replica
// that has yet to move the key itself proceeds.
func (k *knowledge) followPlace(p plan.Policy, next *ledger.Entry, version int) {
	if version <= k.version || k.entry == nil || k.entry.Current == nil || next.Current == nil || k.entry.Current.ID == next.Current.ID {
		return
	}
	was := k.entry.Current
	here := !plan.Moved(p, *was) || was.ID == k.movedAway
	if here && plan.Moved(p, *next.Current) && k.entry.RetiringKey(next.Current.ID) == nil {
		k.movedAway = next.Current.ID
	}
}

// ledgerRestored reacts to a ledger that was restored from a backup. The cached entries are newer than the ledger, which will
// assign their version numbers again, so everything is read again.
func (r *Rotator) ledgerRestored(policy string, from, to int) {
	r.opt.Logger.Warn("ledger went back in time; was Vault restored? everything is read again", "policy", policy, "known_version", from, "version", to)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range r.orderedLocked() {
		st.inbox.resync = true
		r.enqueueLocked(st)
	}
}

// Owner returns this installation's id, "" while it is unknown.
func (r *Rotator) Owner() string { return r.ownerID() }

func (r *Rotator) ownerID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner
}

// noteRecent counts the entry's last rotation towards the hourly limit.
func (r *Rotator) noteRecent(st *policyState, e *ledger.Entry) {
	at := e.LastRotation
	if e.Intent != nil && e.Intent.Started.After(at) {
		at = e.Intent.Started
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.opt.Wall(); now.Sub(at) < time.Hour && !plan.InFuture(at, now) {
		st.ws.noteRotationLocked(st.policy.Name, at)
	}
}

// readRecord reads a record, and keeps what the planner needs of it. known is a version that it is known to have reached, beside
// that in which the current key was published.
func (r *Rotator) readRecord(ctx context.Context, st *policyState, sink ledger.Sink, known int) (ledger.Record, error) {
	k, id := &st.known, ledger.CurrentID(st.known.entry)
	var empty func() (any, error)
	if id != "" && id != k.renumbered && k.entry.Current.Sink.Ref == sink.Ref && k.entry.Current.Version >= known {
		known, empty = k.entry.Current.Version, func() (any, error) {
			return map[string]any{ledger.FieldPolicy: k.entry.Policy}, nil // a record without the secret's field counts as empty
		}
	}
	doc, renumbered, err := r.newest(ctx, sink.Ref, known, empty)
	if err != nil {
		return ledger.Record{}, fmt.Errorf("reading record: %w", err)
	}
	if renumbered {
		k.renumbered = id
	}
	rec := ledger.ParseRecord(doc, sink.Field)
	k.record = plan.View(rec, k.entry)
	return rec, nil
}
