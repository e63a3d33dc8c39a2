package simulation_test

import (
	"net/http"
	"time"
)

// The oracle of SPEC 9.11: what a policy costs one process in an hour.

const (
	callsAnHour      = 60
	callsOfARotation = 16  // with its retirement, and what a takeover adds
	callsInChaos     = 400 // an hour: with faults on, only storms are told from the rest
)

// cost is what a policy cost one life of a process in one hour.
type cost struct {
	replica, life int
	policy        string
	hour          time.Duration
}

// counted is told of every call that a process sends.
func (o *oracle) counted(g *gate, req *http.Request) {
	policy := o.w.concerns(req)
	r := o.byName(policy)
	if r == nil || g.command != nil {
		return
	}
	c := cost{g.replica, g.life, policy, time.Since(o.w.started).Truncate(time.Hour)}
	o.calls[c]++
	most := callsInChaos
	if o.w.calm && o.w.started.Add(c.hour).After(o.calmSince) {
		most = callsAnHour
	}
	if n := o.calls[c]; n == most+callsOfARotation*r.rotations[c.hour]+1 {
		o.violated("r%d.%d made more than %d calls for policy %s within an hour", g.replica, g.life, n-1, policy)
	}
}
