package rotator_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A full account gets room for one new key by ending the oldest quarantine, and by nothing else.
func TestAFullAccountGivesUpItsOldestQuarantine(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, func(p *plan.Policy) { p.Overlap, p.Quarantine = time.Hour, 100*time.Hour })
	w.guardReaders(p)
	w.sim.OnChange(func(c elevensim.Change) {
		if c.Kind == elevensim.Deleted && !w.entry(p).Key(c.Key.ID).Deleting() {
			t.Error("a key is deleted without a note of that in the ledger")
		}
	})
	if err := w.sim.SetFaults(elevensim.Faults{KeyLimit: 2}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p)
		defer stop()
		after(5 * time.Hour) // the first key, and the second at 03:00; the first is in quarantine
		if all := w.problems(r); len(all) > 0 {
			t.Errorf("before the account was full the problems are %q", all)
		}
		first, second := w.alive()[0], w.inRecord(p)
		if first.ID == second.ID || !first.Disabled || len(w.alive()) != 2 {
			t.Fatalf("after the second rotation: %+v", w.alive())
		}
		after(24 * time.Hour)
		third := w.inRecord(p)
		if third.ID == second.ID {
			t.Fatal("the full account was not given room")
		}
		if k, _ := w.sim.KeyBySecret(first.Secret); !k.Deleted() {
			t.Error("the oldest quarantined key is still there")
		}
		if k, _ := w.sim.KeyBySecret(second.Secret); k.Deleted() {
			t.Error("a key was given up that was not the oldest in quarantine")
		}
		if w.countEvents(rotator.EventFailed) != 0 {
			t.Error("the rotation for which room was made failed all the same")
		}
		if all := w.problems(r); !slices.Equal(all, []rotator.Problem{rotator.ProblemKeyLimitNear}) {
			t.Errorf("once room was made the problems are %q", all)
		}
		if accounts := r.Snapshot().Workspaces[0].Accounts; !slices.ContainsFunc(accounts, func(a elevenlabs.ServiceAccount) bool { return a.ID == account && len(a.Keys) == 2 }) {
			t.Errorf("the accounts have these keys: %v", accounts)
		}
		w.setFaults(elevensim.Faults{KeyLimit: 9})
		after(24 * time.Hour)
		if all := w.problems(r); len(all) > 0 {
			t.Errorf("once there is room the problems are %q", all)
		}
	})
}

// A current key that leaked in a full account is replaced: the oldest quarantined key makes room although the current one is dead.
func TestAFullAccountWhoseCurrentKeyLeaked(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, func(p *plan.Policy) { p.Overlap, p.Quarantine = time.Hour, 100*time.Hour })
	if err := w.sim.SetFaults(elevensim.Faults{KeyLimit: 2}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p)
		defer stop()
		after(5 * time.Hour)
		first, second := w.alive()[0], w.inRecord(p)
		if !first.Disabled || first.ID == second.ID {
			t.Fatalf("after the second rotation: %+v", w.alive())
		}
		if err := w.sim.DisableKey(second.ID, "exposed_publicly"); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Minute)
		if now := w.inRecord(p); now.ID == second.ID || now.Disabled || w.state(r, 0).Failure != nil {
			t.Errorf("readers have %+v: %+v", now, w.state(r, 0).Failure)
		}
	})
}

// A leaked key that cannot be replaced is a problem of its own for as long as its readers are refused.
func TestALeakedKeyThatIsNotReplacedStaysAProblem(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	disabled := rotator.Problem(plan.FaultKeyDisabled)
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p)
		defer stop()
		after(time.Minute)
		w.setFaults(elevensim.Faults{KeyLimit: 1})
		w.must(w.sim.DisableKey(w.inRecord(p).ID, "exposed_publicly"))
		for range 3 {
			after(time.Hour)
			if all := w.problems(r); !slices.Contains(all, disabled) || !slices.Contains(all, rotator.Problem(ledger.FailureKeyLimit)) || w.state(r, 0).CutOff != plan.DisabledExposed {
				t.Errorf("the problems are %q, readers are refused for %q", all, w.state(r, 0).CutOff)
			}
		}
		w.setFaults(elevensim.Faults{})
		after(time.Hour + time.Minute)
		if all := w.problems(r); len(all) > 0 || w.state(r, 0).CutOff != "" {
			t.Errorf("once it is replaced the problems are %q, readers are refused for %q", all, w.state(r, 0).CutOff)
		}
	})
}

// Where no quarantine can be ended, the create fails, and says why.
func TestAFullAccountWithoutQuarantineIsAFailure(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	for range 2 {
		if _, _, err := w.sim.AddKey(account, elevensim.KeySpec{Name: "by hand"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.sim.SetFaults(elevensim.Faults{KeyLimit: 2}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p)
		defer stop()
		after(10 * time.Second)
		s := r.Snapshot().Policies[0]
		if s.Failure == nil || s.Failure.Stage != ledger.StageCreate || s.Failure.Reason != ledger.FailureKeyLimit {
			t.Errorf("failure: %+v", s.Failure)
		}
		if len(w.alive()) != 2 {
			t.Errorf("keys of others were touched: %+v", w.alive())
		}
		if n := w.creates(); n != 1 {
			t.Errorf("%d creates, though nothing made room", n)
		}
	})
}

// A rotation costs at most one quarantine, the oldest, however often it is tried.
func TestAFullAccountGivesUpOneQuarantineForARotation(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, func(p *plan.Policy) { p.Overlap, p.Quarantine = time.Hour, 100*time.Hour })
	w.guardReaders(p)
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p)
		defer stop()
		after(29 * time.Hour) // the keys of 00:00 and of 03:00 are in quarantine
		keys := w.alive()
		w.edit(p, func(e *ledger.Entry) { // the oldest in the order of quarantines is not the first in the list
			e.Retiring[0], e.Retiring[1] = e.Retiring[1], e.Retiring[0]
		})
		limit := func(n int) {
			if err := w.sim.SetFaults(elevensim.Faults{KeyLimit: n}); err != nil {
				t.Fatal(err)
			}
		}
		limit(2) // one less than there are
		after(24 * time.Hour)
		if s := w.state(r, 0); s.Failure == nil || s.Failure.Reason != ledger.FailureKeyLimit || s.Failure.Count < 2 {
			t.Errorf("failure: %+v", s.Failure)
		}
		for i, k := range keys {
			if got := w.key(k.Secret); got.Deleted() != (i == 0) {
				t.Errorf("key %d: deleted %t", i, got.Deleted())
			}
		}
		if n := strings.Count(w.logs.String(), `msg="key deleted"`); n != 1 {
			t.Errorf("%d deletes are logged", n)
		}
		limit(0)
		after(2 * time.Hour)
		if w.inRecord(p).ID == keys[2].ID || w.state(r, 0).Failure != nil {
			t.Error("the rotation was given up")
		}
	})
}
