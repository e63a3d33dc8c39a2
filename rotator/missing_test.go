package rotator

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestAKeyIsMissingAfterTwoListings, and not after one that is looked at twice.
func TestAKeyIsMissingAfterTwoListings(t *testing.T) {
	t.Parallel()
	start := time.Now()
	l := &listing{seq: 1, begun: start.Add(time.Minute), accounts: map[string][]elevenlabs.Key{"svcacc_a": nil}}
	st := &policyState{}
	r := &Rotator{workspaces: map[string]*workspace{"w": {name: "w", listing: l}}}
	c := ledger.KeyRef{ID: "k1", Workspace: "w", Account: "svcacc_a"}
	st.known.setEntry(&ledger.Entry{Current: &c}, 1, start)
	for i, want := range []bool{false, false, true} {
		if i == 2 {
			l.seq++
		}
		var o plan.Observed
		r.absorb(st)
		r.addCurrentLocked(&o, plan.Policy{}, &st.known)
		if !o.HomeListed || o.MissingTwice != want {
			t.Errorf("look %d: listed %t, missing %t", i+1, o.HomeListed, o.MissingTwice)
		}
	}
}
