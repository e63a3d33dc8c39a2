package rotator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// observe gathers what Plan needs. It reads only what is unknown or must be fresh.
func (r *Rotator) observe(ctx context.Context, st *policyState) (plan.Policy, plan.Observed, error) {
	k := &st.known
	r.mu.Lock()
	p, ws, in, asked := *st.policy, st.ws, st.inbox, st.request
	st.inbox = inbox{}
	r.mu.Unlock()
	if in.edited {
		k.digestKnown, k.movedAway = false, ""
	}
	if in.edited || in.hurry {
		k.pace.hurry()
	}
	switch {
	case asked == nil || !asked.Pending:
		asked = nil
	case asked.Read:
		r.aim(ctx, st, asked)
		asked = nil
	}
	r.absorb(st)
	if r.tooSoon(st, p, ws, asked != nil) {
		r.requestResync(st, in.resync)
		if !k.loaded || k.record == nil && p.Mode != plan.ModeRemoved && plan.WantsRecord(p, k.entry) {
			return p, plan.Observed{}, errTooSoon
		}
		o := r.observed(st, p, ws)
		o.Inherits, o.GroupHeld = k.inherits, k.groupHeld
		return p, o, nil
	}
	claimed := ledger.ClaimOf(k.entry) != nil
	fresh := !k.loaded || in.resync || asked != nil || claimed && k.pace.waits(plan.Attempt{Action: lookClaimed}) <= 0
	if in.resync {
		k.record, k.elsewhere = nil, nil
	}
	if fresh {
		version := k.version
		err := r.readEntry(ctx, st, p.Name)
		r.noteCounted(st, err)
		if err != nil {
			refused := r.noteUnread(st, err)
			r.requestResync(st, in.resync || refused)
			return p, plan.Observed{}, err
		}
		k.unread = nil
		r.aim(ctx, st, asked)
		if k.version != version {
			k.pace.forget(lookClaimed)
		} else if claimed {
			r.tried(st, plan.Attempt{Action: lookClaimed})
		}
	}
	r.absorb(st)
	o, read := r.observed(st, p, ws), false
	if a := (plan.Attempt{Action: lookListed, KeyID: plan.Unexplained(o)}); !fresh && a.KeyID != "" && k.pace.waits(a) <= 0 && ws.seq(r) > k.explained {
		if err := r.readEntry(ctx, st, p.Name); err != nil {
			return p, o, err
		}
		k.explained, read = ws.seq(r), true
		r.tried(st, a)
	}
	// Once every entry is known each record is read, due or not, so that a missing right shows at once.
	if k.record == nil && p.Mode != plan.ModeRemoved && (in.resync || plan.WantsRecord(p, k.entry) || !k.recordTried && !o.Uncounted) {
		err := r.lookAtRecord(ctx, st, p)
		k.recordTried, k.unread = true, nil
		if err != nil {
			r.noteUnread(st, err)
			r.requestResync(st, true)
			return p, o, err
		}
		read = true
	}
	if read {
		r.absorb(st)
		o = r.observed(st, p, ws)
	}
	if e := mended(p, o, r.opt.Wall()); e != nil {
		if k.mended != k.version {
			r.opt.Logger.Warn("ledger entry has times in the future; a clock was wrong", "policy", p.Name, "last_rotation", k.entry.LastRotation)
		}
		e.Pack()
		k.entry, k.mended, read = e, k.version, true
		r.absorb(st)
		o = r.observed(st, p, ws)
	}
	k.pace.forget(look)
	e := o.Entry
	if moved := e != nil && e.MovedTo != "" && p.Mode != plan.ModeRemoved; moved || e == nil && o.Record != nil {
		if names := (plan.Attempt{Action: lookNames}); read || fresh || k.pace.waits(names) <= 0 {
			var err error
			if moved {
				k.inherits, err = r.returning(ctx, st, p, e)
			} else {
				k.inherits, err = r.predecessor(ctx, p, o.Record)
			}
			if err != nil {
				return p, o, err
			}
			r.tried(st, names)
		}
		o.Inherits = k.inherits
		return p, o, nil
	}
	err := r.lookAtGroup(ctx, st, p, &o)
	return p, o, err
}

