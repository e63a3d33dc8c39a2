package simulation_test

import (
	"cmp"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator/plan"
)

// useEvery is how often a reader that still has an old key asks something with it.
const useEvery = 10 * time.Minute

// use has readers go on with the old keys of policies that wait until those are idle: with every other key for a while,
// with the rest until it is taken from them.
func (w *world) use() {
	if w.oracle.ended {
		return
	}
	for _, p := range w.policies {
		if r := w.oracle.at(p.Sink.String()); w.profile.uses && w.snapshot && !w.oracle.restored && r.key != nil && r.key.ours && !r.foreign {
			w.spend(r.key)
			r.key.used = append(r.key.used, time.Now())
			w.oracle.followed(r)
		}
		w.takeUp(w.oracle.at(p.Sink.String()))
		for _, k := range w.oracle.keysOf(base(p.Name)) {
			forever := k.ID[len(k.ID)-1]%2 == 0
			if p.WaitUntilIdle == 0 || k.replaced.IsZero() || k.Disabled || k.Deleted() || !forever && time.Since(k.replaced) > p.Overlap {
				continue
			}
			w.spend(k)
			k.used = append(k.used, time.Now())
			w.hits["old key × used"]++
		}
	}
	w.later(useEvery, w.use)
}

// corruptGroup makes the group unreadable for a while, and empties the record of a member, which does not wait for it.
func (w *world) corruptGroup(p plan.Policy, r *record) {
	path := ledgerPrefix + "groups/" + p.Group
	before, _ := w.kv.Get(path, 0)
	if p.Group == "" || before == nil || len(w.oracle.corrupt) > 0 || w.snapshot {
		return
	}
	w.put(path, func(d map[string]any) { d["schema"] = "who knows" })
	w.oracle.corrupt[path] = true
	r.touched = time.Now()
	w.put(p.Sink.String(), func(d map[string]any) { delete(d, "api_key") })
	w.later(40*time.Minute, func() {
		delete(w.oracle.corrupt, path)
		_, err := w.kv.Put(path, before)
		w.must(err)
	})
}

func (o *oracle) keysOf(policy string) []*life {
	var keys []*life
	for _, k := range o.keys {
		if k.policy == base(policy) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b *life) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return keys
}

// together checks that no other member of the group is in overlap when a key is published that can wait. One that went
// ahead of the group may have come in between; it counts where its overlap was in the ledger before this rotation began.
func (o *oracle) together(r *record) {
	old := r.key
	if r.policy.Group == "" || o.restored || old == nil {
		return // a first key has no overlap
	}
	if old.ahead = r.asked || old.touched || !r.touched.IsZero(); old.ahead {
		return
	}
	for _, other := range o.records {
		if other == r || other.policy.Group != r.policy.Group || other.asked {
			continue
		}
		for _, k := range o.keysOf(other.policy.Name) {
			known := !k.leaving.IsZero() && k.leaving.Before(r.begun)
			if !k.replaced.IsZero() && !k.touched && !k.revoked && (!k.ahead || known) && !k.Disabled && !k.Deleted() && !k.mistimed && k.promised.After(time.Now()) {
				o.violated("policy %s was rotated while key %s of its group's policy %s was in overlap", r.policy.Name, short(k.ID), k.policy)
			}
		}
	}
}

// entered is told of each ledger entry: when a rotation begins, and which keys are known to be in overlap by then.
func (o *oracle) entered(policy string, data map[string]any) {
	r := o.byName(base(policy))
	if r == nil {
		return
	}
	o.clocked(r)
	o.alone(policy, data)
	o.remembered(data)
	in, _ := data["intent"].(map[string]any)
	if rotation := text(in["rotation"]); rotation != r.intent {
		r.intent, r.begun = rotation, time.Now()
	}
	retiring, _ := data["retiring"].([]any)
	for _, one := range retiring {
		old, _ := one.(map[string]any)
		if k := o.keys[text(old["id"])]; k != nil && k.leaving.IsZero() && old["state"] == "overlap" {
			k.leaving = time.Now()
		}
	}
}

// cutShort checks that an overlap is not ended at its time under a reader who still uses the key. Who watches sees each
// use within a reconcile interval, and knows a key to be idle after two more; a frozen process knows only what was.
func (o *oracle) cutShort(k *life, r *record) {
	wait := r.policy.WaitUntilIdle
	if wait == 0 || o.restored || r.asked || k.touched || k.revoked || k.mistimed || o.w.profile.freeze > 0 || r.removed {
		return
	}
	slack := 2*o.w.profile.skew + time.Minute
	end := k.promised.Add(wait)
	if byAge := k.CreatedAt.Add(r.policy.MaxAge); byAge.Before(end) {
		end = byAge
	}
	inUse := slices.ContainsFunc(k.used, func(t time.Time) bool {
		ago := time.Since(t)
		return t.After(k.began) && ago > reconcile+12*time.Minute && ago < 2*reconcile-2*time.Minute
	})
	if inUse && time.Now().Before(end.Add(-slack)) {
		o.violated("key %s was disabled %s before the end of wait_until_idle, and was in use", short(k.ID), time.Until(end))
	}
}

// tooOld reports that an enabled key has outlived its policy's promise.
func (o *oracle) tooOld(k *life, r *record) bool {
	age := time.Since(k.CreatedAt)
	return r.policy.MaxAge > 0 && !k.Disabled && age > r.policy.MaxAge+2*o.w.profile.skew+time.Minute
}

// turn is how long a policy may have to wait for the others of its group. An admin key, which goes last, may find that
// all of them are due once more.
func (o *oracle) turn(p plan.Policy) time.Duration {
	var wait time.Duration
	for _, r := range o.records {
		if p.Group != "" && r.policy.Group == p.Group && r.policy.Name != p.Name {
			wait += r.policy.Overlap + r.policy.WaitUntilUsed + 2*reconcile
		}
	}
	if p.AdminOf != "" {
		wait *= 2
	}
	return wait
}

// othersHadTheirTurn reports another member of the policy's group that was rotated since the faults ended (where many runs were
// missed, members that are due again may go before one that is due for longer), or whose rotation cannot be settled to the end.
func (o *oracle) othersHadTheirTurn(p plan.Policy) bool {
	for _, r := range o.records {
		if p.Group != "" && r.policy.Group == p.Group && r.policy.Name != p.Name && (r.at.After(o.calmSince) || o.shut(r)) {
			return true
		}
	}
	return false
}
