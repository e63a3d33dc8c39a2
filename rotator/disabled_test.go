package rotator_test

import (
	"cmp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
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
			cause   plan.DisableCause
			enabled bool // first
			reasons int
		}{
			{plan.DisabledTrialEnded, true, 1},
			{plan.DisabledTrialEnded, true, 1},
			{plan.DisabledDowngraded, true, 2},
			{"", false, 3}, // enabled and disabled between two listings
		} {
			w.must(w.sim.EnableKey(key))
			if c.enabled {
				after(10 * time.Minute)
			}
			at := time.Now()
			w.must(w.sim.DisableKey(key, string(c.cause)))
			after(10 * time.Minute)
			cause := cmp.Or(c.cause, plan.DisabledOther)
			s := w.state(r, 0)
			if seen := s.Disabled[cause]; seen.Before(at) || seen.Sub(at) > time.Minute || len(s.Disabled) != c.reasons {
				t.Errorf("disabled at %s: %v", at, s.Disabled)
			}
			if told, logged := w.countEvents(rotator.EventKeyDisabled), strings.Count(w.logs.String(), "disabled by others"); told != i+1 || logged != i+1 {
				t.Errorf("disabled for the time %d: %d events, %d lines in the log", i+1, told, logged)
			}
		}
	})
}

// TestALeakIsRememberedAfterARestart, as long as the ledger's history has it, and on every replica.
func TestALeakIsRememberedAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		r, stop := w.start(p)
		after(5 * time.Minute)
		other, stopOther := w.start(p)
		after(5*time.Minute + time.Second)
		var leaked time.Time
		for range 2 {
			leaked = time.Now()
			w.setFaults(forbidding("createAPIKey", 2)) // it is replaced later than it was seen
			w.must(w.sim.DisableKey(w.inRecord(p).ID, "exposed_publicly"))
			after(20 * time.Minute)
		}
		remembers := func(name string, r *rotator.Rotator, within time.Duration) {
			t.Helper()
			s := w.state(r, 0)
			if late := s.Disabled[plan.DisabledExposed].Sub(leaked); len(s.Disabled) != 1 || late < 0 || late > within {
				t.Errorf("%s has %v after a leak at %s", name, s.Disabled, leaked)
			}
		}
		after(7 * time.Hour) // the entry changes as the old key is deleted
		remembers("the first replica", r, time.Minute)
		remembers("the other replica", other, time.Minute)
		stop()
		stopOther()
		told := w.countEvents(rotator.EventKeyDisabled)
		r, stop = w.start(p)
		defer stop()
		after(time.Minute)
		remembers("a new process", r, 5*time.Minute)
		if n := w.countEvents(rotator.EventKeyDisabled); n != told {
			t.Errorf("%d events of the old leaks after the restart", n-told)
		}
	})
}
