package rotator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestAnAccountThatIsGone is an error of its policies from the first listing that lacks it, and is told once.
func TestAnAccountThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		r, stop := w.start(p)
		defer stop()
		after(5 * time.Minute)
		w.must(w.sim.RemoveAccount(account))
		for _, wait := range []time.Duration{time.Minute + time.Second, 10 * time.Minute} {
			after(wait)
			if s := w.state(r, 0); s.State != plan.StateError || s.Reason != plan.FaultUnknownAccount {
				t.Errorf("the daemon says %s, %s", s.State, s.Reason)
			}
		}
		if n := w.countEvents(rotator.EventError); n != 1 {
			t.Errorf("%d events", n)
		}
	})
}
