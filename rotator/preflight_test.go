package rotator_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// brokenStore fails every call, or only the check before a create, in one way.
type brokenStore struct {
	ledger.Store
	failure   *ledger.Error
	onlyCheck bool
	mended    atomic.Bool
	calls     atomic.Int64
}

func (s *brokenStore) fail() error {
	s.calls.Add(1)
	if s.onlyCheck || s.mended.Load() {
		return nil
	}
	return s.failure
}

func (s *brokenStore) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if err := s.fail(); err != nil {
		return ledger.Doc{}, err
	}
	return s.Store.Read(ctx, ref, version)
}

func (s *brokenStore) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	if err := s.fail(); err != nil {
		return 0, err
	}
	return s.Store.Write(ctx, ref, data, cas)
}

func (s *brokenStore) Check(context.Context, ...ledger.Ref) error {
	s.calls.Add(1)
	if s.mended.Load() {
		return nil
	}
	return s.failure
}

// A store that does not serve, or that refuses, costs no key, no storm of calls, and one failure a policy.
func TestAStoreThatDoesNotServeCostsNoKey(t *testing.T) {
	for _, c := range []struct {
		reason    ledger.Failure
		outage    bool
		onlyCheck bool
	}{
		{ledger.FailureSinkSealed, true, false},
		{ledger.FailureSinkStandby, true, false},
		{ledger.FailureSinkUnreachable, true, false},
		{ledger.FailureSinkTLS, true, false},
		{ledger.FailureSinkRateLimited, true, false},
		{ledger.FailureSinkDenied, true, false},
		{ledger.FailureSinkSealed, true, true},
		{ledger.FailureSinkDenied, false, true},
		{ledger.FailureSinkNoMount, false, true},
		{ledger.FailureSinkNotKV2, false, true},
	} {
		name := string(c.reason)
		if c.onlyCheck {
			name += " at the check"
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			broken := &brokenStore{Store: w.store, onlyCheck: c.onlyCheck, failure: &ledger.Error{Op: "asking", Reason: c.reason, Outage: c.outage, Err: errors.New("no")}}
			w.store = broken
			synctest.Test(t, func(t *testing.T) {
				proc := &process{}
				r, stop := w.startProcess(proc, testPolicy(t, nil))
				after(2 * time.Hour)
				s := r.Snapshot().Policies[0]
				stop()
				for _, call := range proc.made() {
					if strings.HasPrefix(call, "POST") {
						t.Errorf("a key was created: %s", call)
					}
				}
				if s.State != plan.StateFailing || s.Failure == nil || s.Failure.Reason != c.reason || s.Failure.Stage != ledger.StageClaim {
					t.Errorf("state %s, failure %+v", s.State, s.Failure)
				}
				if s.Failures > 1 {
					t.Errorf("one failure was counted %d times", s.Failures)
				}
				if n := broken.calls.Load(); n > 2*4*60 { // two hours of one reconcile a minute
					t.Errorf("%d calls to a store that does not serve", n)
				}
			})
		})
	}
}

// An outage that begins before a rotation is due counts as one failure and is over as soon as the store answers again.
func TestAnOutageIsOneFailureAndThenOver(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	broken := &brokenStore{Store: w.store, failure: &ledger.Error{Op: "asking", Reason: ledger.FailureSinkSealed, Outage: true, Err: errors.New("no")}}
	broken.mended.Store(true)
	w.store = broken
	synctest.Test(t, func(t *testing.T) {
		proc := &process{}
		r, stop := w.startProcess(proc, p)
		defer stop()
		after(2 * time.Hour)
		broken.mended.Store(false)
		before := len(proc.made())
		after(3 * time.Hour) // due since 03:00
		for _, call := range proc.made()[before:] {
			if strings.HasPrefix(call, "POST") {
				t.Errorf("a key was created during the outage: %s", call)
			}
		}
		if s := r.Snapshot().Policies[0]; s.Failures != 1 || s.State != plan.StateFailing {
			t.Errorf("during the outage: state %s, %d failures", s.State, s.Failures)
		}
		broken.mended.Store(true)
		after(2 * time.Minute)
		if s := r.Snapshot().Policies[0]; s.Successes != 2 || s.State != plan.StateOK {
			t.Errorf("two reconcile intervals after the outage: state %s, %d rotations", s.State, s.Successes)
		}
	})
}
