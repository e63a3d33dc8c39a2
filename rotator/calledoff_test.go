package rotator_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// overwriting is a store where, right after a claim, others change the record; with fail, the write that gives the claim
// back is refused once.
type overwriting struct {
	ledger.Store
	p       plan.Policy
	armed   atomic.Bool
	fail    bool
	failing atomic.Bool
}

func (s *overwriting) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	e, entry := data.(*ledger.Entry)
	if entry && s.failing.CompareAndSwap(true, false) {
		return 0, &ledger.Error{Op: "writing", Reason: ledger.FailureSinkError, Err: errors.New("no")}
	}
	v, err := s.Store.Write(ctx, ref, data, cas)
	if entry && err == nil && e.Intent != nil && s.armed.CompareAndSwap(true, false) {
		doc, _ := s.Read(ctx, s.p.Sink.Ref, 0)
		fields := doc.Fields()
		fields[s.p.Sink.Field] = "sk_of_somebody_else_0123456789"
		_, _ = s.Store.Write(ctx, s.p.Sink.Ref, fields, doc.Version)
		s.failing.Store(s.fail)
	}
	return v, err
}

// TestARotationThatIsCalledOffIsNoFailure, whatever becomes of the write that gives its claim back.
func TestARotationThatIsCalledOffIsNoFailure(t *testing.T) {
	for _, fail := range []bool{false, true} {
		w := newWorld(t)
		p := testPolicy(t, nil)
		s := &overwriting{Store: w.store, p: p, fail: fail}
		w.store = s
		synctest.Test(t, func(t *testing.T) {
			r, stop := w.start(p)
			defer stop()
			after(2 * time.Hour)
			s.armed.Store(true)
			after(90 * time.Minute)
			if st := w.state(r, 0); w.countEvents(rotator.EventFailed) != 0 || st.Failures != 0 || st.Failure != nil || st.Reason != plan.FaultRecordChanged {
				t.Errorf("the write fails: %t: %d failed events, %d failures, %+v, %s", fail, w.countEvents(rotator.EventFailed), st.Failures, st.Failure, st.Reason)
			}
		})
	}
}
