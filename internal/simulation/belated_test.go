package simulation_test

import (
	"time"
)

// What the oracle makes of calls that arrive late: a late disable of a key that is current again, and a late enable of one
// that is not, are undone within two reconciles in which the remotes answer; a late delete of such a key there must not be.

// belated reports that the call which is being carried out was decided on a while ago.
func (o *oracle) belated() bool {
	g := o.w.actor
	return o.w.lateNow || g != nil && !g.frozen.IsZero() && time.Since(g.frozen) < 20*time.Minute
}

// inCalm checks once the remotes have answered for so long that replicas could act.
func (o *oracle) inCalm(check func()) {
	const enough = longestTTL + 2*reconcile + 10*time.Minute
	o.w.later(enough, func() {
		switch {
		case o.ended:
		case o.w.calm && time.Since(o.calmSince) >= enough:
			check()
		default:
			o.inCalm(check)
		}
	})
}

func (o *oracle) expectUndone(r *record, k *life) {
	o.w.hits["late × disabled the current key"]++
	o.w.tracef("key %s is current and disabled by a late call", short(k.ID))
	o.inCalm(func() {
		if r.key == k && !r.foreign && !r.removed && k.Disabled && !o.restored {
			o.violated("key %s, current again, was disabled by a late call and not enabled since", short(k.ID))
		}
	})
}

// enabled is told of each enable of ours.
func (o *oracle) enabled(k *life) {
	if o.stateOf(k) == "current" || !o.belated() {
		return
	}
	o.w.hits["late × enabled an old key"]++
	o.inCalm(func() { o.checkQuarantine(k) })
}

// checkQuarantine wants a key that the ledger says is in quarantine to be disabled, unless a person enabled it.
func (o *oracle) checkQuarantine(k *life) {
	if o.stateOf(k) == "quarantine" && !k.Disabled && !k.Deleted() && !k.freed && !o.restored {
		o.violated("key %s is in quarantine, and works", short(k.ID))
	}
}

// noted reports that the ledger has a note of a call about a key that is in no current use.
func (o *oracle) noted(k *life, kind string) bool {
	retiring, _ := o.w.entry(k.policy)["retiring"].([]any)
	for _, one := range retiring {
		old, _ := one.(map[string]any)
		calls, _ := old["calls"].([]any)
		for _, c := range calls {
			if call, _ := c.(map[string]any); old["id"] == k.ID && call["kind"] == kind {
				return true
			}
		}
	}
	return false
}

// stateOf is what the ledger says of a key of its policy: current, overlap, quarantine or nothing.
func (o *oracle) stateOf(k *life) string {
	entry := o.w.entry(k.policy)
	if c, _ := entry["current"].(map[string]any); c["id"] == k.ID {
		return "current"
	}
	retiring, _ := entry["retiring"].([]any)
	for _, one := range retiring {
		if old, _ := one.(map[string]any); old["id"] == k.ID {
			return text(old["state"])
		}
	}
	return ""
}
