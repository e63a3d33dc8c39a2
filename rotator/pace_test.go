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

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// counting tells of each request before it is sent.
type counting struct {
	http.RoundTripper
	seen func(*http.Request)
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.seen(r)
	return c.RoundTripper.RoundTrip(r)
}

// A request with revoke_now whose disable is refused waits longer each time, like any other retirement.
func TestARefusedRevokeIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		var patches atomic.Int64
		count := counting{w.api, func(r *http.Request) {
			if r.Method == http.MethodPatch {
				patches.Add(1)
			}
		}}
		w.kv.Before(func(*http.Request) error { after5ms(); return nil })
		r, stop := w.daemon(options{api: count, rate: 5}, p)
		defer stop()
		after(time.Hour)
		refuse := elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: "updateAPIKey", Status: 403, Code: "forbidden", Message: "no"}}}
		if err := w.sim.SetFaults(refuse); err != nil {
			t.Fatal(err)
		}
		if err := r.Request(p.Name, rotator.RotateOptions{Revoke: true}); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Minute)
		if n := patches.Load(); n < 2 || n > 8 {
			t.Errorf("%d refused disables in ten minutes", n)
		}
		if err := w.sim.SetFaults(elevensim.Faults{}); err != nil {
			t.Fatal(err)
		}
		after(20 * time.Minute)
		if s := w.state(r, 0); s.Keys.Overlap != 0 {
			t.Errorf("disables work again, and the revoked key is still enabled: %+v", s.Keys)
		}
	})
}

// after5ms keeps a loop without waits from standing still in simulated time.
func after5ms() { time.Sleep(5 * time.Millisecond) } //nolint:forbidigo // simulated time

// Where every write conflicts, each policy that is due is counted as failed once, and waits longer each time.
func TestAConflictOnEveryWriteIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		ps := manyPolicies(t, 8)
		_, stop := w.daemon(options{}, ps...)
		after(2*time.Hour + 59*time.Minute)
		stop()
		r, stop := w.daemon(options{}, ps...)
		defer stop()
		after(30 * time.Second)
		var calls, announcing atomic.Int64
		w.kv.Before(func(r *http.Request) error {
			if strings.HasSuffix(r.URL.Path, "/replicas") { // which is no policy's
				announcing.Add(1)
			} else {
				calls.Add(1)
			}
			after5ms()
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/data/") {
				return &memkv.Refusal{Status: 400, Errors: []string{"check-and-set parameter did not match the current version"}}
			}
			return nil
		})
		failed := w.countEvents(rotator.EventFailed)
		after(3 * time.Hour)
		if n := calls.Load(); n > 8*3*60 {
			t.Errorf("%d calls of Vault in three hours for 8 policies", n)
		}
		if n := announcing.Load(); n > 60 {
			t.Errorf("%d calls in three hours to say which policies are loaded", n)
		}
		for _, s := range r.Snapshot().Policies {
			if s.State != plan.StateFailing || s.Failure == nil || s.Failure.Reason != ledger.FailureSinkConflict {
				t.Errorf("%s: %s %s, %+v", s.Policy.Name, s.State, s.Reason, s.Failure)
			}
		}
		if n := w.countEvents(rotator.EventFailed) - failed; n != 8 {
			t.Errorf("%d failures were told of 8 policies", n)
		}
		w.kv.Before(nil)
		again := time.Now()
		after(time.Hour)
		for _, s := range r.Snapshot().Policies {
			if s.State != plan.StateOK || s.LastRotation.Before(again) {
				t.Errorf("writes work again: %s: %s %s, rotated at %s", s.Policy.Name, s.State, s.Reason, s.LastRotation)
			}
		}
	})
}

// manyPolicies differ in their names and places.
func manyPolicies(t *testing.T, n int) (ps []plan.Policy) {
	t.Helper()
	for i := range n {
		ps = append(ps, testPolicy(t, func(p *plan.Policy) {
			p.Name = fmt.Sprintf("p%02d", i)
			p.Sink.Path = "elevenlabs/" + p.Name
		}))
	}
	return ps
}

// What is edited or asked for is tried at once, however long it would have to wait.
func TestAnEditAndARequestAreTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		var writes atomic.Int64
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Hour)
		w.kv.Before(func(r *http.Request) error {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "policies/") {
				writes.Add(1)
				return &memkv.Refusal{Status: 400, Errors: []string{"check-and-set parameter did not match the current version"}}
			}
			return nil
		})
		after(8 * time.Hour) // waits are at their longest
		p.Schedule, _ = schedule.Parse("0 */2 * * *", "UTC")
		n := writes.Load()
		r.Load([]plan.Policy{p}, w.clients(w.api))
		after(time.Second)
		if writes.Load() == n {
			t.Error("an edit does not lead to a try")
		}
		n = writes.Load()
		if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		if writes.Load() == n {
			t.Error("a request does not lead to a try")
		}
		after(time.Minute)
		if writes.Load() > n+12 {
			t.Errorf("%d writes within a minute", writes.Load()-n)
		}
	})
}

// A policy that was pruned and is loaded again, whose record holds a value that nobody knows, is an error; its old key goes
// all the same, since the record does not hold it.
func TestAPrunedPolicyWithAStrangersValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		other := testPolicy(t, func(p *plan.Policy) { p.Name = "other"; p.Sink.Path = "elevenlabs/other" })
		_, stop := w.daemon(options{}, p, other)
		after(time.Hour)
		first, _ := w.recordHolds(p)
		stop()
		op := w.build(options{}, other)
		lost, err := op.Lost(context.Background(), p.Name)
		if err != nil || len(lost) != 1 {
			t.Fatal(lost, err)
		}
		if err := op.Prune(context.Background(), lost[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := w.kv.Put(p.Sink.String(), map[string]any{"api_key": "by hand"}); err != nil {
			t.Fatal(err)
		}
		r, stop := w.daemon(options{}, p, other)
		defer stop()
		after(5*time.Hour + 50*time.Minute)
		var calls atomic.Int64
		w.kv.Before(func(*http.Request) error { calls.Add(1); after5ms(); return nil })
		after(20 * time.Minute) // in the middle its quarantine ends
		if n := calls.Load(); n > 60 {
			t.Errorf("%d calls of Vault in twenty minutes", n)
		}
		if k := w.key(first.Secret); !k.Deleted() {
			t.Error("the pruned key is still there")
		}
		if s := w.state(r, 1); s.State != plan.StateError || s.Message == "" {
			t.Errorf("%s %s: %s", s.State, s.Reason, s.Message)
		}
	})
}

// A command against writes that all conflict waits longer each time, until it gives up.
func TestACommandInVainIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		stop()
		var calls atomic.Int64
		w.kv.Before(func(r *http.Request) error {
			calls.Add(1)
			after5ms()
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/data/") {
				return &memkv.Refusal{Status: 400, Errors: []string{"check-and-set parameter did not match the current version"}}
			}
			return nil
		})
		op := w.build(options{}, p)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := op.Rotate(ctx, p.Name, rotator.RotateOptions{}); err == nil {
			t.Error("the command says that it is done")
		}
		if n := calls.Load(); n > 60 {
			t.Errorf("%d calls in five minutes", n)
		}
	})
}
