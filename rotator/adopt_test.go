package rotator_test

import (
	"context"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// second is a policy beside the first one.
func second(t *testing.T, change func(*plan.Policy)) plan.Policy {
	return testPolicy(t, func(p *plan.Policy) {
		p.Name, p.Sink.Path = "tts-batch", "elevenlabs/tts-batch"
		if change != nil {
			change(p)
		}
	})
}

// byHand makes a key that is not rekeyd's.
func (w *world) byHand() (id, secret string) {
	w.t.Helper()
	id, secret, err := w.sim.AddKey(account, elevensim.KeySpec{Name: "by hand", Permissions: []string{"text_to_speech", "user_read"}})
	if err != nil {
		w.t.Fatal(err)
	}
	return id, secret
}

func (w *world) put(p plan.Policy, data map[string]any) {
	w.t.Helper()
	doc, err := w.store.Read(context.Background(), p.Sink.Ref, 0)
	if err == nil {
		_, err = w.store.Write(context.Background(), p.Sink.Ref, data, doc.Version)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// named returns how a policy stands.
func named(t *testing.T, r *rotator.Rotator, name string) rotator.PolicyStatus {
	t.Helper()
	for _, s := range r.Snapshot().Policies {
		if s.Policy.Name == name {
			return s
		}
	}
	t.Fatalf("policy %s is not shown", name)
	return rotator.PolicyStatus{}
}

func wantRefusal(t *testing.T, s rotator.PolicyStatus, fault plan.Fault, says string) {
	t.Helper()
	if s.State != plan.StateError || s.Reason != fault || !strings.Contains(s.Message, says) {
		t.Errorf("%s is %s (%s): %s; want %s and %q", s.Policy.Name, s.State, s.Reason, s.Message, fault, says)
	}
}

// TestACopiedRecordIsNoAdoption: the key in a copy stays its owner's, and leaves when its owner's rotation says so.
func TestACopiedRecordIsNoAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		a, b := testPolicy(t, nil), second(t, func(p *plan.Policy) { p.Schedule = mustParse(t, "0 3 * * 1") })
		_, stop := w.daemon(options{}, a)
		after(time.Hour)
		stop()
		first := w.inRecord(a)
		w.put(b, maps.Clone(w.record(a)))
		r, stop := w.daemon(options{}, a, b)
		defer stop()
		after(time.Minute)
		wantRefusal(t, named(t, r, b.Name), plan.FaultRecordChanged, "belongs to policy "+a.Name)
		after(30 * time.Hour) // a rotates and retires the key
		w.mustWork(a, "after its rotation")
		if k := w.key(first.Secret); !k.Deleted() {
			t.Error("the copy kept its owner from retiring the key")
		}
		wantRefusal(t, named(t, r, b.Name), plan.FaultRecordChanged, "")
		w.kv.Delete(b.Sink.String())
		after(20 * time.Minute)
		w.mustWork(b, "without the copy")
		if k := w.inRecord(b); !strings.Contains(k.Name, "."+b.Name+".") {
			t.Errorf("policy b has key %s", k.Name)
		}
	})
}

// TestAdoptionNeedsTheSecret: what adopt names is retired in time, so an id alone must not be enough.
func TestAdoptionNeedsTheSecret(t *testing.T) {
	for name, held := range map[string]func(w *world, wanted string) map[string]any{
		"no record":                nil,
		"a record without a value": func(*world, string) map[string]any { return map[string]any{"note": "theirs"} },
		"another key's secret": func(w *world, _ string) map[string]any {
			_, other := w.byHand()
			return map[string]any{"api_key": other}
		},
		"the id, without the secret": func(_ *world, id string) map[string]any { return map[string]any{"key_id": id} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				id, secret := w.byHand()
				p := testPolicy(t, func(p *plan.Policy) { p.Adopt = id })
				before := 1
				if held != nil {
					w.put(p, held(w.world, id))
					before = len(w.alive())
				}
				r, stop := w.daemon(options{}, p)
				defer stop()
				after(50 * time.Hour)
				wantRefusal(t, named(t, r, p.Name), plan.FaultAdoptRefused, id)
				if k := w.key(secret); k.Disabled || k.Deleted() || len(w.alive()) != before {
					t.Errorf("key %s: disabled %t, deleted %t; %d keys", id, k.Disabled, k.Deleted(), len(w.alive()))
				}
				w.put(p, map[string]any{"api_key": secret})
				after(20 * time.Minute)
				if s := named(t, r, p.Name); s.Current == nil || s.Current.Published.IsZero() || s.State == plan.StateError {
					t.Errorf("with the secret in place: %s (%s): %s", s.State, s.Reason, s.Message)
				}
			})
		})
	}
}

// TestTheCandidateThatFits: of the keys that adopt could name, the one whose hint is the end of the value is marked.
func TestTheCandidateThatFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, _ = w.byHand()
		id, secret := w.byHand()
		w.put(p, map[string]any{"api_key": secret})
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Minute)
		s := named(t, r, p.Name)
		wantRefusal(t, s, plan.FaultRecordChanged, id)
		_, marked, _ := strings.Cut(s.Message, id)
		marked, _, _ = strings.Cut(marked, ")")
		if strings.Count(s.Message, " fits") != 1 || !strings.Contains(marked, " fits") {
			t.Errorf("not marked: %s", s.Message)
		}
	})
}

