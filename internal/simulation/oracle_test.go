package simulation_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// oracle checks SPEC section 9. It knows keys, records and the policies, and nothing of how the rotator works.
type oracle struct {
	w         *world
	keys      map[string]*life // by key id
	records   map[string]*record
	calmSince time.Time
	ended     bool
	restored  bool            // Vault forgot some of what happened
	forgot    time.Time       // … and when
	corrupt   map[string]bool // ledger entries that nobody can read
	bad       []string
	named     map[string]map[string]bool // the keys in each ledger entry
	calls     map[cost]int
	proven    map[string]string // the proof in each rotation of the histories
}

// life is what happened to one key.
type life struct {
	elevensim.Key
	policy    string
	ours      bool
	published time.Time
	replaced  time.Time
	promised  time.Time // until when readers were told that it works
	disabled  time.Time
	touched   bool        // others did something to it
	version   int         // of its record when it was made
	hidden    bool        // versions of its record since cannot be read, so that nobody can tell whether it was published
	revoked   bool        // an operator wanted it dead
	pruned    bool        // an operator gave it up
	condemned bool        // a process found it and sent a delete, which may not arrive
	orphan    bool        // made in a time that Vault has forgotten
	ahead     bool        // its replacement may not have waited for its group
	leaving   time.Time   // when the ledger first said that it is in overlap
	listed    bool        // it was seen to be good for an admin key
	used      []time.Time // with costs, while it was an old key
	lateOff   time.Time   // when a disable was carried out long after it was decided on
	late      bool        // its create was carried out long after it was decided on
	broken    time.Time   // when others disabled or deleted it
	space     string      // the workspace and account where it lives
	account   string
	settings  []had
	freed     bool // a person enabled it, and nothing of ours has disabled it since
	mistimed  bool // a process whose clock was wrong wrote when its overlap or quarantine ends
	witnessed
}

// record is what readers find.
type record struct {
	policy    plan.Policy
	key       *life
	at        time.Time
	said      time.Time // its rotated_at, by the clock of the replica that wrote it
	asked     bool      // an operator asked for another key
	revoking  bool      // … and for the older ones to die
	removed   bool      // its policy is no longer loaded
	pruned    bool      // … and its keys were given up
	noted     bool      // others wrote a field of their own beside ours
	foreign   bool      // holds a value that others wrote
	strange   string    // … and which
	touched   time.Time
	rolled    bool // others put an older version back, and the ledger may not say so yet
	version   int
	intent    string                // the rotation that the ledger says is under way
	begun     time.Time             // … and since when
	path      string                // where the newest key was published
	held      map[string]*life      // … and what each place holds
	rotations map[time.Duration]int // in each hour
	readded   bool                  // its policy was removed and added again
	mistimed  bool                  // a process whose clock was wrong wrote when it was rotated
	line      []publication
}

// keptVersions is how many versions of a record Vault keeps.
const keptVersions = 10

func newOracle(w *world) *oracle {
	o := &oracle{w: w, keys: map[string]*life{}, corrupt: map[string]bool{}, named: map[string]map[string]bool{}, calls: map[cost]int{}, proven: map[string]string{}, records: map[string]*record{}}
	for _, p := range w.policies {
		o.records[p.Sink.String()] = newRecord(p)
	}
	for name, sim := range w.sims() {
		sim.OnChange(func(c elevensim.Change) { o.changed(name, c) })
	}
	w.kv.OnWrite = o.written
	return o
}

func (o *oracle) violated(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	o.w.tracef("VIOLATION %s", s)
	o.bad = append(o.bad, s)
}

