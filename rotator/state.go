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
	queued      bool
	working     bool
	again       bool // something happened while it was being worked on
	resync      bool // read ledger and record again
	edited      bool // the policy was changed by a reload
	counted     bool // its entry was read for the brake, or seen not to be readable
	hurry       bool // what waits for its next try is tried once more at once
	request     *plan.Request
	timer       *time.Timer  // the next look that time alone calls for
	loadedAt    int          // which Load had it and the one before had not; 0: it is only of the ledger
	mayTakeBack bool         // it was loaded again while others were, and has not taken its entry back since
	order       uint64       // differs between replicas, so that they begin at different ends
	status      PolicyStatus // what is displayed; no decision reads it
	last        last

	known knowledge // owned by the one worker that has the policy
}

// last is what was read and decided about a policy last, for decisions about others.
type last struct {
	entry    *ledger.Entry // never changed
	decision plan.Decision
	planned  bool // there was a decision
	failed   bool // … and what it called for failed since, or before
}

// rotated is when the policy was rotated last.
func (l last) rotated() time.Time {
	if l.entry == nil {
		return time.Time{}
	}
	return l.entry.LastRotation
}

// due reports that the last decision called for nothing until a time that has come.
func (l last) due(now time.Time) bool {
	return l.planned && !l.decision.NextDue.IsZero() && !l.decision.NextDue.After(now)
}

// knowledge is what was read about a policy. Only the worker that has the policy touches it.
type knowledge struct {
	loaded        bool
	ledgerError   string
	entry         *ledger.Entry // nil: the ledger has none
	version       int
	record        *plan.RecordView // nil: must be read before it is used
	explained     int              // listing whose unknown keys have already led to a fresh look at the ledger
	currentID     string
	currentSince  time.Time // when this process first saw that key as current
	changedSince  time.Time // the same, but zero where it saw no other before
	claimVersion  int
	claimSince    time.Time // when the claim was first seen like this; monotonic
	missingSeq    int       // listing in which the current key was first missing; 0: it is there
	proof         elevenlabs.ProbeResult
	disabledKey   string               // the current key whose disabling was already told
	usage         map[string]usage     // of retiring keys, by id
	quarantined   map[string]time.Time // when this process first saw each key in quarantine there; monotonic
	retryAt       time.Time            // next attempt, where the ledger could not be told
	countedOutage ledger.Reason        // the outage that was already counted as this policy's failure
	loggedOutage  ledger.Reason        // the failure of the store that was already logged; "" once nothing is due any more
	patchAfter    time.Time
	pace          pace
	mended        int               // version of the entry whose times in the future were told
	inherits      string            // the predecessor, as it was found last
	groupHeld     string            // who held the group when it was read last
	problem       error             // why the last step failed; for commands
	pending       *stageError       // why our own rotation has to be settled; already counted
	movedAway     string            // the current key, where another replica moved the policy away from where it says
	elsewhere     map[string]string // keys that the ledger was seen to hold for another policy, when one was to be adopted
	digest        string            // of the settings applied when the policy was loaded
	digestKnown   bool
}

// load gives a state its policy, at the start and at each reload.
func (st *policyState) load(p *plan.Policy, ws *workspace) {
	// A policy that did not change costs no call at a reload.
	changed := st.ws != nil && !reflect.DeepEqual(*st.policy, *p)
	st.resync, st.edited = st.resync || changed, st.edited || changed
	st.policy, st.ws = p, ws
	st.status.Policy = p
	if st.status.State == "" {
		st.status.State = plan.StateDue
		st.status.Reason = ledger.ReasonNotObserved
	}
}

// setEntry makes e, read or written at this version, what is known.
func (k *knowledge) setEntry(e *ledger.Entry, version int, now time.Time) {
	k.loaded, k.ledgerError, k.entry, k.version = true, "", e, version
	if id := ledger.CurrentID(e); id != k.currentID {
		if k.currentID != "" {
			k.changedSince = now
		}
		k.currentID, k.currentSince, k.missingSeq, k.proof = id, now, 0, elevenlabs.Inconclusive
	}
	k.quarantined = inQuarantine(e, k.quarantined, now)
	switch {
	case e == nil || e.Claim == nil:
		k.claimVersion = 0
	case k.claimVersion != version:
		k.claimVersion, k.claimSince = version, now
	}
}

// inQuarantine says of each key in quarantine since when it is known to be there.
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

// readEntry reads the ledger. An entry that cannot be understood is kept as an error, not as an absence.
func (r *Rotator) readEntry(ctx context.Context, st *policyState, name string) error {
	k := &st.known
	doc, err := r.opt.Store.Read(ctx, r.entryRef(name), 0)
	if err != nil {
		return fmt.Errorf("reading ledger entry of %s: %w", name, err)
	}
	if k.loaded && doc.Version == k.version && k.ledgerError == "" {
		return nil
	}
	if k.loaded && doc.Version < k.version {
		r.ledgerRestored(name, k.version, doc.Version)
	}
	k.record = nil
	if doc.JSON == nil {
		k.setEntry(nil, doc.Version, time.Now())
		return nil
	}
	e, err := ledger.ParseEntry(doc.JSON, name)
	if err == nil && e.Owner != r.ownerID() {
		err = fmt.Errorf("reading ledger entry of %s: its owner is %s, this installation is %s; two ledgers were mixed", name, e.Owner, r.ownerID())
	}
	if err != nil {
		k.loaded, k.entry, k.version, k.ledgerError = true, nil, doc.Version, err.Error()
		return nil
	}
	r.mu.Lock()
	p := st.policy
	r.mu.Unlock()
	k.followPlace(*p, e, doc.Version)
	k.setEntry(e, doc.Version, time.Now())
	r.noteRecent(st, e)
	return nil
}

// followPlace compares an entry that others wrote with the one that is known: where the key was at the policy's place
// and a new one is not, the other replica has another policy file. A key that somebody rolled back to is no new one, nor
// is that of a ledger which was restored, and a replica that has yet to move the key itself goes on.
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

// ledgerRestored reacts to a ledger that was restored from a backup: what is remembered of other entries is of a time that the
// ledger has forgotten, and its version numbers will be given out again, so everything is read anew.
func (r *Rotator) ledgerRestored(policy string, from, to int) {
	r.opt.Logger.Warn("ledger went back in time; was Vault restored? everything is read again", "policy", policy, "known_version", from, "version", to)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range r.orderedLocked() {
		st.resync = true
		r.enqueueLocked(st)
	}
}

// Owner returns this installation's id, "" while it is not known yet.
func (r *Rotator) Owner() string { return r.ownerID() }

func (r *Rotator) ownerID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner
}

// noteRecent feeds the brake from what the ledger says.
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

// readRecord reads what readers of the secret find, and remembers of it what the planner needs.
func (r *Rotator) readRecord(ctx context.Context, st *policyState, sink ledger.Sink) (ledger.Record, error) {
	doc, err := r.opt.Store.Read(ctx, sink.Ref, 0)
	if err != nil {
		return ledger.Record{}, fmt.Errorf("reading record: %w", err)
	}
	rec := ledger.ParseRecord(doc, sink.Field)
	st.known.record = plan.View(rec, st.known.entry)
	return rec, nil
}
