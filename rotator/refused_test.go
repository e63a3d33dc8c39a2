package rotator_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// unreadable is a store that fails the reads of paths with a prefix.
type unreadable struct {
	ledger.Store

	mu     sync.Mutex
	prefix string // "-": none
	outage bool   // the store is sealed, rather than that the token lacks a right
	failed int
}

func (s *unreadable) refusals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *unreadable) set(prefix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefix = prefix
}

func (s *unreadable) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := strings.HasPrefix(ref.Path, s.prefix)
	if refused {
		s.failed++
	}
	switch {
	case refused && s.outage:
		return ledger.Doc{}, &ledger.Error{Op: "reading", Reason: ledger.FailureSinkSealed, Outage: true, Err: errors.New("Vault is sealed")}
	case refused:
		return ledger.Doc{}, &ledger.Error{Op: "reading", Reason: ledger.FailureSinkDenied, Err: errors.New("permission denied")}
	}
	return s.Store.Read(ctx, ref, version)
}

// TestARefusedPolicy leaves the process ready and the others alone, and is counted as failed if it is due as far as is known.
func TestARefusedPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		after time.Duration // since the start
		fails bool
	}{
		"the record of a first key": {"elevenlabs/tts-prod", 0, true},
		"the record of a due key":   {"elevenlabs/tts-prod", 2*time.Hour + 59*time.Minute, true},
		"the ledger entry":          {"rekeyd/policies/tts-prod", 0, false}, // so it is not known to be due
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				store := &unreadable{Store: w.store, prefix: "-"}
				w.store = store
				other := testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = "other", "elevenlabs/other" })
				if c.after == 0 {
					store.set(c.path)
				}
				r, stop := w.start(testPolicy(t, nil), other)
				defer stop()
				after(c.after + time.Second)
				store.set(c.path)
				after(5 * time.Minute)
				if err := r.Ready(); err != nil {
					t.Errorf("not ready: %v", err)
				}
				fine, refused := r.Snapshot().Policies[0], r.Snapshot().Policies[1]
				if fine.State != plan.StateOK || fine.Failures != 0 || fine.Successes < 1 {
					t.Errorf("the other policy is %s, with %d failures", fine.State, fine.Failures)
				}
				if refused.State != plan.StateFailing || refused.Failure == nil || refused.Failure.Reason != ledger.FailureSinkDenied {
					t.Errorf("the refused policy is %s: %+v", refused.State, refused.Failure)
				}
				if n := w.countEvents(rotator.EventFailed); n != refused.Failures || (n > 0) != c.fails || c.after == 0 && n > 1 {
					t.Errorf("%d failures are counted, and %d told", refused.Failures, n)
				}
			})
		})
	}
}

// TestARightThatIsLost shows within a minute if it is that to the whole ledger. A policy that cannot be read again is failing from
// then on, with one line in the log, until the right is back.
func TestARightThatIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		path   string
		ledger bool
	}{"to the ledger": {"rekeyd/", true}, "to an entry": {"rekeyd/policies/", false}, "to a record": {"elevenlabs/", false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				store := &unreadable{Store: w.store, prefix: "-"}
				w.store = store
				r, stop := w.start(testPolicy(t, nil))
				defer stop()
				after(time.Minute + time.Second)
				store.set(c.path)
				after(time.Minute + time.Second)
				if denied := rotator.FailureOf(r.Snapshot().StoreDown) == ledger.FailureSinkDenied; denied != c.ledger {
					t.Errorf("a minute after the right was lost: %v", r.Snapshot().StoreDown)
				}
				after(15 * time.Minute) // by now it was read again
				for range 90 {
					if got := w.state(r, 0); got.State != plan.StateFailing || got.Failure == nil || got.Failure.Reason != ledger.FailureSinkDenied {
						t.Fatalf("the policy is %s: %+v", got.State, got.Failure)
					}
					after(time.Minute)
				}
				if n := strings.Count(w.logs.String(), "sink_denied"); n != 1 && !c.ledger || n != 2 && c.ledger {
					t.Errorf("the log has %d lines", n)
				}
				store.set("-")
				after(time.Hour + time.Minute) // a refusal is asked about with growing waits
				if got := w.state(r, 0); got.State != plan.StateOK || r.Snapshot().StoreDown != nil {
					t.Errorf("with the right back the policy is %s, and the store: %v", got.State, r.Snapshot().StoreDown)
				}
			})
		})
	}
}

// TestAnOutageIsNoticedWhileNothingIsDue: within a minute, and so is its end.
func TestAnOutageIsNoticedWhileNothingIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		store := &unreadable{Store: w.store, prefix: "-", outage: true}
		w.store = store
		r, stop := w.start(testPolicy(t, nil))
		defer stop()
		after(5 * time.Minute) // the policy is read again ten minutes later
		if err := r.Snapshot().StoreDown; err != nil {
			t.Fatal(err)
		}
		store.set("")
		after(time.Minute + time.Second)
		if n := strings.Count(w.logs.String(), `msg="store unavailable" failure=sink_sealed`); n != 1 {
			t.Errorf("the outage has %d lines", n)
		}
		if rotator.FailureOf(r.Snapshot().StoreDown) != ledger.FailureSinkSealed {
			t.Errorf("a minute after it was sealed: %v", r.Snapshot().StoreDown)
		}
		store.set("-")
		after(time.Minute + time.Second)
		if err := r.Snapshot().StoreDown; err != nil {
			t.Errorf("a minute after it was unsealed: %v", err)
		}
		if n := strings.Count(w.logs.String(), `msg="store available again"`); n != 1 {
			t.Errorf("its end has %d lines", n)
		}
		w.must(w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500}}}))
		after(time.Minute + time.Second)
		if n := strings.Count(w.logs.String(), `msg="listing workspace failed"`); n != 1 {
			t.Errorf("an outage of ElevenLabs has %d lines", n)
		}
	})
}

// TestARecordThatCannotBeRead is noticed within a minute of the start although nothing is due, is shown until it can be read, and
// costs its policy no more calls than anything else.
func TestARecordThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		store := &unreadable{Store: w.store, prefix: "-"}
		w.store = store
		p := testPolicy(t, func(p *plan.Policy) { p.Schedule = mustParse(t, "0 3 15 * *") })
		_, stop := w.start(p)
		after(time.Minute)
		stop()

		store.set("elevenlabs/tts-prod")
		r, stop := w.start(p)
		defer stop()
		for at := time.Minute; at < 5*time.Hour; at += time.Minute {
			after(time.Minute)
			s := r.Snapshot().Policies[0]
			if s.State != plan.StateFailing || s.Failure == nil || s.Failure.Reason != ledger.FailureSinkDenied || s.Failures != 0 {
				t.Fatalf("after %s it is %s, %d failures: %+v", at, s.State, s.Failures, s.Failure)
			}
			if err := r.Ready(); err != nil {
				t.Fatalf("after %s it is not ready: %v", at, err)
			}
		}
		if n := store.refusals(); n > 40 {
			t.Errorf("it was read %d times in five hours", n)
		}
		store.set("-")
		after(plan.MaxBackoff + time.Minute)
		if s := r.Snapshot().Policies[0]; s.State != plan.StateOK || s.Failure != nil {
			t.Errorf("now that it can be read it is %s: %+v", s.State, s.Failure)
		}
	})
}
