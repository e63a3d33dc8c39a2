package simulation_test

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator/plan"
)

// foreignNote is a field that another team keeps in our record.
const foreignNote = "of another team"

// meddlings is what others do to our keys and records.
func meddlings() []string {
	return []string{"leak", "delete key", "soft-delete record", "remove field", "person disables and enables", "drift", "foreign field", "foreign key", "overwrite and restore",
		"edit policy", "corrupt ledger", "restore Vault",
		"rotate", "rotate --revoke-now", "rollback", "prune", "remove policy", "vault kv rollback", "corrupt group",
		"request", "request --revoke-now", "enable quarantined key", "copy record", "rename policy", "move sink", "move account", "move workspace", "mode manual", "mode paused"}
}

func (w *world) meddleOrLurk(what string) {
	if w.profile.pounce {
		w.lurking = append(w.lurking, what)
		return
	}
	w.meddle(what, w.policies[w.rng.IntN(len(w.policies))])
}

// pounce lets others strike a policy whose key has just been created: between the look at the record and its
// replacement, which is a moment that they would hardly ever hit by chance.
func (w *world) pounce(policy string) {
	i := slices.IndexFunc(w.policies, func(p plan.Policy) bool { return base(p.Name) == policy })
	if len(w.lurking) == 0 || i < 0 || w.calm {
		return
	}
	what := w.lurking[0]
	w.lurking = w.lurking[1:]
	w.hits["others × in mid-rotation"]++
	w.later(time.Duration(w.rng.Int64N(int64(2*w.profile.latency))), func() { w.meddle(what, w.policies[min(i, len(w.policies)-1)]) })
}

// bury lets others delete a record whose writer has just died: whoever takes its rotation over cannot see what it wrote.
func (w *world) bury(path string) {
	i := slices.IndexFunc(w.policies, func(p plan.Policy) bool { return strings.HasSuffix(path, p.Sink.Path) })
	if len(w.lurking) == 0 || i < 0 || w.calm {
		return
	}
	w.lurking = w.lurking[1:]
	w.hits["others × after a death in mid-rotation"]++
	w.later(time.Duration(w.rng.Int64N(int64(2*w.profile.latency))), func() { w.meddle("soft-delete record", w.policies[min(i, len(w.policies)-1)]) })
}

func (w *world) meddle(what string, p plan.Policy) {
	if p.AdminOf != "" && !bearable(what) {
		p = w.policies[0]
	}
	path := p.Sink.String()
	r := w.oracle.at(path)
	if r.path != path && what != "rename policy" {
		return // it is moving
	}
	if r.key == nil || r.foreign {
		return // one at a time
	}
	if r.rolled && !w.current(p, r.key) && (what == "leak" || what == "delete key" || what == "person disables and enables") {
		return // with a record that was rolled back to a dead key a person has to decide what to do
	}
	w.tracef("others: %s (%s)", what, p.Name)
	w.hits["others × "+what]++
	var err error
	switch k := r.key; what {
	case "leak":
		err = w.at(k).DisableKey(k.ID, "exposed_publicly")
	case "delete key":
		err = w.at(k).DeleteKey(k.ID)
	case "soft-delete record":
		r.touched, r.noted = time.Now(), false
		if w.unsettled(p) {
			r.key.hidden = true // no record will tell its readers when it ends
			w.oracle.hide(p, math.MaxInt)
		}
		w.kv.SoftDelete(path)
	case "remove field":
		r.touched = time.Now()
		w.put(path, func(d map[string]any) { delete(d, "api_key") })
	case "person disables and enables":
		if err = w.at(k).DisableKey(k.ID, ""); err == nil {
			w.later(20*time.Minute, func() {
				w.must(w.at(k).EnableKey(k.ID))
			})
		}
	case "foreign field":
		w.put(path, func(d map[string]any) { d["note"] = foreignNote })
		r.noted = true
	case "drift":
		r.asked = r.asked || p.AdminOf != "" // its drift is rotated
		err = w.patchByHand(k, `"permissions":"all"`+limited(p))
	case "foreign key":
		_, _, err = w.home(p).AddKey(p.ServiceAccount, foreign(nil))
	case "overwrite and restore":
		w.overwrite(p, r)
	case "edit policy":
		w.editPolicies()
	case "corrupt ledger":
		w.corrupt(ledgerPrefix + "policies/" + p.Name)
	case "restore Vault":
		w.restoreVault()
	case "rotate":
		w.rotate(p, false)
	case "rotate --revoke-now":
		w.rotate(p, true)
	case "rollback":
		w.rollback(p)
	case "prune":
		w.prune()
	case "remove policy":
		w.removePolicy()
	case "vault kv rollback":
		w.kvRollback(p, r)
	case "corrupt group":
		w.corruptGroup(p, r)
	default:
		if !w.reorganise(what, p, r) {
			w.hits["others × "+what]--
		}
	}
	w.must(err)
}

// current reports that the ledger knows the key as the policy's current one.
func (w *world) current(p plan.Policy, k *life) bool {
	entry := w.entry(base(p.Name))
	c, _ := entry["current"].(map[string]any)
	return c["id"] == k.ID
}

