package rotator

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// TestNoTurnIsYieldedToAFirstKey, which does not wait for its group.
func TestNoTurnIsYieldedToAFirstKey(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 5, 4, 0, 0, 0, time.UTC)
	daily, err := schedule.Parse("0 3 * * *", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	r := &Rotator{opt: Options{Wall: func() time.Time { return now }}}
	entry := func(rotated time.Duration) *ledger.Entry {
		return &ledger.Entry{Current: &ledger.KeyRef{ID: "k"}, LastRotation: now.Add(-rotated)}
	}
	member := plan.Policy{Name: "a", Group: "g", Schedule: daily, Window: time.Hour}
	for _, c := range []struct {
		entry  *ledger.Entry
		yields bool
	}{{nil, false}, {entry(50 * time.Hour), true}, {entry(20 * time.Hour), false}} {
		r.policies = map[string]*policyState{"b": {policy: &member, last: last{entry: c.entry, planned: true, decision: plan.Outlook{State: plan.StateDue, NextDue: now}}}}
		if got := r.yieldsTurnLocked(member, entry(25*time.Hour)); got != c.yields {
			t.Errorf("to a member with %+v: %t", c.entry, got)
		}
	}
}