// changed is told of every change of a key.
func (o *oracle) changed(workspace string, c elevensim.Change) {
	k := o.keys[c.Key.ID]
	if k == nil {
		k = &life{ours: strings.HasPrefix(c.Key.Name, "rekeyd."), policy: policyOf(c.Key.Name), space: workspace, account: o.w.accountOf()}
		o.keys[c.Key.ID] = k
	}
	before := k.Key
	o.checkWorkspace(workspace, c, k)
	k.Key = c.Key
	k.remember()
	byUs := c.By != elevensim.ByManagement
	o.w.tracef("key %s (%s): %s by %s", short(k.ID), k.Name, c.Kind, c.By)
	if !byUs {
		k.touched, k.freed = true, c.Kind == elevensim.Enabled
		if c.Kind == elevensim.Disabled || c.Kind == elevensim.Deleted {
			k.broken = time.Now()
		}
		if c.Kind == elevensim.Disabled && k.disabled.IsZero() {
			k.disabled = time.Now()
		}
		return
	}
	if c.Kind == elevensim.Patched && o.hasLimit(before.CharacterLimit) && !o.hasLimit(k.CharacterLimit) {
		o.violated("a replica with the old policy file patched key %s back", short(k.ID))
	}
	switch c.Kind {
	case elevensim.Patched:
		o.left(k, before)
	case elevensim.Created:
		o.carried(k)
		o.created(k)
		o.w.pounce(k.policy)
	case elevensim.Disabled, elevensim.Deleted:
		o.retired(k, c.Kind)
	case elevensim.Enabled:
		o.enabled(k)
	}
	if c.Kind == elevensim.Disabled {
		if k.freed && !k.revoked && !o.belated() && !o.restored && o.stateOf(k) == "quarantine" && !o.noted(k, "enable") {
			o.violated("key %s, which a person enabled in quarantine, was disabled again", short(k.ID))
		}
		if k.freed = false; k.disabled.IsZero() {
			k.disabled = time.Now()
		}
		if o.belated() {
			k.lateOff = time.Now()
		}
	}
}

// adopt makes a person's key one of a policy's.
func (o *oracle) adopt(p plan.Policy, k *life) {
	k.ours, k.policy, k.published = true, p.Name, time.Now()
	k.remember()
	r := o.at(p.Sink.String())
	r.key, r.at, r.said, r.held[r.path] = k, time.Now(), time.Now(), k
}

// hasLimit reports whether a key's limit is that of the edited policies.
func (o *oracle) hasLimit(limit *int64) bool {
	return o.w.limit != nil && limit != nil && *limit == *o.w.limit
}

// created checks that no create is repeated blindly.
func (o *oracle) created(k *life) {
	if g := o.w.actor; g != nil {
		k.late = o.belated()
	}
	r := o.byName(k.policy)
	if r != nil {
		k.version = r.version
		if data, _ := o.w.kv.Get(r.policy.Sink.String(), 0); k.late && data == nil && k.version > 0 {
			k.hidden, k.replaced = true, time.Now() // the record was deleted before this create arrived
		}
	}
	if r != nil && r.asked {
		return // an operator does not wait for the backoff; what was settled may still have to be deleted
	}
	for _, other := range o.keys {
		if other == k || other.policy != k.policy || other.Deleted() || !other.published.IsZero() || other.late || k.late || other.touched {
			continue
		}
		patience := verifyTimeout
		if o.w.profile.budget > 0 {
			patience /= 2 // others wait from when they saw its claim, and a create may have waited for the budget since
		}
		if age := time.Since(other.CreatedAt); age < patience && !other.condemned {
			o.violated("invariant 3: key %s was created %s after key %s of the same policy, whose fate was not settled", short(k.ID), age, short(other.ID))
		}
	}
}

