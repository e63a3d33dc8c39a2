package rotator_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// pruneAll prunes what may be pruned of the named policies, or of all, and returns what was refused.
func (w *world) pruneAll(r *rotator.Rotator, names ...string) error {
	w.t.Helper()
	lost, err := r.Lost(context.Background(), names...)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(lost) == 0 {
		w.t.Error("nothing to prune")
	}
	var errs []error
	for _, k := range lost {
		errs = append(errs, r.Prune(context.Background(), k))
	}
	return errors.Join(errs...)
}

func wantError(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %q", err, says)
	}
}

// TestPruneLeavesTheKeyInUse where the ledger forgot it and the record does not say which it is: the rest is pruned.
func TestPruneLeavesTheKeyInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(4 * time.Hour) // the old key is in overlap
		stop()
		keys := w.alive()
		current := w.inRecord(p)
		w.put(p, map[string]any{"api_key": current.Secret}) // vault kv put secret/elevenlabs/tts-prod api_key=…
		w.kv.Delete("secret/rekeyd/policies/" + p.Name)
		r, stop := w.daemon(options{}, p)
		after(10 * time.Minute)
		wantRefusal(t, named(t, r, p.Name), plan.FaultRecordChanged, current.ID)
		wantError(t, w.pruneAll(w.build(options{}, p)), "pruning key "+current.ID+" of policy tts-prod: secret/elevenlabs/tts-prod, the record of policy tts-prod, may hold its secret")
		w.mustWork(p, "after the prune")
		for _, k := range keys {
			if now := w.key(k.Secret); k.ID != current.ID && !now.Deleted() {
				t.Errorf("key %s is still there", k.ID)
			}
		}
		p.Adopt = current.ID // what the error advised
		stop()
		r, stop = w.daemon(options{}, p)
		defer stop()
		after(time.Minute)
		if s := named(t, r, p.Name); s.Current == nil || s.Current.ID != current.ID {
			t.Errorf("%s (%s): %s", s.State, s.Reason, s.Message)
		}
	})
}

// TestPruneLooksAgain: a secret that is put into a record while its key is being given up stays.
func TestPruneLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(4 * time.Hour) // the first key is in overlap
		stop()
		first, current := w.alive()[0], w.inRecord(p)
		w.kv.Delete("secret/rekeyd/policies/" + p.Name)
		var once sync.Once
		w.kv.After(func(r *http.Request, _ *http.Response) error {
			if r.Method != http.MethodGet && strings.HasSuffix(r.URL.Path, "/rekeyd/policies/"+p.Name) {
				once.Do(func() { w.kv.Put(p.Sink.String(), map[string]any{"api_key": first.Secret}) }) //nolint:errcheck // seen below
			}
			return nil
		})
		wantError(t, w.pruneAll(w.build(options{}, p)), "may hold its secret")
		w.mustWork(p, "after the refusal")
		w.kv.After(nil)
		_, stop = w.daemon(options{}, p)
		defer stop()
		after(24 * time.Hour)
		if k := w.key(first.Secret); k.Deleted() || k.Disabled {
			t.Error("the key that readers have went all the same")
		}
		if first.ID == current.ID {
			t.Error("nothing was rotated")
		}
	})
}

// TestPruneWaitsForAStep of another process, but not for one that does not end.
func TestPruneWaitsForAStep(t *testing.T) {
	for name, ends := range map[string]bool{"it ends": true, "it does not end": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				_, stop := w.daemon(options{}, p)
				after(time.Minute)
				stop()
				owner, _, _, _ := ledger.ParseKeyName(w.inRecord(p).Name)
				id, _, err := w.sim.AddKey(account, elevensim.KeySpec{Name: ledger.KeyName(owner, p.Name, "lostlostlo")})
				w.must(err)
				path := "secret/rekeyd/policies/" + p.Name
				entry, _ := w.kv.Get(path, 0)
				entry["claim"] = map[string]any{"holder": "otherreplica", "nonce": 1, "since": time.Now().UTC()}
				_, err = w.kv.Put(path, entry)
				w.must(err)
				if ends {
					time.AfterFunc(5*time.Second, func() {
						delete(entry, "claim")
						_, _ = w.kv.Put(path, entry)
					})
				}
				begun := time.Now()
				err = w.pruneAll(w.build(options{}, p))
				took, gone := time.Since(begun), !slices.ContainsFunc(w.alive(), func(k elevensim.Key) bool { return k.ID == id })
				if gone != ends || took > 20*time.Second {
					t.Errorf("gone %t after %v (%v)", gone, took, err)
				}
				if !ends {
					wantError(t, err, "is being worked on; try again when that has ended")
				}
			})
		})
	}
}

