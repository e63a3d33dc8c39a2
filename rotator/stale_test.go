package rotator

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// A listing that was begun before the current key changed shows keys as they were under another: one that is disabled
// there may have been enabled since by a rollback, and must not lose its overlap for it.
func TestAListingFromBeforeTheCurrentKeyChangedIsNotBelieved(t *testing.T) {
	t.Parallel()
	start := time.Now()
	ref := func(id string) KeyRef { return KeyRef{ID: id, Workspace: "w", Account: "svcacc_a"} }
	entry := func(id string) *Entry { current := ref(id); return &Entry{Current: &current} }
	r := &Rotator{workspaces: map[string]*workspace{"w": {name: "w", listing: &listing{
		begun:    start.Add(time.Minute),
		accounts: map[string][]elevenlabs.Key{"svcacc_a": {{ID: "k1", Disabled: true}}},
	}}}}
	var k knowledge
	k.setEntry(entry("k1"), 1, start)
	if disabled, found := r.listed(ref("k1"), k.changedSince); !disabled || !found {
		t.Errorf("a key that was current all the time: disabled %v, found %v", disabled, found)
	}
	k.setEntry(entry("k2"), 2, start.Add(2*time.Minute))
	k.setEntry(entry("k2"), 3, start.Add(3*time.Minute)) // the same key: no change
	if disabled, found := r.listed(ref("k1"), k.changedSince); disabled || found {
		t.Errorf("the key changed after the listing: disabled %v, found %v", disabled, found)
	}
	r.workspaces["w"].listing.begun = start.Add(150 * time.Second)
	if disabled, found := r.listed(ref("k1"), k.changedSince); !disabled || !found {
		t.Errorf("the listing is newer than the change: disabled %v, found %v", disabled, found)
	}
}
