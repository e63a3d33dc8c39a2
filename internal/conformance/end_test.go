package conformance_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/conformance"
)

// late is a simulator in which ends come at bad times: keys show up and go with a delay.
var late = elevensim.Faults{ListLag: d(3 * time.Second), KeyDelay: d(time.Second), DisableLag: d(time.Second)}

// cutting counts requests, and does something at one of them.
type cutting struct {
	next http.RoundTripper
	at   int
	do   func(send func() (*http.Response, error)) (*http.Response, error)
	seen int
}

func (c *cutting) RoundTrip(req *http.Request) (*http.Response, error) {
	c.seen++
	send := func() (*http.Response, error) { return c.next.RoundTrip(req) }
	if c.seen < c.at {
		return send()
	}
	return c.do(send)
}

type crashed struct{}

// everyRequest runs a test for the end of a run at each of its first requests, and then at many.
func everyRequest(t *testing.T, test func(t *testing.T, w *world, at int) (requests int)) {
	t.Helper()
	for at, most := 2, 2; at <= most; at++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, late)
			most = max(most, test(t, w, at))
		})
		if t.Failed() {
			t.Fatalf("at request %d", at)
		}
		if at > 40 {
			at += 4
		}
		if testing.Short() {
			at += 6
		}
	}
}

// TestAnInterruptLeavesNothing: the run is interrupted while a request is on its way, at any request.
func TestAnInterruptLeavesNothing(t *testing.T) {
	t.Parallel()
	everyRequest(t, func(t *testing.T, w *world, at int) int {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cut := &cutting{next: elevensim.Transport(w.sim), at: at}
		cut.do = func(send func() (*http.Response, error)) (*http.Response, error) {
			resp, err := send()
			if cut.seen == at {
				cancel()
				return nil, context.Canceled
			}
			return resp, err
		}
		w.transport = cut
		r, err := w.open(context.WithoutCancel(ctx)).Run(ctx)
		if err != nil && !errors.Is(err, context.Canceled) || errors.Is(err, conformance.ErrLeft) {
			t.Error(err)
		}
		if len(r.Checks) != len(conformance.Checks()) || cut.seen < at+5 && r.Count(conformance.NotAsked) < 5 {
			t.Errorf("%d checks\n%s", len(r.Checks), show(r))
		}
		w.clean(r)
		return cut.seen
	})
}

// TestACrashLeavesNothingAfterTheNextRun: the process ends after a request was carried out, at any request.
func TestACrashLeavesNothingAfterTheNextRun(t *testing.T) {
	t.Parallel()
	everyRequest(t, func(t *testing.T, w *world, at int) int {
		cut := &cutting{next: elevensim.Transport(w.sim), at: at}
		cut.do = func(send func() (*http.Response, error)) (*http.Response, error) {
			if cut.seen == at {
				if resp, err := send(); err == nil {
					_ = resp.Body.Close()
				}
			}
			panic(crashed{}) // and so again at each request of what is deferred
		}
		w.transport = cut
		ended := func() (ended bool) {
			defer func() {
				if v := recover(); v != nil && v != any(crashed{}) {
					panic(v)
				}
			}()
			_, _ = w.open(t.Context()).Run(t.Context())
			return true
		}()
		w.most, w.transport = 0, nil
		listed := at%2 == 0
		if listed { // all are listed
			<-time.After(3 * time.Second)
		}
		s := w.open(t.Context())
		if listed && s.Earlier() != w.living {
			t.Errorf("the next run speaks of %d keys of an earlier one, and there are %d", s.Earlier(), w.living)
		}
		r, err := s.Run(t.Context())
		if err != nil {
			t.Error(err)
		}
		if !listed { // those that are not listed yet are not counted
			w.most = 0
		}
		w.clean(r)
		if ended {
			return at
		}
		return at + 8
	})
}

// TestNastyInManyWays: whatever the network does, nothing is said to differ that does not, and nothing is left.
func TestNastyInManyWays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			w := seeded(t, nasty(), seed)
			r, err := w.run()
			if got := with(r, conformance.Differs); got != nil || err != nil {
				t.Errorf("seed %d: differs: %v, %v\n%s", seed, got, err, show(r))
			}
		})
	}
}

// TestWhatAnAnswerSaysIsNotRepeated: codes and messages with ids and secrets.
func TestWhatAnAnswerSaysIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, code := range []string{account, "ws_abcdef", "workspace_1234", strings.Repeat("a", 65)} {
		for _, showIDs := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: "listModels", Status: 403, Code: code,
					Message: "workspace_simulated: " + account + " " + adminKey}}})
				w.showIDs = showIDs
				r, err := w.run()
				f := r.Checks[3]
				if err != nil || f.ID != "A04" || f.Verdict != conformance.Differs {
					t.Fatal(err, f)
				}
				if hidden := code != "ws_abcdef"; strings.Contains(f.Seen, code) == hidden && !showIDs {
					t.Errorf("%s: %s", code, f.Seen)
				}
				if strings.Contains(f.Seen, "workspace_simulated") != showIDs || (r.Account == account) != showIDs || (len(r.Keys) > 9) != showIDs {
					t.Errorf("ids are shown: %t; %+v", showIDs, f)
				}
			})
		}
	}
}

// TestLeftKeysThatStay: nothing is asked while keys of an earlier run cannot be deleted.
func TestLeftKeysThatStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: "deleteAPIKey", Status: 403, Code: "forbidden", Message: "No."}}})
		if _, _, err := w.sim.AddKey(account, elevensim.KeySpec{Name: "rekeyd-conformance.abcdefghij.01"}); err != nil {
			t.Fatal(err)
		}
		r, err := w.open(t.Context()).Run(t.Context())
		if !errors.Is(err, conformance.ErrLeft) || !strings.Contains(err.Error(), "deleting what an earlier run left: no answer in time") || r.Count(conformance.NotAsked) != len(conformance.Checks()) || w.most != 1 {
			t.Errorf("%v\n%s", err, show(r))
		}
	})
}

// TestOpen changes nothing, and says why it cannot.
func TestOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, elevensim.Faults{})
		w.account = "svcacc_unknown"
		if _, err := w.tryOpen(t.Context()); err == nil || !strings.Contains(err.Error(), "HTTP 404 service_account_not_found") || strings.Contains(err.Error(), "svcacc") {
			t.Error(err)
		}
		w.account, w.admin = "", "sk_wrong_key_of_the_test"
		if _, err := w.tryOpen(t.Context()); err == nil || !strings.Contains(err.Error(), "HTTP 401 invalid_api_key") {
			t.Error(err)
		}
		if w.most != 0 {
			t.Error("keys were made")
		}
	})
}
