package rotator_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// lagging gives the world's Vault two standbys that answer reads in turn with the active node.
func (a *arena) lagging(indexed bool, lag time.Duration) {
	var calls atomic.Int64
	a.kv.Standbys(indexed, func(*http.Request) int { return int(calls.Add(1) % 3) }, lag, lag/2)
}

// Behind a proxy all of whose answers are old, and that says nothing of it, keys rotate and retire as well.
func TestAProxyWhoseAnswersAreOld(t *testing.T) {
	for _, lag := range []time.Duration{time.Second, 5 * time.Second, 9 * time.Second} {
		t.Run(lag.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				w.kv.Standbys(false, func(*http.Request) int { return 1 }, lag)
				w.kv.Before(func(r *http.Request) error {
					if strings.HasPrefix(r.URL.Path, "/v1/sys/health") {
						return &memkv.Refusal{Status: http.StatusNotFound}
					}
					return nil
				})
				p := testPolicy(t, nil)
				w.guardReaders(p)
				r, stop := w.daemon(options{}, p)
				defer stop()
				after(2*24*time.Hour + time.Hour)
				s := w.state(r, 0)
				if s.State != plan.StateOK || s.Successes < 3 || s.Failures != 0 || w.countEvents(rotator.EventRetired) < 3 || strings.Contains(w.logs.String(), "back in time") {
					t.Errorf("it is %s (%s) after %d rotations, %d steps of retirements and %d failures: %s", s.State, s.Reason, s.Successes, w.countEvents(rotator.EventRetired), s.Failures, s.Message)
				}
			})
		})
	}
}

// everyLag runs a test on standbys with and without an index.
func everyLag(t *testing.T, test func(t *testing.T, w *arena, indexed bool)) {
	for _, indexed := range []bool{false, true} {
		for _, lag := range []time.Duration{300 * time.Millisecond, 4 * time.Second} {
			t.Run(fmt.Sprintf("indexed %t, %s", indexed, lag), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newArena(t)
					w.lagging(indexed, lag)
					test(t, w, indexed)
				})
			})
		}
	}
}

// Keys rotate and retire on a Vault whose standbys answer and lag. Nothing fails, and nothing is taken for a restore or for another's
// change.
func TestStandbysThatLag(t *testing.T) {
	everyLag(t, func(t *testing.T, w *arena, _ bool) {
		p := testPolicy(t, nil)
		w.guardReaders(p)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(2*24*time.Hour + time.Hour)
		s := w.state(r, 0)
		if s.State != plan.StateOK || s.Successes < 3 || s.Failures != 0 {
			t.Errorf("it is %s (%s) after %d rotations and %d failures: %s", s.State, s.Reason, s.Successes, s.Failures, s.Message)
		}
		for _, bad := range []string{"back in time", "rolled back", "level=ERROR", "retirement failed"} {
			if strings.Contains(w.logs.String(), bad) {
				t.Errorf("the log says %q", bad)
			}
		}
		if n := w.countEvents(rotator.EventRetired); n < 3 {
			t.Errorf("%d steps of retirements", n)
		}
	})
}

// A record that is rolled back a moment before the overlap ends is seen, although the standbys do not show it yet.
func TestALateRollbackBehindStandbys(t *testing.T) {
	everyLag(t, func(t *testing.T, w *arena, _ bool) {
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(6*time.Hour + 59*time.Minute)
		first, err := w.sim.KeyBySecret(w.firstSecret(p))
		if !err {
			t.Fatal("there is no first key")
		}
		data, _ := w.kv.Get(p.Sink.String(), 1)
		until := w.entry(p).RetiringKey(first.ID).Until
		after(time.Until(until) - 90*time.Millisecond)
		if _, err := w.kv.Put(p.Sink.String(), data); err != nil {
			t.Fatal(err)
		}
		after(time.Hour)
		if w.key(first.Secret).Disabled {
			t.Error("the key that readers have is disabled")
		}
	})
}

// A request that is made while standbys still show the key before the present one replaces the present one.
func TestARequestBehindStandbys(t *testing.T) {
	everyLag(t, func(t *testing.T, w *arena, _ bool) {
		p := testPolicy(t, nil)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Hour)
		for _, byCommand := range []bool{false, true} {
			rotated := w.countEvents(rotator.EventRotated)
			if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
				t.Fatal(err)
			}
			for w.countEvents(rotator.EventRotated) == rotated {
				after(10 * time.Millisecond)
			}
			present, _ := w.sim.KeyBySecret(w.newestSecret(p))
			var err error
			if byCommand {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				err = w.build(options{}, p).Rotate(ctx, p.Name, rotator.RotateOptions{})
				cancel()
			} else if err = r.Request(p.Name, rotator.RotateOptions{}); err == nil {
				after(10 * time.Minute)
			}
			if now, _ := w.sim.KeyBySecret(w.newestSecret(p)); err != nil || now.ID == present.ID {
				t.Errorf("by command %t: %v, and the key is still current", byCommand, err)
			}
		}
	})
}