// noteUnread notes that the policy's entry or record cannot be read, and reports whether that concerns this policy alone. Until a
// read succeeds the policy is shown as failing, although it is planned by what is known of it.
func (r *Rotator) noteUnread(st *policyState, err error) bool {
	if ledger.IsOutage(err) || errors.Is(err, context.Canceled) {
		return false
	}
	st.known.unread = r.storeFailure(err)
	return true
}

// aim sets which key a request replaces. It needs a ledger that was read after the request was accepted.
func (r *Rotator) aim(ctx context.Context, st *policyState, q *plan.Request) {
	if q == nil {
		return
	}
	if st.known.entry != nil {
		if newest, err := r.prove(ctx, st, st.known.entry.Policy); err != nil || !newest {
			return
		}
	}
	aimed, id := *q, ledger.CurrentID(st.known.entry)
	aimed.NotKey, aimed.Pending, aimed.Read = id, id == "", true
	if id != "" {
		aimed.NotRotation = r.uncommitted(ctx, st.known.entry)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.request == q { // a newer request stays as it is
		st.request = &aimed
	}
}

// uncommitted returns the rotation whose key the record holds, or may hold, although the ledger does not name it current yet.
func (r *Rotator) uncommitted(ctx context.Context, e *ledger.Entry) string {
	if e == nil || e.Intent == nil {
		return ""
	}
	doc, err := r.opt.Store.Read(ctx, e.Intent.Sink.Ref, 0)
	if err == nil && !ledger.ParseRecord(doc, e.Intent.Sink.Field).Publishes(e.Intent.KeyName) {
		return ""
	}
	return e.Intent.Rotation
}

// requestResync asks again for a resync that could not be done.
func (r *Rotator) requestResync(st *policyState, resync bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.inbox.resync = st.inbox.resync || resync
}

// lookAtRecord reads the record. If the record holds an unexpected value it reads the ledger again: under a stale entry another
// replica's new key would look like an unknown value.
func (r *Rotator) lookAtRecord(ctx context.Context, st *policyState, p plan.Policy) error {
	if _, err := r.readRecord(ctx, st, p.Sink, 0); err != nil {
		return err
	}
	v, version := st.known.record, st.known.version
	if !v.HasValue || v.Match == st.known.currentID && v.Match != "" {
		return nil
	}
	// An entry read before the record does not show what was written between the two reads.
	if err := r.readEntry(ctx, st, p.Name); err != nil {
		return err
	}
	if st.known.version == version && st.known.record != nil {
		return nil
	}
	_, err := r.readRecord(ctx, st, p.Sink, 0)
	return err
}

// absorb notes what the last listing and the entry say about what lasts: a fulfilled request, use of retiring keys, a missing
// current key, other settings. Doing it twice changes nothing.
func (r *Rotator) absorb(st *policyState) {
	k := &st.known
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.request != nil && st.request.Fulfilled(k.entry) {
		st.request = nil
	}
	r.absorbUsageLocked(k)
	r.absorbCurrentLocked(k)
	if k.entry != nil && !k.digestKnown {
		k.digest, k.digestKnown = appliedDigest(k.entry), true
	}
}

// usage is what listings showed of a retiring key's usage counter.
type usage struct {
	credits int64
	moved   int // listing in which it last moved; 0: never
	since   int // listing since which it is known to stand still
}

// absorbUsageLocked follows the usage counters of the keys in overlap.
func (r *Rotator) absorbUsageLocked(k *knowledge) {
	if k.entry == nil || len(k.entry.Retiring) == 0 {
		k.usage = nil
		return
	}
	if k.usage == nil {
		k.usage = map[string]usage{}
	}
	for _, old := range k.entry.Retiring {
		key, seq, listed := r.listedKeyLocked(old.KeyRef)
		u, known := k.usage[old.ID]
		if !listed || old.State != ledger.InOverlap {
			continue
		}
		// A counter back at 0 means a new billing period without use so far.
		if known && key.CharacterCount != u.credits && key.CharacterCount != 0 {
			u.moved = seq
		}
		if !known || u.moved == seq {
			u.since = seq
		}
		u.credits = key.CharacterCount
		k.usage[old.ID] = u
	}
}

// unknownCredits is the counter of a key that was not listed yet.
const unknownCredits = -1

// absorbCurrentLocked notes since which listing the current key is missing, and whether it was seen in use. A listing that began
// before this process saw the key as current does not count.
func (r *Rotator) absorbCurrentLocked(k *knowledge) {
	if k.entry == nil || k.entry.Current == nil || !r.listedSinceLocked(*k.entry.Current, k.currentSince) {
		return
	}
	key, seq, listed := r.listedKeyLocked(*k.entry.Current)
	switch {
	case listed:
		k.missingSeq, k.proof = 0, elevenlabs.Unprobed
		if k.credits == unknownCredits {
			k.credits = firstCredits(k.entry, key)
		}
		k.used = k.used || key.CharacterCount > k.credits // a smaller value is a new billing period
		k.credits = key.CharacterCount
	case k.missingSeq == 0:
		k.missingSeq = seq
	}
}

// firstCredits is what the key's counter showed when the key became current: nothing for a key that this policy made for it.
func firstCredits(e *ledger.Entry, key elevenlabs.Key) int64 {
	history := e.Rotations()
	if n := len(history); n > 0 && history[n-1].KeyID == key.ID && history[n-1].Reason != ledger.TriggerRollback && e.Current.Rotation != "" && history[n-1].By != ledger.ByAdopt {
		return 0
	}
	return key.CharacterCount
}

func appliedDigest(e *ledger.Entry) string {
	if e.Applied == nil {
		return ""
	}
	return e.Applied.Digest
}

// listedSinceLocked reports whether the key's workspace was listed by a listing that began after the given time.
func (r *Rotator) listedSinceLocked(ref ledger.KeyRef, since time.Time) bool {
	ws := r.workspaces[ref.Workspace]
	return ws != nil && ws.listing != nil && ws.listing.begun.After(since)
}

// listedKeyLocked returns the key as its workspace's last listing shows it, and that listing's number.
func (r *Rotator) listedKeyLocked(ref ledger.KeyRef) (key elevenlabs.Key, seq int, listed bool) {
	ws := r.workspaces[ref.Workspace]
	if ws == nil || ws.listing == nil {
		return elevenlabs.Key{}, 0, false
	}
	for _, k := range ws.listing.accounts[ref.Account] {
		if k.ID == ref.ID {
			return k, ws.listing.seq, true
		}
	}
	return elevenlabs.Key{}, ws.listing.seq, false
}

// observed is the observation as far as it is known. It reads and changes nothing.
func (r *Rotator) observed(st *policyState, p plan.Policy, ws *workspace) plan.Observed {
	k := &st.known
	o := plan.Observed{LedgerError: k.ledgerError, Entry: k.entry, Record: k.record, RetryAt: k.retryAt, PatchAfter: k.patchAfter, MaxRotations: r.opt.MaxRotationsPerHour,
		Pacing: k.pace.pacing(r.opt.Wall())}
	if c := ledger.ClaimOf(k.entry); c != nil {
		o.ClaimOurs = c.Holder == r.holder
		o.ClaimExpired = !o.ClaimOurs && time.Since(k.claimSince) >= c.Lasts(r.opt.ClaimTTL)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.request != nil && !st.request.Fulfilled(k.entry) {
		o.Request = st.request
	}
	o.Owner = r.owner
	o.Rotations, o.Uncounted = ws.rotationsLocked(r.opt.Wall(), p.Name), r.running && ws.uncounted > 0
	o.RoomAt = ws.oldest.Add(time.Hour)
	o.Skew, o.ClockUnknown = r.wrongClockLocked(ws.api), ws.listing == nil
	o.AdminRefused = errors.Is(ws.err, elevenlabs.ErrInvalidKey)
	o.OthersDue, o.Answers = p.AdminOf != "" && r.othersDueLocked(p) || r.yieldsTurnLocked(p, k.entry), ws.healthySince
	if ws.err == nil && ws.listing != nil {
		o.Listed = true
		_, o.Found = ws.listing.accounts[p.ServiceAccount]
	}
	r.addKeysLocked(&o, p)
	o.Elsewhere = r.elsewhereLocked(p, k)
	if k.entry != nil {
		r.addCurrentLocked(&o, p, k)
		r.addUsageLocked(&o, k)
	}
	r.addEnabledLocked(&o, k)
	return o
}

// addCurrentLocked says whether the current key is listed, and whether another replica changed its settings or place after this
// process loaded the policy: then the two have different policy files.
func (r *Rotator) addCurrentLocked(o *plan.Observed, p plan.Policy, k *knowledge) {
	applied := appliedDigest(k.entry)
	o.Differs = k.digestKnown && applied != k.digest && applied != p.Settings.Digest()
	c := k.entry.Current
	if c == nil {
		return
	}
	o.Displaced = c.ID == k.movedAway
	if !r.listedSinceLocked(*c, k.currentSince) {
		return
	}
	o.HomeListed, o.Used = true, k.used
	if _, seq, listed := r.listedKeyLocked(*c); !listed {
		o.MissingTwice, o.Proof = k.missingSeq != 0 && seq > k.missingSeq, k.proof
	}
}

// addUsageLocked says which keys in overlap are in use: their counter moved within the last two listings of their workspace. A
// key that this process has not watched for that long is neither in use nor idle: another replica may have seen it move.
func (r *Rotator) addUsageLocked(o *plan.Observed, k *knowledge) {
	for _, old := range k.entry.Retiring {
		u, known := k.usage[old.ID]
		_, seq, listed := r.listedKeyLocked(old.KeyRef)
		switch {
		case !known || !listed || old.State != ledger.InOverlap:
		case u.moved != 0 && seq-u.moved < 2:
			o.InUse = append(o.InUse, old.ID)
		case seq-u.since >= 2:
			o.Idle = append(o.Idle, old.ID)
		}
	}
}

// addEnabledLocked says which keys in quarantine are enabled. It ignores a listing that began before the key was known to be in
// quarantine: that may show the key as it was in overlap.
func (r *Rotator) addEnabledLocked(o *plan.Observed, k *knowledge) {
	for id, since := range k.quarantined {
		key, listed := o.Key(id)
		if listed && !key.Disabled && r.workspaces[key.Workspace].listing.begun.After(since) {
			o.Enabled = append(o.Enabled, id)
		}
	}
}

// unlisted reports whether a listing that began after the given wall time lacks the keys of an abandoned rotation.
func (r *Rotator) unlisted(a ledger.Abandoned, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := r.workspaces[a.Workspace]
	if ws == nil || ws.listing == nil || !r.opt.Wall().Add(-time.Since(ws.listing.begun)).After(since) {
		return false
	}
	_, policy, _, _ := ledger.ParseKeyName(a.KeyName)
	return !slices.ContainsFunc(ws.listing.owned[policy], func(k elevenlabs.Key) bool {
		_, _, rotation, _ := ledger.ParseKeyName(k.Name)
		return a.Is(k.ID, rotation)
	})
}

// manyKeys is more keys than an account usually has. A listing may hold 130,000, too many to compare in pairs.
const manyKeys = 64

// addKeysLocked collects the listed keys that concern a policy: those of its account, those of the accounts of its current and
// retiring keys, and all that carry its name.
func (r *Rotator) addKeysLocked(o *plan.Observed, p plan.Policy) {
	var seen map[string]bool // the ids in o.Keys, once there are too many to scan
	add := func(ws *workspace, keys []elevenlabs.Key) {
		if o.Keys == nil {
			o.Keys = make([]plan.ListedKey, 0, len(keys)) // later calls mostly repeat the same keys
		}
		for _, key := range keys {
			if seen == nil && len(o.Keys) >= manyKeys {
				seen = make(map[string]bool, len(keys))
				for _, k := range o.Keys {
					seen[k.ID] = true
				}
			}
			known := seen[key.ID]
			if seen == nil {
				_, known = o.Key(key.ID)
			}
			if known {
				continue
			}
			o.Keys = append(o.Keys, plan.ListedKey{Workspace: ws.name, Key: key})
			if seen != nil {
				seen[key.ID] = true
			}
		}
	}
	account := func(workspace, account string) {
		if ws := r.workspaces[workspace]; ws != nil && ws.listing != nil {
			add(ws, ws.listing.accounts[account])
		}
	}
	account(p.Workspace, p.ServiceAccount)
	if e := o.Entry; e != nil {
		if e.Current != nil {
			account(e.Current.Workspace, e.Current.Account)
		}
		for _, c := range e.Retiring {
			account(c.Workspace, c.Account)
		}
	}
	for _, ws := range r.sortedWorkspaces {
		if l := ws.listing; l != nil && (l.strays || ws.name == p.Workspace) {
			add(ws, l.owned[p.Name])
		}
	}
}

func (ws *workspace) seq(r *Rotator) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ws.listing == nil {
		return 0
	}
	return ws.listing.seq
}
