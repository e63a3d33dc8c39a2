package rotator_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// Every remote write of a policy's life is made to fail without having happened, to fail although it happened, and to
// be the last thing that the process does. Afterwards no reader was ever broken and no key is unaccounted for.
func TestEveryRemoteWriteFourWays(t *testing.T) {
	long(t)
	for _, at := range lifeWrites() {
		for _, m := range []mode{notApplied, applied, diesBefore, diesAfter} {
			t.Run(fmt.Sprintf("%s %s", at.name, m), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				p := testPolicy(t, brief)
				w.guardReaders(p)
				synctest.Test(t, func(*testing.T) { w.survive(p, fault{call: at.call, nth: at.nth, mode: m}) })
			})
		}
	}
}

// lifeWrite is one remote write of a policy's life.
type lifeWrite struct {
	name, call string
	nth        int
}

func lifeWrites() []lifeWrite {
	const ledger, record = "write secret/rekeyd/policies", "write secret/elevenlabs"
	return []lifeWrite{
		{"owner", "write secret/rekeyd/owner", 1},
		{"first claim", ledger, 1},
		{"first create", "POST", 1},
		{"first publish", record, 1},
		{"first commit", ledger, 2},
		{"second claim", ledger, 3},
		{"second create", "POST", 2},
		{"second publish", record, 2},
		{"second commit", ledger, 4},
		{"claim to disable", ledger, 5},
		{"disable", "PATCH", 1},
		{"note of the disable", ledger, 6},
		{"claim to delete", ledger, 7},
		{"delete", "DELETE", 1},
		{"note of the delete", ledger, 8},
	}
}

// brief makes a policy whose life passes in eight hours: rotations at 03:00 and 06:00; the first key is disabled at 04:00 and
// deleted at 05:30, the second is disabled at 07:00. Nothing but the listings of each minute happens in between.
func brief(p *plan.Policy) {
	p.Schedule, _ = schedule.Parse("0 */3 * * *", "UTC")
	p.Overlap, p.Quarantine = time.Hour, 90*time.Minute
}

// briefLife is how long after a fault its consequences are over: a rotation, its overlap and its quarantine, and half as long again.
const briefLife = 8 * time.Hour

// survive runs the brief policy with one fault, restarting a process that died.
func (w *world) survive(p plan.Policy, f fault) {
	proc := &process{fault: f}
	first := proc
	_, stop := w.startProcess(proc, p)
	for range 8 * 12 {
		after(5 * time.Minute)
		if proc.isDead() {
			stop()
			proc = &process{}
			_, stop = w.startProcess(proc, p)
		}
	}
	stop()
	if !first.fault.hit {
		w.t.Errorf("the fault never struck; calls: %q", first.calls)
	}
	w.accounted(p)
	if n := w.creates(); n > 4 {
		w.t.Errorf("%d creates for three rotations and one fault", n)
	}
}

// creates returns how often a create arrived.
func (w *world) creates() int {
	n := 0
	for _, h := range w.sim.History() {
		if h.Operation == "createAPIKey" {
			n++
		}
	}
	return n
}

// guardReaders fails the test when the key in the record is disabled or deleted.
func (w *world) guardReaders(p plan.Policy) {
	w.sim.OnChange(func(c elevensim.Change) {
		if c.Kind != elevensim.Disabled && c.Kind != elevensim.Deleted {
			return
		}
		if w.published(p) == c.Key.Secret {
			w.t.Errorf("%s: the key in the record was changed: %s", c.Time, c.Kind)
		}
	})
}

// published is what readers find.
func (w *world) published(p plan.Policy) any {
	return w.kept.peek(p.Sink.Ref).Fields()[p.Sink.Field]
}

// accounted fails the test unless every key of ours is current, in overlap or in quarantine.
func (w *world) accounted(p plan.Policy) {
	w.t.Helper()
	doc, err := w.store.Read(context.Background(), ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + p.Name}, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := ledger.ParseEntry(doc.JSON, p.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	if e.Claim != nil || e.Intent != nil {
		w.t.Errorf("a claim is left: %+v", e)
	}
	known := map[string]bool{e.Current.ID: true}
	for _, k := range e.Retiring {
		known[k.ID] = true
	}
	for _, k := range w.alive() {
		if strings.HasPrefix(k.Name, "rekeyd."+e.Owner+"."+p.Name+".") && !known[k.ID] {
			w.t.Errorf("key %s (%s) is lost", k.ID, k.Name)
		}
	}
	if k := w.inRecord(p); k.ID != e.Current.ID || k.Disabled || k.Deleted() {
		w.t.Errorf("the record holds key %+v, current is %s", k, e.Current.ID)
	}
}

// long leaves a test of half a minute or more to make test.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it is long")
	}
}
