package simulation_test

import (
	"math/rand/v2"
	"time"
)

const (
	longestTTL = 10 * time.Minute
	// standstill is the claim TTL, and the patience, of a process whose monotonic clock does not move while it is
	// suspended: to it, all that happens to the others meanwhile takes no time.
	standstill = 1000 * time.Hour
)

// drawClocks gives each replica its own claim TTL, in half of the runs.
func (p *profile) drawClocks(r *rand.Rand) {
	equal := r.IntN(2) == 0 || p.equal
	for range p.replicas {
		ttl := claimTTL
		if !equal {
			ttl = []time.Duration{20 * time.Second, claimTTL, 4 * time.Minute, longestTTL}[r.IntN(4)]
		}
		p.ttls = append(p.ttls, ttl)
	}
	if p.suspended >= 0 {
		p.ttls[p.suspended] = standstill
	}
}

// setWrong has one replica's wall clock be wrong by days for some hours.
func (w *world) setWrong() {
	if w.profile.wrong < 0 {
		return
	}
	r := w.replicas[w.profile.wrong]
	from := w.started.Add(time.Duration(w.rng.Int64N(int64(w.profile.duration))))
	r.wrong = [2]time.Time{from, from.Add(time.Duration(1+w.rng.IntN(300)) * time.Minute)}
	if calm := w.started.Add(w.profile.duration); r.wrong[1].After(calm) {
		r.wrong[1] = calm
	}
	r.days = []time.Duration{-10, -2, 2, 10, 400}[w.rng.IntN(5)] * 24 * time.Hour
	w.hits["start × wrong clock"]++
}

// clockIsWrong reports that what is being written was decided on by a clock that is wrong by days.
func (o *oracle) clockIsWrong() bool {
	g := o.w.actor
	if g == nil || g.command != nil {
		return false
	}
	w := o.w.replicas[g.replica].wrong
	return !w[1].IsZero() && time.Now().After(w[0]) && time.Now().Before(w[1].Add(longestHold+longestTTL))
}

// clocked leaves promises of a time of day out of what is checked where a process whose clock is wrong has written them.
// That nothing stands still for ever because of them, and all else, must hold as before.
func (o *oracle) clocked(r *record) {
	if !o.clockIsWrong() {
		return
	}
	r.mistimed = true
	for _, k := range o.keysOf(r.policy.Name) {
		k.mistimed = true
	}
}

func (r *replica) wall() time.Time {
	now := time.Now()
	if !now.Before(r.wrong[0]) && now.Before(r.wrong[1]) {
		now = now.Add(r.days)
	}
	return now.Add(r.skew)
}

// patience is how long a call may take; 0 is the usual.
func (r *replica) patience() time.Duration {
	if r.ttl == standstill {
		return standstill
	}
	return 0
}

// standsStill reports that no time passes for the process while it is frozen.
func (g *gate) standsStill() bool {
	if g.command != nil {
		return g.command.ttl == standstill
	}
	return g.w.replicas[g.replica].ttl == standstill
}

// wakeUp has a process that was suspended start anew.
func (w *world) wakeUp() {
	for _, r := range w.replicas {
		if r.ttl == standstill && r.alive {
			w.kill(r.gate)
		}
		if r.ttl == standstill {
			r.ttl = claimTTL
		}
	}
}
