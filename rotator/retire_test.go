package rotator_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestARefusedRetirementIsToldAndTriedAgain: it is no failed rotation, and the key is not forgotten.
func TestARefusedRetirementIsToldAndTriedAgain(t *testing.T) {
	for _, c := range []struct {
		operation string
		at        time.Duration // when it is due
		log       string
	}{{"updateAPIKey", 7 * time.Hour, "disabled key checked"}, {"deleteAPIKey", 13 * time.Hour, "key deleted"}} {
		t.Run(c.operation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := testPolicy(t, nil)
				w.guardReaders(p)
				r, stop := w.start(p)
				defer stop()
				after(c.at - time.Minute)
				w.setFaults(forbidding(c.operation, 1))
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
		w.must(w.sim.DisableKey(first.ID, ""))
		after(3 * time.Minute)
		if k := w.entry(p).Retiring[0]; k.State != ledger.InQuarantine || time.Until(k.Until) > p.Quarantine || w.countEvents(rotator.EventKeyDisabled) != 1 || w.countEvents(rotator.EventRetired) != 0 {
			t.Errorf("after a person disabled it: %+v", k)
		}
		w.must(w.sim.DeleteKey(first.ID))
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
		w.must(w.sim.DeleteKey(first.ID))
		after(30 * time.Minute)
		if k := w.inRecord(p); k.ID == first.ID || k.Deleted() {
			t.Fatal("it was not replaced")
		}
		if e := w.entry(p); len(e.Retiring) > 0 {
			t.Errorf("the key that is gone: %+v", e.Retiring)
		}
		if n := w.countEvents(rotator.EventError); n > 0 {
			t.Errorf("a person was called %d times", n)
		}
	})
}

// TestAMissingKeyWithoutAnAnswer is an error once it was asked for one, and only until there is one.
func TestAMissingKeyWithoutAnAnswer(t *testing.T) {
	for name, silent := range map[string]func(*world, *unreadable, bool){
		"ElevenLabs does not say": func(w *world, _ *unreadable, silent bool) {
			w.setFaults(elevensim.Faults{})
			if silent {
				w.setFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500, Operation: "getUser"}}})
			}
		},
		"the record cannot be read": func(_ *world, s *unreadable, silent bool) {
			s.set("-")
			if silent {
				s.set("elevenlabs/")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := testPolicy(t, nil)
				store := &unreadable{Store: w.store, prefix: "-"}
				w.store = store
				r, stop := w.start(p)
				defer stop()
				after(5 * time.Minute)
				first := w.inRecord(p)
				silent(w, store, true)
				w.must(w.sim.DeleteKey(first.ID))
				after(5 * time.Minute)
				if s := w.state(r, 0); s.State != plan.StateError || s.Reason != plan.FaultKeyVanished || w.countEvents(rotator.EventError) != 1 {
					t.Errorf("without an answer: %s, %s, %d events", s.State, s.Reason, w.countEvents(rotator.EventError))
				}
				silent(w, store, false)
				after(time.Hour)
				if k := w.inRecord(p); k.ID == first.ID {
					t.Error("it was not replaced once there was an answer")
				}
			})
		})
	}
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
		w.must(r.Request(p.Name, rotator.RotateOptions{}))
		after(time.Minute)
		w.must(w.sim.EnableKey(first.ID))
		after(2 * time.Minute)
		w.must(r.Request(p.Name, rotator.RotateOptions{Revoke: true}))
		after(2 * time.Minute)
		current := w.inRecord(p)
		for _, k := range w.alive() {
			if k.Disabled != (k.ID != current.ID) {
				t.Errorf("key %s: disabled %t, in the record %t", k.ID, k.Disabled, k.ID == current.ID)
			}
		}
		e := w.entry(p)
		for _, k := range e.Retiring {
			if k.Reason != ledger.TriggerRevoke || k.State != ledger.InQuarantine {
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
		w.must(r.Request(p.Name, rotator.RotateOptions{}))
		after(time.Minute)
		w.must(w.sim.EnableKey(first.ID))
		stop()
		dying := &process{fault: fault{call: "write secret/rekeyd/policies", nth: 2, mode: diesAfter}}
		r, stop = w.startProcess(dying, p)
		after(2 * time.Minute)
		w.must(r.Request(p.Name, rotator.RotateOptions{Revoke: true}))
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
			if k.Reason != ledger.TriggerRevoke {
				t.Errorf("retiring: %+v", k)
			}
		}
	})
}

