package elevenlabs

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/rekeyd/rekeyd/internal/secret"
)

const refusedRate, refusedConcurrency = `{"detail":{"code":"rate_limit_exceeded"}}`, `{"detail":{"code":"concurrent_limit_exceeded"}}`

// busy sends requests from sixteen callers for so long, and counts the answers.
func busy(t *testing.T, c *Client, so time.Duration) (answered, refused int64) {
	t.Helper()
	var yes, no atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), so)
	defer cancel()
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for ctx.Err() == nil {
				if result, _ := c.Probe(ctx, secret.New("sk_probe")); result == Valid {
					yes.Add(1)
				} else if ctx.Err() == nil {
					no.Add(1)
				}
			}
		})
	}
	all.Wait()
	return yes.Load(), no.Load()
}

// An unpublished limit is found and used, whatever it is.
func TestAHiddenRateIsFound(t *testing.T) {
	for _, limit := range []float64{2, 10, 100} {
		for _, retryAfter := range []string{"", "1"} {
			t.Run(fmt.Sprintf("%v a second, Retry-After %q", limit, retryAfter), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					hidden := rate.NewLimiter(rate.Limit(limit), int(limit))
					c := newClient(t, "http://127.0.0.1", func(o *Options) {
						o.Rate = 200
						o.Transport = inProcess(func(*http.Request) (int, http.Header, string) {
							<-time.After(20 * time.Millisecond)
							if !hidden.Allow() {
								return 429, http.Header{"Retry-After": []string{retryAfter}}, refusedRate
							}
							return 200, nil, `{}`
						})
					})
					so := time.Duration(min(3600/limit, 1800)) * time.Second * 2
					answered, refused := busy(t, c, so)
					used := float64(answered) / (limit * so.Seconds())
					t.Logf("%.1f %% used, %d of %d refused", 100*used, refused, answered+refused)
					if used < 0.85 || float64(refused) > 0.02*float64(answered+refused) {
						t.Errorf("used %.1f %% of the limit, %d of %d requests refused; want 85 %% and at most 2 %% refused", 100*used, refused, answered+refused)
					}
				})
			})
		}
	}
}

// A refusal of a request that was alone does not take most of the budget away: it was not too much.
func TestAnOddRefusalCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := 429
		c := newClient(t, "http://127.0.0.1", func(o *Options) {
			o.Rate = 5
			o.Transport = inProcess(func(*http.Request) (int, http.Header, string) { return status, nil, refusedRate })
		})
		if result, _ := c.Probe(t.Context(), secret.New("sk_probe")); result != Inconclusive {
			t.Fatal(result)
		}
		if got := float64(c.budget.limiter.Limit()); got < 5*cut-0.01 || got > 5*cut+0.01 {
			t.Errorf("the rate is %v, want %v", got, 5*cut)
		}
		status = 200
		<-time.After(3 * time.Minute)
		if c.budget.try(); c.budget.limiter.Limit() != 5 {
			t.Errorf("after three minutes the rate is %v, want 5", c.budget.limiter.Limit())
		}
	})
}

// A limit of requests at once lowers the number in flight, not the rate.
func TestAHiddenConcurrencyIsFound(t *testing.T) {
	for _, limit := range []int64{1, 3, 10} {
		t.Run(strconv.FormatInt(limit, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var inFlight atomic.Int64
				c := newClient(t, "http://127.0.0.1", func(o *Options) {
					o.Transport = inProcess(func(*http.Request) (int, http.Header, string) {
						defer inFlight.Add(-1)
						if inFlight.Add(1) > limit {
							return 429, nil, refusedConcurrency
						}
						<-time.After(50 * time.Millisecond)
						return 200, nil, `{}`
					})
				})
				const so = 10 * time.Minute
				answered, refused := busy(t, c, so)
				used := float64(answered) / (float64(limit) * so.Seconds() * 20)
				t.Logf("%.1f %% used, %d of %d refused", 100*used, refused, answered+refused)
				if used < 0.7 || float64(refused) > 0.02*float64(answered+refused) {
					t.Errorf("used %.1f %% of the limit, %d of %d requests refused; want 70 %% and at most 2 %% refused", 100*used, refused, answered+refused)
				}
				if c.budget.limiter.Limit() != rate.Inf {
					t.Errorf("the rate is %v", c.budget.limiter.Limit())
				}
			})
		})
	}
}

// Less patience goes first, and each request gets its turn.
func TestTheOrderOfWaitingRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		c := newClient(t, "http://127.0.0.1", func(o *Options) {
			o.Rate = 1
			o.Transport = inProcess(func(req *http.Request) (int, http.Header, string) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, req.URL.Path[1:])
				return 200, nil, `{}`
			})
		})
		ask := func(what string, patience time.Duration) {
			go func() { _, _ = c.ProbePath(WithPatience(t.Context(), patience), secret.New("sk_probe"), "/"+what) }()
			synctest.Wait()
		}
		ask("first", 0)
		ask("retire", 10*time.Second)
		ask("create", 0)
		ask("leak", -time.Hour)
		for i := range 12 {
			<-time.After(time.Second)
			ask(strconv.Itoa(i), 0)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		at := func(what string) int { return slices.Index(order, what) }
		if at("leak") != 1 || at("create") != 2 {
			t.Errorf("the order is %v; want the leak, then the create", order)
		}
		if at("retire") < at("5") || at("retire") > at("11") {
			t.Errorf("the order is %v; want what has 10 s of patience after what came in those 10 s, before the rest", order)
		}
	})
}