// retired checks that nothing that readers use, or were promised, is taken from them, and that nothing foreign is touched.
func (o *oracle) retired(k *life, what elevensim.ChangeKind) {
	if k.orphan {
		o.violated("invariant 2: key %s, of which the ledger knows nothing: %s", short(k.ID), what)
	}
	if o.restored && what == elevensim.Deleted && len(k.used) > 0 && (!k.anew || k.spared) && k.disabled.IsZero() && !k.pruned {
		o.violated("key %s, which was in use, was deleted though Vault had forgotten its rotation", short(k.ID))
	}
	if !k.ours {
		o.violated("invariant 6: foreign key %s: %s", short(k.ID), what)
	}
	for path, r := range o.records {
		switch {
		case r.key != k || r.foreign || r.pruned && r.removed:
		case what == elevensim.Disabled && (o.belated() || time.Since(r.at) < time.Minute):
			o.expectUndone(r, k)
			return
		case what == elevensim.Deleted && o.belated() && !k.disabled.IsZero() && k.disabled.Before(o.forgot): // dead before the restore, and its delete on its way
		case what == elevensim.Deleted && r.rolled && time.Since(r.at) < time.Minute: // put back while its delete was on its way
			k.touched = true
		default:
			o.violated("invariant 1: key %s in %s: %s", short(k.ID), path, what)
		}
	}
	if k.published.IsZero() {
		return
	}
	r := o.byName(k.policy)
	if k.pruned || r.pruned && (r.removed || r.readded) || what == elevensim.Disabled && o.belated() {
		return
	}
	k.revoked = k.revoked || r.revoking
	full := what == elevensim.Deleted && !k.disabled.IsZero() && o.w.profile.keyLimit > 0 // the new key needs the place
	if cur := r.key; cur != nil && !r.foreign && !full && (cur.Disabled || cur.Deleted()) && (!cur.touched || time.Since(cur.broken) > time.Minute && cur.broken.After(cur.published) && !o.belated() && !o.restored) {
		o.violated("invariant 1: key %s: %s, although the current key %s does not work", short(k.ID), what, short(cur.ID))
	}
	// Clocks differ between replicas, so what was promised by one may seem over to another.
	slack := 2 * o.w.profile.skew
	if what == elevensim.Disabled && time.Now().Before(k.promised.Add(-slack-time.Second)) && !k.touched && !k.revoked && !k.mistimed {
		o.violated("key %s was disabled %s before the end that readers were told", short(k.ID), time.Until(k.promised))
	}
	if what == elevensim.Disabled {
		o.cutShort(k, r)
		o.unproven(k, r)
	}
	if quarantine := r.policy.Quarantine; what == elevensim.Deleted && !k.disabled.IsZero() && time.Since(k.disabled) < quarantine-slack-time.Second && !k.touched && !k.mistimed && o.w.profile.keyLimit == 0 {
		o.violated("key %s was deleted %s after it was disabled, the quarantine is %s", short(k.ID), time.Since(k.disabled), quarantine)
	}
	if what == elevensim.Deleted && k.disabled.IsZero() && !k.touched {
		o.violated("key %s was published, and deleted without a quarantine", short(k.ID))
	}
}

// written is told of each document written through the API.
func (o *oracle) written(path string, version int, data map[string]any) {
	if o.corrupt[path] {
		o.violated("%s cannot be read and was overwritten", path)
	}
	if policy, found := strings.CutPrefix(path, ledgerPrefix+"policies/"); found {
		o.entered(policy, data)
	}
	r := o.at(path)
	if r == nil {
		return
	}
	if path == r.path {
		r.version = version
	}
	o.clocked(r)
	o.hide(r.policy, version-keptVersions/2) // a replica may not know of the newest ones before the key
	if r.noted && path == r.path && data["note"] != foreignNote {
		o.violated("invariant 6: a field of others changed in %s", path)
	}
	secret, _ := data["api_key"].(string)
	k := o.bySecret(secret)
	switch {
	case secret == "" && r.key != nil && r.touched.IsZero() && path == r.path:
		o.violated("invariant 1: the secret was taken out of %s", path)
	case secret == "":
		return
	case k == nil && !r.foreign:
		o.violated("%s was given a value that is no key's", path)
		return
	case k == nil || k == r.held[path] || r.foreign && secret == r.strange:
		return // rewritten as it was
	}
	if data["key_id"] != k.ID {
		o.violated("%s says key_id %v for key %s", path, data["key_id"], short(k.ID))
	}
	r.held[path], k.orphan = k, false // the ledger learns of it from the record
	if path != r.path {
		o.w.tracef("policy %s moved to %s", r.policy.Name, path)
		r.path, r.asked, r.noted, r.version = path, true, data["note"] == foreignNote, version
	}
	o.published(r, k, path, data)
	o.w.tracef("%s version %d publishes key %s", path, version, short(k.ID))
}