// edit changes the policy's entry as another build, or a process that a listing does not show, may have left it.
func (w *world) edit(p plan.Policy, change func(*ledger.Entry)) {
	w.t.Helper()
	ref := ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + p.Name}
	doc, err := w.store.Read(context.Background(), ref, 0)
	if err == nil {
		e := w.entry(p)
		change(e)
		_, err = w.store.Write(context.Background(), ref, e, doc.Version)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestOddEntries are retired from as far as no reader needs the key.
func TestOddEntries(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*ledger.Entry)
		first  bool // the former key is disabled
	}{
		{"the current key is retiring, too", func(e *ledger.Entry) {
			e.Retiring = append(e.Retiring, ledger.Retiring{KeyRef: *e.Current, State: ledger.InOverlap, Until: e.LastRotation})
		}, true},
		{"the current key's value was never seen", func(e *ledger.Entry) { e.Current.Hash = "" }, true},
		{"the current key's value is another", func(e *ledger.Entry) { e.Current.Hash = "another" }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				_, stop := w.daemon(options{}, p)
				after(4 * time.Hour)
				stop()
				first, current := w.alive()[0], w.inRecord(p)
				w.sim.OnChange(func(change elevensim.Change) {
					if change.Key.ID == current.ID {
						t.Errorf("the current key was %s", change.Kind)
					}
				})
				w.edit(p, c.change)
				_, stop = w.daemon(options{}, p)
				defer stop()
				after(4 * time.Hour)
				w.mustWork(p, "after the overlap")
				if k := w.key(first.Secret); k.Disabled != c.first {
					t.Errorf("the former key is disabled: %t", k.Disabled)
				}
			})
		})
	}
}

// swapped is a store whose next read of the entry, once armed, finds it changed by another process.
type swapped struct {
	ledger.Store
	doc   ledger.Doc
	armed atomic.Bool
}

func (s *swapped) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if strings.HasPrefix(ref.Path, "rekeyd/policies/") && s.armed.CompareAndSwap(true, false) {
		return s.doc, nil
	}
	return s.Store.Read(ctx, ref, version)
}

// TestARetirementReadsTheEntry first: of a policy that was renamed or forgotten meanwhile it retires nothing.
func TestARetirementReadsTheEntry(t *testing.T) {
	for _, renamed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newArena(t)
			s := &swapped{Store: w.store}
			w.store = s
			p := testPolicy(t, betweenResyncs(t))
			_, stop := w.daemon(options{}, p)
			defer stop()
			after(7*time.Hour + 6*time.Minute + 50*time.Second) // before the overlap ends
			first := w.alive()[0]
			if renamed {
				w.edit(p, func(e *ledger.Entry) { e.MovedTo = "new-name" })
			} else {
				s.doc.Version = 99
				s.armed.Store(true)
			}
			after(30 * time.Second)
			if k := w.key(first.Secret); s.armed.Load() || k.Disabled {
				t.Errorf("not read: %t, disabled: %t", s.armed.Load(), k.Disabled)
			}
			if renamed {
				w.edit(p, func(e *ledger.Entry) { e.MovedTo = "" })
			}
			after(20 * time.Minute)
			if k := w.key(first.Secret); !k.Disabled {
				t.Error("it is not retired any more")
			}
		})
	}
}

