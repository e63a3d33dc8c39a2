package rotator_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// TestAKeyIsDisabledAgain: each time that a current key is disabled is told once, and has its time under its reason.
func TestAKeyIsDisabledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		r, stop := w.start(p)
		defer stop()
		after(5 * time.Minute)
		key := w.inRecord(p).ID
		for i, c := range []struct {
			reason  ledger.Reason
			enabled bool // first
			reasons int
		}{
			{ledger.ReasonTrialEnded, true, 1},
			{ledger.ReasonTrialEnded, true, 1},
			{ledger.ReasonDowngraded, true, 2},
			{"", false, 3}, // enabled and disabled between two listings
		} {
			w.must(w.sim.EnableKey(key))
			if c.enabled {
				after(10 * time.Minute)
			}
			at := time.Now()
			w.must(w.sim.DisableKey(key, string(c.reason)))
			after(10 * time.Minute)
			reason := c.reason
			if reason == "" {
				reason = ledger.ReasonOther
			}
			s := w.state(r, 0)
			if seen := s.Disabled[reason]; seen.Before(at) || seen.Sub(at) > time.Minute || len(s.Disabled) != c.reasons {
				t.Errorf("disabled at %s: %v", at, s.Disabled)
			}
			if told, logged := w.countEvents(rotator.EventKeyDisabled), strings.Count(w.logs.String(), "disabled by others"); told != i+1 || logged != i+1 {
				t.Errorf("disabled for the time %d: %d events, %d lines in the log", i+1, told, logged)
			}
		}
	})
}
