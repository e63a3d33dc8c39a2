package rotator_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestAPrunedPolicyWhoseKeyIsReadReturns: prune disabled the only key that its readers have.
func TestAPrunedPolicyWhoseKeyIsReadReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p, other := testPolicy(t, nil), second(t, nil)
		_, stop := w.daemon(options{}, p, other)
		after(time.Hour)
		stop()
		first := w.inRecord(p)
		op := w.build(options{}, other)
		lost, err := op.Lost(context.Background(), p.Name)
		if err != nil || len(lost) != 1 {
			t.Fatal(lost, err)
		}
		if err := op.Prune(context.Background(), lost[0]); err != nil {
			t.Fatal(err)
		}
		if !w.key(first.Secret).Disabled {
			t.Fatal("prune did not disable the key")
		}
		r, stop := w.daemon(options{}, p, other)
		defer stop()
		after(10 * time.Minute)
		w.mustWork(p, "ten minutes after the policy was loaded again")
		if s := named(t, r, p.Name); s.State != plan.StateOK || s.Current == nil || s.Current.ID != first.ID {
			t.Errorf("%s (%s): %s", s.State, s.Reason, s.Message)
		}
	})
}

// overtaken is a store where others act right after a record was written.
type overtaken struct {
	ledger.Store
	then  func()
	armed atomic.Bool
}

func (s *overtaken) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	version, err := s.Store.Write(ctx, ref, data, cas)
	if strings.HasPrefix(ref.Path, "elevenlabs/") && s.armed.CompareAndSwap(true, false) {
		s.then()
	}
	return version, err
}

// TestAPublicationThatIsTakenBackAtOnce was one all the same: it is not sent again over a person's rollback.
func TestAPublicationThatIsTakenBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		s := &overtaken{Store: w.store, then: func() { w.putBack(p) }}
		w.store = s
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Hour)
		first := w.inRecord(p)
		s.armed.Store(true)
		after(3 * time.Hour)
		if s.armed.Load() {
			t.Fatal("nothing was published")
		}
		if k := w.inRecord(p); k.ID != first.ID {
			t.Errorf("the record holds key %s, and a person had put %s back", k.ID, first.ID)
		}
		w.mustWork(p, "after a person's rollback")
	})
}

// TestAKeyThatIsListedAsDisabledIsDisabled when it is replaced, by a call of ours: the listing may be of before it was enabled.
func TestAKeyThatIsListedAsDisabledIsDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		var patches atomic.Int64
		r, stop := w.daemon(options{api: counting{w.api, func(r *http.Request) {
			if r.Method == http.MethodPatch {
				patches.Add(1)
			}
		}}}, p)
		defer stop()
		after(time.Hour)
		first := w.inRecord(p)
		if err := w.sim.DisableKey(first.ID, ""); err != nil {
			t.Fatal(err)
		}
		after(5 * time.Minute)
		if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Minute)
		if k := w.inRecord(p); k.ID == first.ID || patches.Load() != 1 {
			t.Errorf("the record holds %s; %d calls disabled %s", k.ID, patches.Load(), first.ID)
		}
	})
}
