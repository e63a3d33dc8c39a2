package rotator_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestRollback puts the previous key back, and says what it did.
func TestRollback(t *testing.T) {
	for _, c := range []struct {
		name string
		at   time.Duration
		do   func(w *arena, r *rotator.Rotator, p plan.Policy)
	}{
		{"in overlap", 4 * time.Hour, nil},
		{"in quarantine", 8 * time.Hour, nil},
		{"of two, the last", 8 * time.Hour, func(w *arena, r *rotator.Rotator, p plan.Policy) {
			if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
				w.t.Fatal(err)
			}
		}},
		{"leaked, and enabled by a person", 4 * time.Hour, func(w *arena, _ *rotator.Rotator, p plan.Policy) {
			leaked := w.inRecord(p)
			if err := w.sim.DisableKey(leaked.ID, "exposed_publicly"); err != nil {
				w.t.Fatal(err)
			}
			after(5 * time.Minute)
			if err := w.sim.EnableKey(leaked.ID); err != nil {
				w.t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				r, stop := w.daemon(options{}, p)
				defer stop()
				after(c.at)
				if c.do != nil {
					c.do(w, r, p)
				}
				after(2 * time.Minute)
				before := w.entry(p)
				back, replaced := before.Retiring[len(before.Retiring)-1], before.Current
				if err := w.build(options{}, p).Rollback(context.Background(), p.Name); err != nil {
					t.Fatal(err)
				}
				e := w.entry(p)
				if k := w.inRecord(p); k.ID != back.ID || k.Disabled || e.Current.ID != back.ID || e.Current.Hash != back.Hash || !e.Current.Verified || len(e.Current.Calls) != 0 {
					t.Errorf("the record holds %s, current: %+v", k.ID, e.Current)
				}
				if k := e.RetiringKey(replaced.ID); len(e.Retiring) != len(before.Retiring) || k == nil || k.State != ledger.InOverlap || k.Reason != ledger.TriggerRollback ||
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

// TestRollbackIsRefused, with a reason, and leaves everything as it is.
func TestRollbackIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		at   time.Duration
		do   func(*arena, plan.Policy)
		says string
	}{
		{"no previous key", time.Hour, nil, "there is no previous key"},
		{"deleted by a person", 4 * time.Hour, func(w *arena, p plan.Policy) { _ = w.sim.DeleteKey(w.entry(p).Retiring[0].ID) }, "no longer exists"},
		{"disabled by ElevenLabs", 4 * time.Hour, func(w *arena, p plan.Policy) { _ = w.sim.DisableKey(w.entry(p).Retiring[0].ID, "trial_ended") }, "was disabled by ElevenLabs (trial_ended)"},
		{"the record was changed", 4 * time.Hour, func(w *arena, p plan.Policy) {
			fields := w.record(p)
			fields[p.Sink.Field] = "sk_of_somebody_else_0123456789"
			w.put(p, fields)
		}, "does not hold the current key"},
		{"no version holds it", 4 * time.Hour, func(w *arena, p plan.Policy) {
			for range 31 {
				w.put(p, w.record(p))
			}
		}, "no kept version"},
		{"taken over by another policy", 4 * time.Hour, func(w *arena, p plan.Policy) {
			ref := ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + p.Name}
			doc, err := w.store.Read(context.Background(), ref, 0)
			if err == nil {
				fields := doc.Fields()
				fields["moved_to"] = "new-name"
				_, err = w.store.Write(context.Background(), ref, fields, doc.Version)
			}
			if err != nil {
				w.t.Error(err)
			}
		}, "it was taken over by policy new-name"},
		{"another process writes the ledger", 4 * time.Hour, func(w *arena, p plan.Policy) {
			other := w.store
			act := func() {
				ref := ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + p.Name}
				doc, err := other.Read(context.Background(), ref, 0)
				if err == nil {
					_, err = other.Write(context.Background(), ref, doc.Fields(), doc.Version)
				}
				if err != nil {
					w.t.Error(err)
				}
			}
			s := &rival{Store: other, path: "rekeyd/policies/", before: act, after: func() {}}
			s.armed.Store(true)
			w.store = s
		}, "another process changed the policy's state"},
		{"the ledger cannot be written", 4 * time.Hour, func(w *arena, _ plan.Policy) {
			w.store.(*outOfOrder).set.Store(true)
		}, "write rekeyd/policies/tts-prod: no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				w.store = &outOfOrder{Store: w.store, refuse: func(call string) bool { return strings.HasPrefix(call, "write rekeyd/policies/") }}
				p := testPolicy(t, nil)
				_, stop := w.daemon(options{}, p)
				after(c.at)
				stop()
				if c.do != nil {
					c.do(w, p)
				}
				before, held := w.entry(p), w.record(p)[p.Sink.Field]
				err := w.build(options{}, p).Rollback(context.Background(), p.Name)
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("rolling back: %v", err)
				}
				e := w.entry(p)
				if e.Current.ID != before.Current.ID || e.Claim != nil || e.Intent != nil || len(e.Retiring) != len(before.Retiring) || w.record(p)[p.Sink.Field] != held {
					t.Errorf("entry: %+v", e)
				}
				for _, k := range e.Retiring {
					if len(k.Calls) > 0 || k.State != ledger.InOverlap {
						t.Errorf("retiring: %+v", k)
					}
				}
			})
		})
	}
}

