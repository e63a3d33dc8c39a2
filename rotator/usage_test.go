package rotator_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestAMonthlyResetIsNoUse: the counter begins anew with each billing period.
func TestAMonthlyResetIsNoUse(t *testing.T) {
	for left, used := range map[int64]bool{0: false, 3: true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			p := testPolicy(t, nil)
			r, stop := w.start(p)
			defer stop()
			after(time.Minute)
			old := w.inRecord(p).ID
			if err := w.sim.AddUsage(old, 10); err != nil {
				t.Fatal(err)
			}
			after(4 * time.Hour)
			if err := w.sim.AddUsage(old, left-10); err != nil {
				t.Fatal(err)
			}
			after(90 * time.Second)
			if got := r.Snapshot().Policies[0].InUse; got != used {
				t.Errorf("after the counter went from 10 to %d: in use %t", left, got)
			}
		})
	}
}

// TestAnOldKeyIsWatchedWhereItLives: what the policy's new workspace lists meanwhile says nothing about it.
func TestAnOldKeyIsWatchedWhereItLives(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, func(p *plan.Policy) { p.WaitUntilIdle = time.Hour })
	synctest.Test(t, func(t *testing.T) {
		e := newEdits(t, w, p)
		defer func() { e.stop() }()
		old := e.published(p)
		p.Workspace = "other"
		e.load(p)
		after(3*time.Hour + 50*time.Minute)
		slow := &slowListing{RoundTripper: elevensim.Transport(e.sim)}
		e.proc.mu.Lock()
		e.proc.api = byHost{"127.0.0.1": slow, "127.0.0.2": elevensim.Transport(e.other)}
		e.proc.mu.Unlock()
		for range 30 { // it is used every two minutes, and listed nearly as often
			if err := e.sim.AddUsage(old.ID, 1); err != nil {
				t.Fatal(err)
			}
			after(2 * time.Minute)
		}
		if k := e.every()[old.Secret]; k.Disabled {
			t.Error("a key in use was disabled")
		}
	})
}

// slowListing makes the time between two listings longer than the interval.
type slowListing struct{ http.RoundTripper }

func (s *slowListing) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/service-accounts") {
		<-time.After(14 * time.Second)
	}
	return s.RoundTripper.RoundTrip(r)
}

// TestARecoveredKeyIsNoYoungerThanItIs: max_age counts from the create, whoever commits the key.
func TestARecoveredKeyIsNoYoungerThanItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		_, stop := w.start(p)
		after(time.Minute)
		stop()
		if err := w.sim.SetFaults(elevensim.Faults{KeyDelay: elevensim.Duration(25 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		_, stopDead := w.startProcess(&process{fault: fault{call: "write secret/elevenlabs", nth: 1, mode: diesAfter}}, p)
		untilThree()
		stopDead()
		r, stop := w.start(p)
		defer stop()
		after(10 * time.Minute)
		k, s := w.inRecord(p), r.Snapshot().Policies[0]
		if s.Current == nil || s.Current.ID != k.ID || s.LastRotation.Before(time.Now().Add(-time.Hour)) {
			t.Fatalf("the rotation was not rolled forward: %+v", s.Current)
		}
		if s.Current.Created.After(k.CreatedAt) {
			t.Errorf("the ledger says that the key was created %s after it was", s.Current.Created.Sub(k.CreatedAt))
		}
	})
}
