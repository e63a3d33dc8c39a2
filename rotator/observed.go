package rotator

import (
	"errors"
	"maps"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// observed is the observation as far as it is known. It reads and changes nothing.
func (r *Rotator) observed(st *policyState, p plan.Policy, ws *workspace) plan.Observed {
	k := &st.known
	x := k.unusual()
	o := plan.Observed{LedgerError: x.ledgerError, Entry: k.entry, Record: k.record, RetryAt: x.retryAt, PatchAfter: x.patchAfter, MaxRotations: r.opt.MaxRotationsPerHour,
		Pacing: k.pace.pacing(r.opt.Wall())}
	if c := ledger.ClaimOf(k.entry); c != nil {
		o.ClaimOurs = c.Holder == r.holder
		o.ClaimExpired = !o.ClaimOurs && time.Since(x.claimSince) >= c.Lasts(r.opt.ClaimTTL)
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
	o.Displaced = c.ID == k.unusual().movedAway
	if !r.listedSinceLocked(*c, k.currentSince) {
		return
	}
	o.HomeListed, o.Used = true, k.used
	if _, seq, listed := r.listedKeyLocked(*c); !listed {
		missing := k.unusual().missingSeq
		o.MissingTwice, o.Proof = missing != 0 && seq > missing, k.proof
	}
}

// addUsageLocked says which keys in overlap are in use: their counter moved within the last two listings of their workspace. A
// key that this process has not watched for that long is neither in use nor idle: another replica may have seen it move.
func (r *Rotator) addUsageLocked(o *plan.Observed, k *knowledge) {
	for _, old := range k.entry.Retiring {
		u, known := k.unusual().usage[old.ID]
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
	for id, since := range k.unusual().quarantined {
		key, listed := o.Key(id)
		if listed && !key.Disabled && r.workspaces[key.Workspace].listing.begun.After(since) {
			o.Enabled = append(o.Enabled, id)
		}
	}
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
		for i := range keys {
			key := &keys[i]
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

// absorbUsageLocked follows the usage counters of the keys in overlap.
func (r *Rotator) absorbUsageLocked(k *knowledge) {
	if k.entry == nil || len(k.entry.Retiring) == 0 {
		if k.rare != nil {
			k.rare.usage = nil
		}
		return
	}
	x := k.note()
	if x.usage == nil {
		x.usage = map[string]usage{}
	}
	for _, old := range k.entry.Retiring {
		key, seq, listed := r.listedKeyLocked(old.KeyRef)
		u, known := x.usage[old.ID]
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
		x.usage[old.ID] = u
	}
}

// absorbCurrentLocked notes since which listing the current key is missing, and whether it was seen in use. A listing that began
// before this process saw the key as current does not count.
func (r *Rotator) absorbCurrentLocked(k *knowledge) {
	if k.entry == nil || k.entry.Current == nil || !r.listedSinceLocked(*k.entry.Current, k.currentSince) {
		return
	}
	key, seq, listed := r.listedKeyLocked(*k.entry.Current)
	if x := k.rare; x != nil {
		x.changedSince = time.Time{}
		if listed {
			x.missingSeq = 0
		}
	}
	switch {
	case listed:
		k.proof = elevenlabs.Unprobed
		if k.credits == unknownCredits {
			k.credits = firstCredits(k.entry, key)
		}
		k.used = k.used || key.CharacterCount > k.credits // a smaller value is a new billing period
		k.credits = key.CharacterCount
	case k.unusual().missingSeq == 0:
		k.note().missingSeq = seq
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

// yieldsTurnLocked reports whether another member of the group is due as well and goes first: its last rotation is older, and
// it has a window that it would miss again because of this policy's overlap.
func (r *Rotator) yieldsTurnLocked(p plan.Policy, e *ledger.Entry) bool {
	if p.Group == "" || e == nil || e.Current == nil {
		return false
	}
	now := r.opt.Wall()
	if due, _ := plan.NextDue(p, e); due.IsZero() || due.After(now) {
		return false
	}
	for _, st := range r.policies {
		l := st.last
		if st.policy.Group == p.Group && st.policy.Window > 0 && ledger.CurrentID(l.entry) != "" && l.rotated().Before(e.LastRotation) && !l.failed &&
			(l.decision.State == plan.StateOK || l.decision.State == plan.StateDue) && l.due(now) {
			return true
		}
	}
	return false
}

// othersDueLocked reports whether another policy of the admin key's workspace is about to rotate, or may be.
func (r *Rotator) othersDueLocked(p plan.Policy) bool {
	for _, st := range r.policies {
		if st.policy.Workspace != p.AdminOf || st.policy.AdminOf != "" || st.policy.Mode == plan.ModePaused {
			continue
		}
		d := st.last.decision
		expired := d.State == plan.StateOK && st.last.due(r.opt.Wall()) // it became due since the last look
		unseen := d.Reason == plan.WaitNotObserved                      // the last look was before the first listing
		if !st.last.planned || expired || unseen || d.State == plan.StateRotating || d.Rotates() {
			return true
		}
	}
	return false
}

// elsewhereLocked returns the keys that the policy could take for its own but that belong to other policies, either loaded here
// or named by a reservation in the ledger.
func (r *Rotator) elsewhereLocked(p plan.Policy, k *knowledge) map[string]string {
	v := k.record
	if v == nil || v.Match != "" || (!v.HasValue && p.Adopt == "") {
		return nil // the owner matters only for a value that this policy's entry does not explain
	}
	owners := maps.Clone(k.unusual().elsewhere)
	note := func(ref ledger.KeyRef, policy string) {
		if ref.Workspace == p.Workspace && ref.Account == p.ServiceAccount || ref.ID == v.KeyID || ref.ID == p.Adopt {
			if owners == nil {
				owners = map[string]string{}
			}
			owners[ref.ID] = policy
		}
	}
	for _, states := range []map[string]*policyState{r.policies, r.removed} {
		for name, st := range states {
			e := st.last.entry
			if name == p.Name || e == nil || e.MovedTo != "" {
				continue
			}
			if e.Current != nil {
				note(*e.Current, name)
			}
			for _, old := range e.Retiring {
				note(old.KeyRef, name)
			}
		}
	}
	return owners
}
