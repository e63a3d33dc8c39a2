package rotator_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A call about a key may be carried out long after it was decided, by a process that everybody takes for dead. Each test
// here holds one back, lets others go on, and releases it.

// within is a context for a command of the test.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// firstSecret returns the secret that the first version of the policy's record holds.
func (a *arena) firstSecret(p plan.Policy) string {
	a.t.Helper()
	data, _ := a.kv.Get(p.Sink.String(), 1)
	secret, _ := data[p.Sink.Field].(string)
	if secret == "" {
		a.t.Fatalf("the first version of %s holds no secret", p.Sink)
	}
	return secret
}

// putBack is what a person does with vault kv rollback -version=1.
func (a *arena) putBack(p plan.Policy) {
	a.t.Helper()
	data, _ := a.kv.Get(p.Sink.String(), 1)
	if _, err := a.kv.Put(p.Sink.String(), data); err != nil {
		a.t.Fatal(err)
	}
}

// rollback has a command put the previous key back.
func (a *arena) rollback(p plan.Policy) {
	a.t.Helper()
	if err := a.build(options{}, p).Rollback(within(a.t, 10*time.Minute), p.Name); err != nil {
		a.t.Fatalf("rollback: %v", err)
	}
	a.mustWork(p, "after the rollback")
}

// TestALateDisableAfterAnothersDisable: the other replica's own call was answered, which says nothing about the first.
func TestALateDisableAfterAnothersDisable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := hold(w.api, method(http.MethodPatch))
		_, stopA := w.daemon(options{api: h}, p)
		defer stopA()
		<-h.held // 07:00: the overlap of the first key ended
		_, stopB := w.daemon(options{}, p)
		defer stopB()
		after(10 * time.Minute)
		w.rollback(p)
		after(5 * time.Minute)
		close(h.release)
		after(2 * time.Minute)
		w.mustWork(p, "two minutes after the late disable")
		after(2 * time.Hour)
		w.mustWork(p, "two hours later")
	})
}

// TestALateDisableAfterARefusal: the other replica looks again, does not disable the key, and forgets its own note only.
func TestALateDisableAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := hold(w.api, method(http.MethodPatch))
		_, stopA := w.daemon(options{api: h}, p)
		defer stopA()
		<-h.held
		r, stopB := w.daemon(options{}, p)
		defer stopB()
		after(30 * time.Second)
		w.putBack(p)
		after(30 * time.Minute)
		if s := w.state(r, 0); len(s.Current.Calls) == 0 || s.Current.ID != w.key(w.firstSecret(p)).ID {
			t.Errorf("current is %s, with the calls %+v", s.Current.ID, s.Current.Calls)
		}
		close(h.release)
		after(2 * time.Minute)
		w.mustWork(p, "two minutes after the late disable")
		after(2 * time.Hour)
		w.mustWork(p, "two hours later")
	})
}

// TestALateDisableBeforeTheRollbackIsSeen: the record was rolled back, and no replica has looked yet.
func TestALateDisableBeforeTheRollbackIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := hold(w.api, method(http.MethodPatch))
		_, stopA := w.daemon(options{api: h}, p)
		defer stopA()
		<-h.held
		r, stopB := w.daemon(options{}, p)
		defer stopB()
		w.putBack(p)
		close(h.release)
		after(30 * time.Minute)
		w.mustWork(p, "half an hour after the rollback")
		if s := w.state(r, 0); s.State != plan.StateOK {
			t.Errorf("%s %s: %s", s.State, s.Reason, s.Message)
		}
	})
}

// TestALateDelete: a key that may be deleted at any time does not become current, by a command or by the record.
func TestALateDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := hold(w.api, method(http.MethodDelete))
		_, stopA := w.daemon(options{api: h}, p)
		defer stopA()
		<-h.held // 13:00: the quarantine of the first key ended
		stopper := w.build(options{}, p)
		err := stopper.Rollback(within(t, 10*time.Minute), p.Name)
		if err == nil || !strings.Contains(err.Error(), "is being deleted") {
			t.Errorf("rollback: %v", err)
		}
		close(h.release)
		after(10 * time.Minute)
		w.mustWork(p, "ten minutes after the late delete")
		w.accounted(p)
	})
}

