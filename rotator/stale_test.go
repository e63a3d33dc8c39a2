package rotator

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A listing that was begun before the current key changed shows keys as they were under another: one that is disabled
// there may have been enabled since by a rollback, and must not lose its overlap for it.
func TestAListingFromBeforeTheCurrentKeyChangedIsNotBelieved(t *testing.T) {
	t.Parallel()
	start := time.Now()
	ref := func(id string) ledger.KeyRef { return ledger.KeyRef{ID: id, Workspace: "w", Account: "svcacc_a"} }
	entry := func(id string) *ledger.Entry { current := ref(id); return &ledger.Entry{Current: &current} }
	r := &Rotator{workspaces: map[string]*workspace{"w": {name: "w", listing: &listing{
		begun:    start.Add(time.Minute),
		accounts: map[string][]elevenlabs.Key{"svcacc_a": {{ID: "k1", Disabled: true}}},
	}}}}
	var k knowledge
	k.setEntry(entry("k1"), 1, start)
	if disabled, found := r.listedLocked(ref("k1"), k.unusual().changedSince); !disabled || !found {
		t.Errorf("a key that was current all the time: disabled %v, found %v", disabled, found)
	}
	k.setEntry(entry("k2"), 2, start.Add(2*time.Minute))
	k.setEntry(entry("k2"), 3, start.Add(3*time.Minute)) // the same key: no change
	if disabled, found := r.listedLocked(ref("k1"), k.unusual().changedSince); disabled || found {
		t.Errorf("the key changed after the listing: disabled %v, found %v", disabled, found)
	}
	r.workspaces["w"].listing.begun = start.Add(150 * time.Second)
	if disabled, found := r.listedLocked(ref("k1"), k.unusual().changedSince); !disabled || !found {
		t.Errorf("the listing is newer than the change: disabled %v, found %v", disabled, found)
	}
}

// A replica is behind with its policy file only where others took the key away from the place that its file names.
func TestWhichReplicaIsBehind(t *testing.T) {
	t.Parallel()
	p := plan.Policy{Workspace: "here", ServiceAccount: "svcacc_a"}
	ref := func(id, workspace string) ledger.KeyRef {
		return ledger.KeyRef{ID: id, Workspace: workspace, Account: "svcacc_a"}
	}
	entry := func(current ledger.KeyRef, retiring ...ledger.KeyRef) *ledger.Entry {
		e := &ledger.Entry{Current: &current}
		for _, k := range retiring {
			e.Retiring = append(e.Retiring, ledger.Retiring{KeyRef: k})
		}
		return e
	}
	k1, k2, k3 := ref("k1", "here"), ref("k2", "away"), ref("k3", "away")
	for name, c := range map[string]struct {
		known, next *ledger.Entry
		version     int // of next; that of known is 5
		away        string
		behind      bool
	}{
		"moved away":                       {entry(k1), entry(k2, k1), 6, "", true},
		"rotated there, once moved away":   {entry(k2, k1), entry(k3, k2), 7, "k2", true},
		"rotated where it was":             {entry(k1), entry(ref("k4", "here"), k1), 6, "", false},
		"rotated before we have moved it":  {entry(k2), entry(k3, k2), 6, "", false},
		"moved here":                       {entry(k2), entry(k1, k2), 6, "", false},
		"rolled back to a key from before": {entry(k1, k2), entry(k2, k1), 6, "", false},
		"restored":                         {entry(k1), entry(k2), 4, "", false},
		"the first key that is seen":       {nil, entry(k2), 6, "", false},
	} {
		k := knowledge{entry: c.known, version: 5, rare: &unusual{movedAway: c.away}}
		k.followPlace(p, c.next, c.version)
		if behind := k.unusual().movedAway == c.next.Current.ID; behind != c.behind {
			t.Errorf("%s: behind %v", name, behind)
		}
	}
}