// newestSecret is what the active node has.
func (a *arena) newestSecret(p plan.Policy) string {
	data, _ := a.kv.Get(p.Sink.String(), 0)
	s, _ := data["api_key"].(string)
	return s
}

// A published key whose commit fails is not taken for unpublished, although the standbys do not show the record yet.
func TestSettlingBehindStandbys(t *testing.T) {
	everyLag(t, func(t *testing.T, w *arena, _ bool) {
		p := testPolicy(t, nil)
		w.guardReaders(p)
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		var cut atomic.Bool
		w.kv.After(func(r *http.Request, _ *http.Response) error {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/data/elevenlabs/") {
				cut.Store(true) // the record is written, and nothing is heard any more
			}
			if cut.Load() {
				return context.DeadlineExceeded
			}
			return nil
		})
		after(2*time.Hour + 10*time.Second)
		stop()
		if !cut.Load() {
			t.Fatal("nothing was published")
		}
		w.kv.After(nil)
		_, stop = w.daemon(options{}, p)
		defer stop()
		after(20 * time.Minute)
		e := w.entryAt(p)
		if k, found := w.sim.KeyBySecret(w.newestSecret(p)); !found || k.Disabled || e.Current.ID != k.ID || e.Intent != nil {
			t.Errorf("the record holds %+v, the entry says %+v", k, e.Current)
		}
	})
}

// entryAt is the entry as the active node has it.
func (a *arena) entryAt(p plan.Policy) *ledger.Entry {
	a.t.Helper()
	after(10 * time.Second) // the standbys have caught up
	return a.entry(p)
}

// A Vault that was restored is told from standbys that lag, by a write.
func TestARestoredVaultBehindStandbys(t *testing.T) {
	everyLag(t, func(t *testing.T, w *arena, _ bool) {
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Hour)
		past := w.kv.Snapshot()
		after(24 * time.Hour)
		if strings.Contains(w.logs.String(), "back in time") {
			t.Fatal("it was taken for restored before")
		}
		w.kv.Restore(past)
		after(2 * time.Hour)
		if !strings.Contains(w.logs.String(), "back in time") {
			t.Error("that Vault was restored is not said")
		}
	})
}

// A record that is rolled back is followed once: a standby that still shows the version before does not undo it.
func TestARollbackIsFollowedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		followed := func() int { return strings.Count(w.logs.String(), "record was rolled back") }
		w.kv.Standbys(false, func(r *http.Request) int {
			if strings.Contains(r.URL.Path, "/data/elevenlabs/") && followed() > 0 {
				return 1
			}
			return 0
		}, time.Hour)
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(6*time.Hour + 10*time.Minute)
		data, _ := w.kv.Get(p.Sink.String(), 1)
		if _, err := w.kv.Put(p.Sink.String(), data); err != nil {
			t.Fatal(err)
		}
		after(30 * time.Minute)
		if n := followed(); n != 1 {
			t.Errorf("the rollback was followed %d times", n)
		}
	})
}

// A person rolls the record back right after a key was published, while the read that follows reaches only a standby that lags. The key
// is not published again.
func TestARollbackDuringAPublicationBehindStandbys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		var until atomic.Int64
		w.kv.Standbys(false, func(r *http.Request) int {
			if strings.Contains(r.URL.Path, "/data/elevenlabs/") && time.Now().UnixNano() < until.Load() {
				return 1
			}
			return 0
		}, 10*time.Second)
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Hour)
		first, _ := w.kv.Get(p.Sink.String(), 1)
		w.kv.After(func(r *http.Request, _ *http.Response) error {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/data/elevenlabs/") && until.Load() == 0 {
				until.Store(time.Now().Add(5 * time.Second).UnixNano())
				if _, err := w.kv.Put(p.Sink.String(), first); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		after(6 * time.Hour)
		if until.Load() == 0 {
			t.Fatal("nothing was published")
		}
		if w.newestSecret(p) != w.firstSecret(p) {
			t.Error("the rollback was overwritten")
		}
		if !strings.Contains(w.logs.String(), "record was rolled back") {
			t.Error("the rollback was not followed")
		}
	})
}
