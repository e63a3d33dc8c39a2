package rotator_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
}

func (s *unreadable) set(prefix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefix = prefix
}

func (s *unreadable) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch refused := strings.HasPrefix(ref.Path, s.prefix); {
	case refused && s.outage:
		return ledger.Doc{}, &ledger.Error{Op: "reading", Reason: ledger.ReasonSinkSealed, Outage: true, Err: errors.New("Vault is sealed")}
	case refused:
		return ledger.Doc{}, &ledger.Error{Op: "reading", Reason: ledger.ReasonSinkDenied, Err: errors.New("permission denied")}
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
				if refused.State != plan.StateFailing || refused.Failure == nil || refused.Failure.Reason != ledger.ReasonSinkDenied {
					t.Errorf("the refused policy is %s: %+v", refused.State, refused.Failure)
				}
				if n := w.countEvents(rotator.EventFailed); n != refused.Failures || (n > 0) != c.fails || c.after == 0 && n > 1 {
					t.Errorf("%d failures are counted, and %d told", refused.Failures, n)
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
		if rotator.ReasonOf(r.Snapshot().StoreDown) != ledger.ReasonSinkSealed {
			t.Errorf("a minute after it was sealed: %v", r.Snapshot().StoreDown)
		}
		store.set("-")
		after(time.Minute + time.Second)
		if err := r.Snapshot().StoreDown; err != nil {
			t.Errorf("a minute after it was unsealed: %v", err)
		}
	})
}