func (o *oracle) published(r *record, k *life, path string, data map[string]any) {
	now := time.Now()
	if k.Disabled && !k.Deleted() && !r.begun.IsZero() && k.lateOff.After(r.begun) {
		o.expectUndone(r, k) // by a call that arrived since its rollback began
	} else if (k.Disabled || k.Deleted()) && !k.touched {
		o.violated("invariant 1: %s was given key %s, which is disabled or deleted", path, short(k.ID))
	}
	if now.Before(k.UsableAt) {
		o.violated("invariant 1: %s was given key %s before it works", path, short(k.ID))
	}
	if a := o.w.admin; a != nil && base(r.policy.Name) == a.Name && !k.listed {
		o.violated("%s was given admin key %s, which was never seen to list", path, short(k.ID))
	}
	o.together(r)
	if r.foreign && !k.CreatedAt.Before(o.forgot) { // after a restore a version number may mean another version
		o.violated("%s held a value of others and was overwritten", path)
	}
	fromBefore := o.belated() && k.CreatedAt.Before(o.forgot) // so it may for a late write
	if !k.published.IsZero() && !r.asked && !fromBefore {
		o.violated("key %s was published a second time", short(k.ID))
	}
	if old := r.key; old != nil && !old.touched && r.touched.IsZero() && !r.asked && !r.mistimed {
		skew := 2*o.w.profile.skew + time.Minute
		if due := r.policy.Schedule.Next(r.said.Add(-skew)).Add(o.splay(r.policy)); due.After(now.Add(skew)) {
			o.violated("invariant 5: %s was rotated %s after its last rotation, it was due in %s", path, now.Sub(r.at), due.Sub(now))
		}
	}
	r.said, _ = time.Parse(time.RFC3339, text(data["rotated_at"])) // zero is never due
	if r.key != nil {
		r.key.replaced = now
		if t, err := time.Parse(time.RFC3339, text(data["previous_valid_until"])); err == nil && data["previous_key_id"] == r.key.ID {
			r.key.promised = t
		}
		end := r.said.Add(r.policy.Overlap)
		if byAge := r.key.CreatedAt.Add(r.policy.MaxAge - 2*o.w.profile.skew - time.Minute); r.policy.MaxAge > 0 && byAge.Before(end) {
			end = byAge
		}
		if r.key.promised.Before(end) && !r.key.touched && !r.key.hidden && !r.key.Disabled && !o.restored && !r.revoking && !r.mistimed {
			o.violated("readers of key %s were promised it until %s only, its overlap ends %s", short(r.key.ID), r.key.promised, end)
		}
	}
	r.mistimed = o.clockIsWrong()
	o.probed(r, k)
	o.publishedAfter(r, k)
	k.published, k.replaced, k.promised, k.disabled = now, time.Time{}, time.Time{}, time.Time{}
	r.rotations[now.Sub(o.w.started).Truncate(time.Hour)]++
	o.w.askSoon(r)
	r.key, r.at, r.touched, r.rolled = k, now, time.Time{}, false
}

func (o *oracle) bySecret(secret string) *life {
	for _, k := range o.keys {
		if secret != "" && k.Secret == secret {
			return k
		}
	}
	return nil
}

// forget follows Vault into the past: records are as they were then, and the keys made since are nobody's.
// A replica that goes on without a restart still knows some of them, and may retire them on that evidence.
func (o *oracle) forget(at time.Time, restarted bool) {
	o.restored, o.forgot = true, time.Now()
	for _, k := range o.keys {
		k.touched = true // what was promised and noted about it may be forgotten
		// A rotation that was under way at that time is known to the ledger.
		k.orphan = k.orphan || (restarted && k.CreatedAt.After(at.Add(20*time.Minute)))
	}
	for _, r := range o.records {
		data, _ := o.w.kv.Get(r.path, 0)
		secret := text(data["api_key"])
		r.held[r.path] = o.bySecret(secret)
		r.key, r.touched, r.noted = o.bySecret(secret), time.Now(), data["note"] != nil
		r.foreign = secret != "" && r.key == nil // the snapshot was taken while others held the record
	}
}

// hide lets a key that was not published pass for one that was, where versions of its record up to the given one cannot
// be read any more: it may be kept for an overlap and a quarantine.
func (o *oracle) hide(p plan.Policy, gone int) {
	for _, k := range o.keys {
		if k.policy == base(p.Name) && k.version < gone && k.published.IsZero() && !k.Deleted() && !k.hidden {
			k.hidden, k.replaced = true, time.Now()
		}
	}
}

// settled checks invariant 2's bound: no key whose secret nobody holds is left.
func (o *oracle) settled() {
	if o.restored {
		return // Vault may have forgotten a rotation in its middle
	}
	for _, k := range o.keys {
		if k.hidden && k.published.IsZero() {
			k.replaced = time.Now() // its overlap may begin only when somebody could settle its rotation
		}
		if k.ours && !k.Deleted() && k.published.IsZero() && !k.hidden && !o.leftAlone(k) && !o.shut(o.byName(k.policy)) && k.CreatedAt.Before(o.calmSince) {
			o.violated("invariant 2: key %s (%s), created %s before the calm, is still there and was never published", short(k.ID), k.Name, o.calmSince.Sub(k.CreatedAt))
		}
	}
}