// unsettled reports that a rotation of the policy has begun and is not committed.
func (w *world) unsettled(p plan.Policy) bool {
	return w.entry(base(p.Name))["intent"] != nil
}

// limited is another limit in place of one that the policy manages.
func limited(p plan.Policy) string {
	if !p.Settings.TTSConcurrency.Known {
		return ""
	}
	return `,"tts_concurrency_limit":99`
}

func (w *world) must(err error) {
	if err != nil {
		w.tracef("others could not: %v", err)
	}
}

// overwrite puts a value into the record that nobody knows, and takes it back after a while.
func (w *world) overwrite(p plan.Policy, r *record) {
	w.occupy(p, r, func(d map[string]any) { d["api_key"] = "by hand" })
}

func (w *world) occupy(p plan.Policy, r *record, change func(map[string]any)) bool {
	path := p.Sink.String()
	before, _ := w.kv.Get(path, 0)
	if before["api_key"] == nil {
		return false // deleted by others already
	}
	before = maps.Clone(before)
	r.foreign = true
	w.put(path, change)
	now, _ := w.kv.Get(path, 0)
	r.strange = text(now["api_key"])
	w.later(40*time.Minute, func() {
		if !r.foreign {
			return // Vault was restored meanwhile, and with it the record
		}
		r.foreign = false
		w.put(path, func(d map[string]any) { clear(d); maps.Copy(d, before) })
	})
	return true
}

func (w *world) put(path string, change func(map[string]any)) {
	data, _ := w.kv.Get(path, 0)
	data = maps.Clone(data)
	if data == nil {
		data = map[string]any{}
	}
	change(data)
	_, err := w.kv.Put(path, data)
	w.must(err)
}

// editPolicies gives every policy other settings. Each replica loads the new file at a time of its own.
func (w *world) editPolicies() {
	limit := int64(1000 + w.rng.IntN(1000))
	edited := slices.Clone(w.policies) // without what was removed
	for i := range edited {
		edited[i].Settings.CharacterLimit = &limit
	}
	w.policies = edited // for whoever boots from now on
	if w.admin != nil {
		w.oracle.records[w.admin.Sink.String()].asked = true // its drift is rotated
	}
	w.limit, w.edited = &limit, time.Now()
	w.reload()
}

// corrupt makes a ledger entry unreadable and puts it right again after a while. Nobody may write it meanwhile.
func (w *world) corrupt(path string) {
	before, _ := w.kv.Get(path, 0)
	if before == nil || before["claim"] != nil || len(w.oracle.corrupt) > 0 || w.snapshot {
		return
	}
	w.put(path, func(d map[string]any) { d["schema"] = "who knows" })
	w.oracle.corrupt[path] = true
	w.later(40*time.Minute, func() {
		delete(w.oracle.corrupt, path)
		_, err := w.kv.Put(path, before)
		w.must(err)
	})
}

// restoreVault takes a snapshot of Vault now and brings it back after a while: ledger and records forget what happened
// in between. What the keys of that time are for nobody knows any more.
func (w *world) restoreVault() {
	if w.snapshot || w.removed != nil || len(w.oracle.corrupt) > 0 || w.admin != nil {
		return // of the admin key only a version that is gone for good may be left, and a person is needed
	}
	w.snapshot = true
	if slices.ContainsFunc(w.policies, w.unsettled) {
		w.hits["others × snapshot in mid-rotation"]++
	}
	taken, at := w.kv.Snapshot(), time.Now()
	w.later(time.Duration(1+w.rng.IntN(6))*time.Hour, func() {
		if w.calm {
			return
		}
		w.tracef("Vault is restored to its state of %s", at.Sub(w.started))
		w.kv.Restore(taken)
		restarted := w.rng.IntN(2) == 0 // as an operator should
		for _, r := range w.replicas {
			if restarted && r.alive {
				w.kill(r.gate)
			}
		}
		w.oracle.forget(at, restarted)
	})
}

// kvRollback puts the version before the newest back, as a person does with Vault's own command, where its key still
// works. The key that was current goes through its overlap then.
func (w *world) kvRollback(p plan.Policy, r *record) {
	path := p.Sink.String()
	_, newest := w.kv.Get(path, 0)
	before, _ := w.kv.Get(path, newest-1)
	for v := newest - 2; len(w.profile.lags) > 0 && v > 0 && r.key != nil && text(before["api_key"]) == r.key.Secret; v-- {
		before, _ = w.kv.Get(path, v) // the record is written again before each disable
	}
	back := w.oracle.bySecret(text(before["api_key"]))
	if back == nil || back == r.key || back.Disabled || back.Deleted() {
		return
	}
	w.hits["others × a working key came back"]++
	_, err := w.kv.Put(path, before)
	w.must(err)
	r.key.replaced, r.key.touched, r.held[path] = time.Now(), true, back
	r.key, r.at, r.said, r.asked, r.noted, r.rolled = back, time.Now(), time.Now(), true, before["note"] != nil, true
	r.foreign = r.foreign || back.ours && base(back.policy) != base(p.Name)                                 // what came back is a copy of another policy's record
	back.replaced, back.promised, back.disabled, back.touched = time.Time{}, time.Time{}, time.Time{}, true // a disable may be on its way
}
