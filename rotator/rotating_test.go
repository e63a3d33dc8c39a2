package rotator_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestTheReplicaThatRotatesSaysSo, as a command does that reads the ledger meanwhile.
func TestTheReplicaThatRotatesSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*world)
		then   plan.State
	}{
		"a scheduled rotation":   {func(*world) {}, plan.StateOK},
		"after a failure":        {func(w *world) { w.setFaults(forbidding("createAPIKey", 2)) }, plan.StateOK},
		"the new key is refused": {func(w *world) { w.setFaults(elevensim.Faults{KeyDelay: elevensim.Duration(time.Hour)}) }, plan.StateFailing},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := testPolicy(t, func(p *plan.Policy) { p.Schedule = mustParse(t, "10 0 * * *") })
				created := holdLater(w.api, method(http.MethodPost))
				w.api = created
				r, stop := w.start(p)
				defer stop()
				after(5 * time.Minute)
				c.before(w)
				if w.sim.Faults().Rules != nil {
					after(6*time.Minute + 30*time.Second) // it fails twice
					if s := w.state(r, 0); s.State != plan.StateFailing {
						t.Fatalf("after its failures: %s, %s", s.State, s.Reason)
					}
				}
				created.arm()
				<-created.held
				for range 2 {
					if s := w.state(r, 0); s.State != plan.StateRotating || s.Reason != plan.WaitClaimed {
						t.Errorf("while the key is created: %s, %s", s.State, s.Reason)
					}
					after(20 * time.Second)
				}
				seen, err := w.build(options{}, p).Survey(t.Context(), p.Name)
				if err != nil || seen.Policies[0].State != plan.StateRotating {
					t.Errorf("a command says %s, %v", seen.Policies[0].State, err)
				}
				close(created.release)
				after(40 * time.Second) // the verify timeout
				if s := w.state(r, 0); s.State != c.then {
					t.Errorf("afterwards: %s, %s", s.State, s.Reason)
				}
			})
		})
	}
}

// TestARotatingReplicaWhoseCreateIsLost says so until it knows that there is no key.
func TestARotatingReplicaWhoseCreateIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		r, stop := w.startProcess(&process{fault: fault{call: "POST", nth: 1, mode: notApplied}}, p)
		defer stop()
		after(25 * time.Second)
		if s := w.state(r, 0); s.State != plan.StateRotating {
			t.Errorf("while it looks for the key: %s, %s", s.State, s.Reason)
		}
		after(2 * time.Minute)
		if s := w.state(r, 0); s.State != plan.StateOK {
			t.Errorf("afterwards: %s, %s", s.State, s.Reason)
		}
	})
}