// conclude checks that, given time, everything is in order.
func (o *oracle) conclude() {
	now := time.Now()
	for path, r := range o.records {
		k := r.key
		switch {
		case o.shut(r): // its mount is still refused
			continue
		case r.foreign, o.restored, r.removed, r.readded:
			continue // a person has to decide, or has decided
		case k == nil:
			o.violated("%s was never written", path)
		case k.Deleted() || k.Disabled:
			o.violated("%s holds key %s, which does not work", path, short(k.ID))
		case !r.touched.IsZero() && r.touched.Before(o.calmSince):
			o.violated("%s was deleted by others and not written again", path)
		case r.policy.AdminOf != "" && r.policy.Group != "" && o.w.limit != nil && !o.hasLimit(k.CharacterLimit):
			o.w.hits["admin key × waits for a busy group"]++ // its drift is rotated, and a group can be busy until max_age
		case o.w.limit != nil && !o.hasLimit(k.CharacterLimit):
			o.violated("key %s does not have the edited settings", short(k.ID))
		case optionalOf(k.Key) != r.policy.Settings.Or(optionalOf(k.Key)):
			o.violated("key %s does not have the settings that its policy manages: %v", short(k.ID), optionalOf(k.Key).Texts())
		case k.Permissions == nil:
			o.violated("key %s still has settings that others gave it", short(k.ID))
		case now.Sub(r.at) > longestGap(r.policy)+2*time.Hour+o.turn(r.policy) && !o.othersHadTheirTurn(r.policy):
			o.violated("%s was not rotated for %s", path, now.Sub(r.at))
		}
	}
	o.told()
	for _, k := range o.keys {
		if !k.ours || k.Deleted() || o.restored {
			continue
		}
		o.checkQuarantine(k)
		r := o.byName(k.policy)
		if o.shut(r) {
			continue
		}
		switch {
		case r.key == k, now.Sub(k.CreatedAt) < 2*time.Minute:
		case k.published.IsZero() && now.Sub(k.CreatedAt) < claimTTL+2*reconcile: // invariant 2 gives it so long
		case r.foreign: // a person has to decide, and until then nothing is taken away
		case r.removed && !r.touched.IsZero(): // its record is empty, and no rotation fills it: nothing more is taken away
		case r.removed && r.key != nil && (r.key.Deleted() || r.key.Disabled): // likewise: others took its key, and no rotation replaces that
		case r.readded && r.key != nil && r.key.Deleted() && o.w.deviant(): // no answer of this ElevenLabs proves that it is gone: a person has to decide
		case o.leftAlone(k): // shown as lost
		case k.published.IsZero() && len(k.used) > 0: // given up, and in use all the same: shown as lost
		case k.freed && !k.replaced.IsZero(): // in quarantine it is shown, and stays as that person wants it
		case k.published.IsZero() && !k.hidden:
			o.violated("invariant 2: key %s (%s) was never published and is still there", short(k.ID), k.Name)
		case now.Sub(later(k.replaced, k.leaving)) > r.policy.Overlap+r.policy.LongestWait()+r.policy.Quarantine+3*time.Hour:
			o.violated("invariant 2: key %s was replaced %s ago and is still there", short(k.ID), now.Sub(k.replaced))
		case o.tooOld(k, r):
			o.violated("key %s of policy %s is %s old and still works", short(k.ID), k.policy, now.Sub(k.CreatedAt))
		case !k.Disabled && now.Sub(later(k.replaced, k.leaving)) > r.policy.Overlap+r.policy.LongestWait()+90*time.Minute:
			o.violated("invariant 9: key %s was replaced %s ago and still works", short(k.ID), now.Sub(k.replaced))
		}
	}
}

// later is when a key began to leave: where nothing could say for hours whether its replacement was published, the ledger
// knows that only then.
func later(replaced, leaving time.Time) time.Time {
	if leaving.After(replaced) {
		return leaving
	}
	return replaced
}

func longestGap(p plan.Policy) time.Duration {
	if d, ok := p.Schedule.Every(); ok {
		return d + p.Splay
	}
	_, longest := p.Schedule.Gaps()
	return longest + p.Splay
}

func policyOf(name string) string {
	p := strings.Split(name, ".")
	if len(p) == 4 {
		return base(p[2])
	}
	return ""
}

func text(v any) string { s, _ := v.(string); return s }

func short(id string) string { return id[:min(8, len(id))] }
