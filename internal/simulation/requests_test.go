package simulation_test

import (
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Requests to rotate, as they come over HTTP: a replica that has accepted one carries it out or tells of its failure.

// request is one that a replica accepted.
func (w *world) request(p plan.Policy, revoke bool) {
	r := w.oracle.at(p.Sink.String())
	rep := w.replicas[w.rng.IntN(len(w.replicas))]
	if !rep.alive {
		return
	}
	r.asked, r.revoking = true, r.revoking || revoke
	for _, k := range w.oracle.keysOf(p.Name) {
		k.revoked = k.revoked || revoke && !k.published.IsZero()
	}
	g, rot := rep.gate, rep.rotator
	w.running.Go(func() {
		if err := rot.Request(p.Name, rotator.RotateOptions{Revoke: revoke, Reason: pasted(r.key)}); err != nil {
			return
		}
		w.locked(func() {
			if g.dead {
				return
			}
			w.hits["request × accepted"]++
			at, key := time.Now(), r.key
			w.tracef("r%d.%d accepts a request for policy %s", g.replica, g.life, p.Name)
			if key != nil {
				w.oracle.inCalm(func() { w.oracle.answered(p, r, g, at, key) })
			}
		})
	})
}

// askSoon has a request come within moments of a publication: at a replica that may not know of it yet.
func (w *world) askSoon(r *record) {
	if !w.profile.asks || w.calm || r.policy.AdminOf != "" || w.rng.IntN(4) > 0 {
		return
	}
	i := slices.IndexFunc(w.policies, func(p plan.Policy) bool { return base(p.Name) == r.policy.Name })
	if i < 0 {
		return
	}
	what := "request × after a rotation"
	if r.key == nil {
		what = "request × after the first publication"
	}
	w.hits[what]++
	p := w.policies[i]
	w.later(time.Duration(w.rng.Int64N(int64(10*time.Millisecond<<w.rng.IntN(12)))), func() { w.request(p, false) })
}

// answered wants the key that was current at the request to have been replaced, or a failure to have been told.
func (o *oracle) answered(p plan.Policy, r *record, g *gate, at time.Time, key *life) {
	if g.dead || r.key != key || r.at.After(at) || r.foreign || r.removed || r.readded || o.restored || key.touched || o.w.told[base(p.Name)].After(at) {
		return
	}
	for _, s := range o.w.replicas[g.replica].rotator.Snapshot().Policies {
		switch waits := s.Reason == plan.WaitGroup || s.Reason == plan.WaitThrottled; {
		case base(s.Policy.Name) != base(p.Name):
		case waits: // as it says
			o.inCalm(func() { o.answered(p, r, g, at, key) })
			return
		case s.State == plan.StateError || s.State == plan.StateFailing || s.State == plan.StatePaused:
			return
		}
	}
	o.violated("a request to rotate policy %s, accepted %s ago by r%d.%d, was dropped", p.Name, time.Since(at), g.replica, g.life)
}

// observe notes the failures that a replica tells of.
func (w *world) observe(e rotator.Event) {
	if e.Type != rotator.EventFailed && e.Type != rotator.EventError {
		return
	}
	w.toldMu.Lock()
	defer w.toldMu.Unlock()
	w.told[base(e.Policy)] = time.Now()
}

// alone wants no key in the entries of two policies.
func (o *oracle) alone(policy string, data map[string]any) {
	ids := map[string]bool{}
	if data["moved_to"] == nil {
		if c, _ := data["current"].(map[string]any); c != nil {
			ids[text(c["id"])] = true
		}
		retiring, _ := data["retiring"].([]any)
		for _, one := range retiring {
			if old, _ := one.(map[string]any); old != nil {
				ids[text(old["id"])] = true
			}
		}
	}
	o.named[policy] = ids
	for other, theirs := range o.named {
		for id := range ids {
			if base(other) != base(policy) && theirs[id] && !o.restored {
				o.violated("key %s is in the ledger entries of policies %s and %s", short(id), policy, other)
			}
		}
	}
}

// checkPaused wants nothing to be written for a policy that is paused where the call comes from.
func (o *oracle) checkPaused(g *gate, policy, step string) {
	if g.command != nil || strings.HasSuffix(step, "read") || strings.HasPrefix(step, "list") || o.belated() {
		return
	}
	r := o.w.replicas[g.replica]
	for _, p := range r.loaded {
		since := r.since[p.Name]
		if base(p.Name) == policy && p.Mode == plan.ModePaused && time.Since(since) > 15*time.Minute && g.frozen.Before(since) {
			o.violated("r%d.%d: %s for policy %s, which is paused", g.replica, g.life, step, policy)
		}
	}
}
