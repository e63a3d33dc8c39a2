package rotator

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// policyState is one policy and all that this process knows about it.
type policyState struct {
	// Guarded by Rotator.mu.
	policy  Policy
	ws      *workspace
	queued  bool
	working bool
	again   bool // something happened while it was being worked on
	resync  bool // read ledger and record again
	edited  bool // the policy was changed by a reload
	request *Request
	timer   *time.Timer // the next look that time alone calls for
	order   uint64      // differs between replicas, so that they begin at different ends
	status  PolicyStatus

	known knowledge // owned by the one worker that has the policy
}

// knowledge is what was read about a policy. Only the worker that has the policy touches it.
type knowledge struct {
	loaded       bool
	ledgerError  string
	entry        *Entry // nil: the ledger has none
	version      int
	record       *RecordView // nil: must be read before it is used
	explained    int         // listing whose unknown keys have already led to a fresh look at the ledger
	currentID    string
	currentSince time.Time // when this process first saw that key as current
	claimVersion int
	claimSince   time.Time // when the claim was first seen like this; monotonic
	missingSeq   int       // listing in which the current key was first missing; 0: it is there
	proof        elevenlabs.Life
	disabledKey  string           // the current key whose disabling was already told
	usage        map[string]usage // of retiring keys, by id
	retryAt      time.Time        // next attempt, where the ledger could not be told
	counted      Reason           // the outage that was already counted as this policy's failure
	patchAfter   time.Time
	problem      error       // why the last step failed; for commands
	pending      *stageError // why our own rotation has to be settled; already counted
	digest       string      // of the settings applied when the policy was loaded
	digestKnown  bool
}

// load gives a state its policy, at the start and at each reload.
func (st *policyState) load(p Policy, ws *workspace) {
	// A policy that did not change costs no call at a reload.
	changed := st.ws != nil && !reflect.DeepEqual(st.policy, p)
	st.resync, st.edited = st.resync || changed, st.edited || changed
	st.policy, st.ws = p, ws
	st.status.Policy = p
	if st.status.State == "" {
		st.status.State = StateDue
		st.status.Reason = ReasonNotObserved
	}
}

// setEntry makes e, read or written at this version, what is known.
func (k *knowledge) setEntry(e *Entry, version int, now time.Time) {
	k.loaded, k.ledgerError, k.entry, k.version = true, "", e, version
	if id := currentID(e); id != k.currentID {
		k.currentID, k.currentSince, k.missingSeq, k.proof = id, now, 0, elevenlabs.LifeUnknown
	}
	switch {
	case e == nil || e.Claim == nil:
		k.claimVersion = 0
	case k.claimVersion != version:
		k.claimVersion, k.claimSince = version, now
	}
}

func currentID(e *Entry) string {
	if e == nil || e.Current == nil {
		return ""
	}
	return e.Current.ID
}

// readEntry reads the ledger. An entry that cannot be understood is kept as an error, not as an absence.
func (r *Rotator) readEntry(ctx context.Context, st *policyState, name string) error {
	k := &st.known
	doc, err := r.Store.Read(ctx, r.entryRef(name), 0)
	if err != nil {
		return fmt.Errorf("reading ledger entry of %s: %w", name, err)
	}
	if k.loaded && doc.Version == k.version && k.ledgerError == "" {
		return nil
	}
	if k.loaded && doc.Version < k.version {
		r.wentBack(name, k.version, doc.Version)
	}
	k.record = nil
	if doc.Data == nil {
		k.setEntry(nil, doc.Version, time.Now())
		return nil
	}
	e, err := ParseEntry(doc.Data, name)
	if err == nil && e.Owner != r.ownerID() {
		err = fmt.Errorf("reading ledger entry of %s: its owner is %s, this installation is %s; two ledgers were mixed", name, e.Owner, r.ownerID())
	}
	if err != nil {
		k.loaded, k.entry, k.version, k.ledgerError = true, nil, doc.Version, err.Error()
		return nil
	}
	k.setEntry(e, doc.Version, time.Now())
	r.noteRecent(st, e)
	return nil
}

// wentBack reacts to a ledger that was restored from a backup: what is remembered of other entries is of a time that the
// ledger has forgotten, and its version numbers will be given out again, so everything is read anew.
func (r *Rotator) wentBack(policy string, from, to int) {
	r.Logger.Warn("ledger went back in time; was Vault restored? everything is read again", "policy", policy, "known_version", from, "version", to)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range r.ordered() {
		st.resync = true
		r.enqueue(st)
	}
}

func (r *Rotator) ownerID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner
}

