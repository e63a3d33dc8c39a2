package simulation_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// What people do to the policy file, and to keys and records beside it: policies get other names, places and modes and
// get them back, each replica loading the file at a time of its own.

const (
	teamMount    = "team"
	otherName    = "-b"
	otherPlace   = "-moved"
	editedWithin = 30 * time.Minute // all replicas have loaded the new file
)

// base returns the name that a policy has had from the start.
func base(policy string) string { return strings.TrimSuffix(policy, otherName) }

func newRecord(p plan.Policy) *record {
	return &record{policy: p, path: p.Sink.String(), held: map[string]*life{}, rotations: map[time.Duration]int{}}
}

// at returns what is known of a record, at whichever of its policy's places.
func (o *oracle) at(path string) *record { return o.records[strings.TrimSuffix(path, otherPlace)] }

// byName returns the record of a policy; nil: there is no such policy.
func (o *oracle) byName(policy string) *record {
	for _, r := range o.records {
		if r.policy.Name == policy {
			return r
		}
	}
	return nil
}

// entry returns a policy's ledger entry, under whichever of its names.
func (w *world) entry(policy string) map[string]any {
	entry, _ := w.kv.Get(ledgerPrefix+"policies/"+policy, 0)
	if entry == nil || entry["moved_to"] != nil {
		if other, _ := w.kv.Get(ledgerPrefix+"policies/"+policy+otherName, 0); other != nil && other["moved_to"] == nil {
			return other
		}
	}
	return entry
}

// load gives a replica the policy file as it is now.
func (w *world) load(r *replica) {
	for _, p := range w.policies {
		was := slices.IndexFunc(r.loaded, func(q plan.Policy) bool { return q.Name == p.Name })
		if was < 0 || r.loaded[was].Mode != p.Mode {
			r.since[p.Name] = time.Now()
		}
	}
	r.loaded = w.policies
	r.rotator.Load(w.policies, r.clients)
}

func (w *world) loadAll() {
	for _, r := range w.replicas {
		if r.alive {
			w.load(r)
		}
	}
}

// reload has each replica load the file at a time of its own, as it is by then.
func (w *world) reload() {
	for _, r := range w.replicas {
		g := r.gate
		w.later(time.Duration(w.rng.Int64N(int64(editedWithin))), func() {
			if r.gate == g && r.alive && !w.oracle.ended {
				w.tracef("r%d.%d loads the edited policies", r.id, r.life)
				w.load(r)
			}
		})
	}
}

// edit changes one policy of the file.
func (w *world) edit(policy string, change func(*plan.Policy)) {
	w.policies = slices.Clone(w.policies)
	for i := range w.policies {
		if base(w.policies[i].Name) == base(policy) {
			change(&w.policies[i])
		}
	}
	w.reload()
}

// hours returns a time after which people take back what they did.
func (w *world) hours() time.Duration { return time.Duration(60+w.rng.IntN(300)) * time.Minute }

// reorganise does what is done in the policy file, or beside it, and reports whether it could.
func (w *world) reorganise(what string, p plan.Policy, r *record) bool {
	switch what {
	case "request", "request --revoke-now":
		w.request(p, what != "request")
		return true
	case "enable quarantined key":
		return w.enableQuarantined(p)
	case "copy record":
		return w.copyRecord(p, r)
	}
	if p.AdminOf != "" || w.removed != nil || w.snapshot {
		return false
	}
	switch what {
	case "rename policy":
		return w.rename(p)
	case "move sink":
		return w.moveSink(p, r)
	case "move account":
		r.asked = true
		w.edit(p.Name, func(p *plan.Policy) {
			p.ServiceAccount = map[string]string{"svcacc_a": "svcacc_b", "svcacc_b": "svcacc_a"}[p.ServiceAccount]
		})
	case "move workspace":
		if w.other == nil {
			return false
		}
		r.asked = true
		w.edit(p.Name, func(p *plan.Policy) {
			p.Workspace = map[string]string{"default": "other", "other": "default"}[p.Workspace]
		})
	case "mode manual", "mode paused":
		return w.setMode(p, plan.Mode(strings.TrimPrefix(what, "mode ")))
	}
	return true
}

// setMode takes a policy out of mode auto for a while.
func (w *world) setMode(p plan.Policy, mode plan.Mode) bool {
	if w.paused {
		return false
	}
	w.paused = true
	w.edit(p.Name, func(p *plan.Policy) { p.Mode = mode })
	w.later(editedWithin+w.hours(), func() {
		if w.paused = false; !w.calm {
			w.edit(p.Name, func(p *plan.Policy) { p.Mode = plan.ModeAuto })
		}
	})
	return true
}

// rename gives a policy another name, and, as by git revert, its old one back after a while. Where no process remembers
// that it had the new name loaded, an operator says so.
func (w *world) rename(p plan.Policy) bool {
	if r := w.oracle.at(p.Sink.String()); w.renamed || p.Name != base(p.Name) || r.path != p.Sink.String() {
		return false // one whose key is still to move is another policy under another name
	}
	if data, _ := w.kv.Get(p.Sink.String(), 0); data == nil {
		return false // so is one whose record others have deleted: nothing says whose place it was
	}
	w.renamed = true
	w.edit(p.Name, func(p *plan.Policy) { p.Name += otherName })
	if w.rng.IntN(4) == 0 {
		return true // for good
	}
	w.later(editedWithin+w.hours(), func() {
		if w.calm || w.removed != nil {
			return
		}
		w.hits["others × name taken back"]++
		if w.rng.IntN(2) == 0 { // by a deployment: no process remembers the other name
			for _, r := range w.replicas {
				if r.alive {
					w.kill(r.gate)
				}
			}
		}
		w.edit(p.Name, func(p *plan.Policy) { p.Name = base(p.Name) })
		w.later(editedWithin+time.Hour, func() { w.sayRenamed(p.Name) })
	})
	return true
}