// TestPruneAsksWhatDaemonsHave: a command with an old policy file takes nothing from a daemon.
func TestPruneAsksWhatDaemonsHave(t *testing.T) {
	for name, ends := range map[string]string{"a clean stop": "stop", "a death": "die", "a reload": "load"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p, other := testPolicy(t, func(p *plan.Policy) { p.Mode = plan.ModeManual }), second(t, func(p *plan.Policy) { p.Mode = plan.ModeManual })
				proc := &process{}
				r, stop := w.startProcess(proc, p, other)
				defer func() { stop() }()
				after(3 * time.Hour)
				wantError(t, w.pruneAll(w.build(options{}, other), p.Name), "a running daemon has policy tts-prod loaded")
				w.mustWork(p, "after the refusal")
				switch ends {
				case "stop":
					stop()
					stop = func() {}
				case "load":
					r.Load([]plan.Policy{other}, w.clients(proc))
					after(time.Second)
				case "die":
					proc.mu.Lock()
					proc.dead = true
					proc.mu.Unlock()
					stop()
					stop = func() {}
					wantError(t, w.pruneAll(w.build(options{}, other), p.Name), "a running daemon")
					after(time.Hour)
				}
				k := w.inRecord(p)
				if err := w.pruneAll(w.build(options{}, other), p.Name); err != nil {
					t.Error(err)
				}
				if !w.key(k.Secret).Disabled {
					t.Error("the removed policy's key was not disabled")
				}
			})
		})
	}
}

// TestPruneOfANameThatIsReplaced: the rename was undone, so the record of the old name holds the new name's key.
func TestPruneOfANameThatIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		a, b := testPolicy(t, nil), renamed(t)
		_, stop := w.daemon(options{}, a)
		after(time.Hour)
		stop()
		_, stop = w.daemon(options{}, b)
		after(26 * time.Hour)
		stop()
		r, stop := w.daemon(options{}, a)
		defer stop()
		after(time.Minute)
		wantRefusal(t, named(t, r, a.Name), plan.FaultMovedAway, "rekeyd rename speech tts-prod")
		wantError(t, w.pruneAll(w.build(options{}, a), b.Name), "the record secret/elevenlabs/tts-prod names it")
		rec := maps.Clone(w.record(a))
		delete(rec, "key_id")
		w.put(a, rec)
		wantError(t, w.pruneAll(w.build(options{}, a), b.Name), "may hold its secret")
		w.mustWork(a, "after the prunes")
	})
}

// TestAPruneWhoseDeleteComesLate: the ledger says that the key is given up before the delete is sent, so it cannot become
// current in between.
func TestAPruneWhoseDeleteComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(4 * time.Hour)
		stop()
		keys, current := w.alive(), w.inRecord(p)
		w.kv.Delete("secret/rekeyd/policies/" + p.Name)
		old := keys[0]
		if old.ID == current.ID {
			old = keys[1]
		}
		w.put(p, map[string]any{"api_key": current.Secret})
		h := hold(w.api, method("DELETE"))
		op := w.build(options{api: h}, p)
		lost, err := op.Lost(context.Background(), p.Name)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		for _, k := range lost {
			if k.KeyID == old.ID {
				go func() { done <- op.Prune(context.Background(), k) }()
			}
		}
		<-h.held
		w.put(p, map[string]any{"api_key": old.Secret, "key_id": old.ID}) // a person puts that very key in place
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(20 * time.Minute)
		if s := named(t, r, p.Name); s.Current != nil || s.State != plan.StateError {
			t.Errorf("a key that was given up is current: %s (%s)", s.State, s.Reason)
		}
		close(h.release)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestPruneFourWays: what was begun is finished by the next prune, also for a policy that no file has.
func TestPruneFourWays(t *testing.T) {
	for _, gone := range []bool{false, true} {
		for _, call := range []string{"write secret/rekeyd/policies", "DELETE"} {
			for _, m := range []mode{notApplied, applied, diesBefore, diesAfter} {
				t.Run(call+" "+string(m), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						p, other := testPolicy(t, nil), second(t, nil)
						_, stop := w.start(p, other)
						after(4 * time.Hour)
						stop()
						current := w.inRecord(p)
						w.put(plan.Policy{Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + p.Name}}},
							map[string]any{"schema": 1, "owner": w.ledgerOf(other.Name)["owner"], "policy": p.Name, "salt": "forgotten"})
						policies := []plan.Policy{p, other}
						if gone {
							policies = policies[1:]
							w.put(p, map[string]any{"note": "the key went elsewhere"})
						}
						proc := &process{fault: fault{call: call, nth: 1, mode: m}}
						r := w.buildProcess(proc, policies...)
						lost, err := r.Lost(context.Background(), p.Name)
						if err != nil {
							t.Fatal(err)
						}
						for _, k := range lost {
							if k.KeyID != current.ID {
								_ = r.Prune(context.Background(), k)
							}
						}
						if !proc.fault.hit {
							t.Fatal("the fault never struck")
						}
						r = w.buildProcess(&process{}, policies...)
						if lost, err = r.Lost(context.Background(), p.Name); err != nil {
							t.Fatal(err)
						}
						for _, k := range lost {
							if k.KeyID != current.ID {
								if err := r.Prune(context.Background(), k); err != nil {
									t.Error(err)
								}
							}
						}
						_, stop = w.start(policies...)
						after(time.Hour)
						stop()
						for _, k := range w.alive() {
							if strings.Contains(k.Name, "."+p.Name+".") && k.ID != current.ID {
								t.Errorf("key %s is still there", k.ID)
							}
						}
						if k := w.key(current.Secret); k.Disabled || k.Deleted() {
							t.Error("the current key is gone")
						}
					})
				})
			}
		}
	}
}
