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

// limitedStore answers 429 for one mount, as a Vault quota on that mount does.
type limitedStore struct {
	ledger.Store
	mount atomic.Pointer[string] // nil for none
}

func (s *limitedStore) limited(ref ledger.Ref) error {
	if m := s.mount.Load(); m == nil || ref.Mount != *m {
		return nil
	}
	return &ledger.Error{Op: "reading " + ref.String(), Reason: ledger.FailureSinkRateLimited, Outage: true, Err: errors.New("Vault answers 429")}
}

func (s *limitedStore) Read(ctx context.Context, ref ledger.Ref, v int) (ledger.Doc, error) {
	time.Sleep(2 * time.Millisecond) //nolint:forbidigo // simulated time
	if err := s.limited(ref); err != nil {
		return ledger.Doc{}, err
	}
	return s.Store.Read(ctx, ref, v)
}

func (s *limitedStore) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	time.Sleep(2 * time.Millisecond) //nolint:forbidigo // simulated time
	if err := s.limited(ref); err != nil {
		return 0, err
	}
	return s.Store.Write(ctx, ref, data, cas)
}

// A quota on one mount stops the policies whose records are there, and no others; when it ends, they go on.
func TestAQuotaOfOneMountStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		ps := manyPolicies(t, 12)
		for i := range ps {
			if i%4 != 0 {
				ps[i].Sink.Mount = "team"
			}
		}
		if _, err := w.kv.Put("team/x", map[string]any{"a": "b"}); err != nil {
			t.Fatal(err)
		}
		_, stop := w.daemon(options{}, ps...)
		after(time.Hour)
		stop()
		limited := &limitedStore{Store: w.store}
		limited.mount.Store(new("team"))
		w.store = limited
		r, stop := w.daemon(options{}, ps...)
		defer stop()
		after(4 * time.Hour) // the run of 03:00
		for _, s := range r.Snapshot().Policies {
			switch rotated := s.LastRotation.Hour() == 3; {
			case s.Policy.Sink.Mount == "secret" && !rotated:
				t.Errorf("%s, in a mount that works: %s %s, rotated at %s", s.Policy.Name, s.State, s.Reason, s.LastRotation)
			case s.Policy.Sink.Mount == "team" && (rotated || s.State != plan.StateFailing || s.Reason != ledger.FailureSinkRateLimited):
				t.Errorf("%s, in a mount with a quota: %s %s, rotated at %s", s.Policy.Name, s.State, s.Reason, s.LastRotation)
			}
		}
		if err := r.Snapshot().StoreDown; err != nil {
			t.Errorf("the store as a whole counts as down: %v", err)
		}
		if n := strings.Count(w.logs.String(), `msg="store unavailable" mount=team`); n != 1 {
			t.Errorf("the log says %d times that the mount does not serve", n)
		}
		limited.mount.Store(nil)
		after(2 * time.Minute)
		for _, s := range r.Snapshot().Policies {
			if s.State != plan.StateOK || s.LastRotation.Hour() < 3 {
				t.Errorf("two minutes after the quota: %s: %s %s, rotated at %s", s.Policy.Name, s.State, s.Reason, s.LastRotation)
			}
		}
	})
}