// TestARetirementThatCannotReadTheEntry is logged, and tried again.
func TestARetirementThatCannotReadTheEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		s := &outOfOrder{Store: w.store, refuse: func(call string) bool { return strings.HasPrefix(call, "read rekeyd/policies/") }}
		w.store = s
		p := testPolicy(t, betweenResyncs(t))
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(7*time.Hour + 6*time.Minute + 50*time.Second)
		s.set.Store(true)
		after(15 * time.Second)
		s.set.Store(false)
		if !strings.Contains(w.logs.String(), "retirement failed") || w.entry(p).Retiring[0].State != ledger.InOverlap {
			t.Errorf("it is not told: %+v", w.entry(p).Retiring[0])
		}
		after(20 * time.Minute)
		if st := w.state(r, 0); st.Failure != nil || w.entry(p).Retiring[0].State != ledger.InQuarantine {
			t.Errorf("%s %s, %+v", st.State, st.Reason, st.Failure)
		}
	})
}

// TestARetirementLooksWhereThePolicyMoves: its new place holds the former key, and the move waits.
func TestARetirementLooksWhereThePolicyMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(2 * time.Hour)
		copied := w.record(p)
		after(2 * time.Hour)
		stop()
		first := w.alive()[0]
		p.Sink.Path = "elevenlabs/elsewhere"
		w.put(p, copied)
		w.setFaults(forbidding("createAPIKey", 0))
		_, stop = w.daemon(options{}, p)
		defer stop()
		after(5 * time.Hour)
		if k := w.key(first.Secret); k.Disabled || !strings.Contains(w.logs.String(), "still holds key "+first.ID) {
			t.Errorf("the key at the new place is disabled: %t", k.Disabled)
		}
		w.setFaults(elevensim.Faults{})
		after(3 * time.Hour)
		if k := w.key(first.Secret); !k.Disabled || w.inRecord(p).ID == first.ID {
			t.Errorf("after the move the former key is disabled: %t", k.Disabled)
		}
		w.accounted(p)
	})
}

// TestARevokeThatIsRefused is the command's failure.
func TestARevokeThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		stop()
		w.setFaults(forbidding("updateAPIKey", 0))
		if err := w.build(options{}, p).Rotate(within(t, time.Minute), p.Name, rotator.RotateOptions{Revoke: true}); err == nil || !strings.Contains(err.Error(), "disabling key") {
			t.Errorf("revoking: %v", err)
		}
	})
}

// TestLeaksInARow: each leaked key is replaced at once and gets no overlap, until there were three within an hour; a person's
// rotation begins anew.
func TestLeaksInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		r, stop := w.start(p)
		defer stop()
		after(5 * time.Minute)
		leak := func() (replaced bool) {
			k := w.inRecord(p)
			w.must(w.sim.DisableKey(k.ID, "exposed_publicly"))
			after(3 * time.Minute)
			if old := w.entry(p).RetiringKey(k.ID); old != nil && (old.State != ledger.InQuarantine || time.Until(old.Until) > p.Quarantine || time.Until(old.Until) < p.Quarantine-3*time.Minute) {
				t.Errorf("a leaked key is retired as %+v", old)
			}
			return w.inRecord(p).ID != k.ID
		}
		for n := range 3 {
			if !leak() || len(w.entry(p).Leaks) != n+1 {
				t.Fatalf("leak %d is not followed by a rotation: %+v", n+1, w.entry(p))
			}
		}
		if leak() || w.state(r, 0).Reason != plan.FaultLeakStorm {
			t.Errorf("after four leaks: %s", w.state(r, 0).Reason)
		}
		w.must(r.Request(p.Name, rotator.RotateOptions{}))
		after(time.Minute)
		if n := len(w.entry(p).Leaks); n != 0 || w.state(r, 0).State != plan.StateOK {
			t.Errorf("after a person's rotation %d leaks are remembered, %s", n, w.state(r, 0).State)
		}
		if !leak() {
			t.Error("the leak after that is not followed by a rotation")
		}
	})
}