// noteRecent feeds the brake from what the ledger says.
func (r *Rotator) noteRecent(st *policyState, e *Entry) {
	at := e.LastRotation
	if e.Intent != nil && e.Intent.Started.After(at) {
		at = e.Intent.Started
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Wall().Sub(at) < time.Hour {
		st.ws.recent[st.policy.Name] = at
	}
}

// readRecord reads what readers of the secret find, and remembers of it what the planner needs.
func (r *Rotator) readRecord(ctx context.Context, st *policyState, sink Sink) (Record, error) {
	doc, err := r.Store.Read(ctx, sink.Ref, 0)
	if err != nil {
		return Record{}, fmt.Errorf("reading record: %w", err)
	}
	rec := parseRecord(doc, sink.Field)
	st.known.record = viewOf(rec, st.known.entry)
	return rec, nil
}

// viewOf compares a record's value with the keys that the entry knows.
func viewOf(rec Record, e *Entry) *RecordView {
	v := &RecordView{
		HasValue: !rec.Secret.IsZero(), KeyID: rec.KeyID, RotatedAt: rec.RotatedAt, Policy: rec.text(fieldPolicy),
		PreviousKeyID: rec.PreviousKeyID, PreviousValidUntil: rec.PreviousValidUntil,
	}
	if e == nil || !v.HasValue {
		return v
	}
	v.Hash = hashValue(e.Salt, rec.Secret.Reveal())
	if e.Current != nil && e.Current.Hash == v.Hash {
		v.Match = e.Current.ID
		return v
	}
	for _, k := range e.Retiring {
		if k.Hash == v.Hash {
			v.Match = k.ID
		}
	}
	return v
}

// observe gathers what Plan needs, reading only what is not known or must be fresh.
func (r *Rotator) observe(ctx context.Context, st *policyState) (Policy, Observed, error) {
	k := &st.known
	r.mu.Lock()
	p, ws, resync := st.policy, st.ws, st.resync
	k.digestKnown = k.digestKnown && !st.edited
	st.resync, st.edited = false, false
	r.mu.Unlock()
	fresh := !k.loaded || resync || (k.entry != nil && k.entry.Claim != nil)
	if resync {
		k.record = nil
	}
	if fresh {
		if err := r.readEntry(ctx, st, p.Name); err != nil {
			r.requestResync(st, resync)
			return p, Observed{}, err
		}
	}
	o := r.assemble(st, p, ws)
	if seq := ws.seq(r); !fresh && seq > k.explained && unexplained(o) {
		if err := r.readEntry(ctx, st, p.Name); err != nil {
			return p, o, err
		}
		k.explained = seq
	}
	if k.record == nil && p.Mode != modeRemoved && (resync || wantsRecord(p, k.entry)) {
		if err := r.lookAtRecord(ctx, st, p); err != nil {
			r.requestResync(st, resync)
			return p, o, err
		}
	}
	o = r.assemble(st, p, ws)
	if o.Entry == nil && o.Record != nil {
		return p, o, r.findPredecessor(ctx, p, &o)
	}
	return p, o, nil
}

// requestResync puts a resync that could not be carried out back.
func (r *Rotator) requestResync(st *policyState, resync bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.resync = st.resync || resync
}

// wantsRecord reports that nothing can be planned without having read the record.
func wantsRecord(p Policy, e *Entry) bool {
	return e == nil || (e.Claim == nil && (e.Current == nil || moved(p, *e.Current)))
}

// lookAtRecord reads the record; where it holds a surprise, the ledger is read again first, since a stale entry would
// make another replica's new key look like a stranger's.
func (r *Rotator) lookAtRecord(ctx context.Context, st *policyState, p Policy) error {
	if _, err := r.readRecord(ctx, st, p.Sink); err != nil {
		return err
	}
	v, version := st.known.record, st.known.version
	if !v.HasValue || v.Match == st.known.currentID && v.Match != "" {
		return nil
	}
	// An entry that was read before the record says nothing about what was written between the two.
	if err := r.readEntry(ctx, st, p.Name); err != nil {
		return err
	}
	if st.known.version == version && st.known.record != nil {
		return nil
	}
	_, err := r.readRecord(ctx, st, p.Sink)
	return err
}

// assemble puts together what is known, without reading anything.
func (r *Rotator) assemble(st *policyState, p Policy, ws *workspace) Observed {
	k := &st.known
	o := Observed{LedgerError: k.ledgerError, Entry: k.entry, Record: k.record, RetryAt: k.retryAt, PatchAfter: k.patchAfter, MaxRotations: r.MaxRotationsPerHour}
	if c := claimOf(k.entry); c != nil {
		o.ClaimOurs = c.Holder == r.holder
		o.ClaimExpired = !o.ClaimOurs && time.Since(k.claimSince) >= r.ClaimTTL
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.request != nil && st.request.fulfilled(k.entry) {
		st.request = nil
	}
	o.Request, o.Owner = st.request, r.owner
	o.Rotations = ws.rotations(r.Wall(), p.Name)
	if ws.err == nil && ws.listing != nil {
		o.Listed = true
		_, o.Found = ws.listing.accounts[p.ServiceAccount]
	}
	r.addKeys(&o, p, k)
	k.followSettings(&o, p)
	if ws.listing != nil {
		k.followUsage(&o, ws.listing.seq)
	}
	return o
}

// usage is what a retiring key's counter showed.
type usage struct {
	credits int64
	moved   int // listing in which it last moved; 0: never
}

// followUsage notes which retiring keys are still in use: their counter moved within the last two listings.
func (k *knowledge) followUsage(o *Observed, seq int) {
	if o.Entry == nil || len(o.Entry.Retiring) == 0 {
		k.usage = nil
		return
	}
	if k.usage == nil {
		k.usage = map[string]usage{}
	}
	for _, r := range o.Entry.Retiring {
		key, listed := o.key(r.ID)
		u, known := k.usage[r.ID]
		if !listed || r.State != InOverlap {
			continue
		}
		if known && key.CharacterCount != u.credits {
			u.moved = seq
		}
		u.credits = key.CharacterCount
		k.usage[r.ID] = u
		if u.moved != 0 && seq-u.moved < 2 {
			o.InUse = append(o.InUse, r.ID)
		}
	}
}

func claimOf(e *Entry) *Claim {
	if e == nil {
		return nil
	}
	return e.Claim
}

// addKeys collects the listed keys that concern a policy: its account's, its current key's account's, and all that
// carry its name. Rotator.mu is held.
func (r *Rotator) addKeys(o *Observed, p Policy, k *knowledge) {
	add := func(keys []ListedKey) {
		for _, key := range keys {
			if _, known := o.key(key.ID); !known {
				o.Keys = append(o.Keys, key)
			}
		}
	}
	account := func(workspace, account string) {
		if ws := r.workspaces[workspace]; ws != nil && ws.listing != nil {
			add(ws.listing.accounts[account])
		}
	}
	account(p.Workspace, p.ServiceAccount)
	if e := o.Entry; e != nil {
		if e.Current != nil {
			account(e.Current.Workspace, e.Current.Account)
			r.followCurrent(o, *e.Current, k)
		}
		for _, c := range e.Retiring {
			account(c.Workspace, c.Account)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.workspaces)) {
		if l := r.workspaces[name].listing; l != nil {
			add(l.owned[p.Name])
		}
	}
}

// followCurrent notes whether the current key was listed, and for how long it has been missing. Rotator.mu is held.
func (r *Rotator) followCurrent(o *Observed, c KeyRef, k *knowledge) {
	home := r.workspaces[c.Workspace]
	if home == nil || home.listing == nil || !home.listing.begun.After(k.currentSince) {
		return
	}
	o.HomeListed = true
	for _, key := range home.listing.accounts[c.Account] {
		if key.ID == c.ID {
			k.missingSeq, k.proof = 0, elevenlabs.LifeUnknown
			return
		}
	}
	if k.missingSeq == 0 {
		k.missingSeq = home.listing.seq
	}
	o.MissingTwice = home.listing.seq > k.missingSeq
	o.Proof = k.proof
}

// followSettings notices that other settings were applied after this process loaded the policy.
func (k *knowledge) followSettings(o *Observed, p Policy) {
	if k.entry == nil {
		return
	}
	applied := ""
	if k.entry.Applied != nil {
		applied = k.entry.Applied.Digest
	}
	if !k.digestKnown {
		k.digest, k.digestKnown = applied, true
	}
	o.Differs = applied != k.digest && applied != p.Settings.Digest()
}

// unexplained reports a listed key of ours that the cached entry does not know.
func unexplained(o Observed) bool {
	if o.Entry == nil {
		return false
	}
	for _, k := range o.Keys {
		if owner, policy, rotation, ok := parseKeyName(k.Name); ok && owner == o.Entry.Owner && policy == o.Entry.Policy && !o.Entry.knows(k.ID, rotation) {
			return true
		}
	}
	return false
}

func (ws *workspace) seq(r *Rotator) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ws.listing == nil {
		return 0
	}
	return ws.listing.seq
}

// findPredecessor looks whether the record belongs to a policy that is no longer loaded: then this one is its new name.
func (r *Rotator) findPredecessor(ctx context.Context, p Policy, o *Observed) error {
	old := o.Record.Policy
	if old == "" || old == p.Name || !o.Record.HasValue {
		return nil
	}
	r.mu.Lock()
	_, loaded := r.policies[old]
	r.mu.Unlock()
	if loaded || !validName(old) {
		return nil
	}
	doc, err := r.Store.Read(ctx, r.entryRef(old), 0)
	if err != nil || doc.Data == nil {
		return err
	}
	e, err := ParseEntry(doc.Data, old)
	if err == nil && e.Current != nil && e.Current.ID == o.Record.KeyID && (e.MovedTo == "" || e.MovedTo == p.Name) {
		o.Inherits = old
	}
	return nil
}