// listings answers them for a workspace of 40 accounts, each after a tenth of a second, and counts them.
type listings struct {
	whole, single atomic.Int64
}

func (l *listings) client(t *testing.T, perSecond float64) *Client {
	return newClient(t, "http://127.0.0.1", func(o *Options) {
		o.Rate = perSecond
		o.Transport = inProcess(func(req *http.Request) (int, http.Header, string) {
			key := fmt.Sprintf(`{"key_id":"k%d","name":"n","created_at_unix":1,"is_disabled":false}`, time.Now().UnixMilli()) // when it began
			<-time.After(100 * time.Millisecond)
			if req.URL.Path != "/v1/service-accounts" {
				l.single.Add(1)
				return 200, nil, `{"api-keys":[` + key + `]}`
			}
			l.whole.Add(1)
			body := ""
			for i := range 40 {
				body += fmt.Sprintf(`,{"service_account_user_id":"a%d","name":"a","api-keys":[%s]}`, i, key)
			}
			return 200, nil, `{"service-accounts":[` + body[1:] + `]}`
		})
	})
}

// Each caller gets an answer that began after it asked, and those that wait for the budget share one.
func TestWaitingListingsAreShared(t *testing.T) {
	for name, tc := range map[string]struct {
		perSecond     float64
		patience      time.Duration
		accounts      int // that are asked for, in turn
		most          int64
		single, whole bool
	}{
		"no budget":                    {0, 0, 40, 400, true, false},
		"the budget is enough":         {1000, 0, 40, 400, true, false},
		"many accounts":                {2, 0, 40, 44, true, true},
		"one account":                  {2, 0, 1, 44, true, false},
		"many accounts, with patience": {20, time.Second, 40, 30, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l listings
				c := l.client(t, tc.perSecond)
				var all sync.WaitGroup
				for i := range 400 {
					all.Go(func() {
						<-time.After(time.Duration(i) * 50 * time.Millisecond)
						asked := time.Now().UnixMilli()
						keys, err := c.Keys(WithPatience(t.Context(), tc.patience), fmt.Sprintf("a%d", i%tc.accounts))
						if err != nil || len(keys) != 1 {
							t.Errorf("%d: %v, %v", i, keys, err)
						} else if begun, _ := strconv.ParseInt(keys[0].ID[1:], 10, 64); begun < asked {
							t.Errorf("%d asked at %d and got a listing from %d", i, asked, begun)
						}
						keys[0].ID = "changed" // its own copy
					})
				}
				all.Wait()
				single, whole := l.single.Load(), l.whole.Load()
				t.Logf("%d listings of an account, %d of the workspace", single, whole)
				if single+whole > tc.most || (single > 0) != tc.single || (whole > 0) != tc.whole {
					t.Errorf("%d listings of an account, %d of the workspace for 400 callers", single, whole)
				}
			})
		})
	}
}

// Who gives up takes nothing from the others.
func TestASharedListingIsNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l listings
		c := l.client(t, 0.5)
		_, _ = c.Keys(t.Context(), "a0") // the budget is used up
		for range 3 {                    // each alone, then gone
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if _, err := c.Keys(ctx, "a1"); err == nil {
				t.Error("no error")
			}
			cancel()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		go func() { _, _ = c.Keys(ctx, "a1") }() // opens the round, and leaves it
		synctest.Wait()
		if keys, err := c.Keys(t.Context(), "a2"); err != nil || len(keys) != 1 {
			t.Errorf("%v, %v", keys, err)
		}
		if _, err := c.Keys(t.Context(), "unknown"); err != nil {
			t.Error(err) // alone: this service answers for every account
		}
		if c.budget.inFlight != 0 || len(c.budget.waiting) != 0 {
			t.Errorf("%d in flight, %d waiting", c.budget.inFlight, len(c.budget.waiting))
		}
	})
}

// What Reserve took is given back.
func TestCancelGivesBack(t *testing.T) {
	c := newClient(t, "http://127.0.0.1", func(o *Options) { o.MaxConns = 1 })
	for range 3 {
		ctx, err := c.Reserve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		Cancel(ctx)
		Cancel(ctx)
		if ctx, err = c.Reserve(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.UpdateKey(ctx, "..", "k", Update{Name: "n", Settings: &Settings{}}); err == nil {
			t.Error("no error")
		}
	}
	if c.budget.inFlight != 0 {
		t.Errorf("%d in flight", c.budget.inFlight)
	}
}