// TestOneKeyBelongsToOnePolicy, whichever process has the other one.
func TestOneKeyBelongsToOnePolicy(t *testing.T) {
	for name, together := range map[string]bool{"in one process": true, "in two": false} {
		for _, made := range []string{"by rekeyd", "by hand"} {
			t.Run(made+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newArena(t)
					a, b := testPolicy(t, nil), second(t, nil)
					if made == "by hand" {
						id, secret := w.byHand()
						a.Adopt = id
						w.put(a, map[string]any{"api_key": secret})
					}
					_, stop := w.daemon(options{}, a)
					after(time.Hour)
					k := w.inRecord(a)
					b.Adopt = k.ID
					w.put(b, map[string]any{"api_key": k.Secret})
					policies := []plan.Policy{b}
					if together {
						stop()
						policies = append(policies, a)
					} else {
						defer stop()
					}
					r, stopB := w.daemon(options{}, policies...)
					defer stopB()
					after(30 * time.Minute)
					wantRefusal(t, named(t, r, b.Name), plan.FaultAdoptRefused, "belongs to policy "+a.Name)
					after(5 * time.Hour)
					w.mustWork(a, "after its rotation")
				})
			})
		}
	}
}

// TestTheReservationOfAKeyFourWays: a key that is adopted is adopted once, whatever becomes of the writes.
func TestTheReservationOfAKeyFourWays(t *testing.T) {
	for _, call := range []string{"write secret/rekeyd/keys", "write secret/rekeyd/policies"} {
		for _, m := range []mode{notApplied, applied, diesBefore, diesAfter} {
			t.Run(call+" "+string(m), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					id, secret := w.byHand()
					p, other := testPolicy(t, func(p *plan.Policy) { p.Adopt = id }), second(t, func(p *plan.Policy) { p.Adopt = id })
					w.put(p, map[string]any{"api_key": secret})
					w.put(other, map[string]any{"api_key": secret})
					proc := &process{fault: fault{call: call, nth: 1, mode: m}}
					_, stop := w.startProcess(proc, p)
					after(10 * time.Minute)
					stop()
					if !proc.fault.hit {
						t.Fatal("the fault never struck")
					}
					r, stop := w.startProcess(&process{}, p)
					defer stop()
					after(10 * time.Minute)
					if s := named(t, r, p.Name); s.Current == nil || s.Current.ID != id {
						t.Errorf("it was not adopted: %s (%s): %s", s.State, s.Reason, s.Message)
					}
					late, stopLate := w.startProcess(&process{}, other)
					defer stopLate()
					after(10 * time.Minute)
					wantRefusal(t, named(t, late, other.Name), plan.FaultAdoptRefused, "belongs to policy "+p.Name)
				})
			})
		}
	}
}

// TestThePreviousKeyOfAnotherPolicyStays: what a record says of the key before the adopted one is no proof either.
func TestThePreviousKeyOfAnotherPolicyStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		a, b := testPolicy(t, func(p *plan.Policy) { p.Mode = plan.ModeManual }), second(t, func(p *plan.Policy) { p.Mode = plan.ModeManual })
		id, secret := w.byHand()
		_, stop := w.daemon(options{}, a)
		after(time.Hour)
		stop()
		w.put(b, map[string]any{"api_key": secret, "key_id": id, "previous_key_id": w.inRecord(a).ID, "previous_valid_until": "2001-01-01T00:00:00Z"})
		for _, policies := range [][]plan.Policy{{b}, {a, b}} {
			r, stop := w.daemon(options{}, policies...)
			after(2 * time.Hour)
			if s := named(t, r, b.Name); s.Current == nil || s.Current.ID != id || len(s.Retiring) != 0 {
				t.Errorf("policy b: %s (%s) %s, retiring %v", s.State, s.Reason, s.Message, s.Retiring)
			}
			w.mustWork(a, "beside a record that calls its key the previous one")
			stop()
		}
	})
}

// TestFieldsOfOthersStay: a record that never held a secret of ours may have fields with our names.
func TestFieldsOfOthersStay(t *testing.T) {
	for _, theirs := range []map[string]any{{"key_id": "AKIA"}, {"policy": "readers"}, {"rotated_at": 17, "token": "theirs"}, {"policy": "tts-prod", "key_id": "AKIA"}} {
		synctest.Test(t, func(t *testing.T) {
			w := newArena(t)
			p := testPolicy(t, nil)
			w.put(p, theirs)
			before := w.record(p)
			r, stop := w.daemon(options{}, p)
			defer stop()
			after(30 * time.Hour)
			wantRefusal(t, named(t, r, p.Name), plan.FaultRecordChanged, "fields with the names that rekeyd writes")
			now := w.record(p)
			if len(now) != len(before) || len(w.alive()) != 0 {
				t.Errorf("the record is %v, and there are %d keys", now, len(w.alive()))
			}
			w.put(p, map[string]any{"note": "theirs"})
			after(20 * time.Minute)
			w.mustWork(p, "once those fields are gone")
			if w.record(p)["note"] != "theirs" {
				t.Error("another field of theirs is gone")
			}
		})
	}
}
