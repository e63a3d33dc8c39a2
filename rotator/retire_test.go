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

// TestARevokeWhoseProcessDies right after it committed the new key: no request is left that asks for it, and the older keys are
// disabled all the same, and do not come back.
func TestARevokeWhoseProcessDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		r, stop := w.start(p)
		after(8 * time.Hour)
		first := w.alive()[0] // in quarantine
		if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		if err := w.sim.EnableKey(first.ID); err != nil {
			t.Fatal(err)
		}
		stop()
		dying := &process{fault: fault{call: "write secret/rekeyd/policies", nth: 2, mode: diesAfter}}
		r, stop = w.startProcess(dying, p)
		after(2 * time.Minute)
		if err := r.Request(p.Name, rotator.RotateOptions{Revoke: true}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		if !dying.isDead() {
			t.Fatal("the process did not die")
		}
		stop()
		current := w.inRecord(p)
		if w.entry(p).Current.ID != current.ID {
			t.Fatal("it died before the commit")
		}
		_, stop = w.start(p)
		defer stop()
		after(10 * time.Minute)
		for _, k := range w.alive() {
			if k.Disabled != (k.ID != current.ID) {
				t.Errorf("key %s: disabled %t, in the record %t", k.ID, k.Disabled, k.ID == current.ID)
			}
		}
		for _, k := range w.entry(p).Retiring {
			if k.Reason != ledger.ReasonRevoke {
				t.Errorf("retiring: %+v", k)
			}
		}
	})
}
