package rotator_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// refusedRecord is a store that refuses writes of records, for certain, as often as it is told.
type refusedRecord struct {
	ledger.Store
	left atomic.Int32
}

func (s *refusedRecord) Write(ctx context.Context, ref ledger.Ref, data map[string]any, cas int) (int, error) {
	if strings.HasPrefix(ref.Path, "elevenlabs/") && s.left.Add(-1) >= 0 {
		return 0, &ledger.Error{Op: "writing", Reason: ledger.ReasonSinkDenied, Err: errors.New("no")}
	}
	return s.Store.Write(ctx, ref, data, cas)
}

// TestAFailureIsToldAndSettled has one step of a rotation fail: it is told once, its key is deleted at once, the ledger says when it is
// tried again, and that succeeds.
func TestAFailureIsToldAndSettled(t *testing.T) {
	create := func(kind elevensim.Kind) elevensim.Faults {
		return elevensim.Faults{Rules: []elevensim.Rule{{Kind: kind, Operation: "createAPIKey", Count: 1, Status: 403, Code: "forbidden", Message: "no"}}}
	}
	for _, c := range []struct {
		name      string
		faults    elevensim.Faults
		refused   int32 // writes of the record
		stage     ledger.Stage
		reason    ledger.Reason
		lost      int  // keys deleted
		abandoned int  // rotations remembered
		spent     bool // what tries in vain may cost in an hour
	}{
		{name: "create refused", faults: create(elevensim.Status), stage: ledger.StageCreate, reason: ledger.ReasonForbidden},
		{name: "create cut before", faults: create(elevensim.CutBefore), stage: ledger.StageCreate, reason: ledger.ReasonLostAnswer, abandoned: 1},
		{name: "create cut after", faults: create(elevensim.CutAfter), stage: ledger.StageCreate, reason: ledger.ReasonLostAnswer, lost: 1, abandoned: 1},
		{name: "create answered 500", faults: create(elevensim.Status500After), stage: ledger.StageCreate, reason: ledger.ReasonLostAnswer, lost: 1, abandoned: 1},
		{name: "create answered half", faults: create(elevensim.Truncate), stage: ledger.StageCreate, reason: ledger.ReasonLostAnswer, lost: 1, abandoned: 1},
		{name: "create answered with no JSON", faults: create(elevensim.Malformed), stage: ledger.StageCreate, reason: ledger.ReasonLostAnswer, lost: 1, abandoned: 1},
		{name: "create cut after, listings lag", faults: func() elevensim.Faults {
			f := create(elevensim.CutAfter)
			f.ListLag = elevensim.Duration(20 * time.Second)
			return f
		}(), stage: ledger.StageCreate, reason: ledger.ReasonLostAnswer, lost: 1, abandoned: 1},
		{name: "the new key does not work", faults: elevensim.Faults{KeyDelay: elevensim.Duration(time.Hour)}, stage: ledger.StageVerify, reason: ledger.ReasonNotUsable, lost: 1, abandoned: 1, spent: true},
		{name: "publish refused", refused: 1, stage: ledger.StagePublish, reason: ledger.ReasonSinkDenied, lost: 1, abandoned: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			store := &refusedRecord{Store: w.store}
			w.store = store
			sched, err := schedule.Parse("7 3 * * *", "UTC") // not when everything is read again
			if err != nil {
				t.Fatal(err)
			}
			p := testPolicy(t, func(p *plan.Policy) { p.Schedule = sched })
			w.guardReaders(p)
			synctest.Test(t, func(t *testing.T) {
				r, stop := w.start(p)
				defer stop()
				after(3*time.Hour + 6*time.Minute + 30*time.Second)
				first := w.inRecord(p)
				if err := w.sim.SetFaults(c.faults); err != nil {
					t.Fatal(err)
				}
				store.left.Store(c.refused)
				var failed rotator.Event
				for failed.Type == "" {
					after(time.Second)
					w.mu.Lock()
					for _, e := range w.events {
						if e.Type == rotator.EventFailed {
							failed = e
						}
					}
					w.mu.Unlock()
				}
				after(3 * time.Second)
				e, s := w.entry(p), w.state(r, 0)
				if e.Failure == nil || s.Failure == nil {
					t.Fatalf("failure in the ledger %+v, shown %+v", e.Failure, s.Failure)
				}
				if f := e.Failure; f.Stage != c.stage || f.Reason != c.reason || f.Count != 1 || f.NextTry.Sub(f.At) < 30*time.Second || f.NextTry.Sub(f.At) > time.Minute {
					t.Errorf("failure in the ledger: %+v", f)
				}
				if failed.Stage != c.stage || failed.Reason != c.reason || s.Failure.Reason != c.reason || s.State != plan.StateFailing || s.Failures != 1 {
					t.Errorf("told: %+v; shown: %s, %d failures, %+v", failed, s.State, s.Failures, s.Failure)
				}
				if len(e.Abandoned) != c.abandoned || e.Claim != nil || e.Intent != nil || e.Current.ID != first.ID || len(e.Retiring) > 0 {
					t.Errorf("entry: %+v", e)
				}
				if n := w.countEvents(rotator.EventLostDeleted); n != c.lost || len(w.alive()) != 1 || strings.Count(w.logs.String(), "abandoned key deleted") != c.lost {
					t.Errorf("%d lost keys were deleted, keys %+v", n, w.alive())
				}
				if err := w.sim.SetFaults(elevensim.Faults{}); err != nil {
					t.Fatal(err)
				}
				if after(20 * time.Second); w.inRecord(p).ID != first.ID {
					t.Error("it was tried again at once")
				}
				after(3 * time.Minute)
				if c.spent {
					after(time.Hour)
				}
				if s := w.state(r, 0); w.inRecord(p).ID == first.ID || s.Failure != nil || s.State != plan.StateOK || w.entry(p).Failure != nil {
					t.Errorf("after the next try: %s, %+v", s.State, s.Failure)
				}
				if n := w.countEvents(rotator.EventFailed); n != 1 || strings.Count(w.logs.String(), `msg="rotation failed"`) != 1 || len(w.alive()) != 2 {
					t.Errorf("%d failures were told, keys %+v", n, w.alive())
				}
			})
		})
	}
}
