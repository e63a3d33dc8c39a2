package simulation_test

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The budget for requests to ElevenLabs is scarce in one seed of so many, by its remainder: listings wait for it, and are shared.
const (
	scarceSeeds     = 16
	scarceRemainder = 5
)

func (p *profile) drawBudget(seed uint64) {
	if seed%scarceSeeds == scarceRemainder {
		p.makeScarce(seed)
	}
}

// makeScarce gives each client few requests a second, and most of the work to one process: it then waits for many listings at once.
func (p *profile) makeScarce(seed uint64) {
	r := rand.New(rand.NewPCG(seed, 23))
	p.budget = []float64{0.1, 0.3, 1, 3}[r.IntN(4)]
	p.latency = max(p.latency, time.Duration(r.IntN(4))*time.Second)
	if r.IntN(2) == 0 {
		p.replicas, p.suspended, p.wrong = 1, min(p.suspended, 0), min(p.wrong, 0)
	}
}

// listings is what a process learned of listings, which others of its steps rest on.
type listings struct {
	begun   map[string]time.Time // by workspace, when the last one that was answered began
	claimed map[string]time.Time // by policy, when this process took the claim
}

func newListings() listings {
	return listings{map[string]time.Time{}, map[string]time.Time{}}
}

// rests checks at the moment at which a process sends a call that a listing which it rests on began late enough: after the
// process took the claim under which it disables or deletes a key.
func (g *gate) rests(req *http.Request, step string) {
	w := g.w
	if step != "disable" && step != "delete" {
		return
	}
	k := w.oracle.keys[req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]]
	if k != nil && step == "delete" {
		k.condemned = true
	}
	if k == nil || !w.restsOnListing(k) {
		return
	}
	w.hits["listing × under the claim"]++
	if claimed := g.claimed[k.policy]; !g.begun[k.space].After(claimed) && !claimed.IsZero() {
		w.oracle.violated("%s: %s of key %s rests on a listing that began %s before the claim", k.policy, step, short(k.ID), claimed.Sub(g.begun[k.space]))
	}
}

// restsOnListing reports whether the key is a former one of a policy that has a current key, so that its end rests on a listing that
// shows the current key.
func (w *world) restsOnListing(k *life) bool {
	e, _ := w.kv.Get(ledgerPrefix+"policies/"+k.policy, 0)
	current, _ := e["current"].(map[string]any)
	retiring, _ := e["retiring"].([]any)
	return current != nil && e["intent"] == nil && text(current["workspace"]) == k.space && slices.ContainsFunc(retiring, func(r any) bool {
		former, _ := r.(map[string]any)
		return text(former["id"]) == k.ID
	})
}

// lists notes when a listing begins, and once it is answered that there was one.
func (g *gate) lists(req *http.Request, step string) func(ok bool) {
	if step != "list keys" && step != "list accounts" {
		return func(bool) {}
	}
	begun := time.Now()
	return func(ok bool) {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		for name := range g.w.sims() {
			if ok && strings.HasPrefix(req.URL.String(), baseURL(name)) {
				if begun.After(g.begun[name]) {
					g.begun[name] = begun
				}
			}
		}
	}
}