// An admin key that a late disable may take is not put back: nothing else could enable it again.
func TestALateDisableOfAnAdminKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admins, p := newAdminWorld(t)
		w := newArena(t)
		w.sim, w.api, w.admin, p.Mode = admins.sim, admins.api, admins.admin, plan.ModeManual
		p.Adopt = w.putAdminKey(p)
		h := holdLater(w.api, method(http.MethodPatch))
		_, stop := w.daemon(options{api: h}, p)
		defer stop()
		rotate := func() {
			if err := w.build(options{}, p).Rotate(within(t, time.Hour), p.Name, rotator.RotateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		after(10 * time.Minute)
		rotate()
		after(6 * time.Hour) // the one by hand is disabled
		h.arm()
		rotate()
		<-h.held
		after(10 * time.Minute)
		err := w.build(options{}, p).Rollback(within(t, 10*time.Minute), p.Name)
		if err == nil || !strings.Contains(err.Error(), "is being disabled") {
			t.Errorf("rollback: %v", err)
		}
		close(h.release)
		after(time.Minute)
		w.mustWork(p, "after the late disable")
	})
}

// TestARecordRolledBackToAKeyThatIsBeingDeleted is a person's to decide: the key may go at any time.
func TestARecordRolledBackToAKeyThatIsBeingDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := hold(w.api, method(http.MethodDelete))
		_, stopA := w.daemon(options{api: h}, p)
		defer stopA()
		<-h.held
		r, stopB := w.daemon(options{}, p)
		defer stopB()
		if err := w.sim.EnableKey(w.key(w.firstSecret(p)).ID); err != nil {
			t.Fatal(err)
		}
		w.putBack(p)
		after(30 * time.Minute)
		s := w.state(r, 0)
		if s.State != plan.StateError || !strings.Contains(s.Message, "delete is not answered") {
			t.Errorf("%s %s: %s", s.State, s.Reason, s.Message)
		}
		if err := w.build(options{}, p).Rotate(within(t, time.Hour), p.Name, rotator.RotateOptions{}); err != nil {
			t.Error(err)
		}
		close(h.release)
		after(time.Hour)
		w.mustWork(p, "after the late delete")
		w.accounted(p)
	})
}

// TestALateEnableOfARevokedKey: a rollback is overtaken by --revoke-now.
func TestALateEnableOfARevokedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(8 * time.Hour) // the first key is in quarantine since 07:00
		first := w.firstSecret(p)
		h := hold(w.api, method(http.MethodPatch))
		ctx := within(t, 10*time.Hour)
		go func() { _ = w.build(options{api: h}, p).Rollback(ctx, p.Name) }()
		<-h.held
		after(10 * time.Minute) // the daemon takes the rollback over and gives it up
		if err := w.build(options{}, p).Rotate(ctx, p.Name, rotator.RotateOptions{Revoke: true}); err != nil {
			t.Fatal(err)
		}
		current, _ := w.recordHolds(p)
		for _, k := range w.alive() {
			if k.ID != current.ID && !k.Disabled {
				t.Errorf("after --revoke-now key %s works", k.ID)
			}
		}
		close(h.release)
		after(2*time.Minute + 10*time.Second)
		if !strings.Contains(w.logs.String(), "key enabled again") { // the daemon may have undone it within the second
			t.Error("the late enable did not come")
		}
		if !w.key(first).Disabled {
			t.Error("two minutes after the late enable the revoked key works")
		}
		after(9 * time.Hour)
		w.accounted(p)
	})
}

