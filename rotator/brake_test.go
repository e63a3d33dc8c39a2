package rotator_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// The brake knows the last hour from its first second, however often the process starts again.
func TestTheBrakeHoldsThroughRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 5
		w := newArena(t)
		ps := manyPolicies(t, 24)
		_, stop := w.daemon(options{}, ps...)
		after(2*time.Hour + 59*time.Minute)
		stop()
		rotated := w.countEvents(rotator.EventRotated)
		for range 8 { // all are due at 03:00, until 03:41
			_, stop = w.daemon(options{max: most}, ps...)
			after(5*time.Minute + 10*time.Second)
			stop()
		}
		if n := w.countEvents(rotator.EventRotated) - rotated; n != most {
			t.Errorf("%d rotations within the hour, %d are allowed", n, most)
		}
		r, stop := w.daemon(options{max: most}, ps...)
		defer stop()
		after(time.Minute)
		if n := strings.Count(w.logs.String(), `msg="rotation waits for the hourly limit"`); n < len(ps)-most {
			t.Errorf("%d policies are logged as throttled", n)
		}
		throttled := 0
		for i := range ps {
			if s := w.state(r, i); s.State == plan.StateThrottled {
				throttled++
				if want := "5 rotations within an hour (REKEYD_MAX_ROTATIONS_PER_HOUR is 5); it goes on after 04:0"; !strings.Contains(s.Message, want) {
					t.Errorf("it says %q, want %q", s.Message, want)
				}
			}
		}
		if throttled != len(ps)-most {
			t.Errorf("%d policies are shown as throttled", throttled)
		}
		for i, p := range ps { // whoever asks for one only
			seen, err := w.build(options{max: most}, ps...).Survey(t.Context(), p.Name)
			if here := w.state(r, i); err != nil || len(seen.Policies) != 1 || seen.Policies[0].State != here.State || seen.Policies[0].Message != here.Message {
				t.Errorf("a command says %s, %q, %v; the daemon %s, %q", seen.Policies[0].State, seen.Policies[0].Message, err, here.State, here.Message)
			}
		}
		leaked, _ := w.recordHolds(ps[0])
		if err := w.sim.DisableKey(leaked.ID, string(ledger.TriggerExposed)); err != nil {
			t.Fatal(err)
		}
		after(2 * time.Minute)
		if k, _ := w.recordHolds(ps[0]); k.ID == leaked.ID {
			t.Error("a leak waits for the brake")
		}
	})
}
