package rotator_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A replica that does not know the newest rotation yet replaces the key that is current when it is asked.
func TestARequestToAReplicaThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(10*time.Hour + time.Second)
		op := w.build(options{}, p)
		if err := op.Rotate(context.Background(), p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		second, _ := w.recordHolds(p)
		after(20 * time.Second)
		if err := r.Request(p.Name, rotator.RotateOptions{Revoke: true, Reason: "the new one leaked too"}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		if k, _ := w.recordHolds(p); k.ID == second.ID {
			t.Error("a minute after an accepted request the record holds the key that was current at the request")
		}
		if k := w.key(second.Secret); !k.Disabled {
			t.Error("the request said revoke_now, and the old key still works")
		}
	})
}

// A request that arrives while the first key is on its way into the record replaces that key, whatever step it meets.
func TestARequestDuringTheFirstPublish(t *testing.T) {
	steps := map[string]func(*http.Request) bool{
		"create": method(http.MethodPost),
		"verify": func(r *http.Request) bool { return r.URL.Path == "/v1/user" },
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				h := hold(w.api, step)
				r, stop := w.daemon(options{api: h}, p)
				defer stop()
				<-h.held
				if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
					t.Fatal(err)
				}
				close(h.release)
				after(time.Minute)
				if n := w.countEvents(rotator.EventRotated); n != 2 {
					t.Errorf("%d rotations, want the first key and the one asked for", n)
				}
				w.mustWork(p, "after both")
			})
		})
	}
	for _, wait := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond} {
		t.Run(wait.String()+" after the publish", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				published := make(chan struct{}, 10)
				w.kv.OnWrite = func(path string, _ int, _ map[string]any) {
					if path == p.Sink.String() {
						published <- struct{}{}
					}
				}
				w.kv.After(func(*http.Request, *http.Response) error { after5ms(); return nil })
				r, stop := w.daemon(options{}, p)
				defer stop()
				<-published
				time.Sleep(wait) //nolint:forbidigo // simulated time
				if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
					t.Fatal(err)
				}
				after(time.Minute)
				if n := w.countEvents(rotator.EventRotated); n != 2 {
					t.Errorf("%d rotations, want the first key and the one asked for", n)
				}
			})
		})
	}
}

// A request is accepted before the policy was looked at, and carried out once it is.
func TestARequestBeforeTheFirstLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		stop()
		first, _ := w.recordHolds(p)
		w.kv.Seal()
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(10 * time.Second)
		if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Minute)
		w.kv.Unseal()
		after(3 * time.Minute)
		if k, _ := w.recordHolds(p); k.ID == first.ID {
			t.Error("it was not carried out")
		}
	})
}

// A request whose rotation fails is shown as failed, and is carried out once it can be.
func TestARequestThatFailsIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Hour)
		first, _ := w.recordHolds(p)
		if err := w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: "createAPIKey", Status: 403, Code: "forbidden", Message: "no"}}}); err != nil {
			t.Fatal(err)
		}
		if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		if s := w.state(r, 0); s.State != plan.StateFailing || s.Failure == nil || s.Failure.Stage != ledger.StageCreate {
			t.Errorf("%s %s %+v", s.State, s.Reason, s.Failure)
		}
		if err := w.sim.SetFaults(elevensim.Faults{}); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Minute)
		if k, _ := w.recordHolds(p); k.ID == first.ID {
			t.Error("it was not carried out once it could be")
		}
	})
}
