package rotator_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// TestARefusedRetirementIsToldAndTriedAgain: it is no failed rotation, and the key is not forgotten.
func TestARefusedRetirementIsToldAndTriedAgain(t *testing.T) {
	for _, c := range []struct {
		operation string
		at        time.Duration // when it is due
		log       string
	}{{"updateAPIKey", 7 * time.Hour, "key disabled"}, {"deleteAPIKey", 13 * time.Hour, "key deleted"}} {
		t.Run(c.operation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := testPolicy(t, nil)
				w.guardReaders(p)
				r, stop := w.start(p)
				defer stop()
				after(c.at - time.Minute)
				if err := w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: c.operation, Count: 1, Status: 403, Code: "forbidden", Message: "no"}}}); err != nil {
					t.Fatal(err)
				}
				for w.countEvents(rotator.EventRetireError) == 0 {
					after(time.Second)
				}
				e, s := w.entry(p), w.state(r, 0)
				k := e.Retiring[0]
				if wait := time.Until(k.NextTry); k.Tries != 1 || wait < 25*time.Second || wait > time.Minute || len(k.Calls) != 0 || e.Claim != nil {
					t.Errorf("after a refusal: %+v", e)
				}
				if s.Failure != nil || s.Failures != 0 || !strings.Contains(w.logs.String(), `msg="retirement failed"`) {
					t.Errorf("%d failed rotations, %+v", s.Failures, s.Failure)
				}
				after(3 * time.Minute)
				if log := w.audited(); log[len(log)-1] != c.log || w.countEvents(rotator.EventRetireError) != 1 {
					t.Errorf("after the next try: %q", log)
				}
				if e = w.entry(p); len(e.Retiring) > 0 && (e.Retiring[0].Tries != 0 || !e.Retiring[0].NextTry.IsZero()) {
					t.Errorf("after the next try: %+v", e.Retiring[0])
				}
			})
		})
	}
}

// TestAKeyThatAPersonDisablesInItsOverlap goes into quarantine at once, and is told; a person's delete of it ends its retirement.
func TestAKeyThatAPersonDisablesInItsOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		_, stop := w.start(p)
		defer stop()
		after(time.Hour)
		first := w.inRecord(p)
		after(3 * time.Hour) // an hour into the overlap
		if err := w.sim.DisableKey(first.ID, ""); err != nil {
			t.Fatal(err)
		}
		after(3 * time.Minute)
		if k := w.entry(p).Retiring[0]; k.State != ledger.InQuarantine || k.Until.Sub(time.Now()) > p.Quarantine || w.countEvents(rotator.EventKeyDisabled) != 1 || w.countEvents(rotator.EventRetired) != 0 {
			t.Errorf("after a person disabled it: %+v", k)
		}
		if err := w.sim.DeleteKey(first.ID); err != nil {
			t.Fatal(err)
		}
		after(7 * time.Hour)
		if e := w.entry(p); len(e.Retiring) > 0 {
			t.Errorf("a key that is gone is still retired: %+v", e.Retiring)
		}
	})
}

// TestACurrentKeyThatAPersonDeletes is replaced, and gets neither overlap nor quarantine.
func TestACurrentKeyThatAPersonDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		_, stop := w.start(p)
		defer stop()
		after(5 * time.Minute)
		first := w.inRecord(p)
		if err := w.sim.DeleteKey(first.ID); err != nil {
			t.Fatal(err)
		}
		after(30 * time.Minute)
		if k := w.inRecord(p); k.ID == first.ID || k.Deleted() {
			t.Fatal("it was not replaced")
		}
		if e := w.entry(p); len(e.Retiring) > 0 {
			t.Errorf("the key that is gone: %+v", e.Retiring)
		}
	})
}

// TestRevokeEndsEveryOverlap: the keys that readers had, and one that a person enabled in quarantine, stop working at once and
// do not come back.
func TestRevokeEndsEveryOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		r, stop := w.start(p)
		defer stop()
		after(8 * time.Hour)
		first := w.alive()[0] // in quarantine
		if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		if err := w.sim.EnableKey(first.ID); err != nil {
			t.Fatal(err)
		}
		after(2 * time.Minute)
		if err := r.Request(p.Name, rotator.RotateOptions{Revoke: true}); err != nil {
			t.Fatal(err)
		}
		after(2 * time.Minute)
		current := w.inRecord(p)
		for _, k := range w.alive() {
			if k.Disabled != (k.ID != current.ID) {
				t.Errorf("key %s: disabled %t, in the record %t", k.ID, k.Disabled, k.ID == current.ID)
			}
		}
		e := w.entry(p)
		for _, k := range e.Retiring {
			if k.Reason != ledger.ReasonRevoke || k.State != ledger.InQuarantine {
				t.Errorf("retiring: %+v", k)
			}
		}
		if len(e.Retiring) != 3 {
			t.Errorf("%d keys are retiring, want 3", len(e.Retiring))
		}
		if err := w.build(options{}, p).Rollback(context.Background(), p.Name); err == nil || !strings.Contains(err.Error(), "revoke-now") {
			t.Errorf("rolling back: %v", err)
		}
	})
}

// TestRollback puts the previous key back, from overlap and from quarantine, and says what it did.
func TestRollback(t *testing.T) {
	for name, at := range map[string]time.Duration{"overlap": 4 * time.Hour, "quarantine": 8 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				_, stop := w.daemon(options{}, p)
				defer stop()
				after(at)
				before := w.entry(p)
				back, replaced := before.Retiring[0], before.Current
				if err := w.build(options{}, p).Rollback(context.Background(), p.Name); err != nil {
					t.Fatal(err)
				}
				e := w.entry(p)
				if k := w.inRecord(p); k.ID != back.ID || k.Disabled || e.Current.ID != back.ID || e.Current.Hash != back.Hash || !e.Current.Verified || len(e.Current.Calls) != 0 {
					t.Errorf("current: %+v", e.Current)
				}
				if len(e.Retiring) != 1 || e.Retiring[0].ID != replaced.ID || e.Retiring[0].State != ledger.InOverlap || e.Retiring[0].Reason != ledger.ReasonRollback ||
					!e.LastRotation.Equal(before.LastRotation) || e.Claim != nil || e.Intent != nil {
					t.Errorf("entry: %+v", e)
				}
				if log := strings.Join(w.audited(), ", "); !strings.HasSuffix(log, "key enabled again, record published, rotated") || strings.Contains(w.logs.String(), "recovered=true") {
					t.Errorf("logged: %s", log)
				}
				after(10 * time.Hour)
				w.mustWork(p, "after the rollback")
				w.accounted(p)
			})
		})
	}
}
