package rotator

import (
	"maps"
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
	decision plan.Outlook
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

	entry         *ledger.Entry // nil: the ledger has none
	version       int
	record        *plan.RecordView // nil: must be read before it is used
	currentID     string
	lastPublished int64     // nanoseconds, by the history: a key that was replaced and put back meanwhile is current anew
	currentSince  time.Time // when this process first saw that key as current
	credits       int64     // of the current key, at its last listing
	pace          pace
	digest        string   // of the settings applied when the policy was loaded
	rare          *unusual // nil: nothing is unusual
}

// unusual is the part of the knowledge that few policies have at any time: about retiring keys, failures, and what others did. It
// is apart since ten thousand policies are in memory.
type unusual struct {
	usage         map[string]usage     // of retiring keys, by id
	quarantined   map[string]time.Time // when this process first saw each key in quarantine there; monotonic
	told          map[end]bool         // ends of keys that were logged here and may not be in the entry yet
	elsewhere     map[string]string    // keys that the ledger reserves for other policies, as seen at an adoption
	changedSince  time.Time            // when this process saw the current key replace another; zero: it did not, or a listing has begun since
	claimVersion  int
	claimSince    time.Time // when this version of the claim was first seen; monotonic
	ledgerError   string
	unread        *ledger.LastFailure // why entry or record cannot be read; nil: they could be at the last try
	explained     int                 // listing whose unknown keys have already caused a new read of the ledger
	missingSeq    int                 // listing in which the current key was first missing; 0: it is there
	renumbered    string              // the current key, if the versions of its record began anew since it was published
	disabledKey   string              // the current key whose disabling was already reported
	retryAt       time.Time           // next attempt, if the ledger could not be written
	countedOutage ledger.Failure      // the outage that was already counted as this policy's failure
	loggedOutage  *logged             // the last failure of the store; forgotten once the policy is ok
	loggedFailure *logged             // the last failed rotation
	patchAfter    time.Time
	mended        int    // version of the entry whose future times were logged
	inherits      string // the predecessor that was last found
	groupHeld     string // the holder of the group when it was last read
	unsettled     *unsettled
	movedAway     string // the current key, if another replica moved it away from the policy's place
}

// unusual returns what is unusual about the policy, to be read.
func (k *knowledge) unusual() unusual {
	if k.rare == nil {
		return unusual{}
	}
	return *k.rare
}

// note returns the same, to be changed.
func (k *knowledge) note() *unusual {
	if k.rare == nil {
		k.rare = &unusual{}
	}
	return k.rare
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

// unsettled is the failure of a rotation of this process that recovery still has to settle.
type unsettled struct {
	rotation string
	failure  *stageError
}

// usage is what listings showed of a retiring key's usage counter.
type usage struct {
	credits int64
	moved   int // listing in which it last moved; 0: never
	since   int // listing since which it is known to stand still
}

// unknownCredits is the counter of a key that was not listed yet.
const unknownCredits = -1

// end is a step towards the end of a key, in the words of the log.
type end struct{ what, keyID string }

// tell notes an end that was logged.
func (k *knowledge) tell(e end) {
	x := k.note()
	if x.told == nil {
		x.told = map[end]bool{}
	}
	x.told[e] = true
}

// load sets the policy, at the start and at each reload. One that did not change costs no call at a reload, and keeps its texts,
// which the entry shares.
func (st *policyState) load(p *plan.Policy, ws *workspace) {
	if st.policy == nil || !reflect.DeepEqual(*st.policy, *p) {
		changed := st.policy != nil
		st.inbox.resync, st.inbox.edited = st.inbox.resync || changed, st.inbox.edited || changed
		st.policy = new(*p) // its own, since a removed policy outlives those it was loaded with
	}
	st.ws = ws
	if st.display.state == "" {
		st.display.state, st.display.reason = plan.StateDue, plan.WaitNotObserved
	}
}

// setEntry stores the entry that was read or written at this version.
func (k *knowledge) setEntry(e *ledger.Entry, version int, now time.Time) {
	var last int64 // when the newest rotation of the history published its key
	k.leaked = false
	if e != nil {
		for _, past := range e.Rotations() {
			k.leaked = k.leaked || plan.Leaked(past.Reason)
			last = past.Published.UnixNano()
		}
		e.Pack()
	}
	x := k.note()
	k.loaded, k.entry, k.version, x.ledgerError = true, e, version, ""
	if id := ledger.CurrentID(e); id != k.currentID || last != k.lastPublished {
		if k.currentID != "" {
			x.changedSince = now
		}
		k.currentID, k.lastPublished, k.currentSince, x.missingSeq, k.proof = id, last, now, 0, elevenlabs.Unprobed
		k.credits, k.used = unknownCredits, false
	}
	x.quarantined = inQuarantine(e, x.quarantined, now)
	switch {
	case e == nil || e.Claim == nil && e.Intent == nil:
		x.claimVersion, x.claimSince = 0, time.Time{}
	case e.Claim == nil:
		x.claimVersion = 0
	case x.claimVersion != version:
		x.claimVersion, x.claimSince = version, now
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

// followPlace compares an entry that another replica wrote with the known one. If the key was at the policy's place and a new key
// is not, the other replica has a different policy file. A key from a rollback or a restored ledger is not new, and a replica
// that has yet to move the key itself proceeds.
func (k *knowledge) followPlace(p plan.Policy, next *ledger.Entry, version int) {
	if version <= k.version || k.entry == nil || k.entry.Current == nil || next.Current == nil || k.entry.Current.ID == next.Current.ID {
		return
	}
	was := k.entry.Current
	here := !plan.Moved(p, *was) || was.ID == k.unusual().movedAway
	if here && plan.Moved(p, *next.Current) && k.entry.RetiringKey(next.Current.ID) == nil {
		k.note().movedAway = next.Current.ID
	}
}

// display is what is shown of a policy beside its last entry and decision.
type display struct {
	state             plan.State // the decision's, or that of a failure since
	reason            plan.Reason
	cutOff            plan.DisableCause
	failure           *ledger.LastFailure
	keys              plan.KeyCounts
	successes         int32
	failures          int32
	unswept           int32
	inUse             bool
	accepted          bool
	unproven          bool
	thirdPartyDisable elevenlabs.Value[bool]
	disabled          map[plan.DisableCause]time.Time
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