// TestARollbackThatFails takes the key that it enabled back into quarantine, and is told.
func TestARollbackThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		store := &refusedRecord{Store: w.store}
		w.store = store
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(8 * time.Hour)
		current, back := w.inRecord(p), w.alive()[0]
		store.left.Store(1)
		if err := w.build(options{}, p).Rollback(context.Background(), p.Name); err == nil || !strings.Contains(err.Error(), "publishing record") {
			t.Errorf("rolling back: %v", err)
		}
		e := w.entry(p)
		if e.Failure == nil || e.Failure.Stage != ledger.StagePublish || e.Failure.Reason != ledger.FailureSinkDenied || e.Retiring[0].State != ledger.InOverlap || len(e.Abandoned) > 0 || e.Claim != nil {
			t.Errorf("entry: %+v, failure %+v", e, e.Failure)
		}
		if w.countEvents(rotator.EventFailed) != 1 || strings.Count(w.logs.String(), `msg="rotation failed"`) != 1 {
			t.Errorf("%d failures were told", w.countEvents(rotator.EventFailed))
		}
		after(20 * time.Minute) // the daemon reads the ledger again
		if k := w.key(back.Secret); !k.Disabled || k.Deleted() || w.inRecord(p).ID != current.ID {
			t.Errorf("the key that was enabled: disabled %t, deleted %t", k.Disabled, k.Deleted())
		}
		if k := w.entry(p).Retiring[0]; k.State != ledger.InQuarantine {
			t.Errorf("retiring: %+v", k)
		}
	})
}

// A process dies right after it published a rollback. The next one completes it; if a person has put the record back, the key
// keeps retiring.
func TestARollbackWhoseProcessDies(t *testing.T) {
	for _, takenBack := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { rollbackDies(newArena(t), takenBack) })
	}
}

func rollbackDies(w *arena, takenBack bool) {
	t := w.t
	p := testPolicy(t, nil)
	_, stop := w.daemon(options{}, p)
	after(8 * time.Hour)
	stop()
	before, current, back := w.record(p), w.inRecord(p), w.alive()[0]
	dying := &process{fault: fault{call: "write secret/elevenlabs", nth: 1, mode: diesAfter}}
	if err := w.buildProcess(dying, p).Rollback(within(t, 10*time.Second), p.Name); err == nil || w.inRecord(p).ID != back.ID {
		t.Fatalf("the process did not die after it published: %v", err)
	}
	if takenBack {
		w.put(p, before)
	}
	_, stop = w.daemon(options{}, p)
	defer stop()
	after(10 * time.Minute)
	if e := w.entry(p); !takenBack {
		if k := w.inRecord(p); k.ID != back.ID || k.Disabled || e.Current.ID != back.ID || !e.Current.Created.Equal(back.CreatedAt) || !e.Current.Verified || e.Claim != nil {
			t.Errorf("the record holds %s, entry %+v", k.ID, e)
		}
		return
	}
	if k := w.key(back.Secret); !k.Disabled || w.inRecord(p).ID != current.ID || w.entry(p).Current.ID != current.ID {
		t.Errorf("the key that was put back for a moment: disabled %t; the record holds %s", k.Disabled, w.inRecord(p).ID)
	}
	w.accounted(p)
}

// TestNoRollbackToAnAdminKeyThatIsBeingDisabled: only an admin key that works could enable it again.
func TestNoRollbackToAnAdminKeyThatIsBeingDisabled(t *testing.T) {
	for _, disabling := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newArena(t)
			p := testPolicy(t, nil)
			_, stop := w.daemon(options{}, p)
			after(4 * time.Hour)
			stop()
			current := w.inRecord(p)
			if disabling {
				w.edit(p, func(e *ledger.Entry) {
					e.Retiring[0].Note(ledger.Call{Kind: ledger.CallDisable, ID: "late", At: time.Now()})
				})
			}
			p.AdminOf = "default"
			err := w.build(options{}, p).Rollback(context.Background(), p.Name)
			if refused := err != nil && strings.Contains(err.Error(), "is being disabled"); refused != disabling || refused && w.inRecord(p).ID != current.ID {
				t.Errorf("rolling back, a disable is outstanding %t: %v", disabling, err)
			}
		})
	}
}