// TestAPersonsActIsNotTakenForOurs: a note whose call was never sent explains nothing any more after a week.
func TestAPersonsActIsNotTakenForOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, func(p *plan.Policy) { p.Mode = plan.ModeManual })
		proc := &process{fault: fault{call: "PATCH", nth: 1, mode: diesBefore}}
		_, stop := w.startProcess(proc, p)
		after(time.Hour)
		if err := w.build(options{}, p).Rotate(context.Background(), p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		for !proc.isDead() {
			after(time.Second)
		}
		stop()
		w.rollback(p)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(8 * 24 * time.Hour)
		k, _ := w.recordHolds(p)
		if err := w.sim.DisableKey(k.ID, ""); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Minute)
		if s := w.state(r, 0); !w.key(k.Secret).Disabled || s.Reason != plan.FaultKeyDisabled {
			t.Errorf("disabled %t, %s %s: %s", w.key(k.Secret).Disabled, s.State, s.Reason, s.Message)
		}
	})
}

// TestAPersonEnablesAKeyInQuarantine: it is shown, and left as it is until --revoke-now.
func TestAPersonEnablesAKeyInQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(8 * time.Hour)
		first := w.key(w.firstSecret(p))
		if err := w.sim.EnableKey(first.ID); err != nil {
			t.Fatal(err)
		}
		after(12 * time.Hour) // past the end of its quarantine
		k := w.key(first.Secret)
		if s := w.state(r, 0); k.Disabled || k.Deleted() || s.State != plan.StateOK || s.Reason != plan.WaitQuarantineEnabled {
			t.Errorf("disabled %t, deleted %t, %s %s: %s", k.Disabled, k.Deleted(), s.State, s.Reason, s.Message)
		}
		if err := w.build(options{}, p).Rotate(within(t, time.Hour), p.Name, rotator.RotateOptions{Revoke: true}); err != nil {
			t.Fatal(err)
		}
		if k := w.key(first.Secret); !k.Disabled {
			t.Error("it works after --revoke-now")
		}
		after(7 * time.Hour)
		if k := w.key(first.Secret); !k.Deleted() {
			t.Error("it still exists after another quarantine")
		}
	})
}

// TestARollbackThatWaitedForRevoke does not put back what was revoked meanwhile.
func TestARollbackThatWaitedForRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(3*time.Hour + time.Minute) // the first key is in overlap
		first := w.firstSecret(p)
		h := hold(w.api, creating)
		ctx := within(t, 10*time.Minute)
		revoked, back := make(chan error, 1), make(chan error, 1)
		go func() {
			revoked <- w.build(options{api: h}, p).Rotate(ctx, p.Name, rotator.RotateOptions{Revoke: true})
		}()
		<-h.held
		go func() { back <- w.build(options{}, p).Rollback(ctx, p.Name) }()
		after(5 * time.Second)
		close(h.release)
		if err := <-revoked; err != nil {
			t.Fatal(err)
		}
		if err := <-back; err == nil {
			t.Error("the rollback says that it is done")
		}
		after(time.Minute)
		if !w.key(first).Disabled {
			t.Error("a key that --revoke-now retired works again")
		}
		w.mustWork(p, "in the end")
	})
}

// TestAWrongClockForgetsNothing: to a process whose clock is a year ahead every note looks old.
func TestAWrongClockForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, func(p *plan.Policy) { p.Mode = plan.ModeManual })
		h := hold(w.api, method(http.MethodPatch))
		_, stopHeld := w.daemon(options{api: h}, p)
		defer stopHeld()
		after(time.Hour)
		if err := w.build(options{}, p).Rotate(within(t, time.Hour), p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		<-h.held
		after(10 * time.Minute)
		w.rollback(p)
		ahead := w.build(options{wall: func() time.Time { return time.Now().Add(365 * 24 * time.Hour) }}, p)
		if err := ahead.Rollback(within(t, time.Hour), p.Name); err != nil {
			t.Fatal(err)
		}
		if k := w.entry(p).Retiring; len(k) != 1 || len(k[0].Calls) == 0 {
			t.Errorf("retiring keys: %+v", k)
		}
		close(h.release)
		w.mustWork(p, "in the end")
	})
}
