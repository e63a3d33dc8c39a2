package rotator

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A key that a policy left behind in another workspace is found there, whether the policy had moved before that workspace
// was listed, moves after, or is not loaded any more.
func TestKeysInOtherWorkspacesAreFound(t *testing.T) {
	t.Parallel()
	const owner = "ownerown"
	r, err := New(Options{Store: noStore{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.owner = owner
	load := func(policies ...plan.Policy) {
		r.Load(policies, map[string]*elevenlabs.Client{"old": nil, "new": nil})
	}
	list := func() {
		left := elevenlabs.Key{ID: "left", Name: ledger.KeyName(owner, "moving", "aaaaaaaaaa")}
		old := r.workspaces["old"]
		old.listing = r.index(old, []elevenlabs.ServiceAccount{{ID: "svcacc_old", Keys: []elevenlabs.Key{left}}}, time.Now())
		r.findStraysLocked(old)
	}
	wantFound := func(when string, p plan.Policy) {
		t.Helper()
		var o plan.Observed
		r.addKeysLocked(&o, p)
		found := slices.ContainsFunc(o.Keys, func(k plan.ListedKey) bool { return k.ID == "left" && k.Workspace == "old" })
		if !found {
			t.Errorf("%s: the key in the old workspace was not found, only %v", when, o.Keys)
		}
	}
	before := plan.Policy{Name: "moving", Workspace: "old", ServiceAccount: "svcacc_old"}
	after := plan.Policy{Name: "moving", Workspace: "new", ServiceAccount: "svcacc_new"}

	load(before)
	list()
	if r.workspaces["old"].listing.strays {
		t.Error("a policy's own workspace is searched by all policies")
	}
	load(after)
	wantFound("the policy moved after the listing", after)
	list()
	wantFound("the policy moved before the listing", after)
	load()
	wantFound("the policy was removed after the listing", after)
	list()
	wantFound("the policy was removed before the listing", after)
}

// noStore is never asked.
type noStore struct{ ledger.Store }
