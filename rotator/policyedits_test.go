package rotator_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestAReplicaWithoutThePolicyKeepsItsOverlap: how long it may be prolonged is in the ledger.
func TestAReplicaWithoutThePolicyKeepsItsOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, func(p *plan.Policy) { p.WaitUntilIdle = 6 * time.Hour })
		other := testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = "other", "elevenlabs/other" })
		_, stop := w.daemon(options{}, p, other)
		defer stop()
		_, stopB := w.daemon(options{}, other) // has not got the new file yet
		defer stopB()
		after(time.Hour)
		first, _ := w.recordHolds(p)
		for range 11 * 60 { // a reader uses the old key all the time
			after(time.Minute)
			if err := w.sim.AddUsage(first.ID, 10); err != nil {
				t.Fatal(err)
			}
			if w.key(first.Secret).Disabled {
				t.Fatalf("at %s the old key was disabled under its reader; wait_until_idle allows until 13:00", time.Now().Format("15:04"))
			}
		}
	})
}

// TestRolledForwardUnverified: a key that the policy did not have verified when it was made does not count as verified
// because the policy says so now.
func TestRolledForwardUnverified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		off, auto := testPolicy(t, func(p *plan.Policy) { p.Verify = false }), testPolicy(t, nil)
		_, stop := w.daemon(options{}, off)
		after(2*time.Hour + 59*time.Minute)
		stop()
		first, _ := w.recordHolds(off)
		if err := w.sim.SetFaults(elevensim.Faults{KeyDelay: elevensim.Duration(100 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
		proc := &process{fault: fault{call: "write secret/elevenlabs", nth: 1, mode: diesAfter}}
		_, stop = w.startProcess(proc, off)
		for !proc.isDead() {
			after(time.Second)
		}
		stop()
		r, stop := w.daemon(options{}, auto)
		defer stop()
		after(8 * time.Hour)
		if w.key(first.Secret).Disabled {
			t.Error("the current key was never seen to work, and the old one was disabled")
		}
		if s := w.state(r, 0); s.Current.ID == first.ID || s.Current.Verified {
			t.Errorf("current %s, verified %t", s.Current.ID, s.Current.Verified)
		}
	})
}

// TestMetadataDeletedInMidRotation: version numbers begin anew, and what was known of them means nothing.
func TestMetadataDeletedInMidRotation(t *testing.T) {
	matches := map[string]func(*http.Request) bool{"create": creating, "verify": verifying, "inspect": inspecting}
	for _, path := range []string{"secret/rekeyd/policies/tts-prod", "secret/elevenlabs/tts-prod", "secret/rekeyd/owner"} {
		for at, match := range matches {
			t.Run(strings.ReplaceAll(path, "/", "_")+" before "+at, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newArena(t)
					p := testPolicy(t, brief)
					h := holdLater(w.api, match)
					r, stop := w.daemon(options{api: h}, p)
					defer stop()
					after(2*time.Hour + 59*time.Minute)
					h.arm()
					<-h.held
					w.kv.Delete(path)
					close(h.release)
					r2, stop2 := w.daemon(options{}, p)
					defer stop2()
					for range 200 {
						after(time.Minute)
						if k, ok := w.recordHolds(p); ok && (k.Disabled || k.Deleted()) {
							w.mustWork(p, time.Now().Format("at 15:04"))
							break
						}
					}
					after(briefLife)
					w.mustWork(p, "in the end")
					for _, s := range []rotator.PolicyStatus{w.state(r, 0), w.state(r2, 0)} {
						if s.State != plan.StateOK {
							t.Errorf("%s %s: %s", s.State, s.Reason, s.Message)
						}
					}
				})
			})
		}
	}
}