// sayRenamed gives the entry of the other name back to the policy's own, as an operator does who reads the policy's error.
func (w *world) sayRenamed(policy string) {
	entry, _ := w.kv.Get(ledgerPrefix+"policies/"+policy, 0)
	if entry["moved_to"] == nil || w.oracle.ended {
		return
	}
	w.operate("rename "+policy, func(ctx context.Context, rot *rotator.Rotator) error {
		return rot.Rename(ctx, policy+otherName, policy)
	}, func(err error) {
		if err != nil {
			w.later(30*time.Minute, func() { w.sayRenamed(policy) })
		}
	})
}

// moveSink has a policy publish elsewhere, and come back after a while. Whoever moves it back empties the place first.
func (w *world) moveSink(p plan.Policy, r *record) bool {
	there := func(p *plan.Policy) {
		if p.Sink.Path = strings.TrimSuffix(p.Sink.Path, otherPlace); r.path == r.policy.Sink.String() {
			p.Sink.Path += otherPlace
		}
	}
	w.edit(p.Name, there)
	w.later(editedWithin+w.hours(), func() {
		if w.calm || w.removed != nil || w.renamed || r.path == r.policy.Sink.String() || w.snapshot {
			return
		}
		w.hits["others × place taken back"]++
		w.kv.Delete(r.policy.Sink.String())
		delete(r.held, r.policy.Sink.String())
		w.edit(p.Name, there)
	})
	return true
}

// addAgain loads the policy that was removed, whose keys may have been pruned meanwhile.
func (w *world) addAgain() {
	if w.removed == nil || w.oracle.ended {
		return
	}
	r := w.oracle.at(w.removed.Sink.String())
	w.hits["others × policy added again"]++
	if r.key != nil && r.key.pruned && r.key.Disabled {
		w.hits["others × pruned policy added again"]++
	}
	w.tracef("policy %s is added again", w.removed.Name)
	w.policies = append(slices.Clone(w.policies), *w.removed)
	r.removed, r.readded, r.asked, w.removed = false, true, true, nil
	w.loadAll()
}

// copyToo has a person copy the record that is to be adopted to another policy's place as well: to whichever of the two
// the key does not go, that one's place is emptied after a while.
func (w *world) copyToo(k *life) {
	first, second := w.policies[0], w.policies[1]
	if first.Workspace != second.Workspace || w.rng.IntN(2) == 0 {
		return
	}
	w.hits["start × copied record"]++
	data, _ := w.kv.Get(second.Sink.String(), 0)
	w.put(first.Sink.String(), func(d map[string]any) { maps.Copy(d, data) })
	r := w.oracle.at(first.Sink.String())
	r.key, r.foreign, r.held[r.path] = k, true, k
	w.later(3*time.Hour, func() {
		mine, other := first, second
		if w.current(second, k) || !w.current(first, k) {
			mine, other = second, first
		}
		k.policy = mine.Name
		o, p := w.oracle.at(other.Sink.String()), w.oracle.at(mine.Sink.String())
		if p.foreign = false; p.key == nil {
			p.key = k
		}
		o.foreign, o.noted, o.key, o.touched = false, false, nil, time.Now()
		w.kv.SoftDelete(other.Sink.String())
	})
}

// shut reports that the mount of a policy's record, or of the place that it is to move to, is refused to the end.
func (o *oracle) shut(r *record) bool {
	return r != nil && o.w.calm && time.Now().Before(o.w.teamEnd) && r.policy.Sink.Mount == teamMount
}

// settleEdits ends what is temporary in the policy file.
func (w *world) settleEdits() {
	w.policies = slices.Clone(w.policies)
	for i := range w.policies {
		w.policies[i].Mode = plan.ModeAuto
	}
	w.loadAll()
	for _, p := range w.policies {
		if w.renamed && p.Name == base(p.Name) {
			w.later(30*time.Minute, func() { w.sayRenamed(p.Name) })
		}
	}
}

// enableQuarantined has a person enable a key that is in quarantine.
func (w *world) enableQuarantined(p plan.Policy) bool {
	for _, k := range w.oracle.keysOf(p.Name) {
		if w.oracle.stateOf(k) != "quarantine" || !k.Disabled || k.Deleted() {
			continue
		}
		w.must(w.at(k).EnableKey(k.ID))
		if w.rng.IntN(2) == 0 {
			w.later(w.hours(), func() {
				if !k.Deleted() && w.oracle.stateOf(k) == "quarantine" {
					w.must(w.at(k).DisableKey(k.ID, ""))
				}
			})
		}
		return true
	}
	return false
}

// copyRecord puts the record of another policy into this one's place for a while.
func (w *world) copyRecord(p plan.Policy, r *record) bool {
	from := w.policies[w.rng.IntN(len(w.policies))]
	data, _ := w.kv.Get(from.Sink.String(), 0)
	if from.Name == p.Name || data["api_key"] == nil || p.AdminOf != "" || from.AdminOf != "" {
		return false
	}
	return w.occupy(p, r, func(d map[string]any) {
		clear(d)
		maps.Copy(d, data)
	})
}

// splay is the shorter one of those that the policy's names give it.
func (o *oracle) splay(p plan.Policy) time.Duration {
	return min(schedule.SplayOf(p.Name, p.Splay), schedule.SplayOf(p.Name+otherName, p.Splay))
}
