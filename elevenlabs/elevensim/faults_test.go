package elevensim_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

const plainKey = `{"name":"n","permissions":"all"}`

func rules(r ...elevensim.Rule) elevensim.Faults { return elevensim.Faults{Rules: r} }

func (b *bench) living() int {
	n := 0
	for _, k := range b.State()[0].Keys {
		if !k.Deleted() {
			n++
		}
	}
	return n
}

func (b *bench) last() elevensim.Request {
	h := b.History()
	return h[len(h)-1]
}

// Each kind of rule, on a create: what the client gets, whether the key exists afterwards, what the history says.
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		rule    elevensim.Rule
		status  int    // 0: no answer
		body    string // a part of it
		err     error
		applied bool
	}{
		{elevensim.Rule{Kind: elevensim.Status500}, 500, `"code":"internal_server_error"`, nil, false},
		{elevensim.Rule{Kind: elevensim.Status500After}, 500, `"code":"internal_server_error"`, nil, true},
		{elevensim.Rule{Kind: elevensim.BadGateway}, 502, "<html>", nil, false},
		{elevensim.Rule{Kind: elevensim.BadGateway, After: true}, 502, "<html>", nil, true},
		{elevensim.Rule{Kind: elevensim.CutBefore}, 0, "", io.EOF, false},
		{elevensim.Rule{Kind: elevensim.CutAfter}, 0, "", io.EOF, true},
		{elevensim.Rule{Kind: elevensim.Truncate}, 200, `{"xi-api-key":"sk_`, io.ErrUnexpectedEOF, true},
		{elevensim.Rule{Kind: elevensim.Malformed}, 200, `<{`, nil, true},
		{elevensim.Rule{Kind: elevensim.Status, Status: 418, Code: "teapot", Message: "short"}, 418, `"code":"teapot"`, nil, false},
		{elevensim.Rule{Kind: elevensim.Status, Status: 503, After: true}, 503, `"detail"`, nil, true},
		{elevensim.Rule{Kind: elevensim.Hang}, 0, "", context.DeadlineExceeded, false},
		{elevensim.Rule{Kind: elevensim.Hang, After: true}, 0, "", context.DeadlineExceeded, true},
		{elevensim.Rule{Kind: elevensim.Delay, Duration: elevensim.Duration(time.Minute)}, 0, "", context.DeadlineExceeded, false},
		{elevensim.Rule{Kind: elevensim.Delay, Duration: elevensim.Duration(time.Minute), After: true}, 0, "", context.DeadlineExceeded, true},
		{elevensim.Rule{Kind: elevensim.Delay, Duration: elevensim.Duration(time.Second)}, 200, `{"xi-api-key"`, nil, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newUncheckedBench(t, options())
			b.client.Timeout = 15 * time.Second
			b.set(rules(tt.rule))
			r, err := b.try("POST", keysOfA, adminKey, plainKey)
			what := string(tt.rule.Kind)
			if !errors.Is(err, tt.err) {
				t.Errorf("%s: error %v, want %v", what, err, tt.err)
			}
			equal(t, what, r.status, tt.status)
			if !strings.Contains(string(r.body), tt.body) || json.Valid(r.body) == (tt.body == "<{") && r.status == 200 && tt.err == nil {
				t.Errorf("%s: answer %s", what, r.body)
			}
			equal(t, what+": applied", b.living() == 1, tt.applied)
			h := b.last()
			equal(t, what+": history says applied", h.Applied, tt.applied)
			equal(t, what+": history's fault", h.Fault, what)
			if tt.rule.Kind != elevensim.Delay {
				equal(t, what+": history's status", h.Status, tt.status)
			}
		})
	}
}

func TestRetryAfterOfARule(t *testing.T) {
	b := newBench(t, options())
	b.set(rules(elevensim.Rule{Kind: elevensim.Status, Status: 429, Code: "rate_limit_exceeded", Message: "slow", RetryAfter: 7}))
	equal(t, "Retry-After", b.do("GET", accounts, adminKey, "").header.Get("Retry-After"), "7")
}

func TestWhichRequestsARuleHits(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule elevensim.Rule
		want string // one letter for each list of A, B, A, B …: x is hit
	}{
		{"all", elevensim.Rule{}, "xxxxxxxx"},
		{"nth alone", elevensim.Rule{Nth: 3}, "..x....."},
		{"count alone", elevensim.Rule{Count: 2}, "xx......"},
		{"count from nth", elevensim.Rule{Nth: 3, Count: 2}, "..xx...."},
		{"one account", elevensim.Rule{Account: "svcacc_b"}, ".x.x.x.x"},
		{"nth of one account", elevensim.Rule{Account: "svcacc_b", Nth: 2}, "...x...."},
		{"operation", elevensim.Rule{Operation: "listAPIKeys"}, "xxxxxxxx"},
		{"another operation", elevensim.Rule{Operation: "createAPIKey"}, "........"},
	} {
		b := newBench(t, options())
		tt.rule.Kind = elevensim.Status500
		b.set(rules(tt.rule))
		equal(t, tt.name, b.pattern(8), tt.want)
		b.Reset()
		equal(t, tt.name+" after a reset", b.pattern(8), tt.want)
	}
	b := newBench(t, options())
	b.set(rules(elevensim.Rule{Kind: elevensim.Status500, Probability: 0.5}))
	hits := strings.Count(b.pattern(200), "x")
	if hits < 60 || hits > 140 {
		t.Errorf("a probability of 0.5 hit %d of 200", hits)
	}
}

func (b *bench) pattern(n int) string {
	p := ""
	for i := range n {
		path := accounts + "/svcacc_" + string("ab"[i%2]) + "/api-keys"
		p += map[int]string{200: ".", 500: "x"}[b.status(adminKey, path)]
	}
	return p
}

func TestOfSeveralRulesTheFirstWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newUncheckedBench(t, options())
		b.set(rules(
			elevensim.Rule{Kind: elevensim.Delay, Duration: elevensim.Duration(time.Second)},
			elevensim.Rule{Kind: elevensim.BadGateway, Nth: 1},
			elevensim.Rule{Kind: elevensim.Status500, Nth: 1}))
		start := time.Now()
		equal(t, "first", b.status(adminKey, accounts), 502)
		equal(t, "delay joins", time.Since(start), time.Second)
		equal(t, "second", b.status(adminKey, accounts), 500)
		equal(t, "third", b.status(adminKey, accounts), 200)
	})
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, options())
		b.set(elevensim.Faults{Latency: elevensim.Range{Min: elevensim.Duration(100 * time.Millisecond), Max: elevensim.Duration(200 * time.Millisecond)}})
		var seen []time.Duration
		for range 20 {
			start := time.Now()
			b.status(adminKey, accounts)
			seen = append(seen, time.Since(start))
		}
		if low, high := slices.Min(seen), slices.Max(seen); low < 100*time.Millisecond || high > 200*time.Millisecond || low == high {
			t.Errorf("latencies from %v to %v", low, high)
		}
	})
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, options())
		b.set(elevensim.Faults{RateLimit: elevensim.RateLimit{PerSecond: 0.5, Burst: 2}})
		for i, want := range []int{200, 200, 429} {
			equal(t, "request "+string(rune('1'+i)), b.status(adminKey, accounts), want)
		}
		r := b.do("POST", keysOfA, adminKey, plainKey)
		equal(t, "code", r.code(t), "rate_limit_exceeded")
		equal(t, "no Retry-After unless asked for", r.header.Get("Retry-After"), "")
		equal(t, "not applied", b.living(), 0)
		equal(t, "history's fault", b.last().Fault, "rate_limit_exceeded")
		<-time.After(2 * time.Second)
		equal(t, "after a refill", b.status(adminKey, accounts), 200)

		b.set(elevensim.Faults{RateLimit: elevensim.RateLimit{PerSecond: 0.5, Burst: 1, RetryAfter: true}})
		b.status(adminKey, accounts)
		equal(t, "Retry-After", b.do("GET", accounts, adminKey, "").header.Get("Retry-After"), "2")
	})
}

func TestConcurrencyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, options())
		b.set(elevensim.Faults{ConcurrencyLimit: 2, Latency: elevensim.Range{Min: elevensim.Duration(time.Second), Max: elevensim.Duration(time.Second)}})
		codes := make(chan int, 3)
		for range 3 {
			go func() {
				resp, err := b.client.Do(request(t, "GET", accounts, adminKey, ""))
				if err != nil {
					codes <- 0
					return
				}
				_ = resp.Body.Close()
				codes <- resp.StatusCode
			}()
		}
		got := []int{<-codes, <-codes, <-codes}
		slices.Sort(got)
		equalJSON(t, "codes", got, "[200,200,429]")
		equal(t, "once they are done", b.status(adminKey, accounts), 200)
		hit := slices.ContainsFunc(b.History(), func(r elevensim.Request) bool { return r.Fault == "concurrent_limit_exceeded" })
		equal(t, "history names the limit", hit, true)
	})
}

func TestKeyDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, options())
		b.set(elevensim.Faults{KeyDelay: elevensim.Duration(5 * time.Second)})
		c := b.create(plainKey)
		equal(t, "at once", b.do("GET", "/v1/user", c.Secret, "").code(t), "invalid_api_key")
		equal(t, "listed at once", len(b.list()), 1)
		<-time.After(5 * time.Second)
		equal(t, "later", b.status(c.Secret, "/v1/user"), 200)
	})
}

func TestListLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, options())
		b.set(elevensim.Faults{ListLag: elevensim.Duration(5 * time.Second)})
		c := b.create(plainKey)
		equal(t, "listed at once", len(b.list()), 0)
		equal(t, "works at once", b.status(c.Secret, "/v1/user"), 200)
		<-time.After(5 * time.Second)
		equal(t, "listed later", len(b.list()), 1)
		equal(t, "deleted by id", b.do("DELETE", keysOfA+"/"+c.ID, adminKey, "").status, 200)
		equal(t, "still listed", len(b.list()), 1)
		equal(t, "but dead", b.status(c.Secret, "/v1/user"), 401)
		<-time.After(5 * time.Second)
		equal(t, "gone", len(b.list()), 0)
		short := b.create(plainKey)
		equal(t, "deleted before it was listed", b.do("DELETE", keysOfA+"/"+short.ID, adminKey, "").status, 200)
		equal(t, "never listed", len(b.list()), 0)
	})
}

func TestLimits(t *testing.T) {
	b := newBench(t, options())
	b.set(elevensim.Faults{KeyLimit: 1, AccountLimit: 2, NameLimit: 3})
	c := b.create(plainKey)
	b.do("PATCH", keysOfA+"/"+c.ID, adminKey, `{"is_enabled":false}`)
	r := b.do("POST", keysOfA, adminKey, plainKey)
	equal(t, "a second key, the first one disabled", r.code(t), "max_api_keys_reached")
	equal(t, "its status", r.status, 400)
	equal(t, "in another account", b.do("POST", accounts+"/svcacc_b/api-keys", adminKey, plainKey).status, 200)
	equal(t, "a third account", b.do("POST", accounts, adminKey, `{"name":"C"}`).code(t), "max_service_accounts_reached")
	b.do("DELETE", keysOfA+"/"+c.ID, adminKey, "")
	equal(t, "after a delete", b.do("POST", keysOfA, adminKey, `{"name":"æøå","permissions":"all"}`).status, 200)
	equal(t, "a long name", b.do("POST", keysOfA, adminKey, `{"name":"abcd","permissions":"all"}`).status, 422)
}

func TestIgnoreAllowedIPs(t *testing.T) {
	b := newBench(t, options())
	kept := b.create(`{"name":"n","permissions":"all","allowed_ips":["192.0.2.1"]}`)
	b.set(elevensim.Faults{IgnoreAllowedIPs: true})
	equal(t, "not enforced", b.status(kept.Secret, "/v1/user"), 200)
	b.create(`{"name":"n","permissions":"all","allowed_ips":["192.0.2.1"]}`)
	equal(t, "not stored by create", b.list()[1]["allowed_ips"], nil)
	b.do("PATCH", keysOfA+"/"+b.State()[0].Keys[1].ID, adminKey, `{"allowed_ips":["192.0.2.1"]}`)
	equal(t, "nor by update", b.list()[1]["allowed_ips"], nil)
}

func TestShapesOfOtherTimes(t *testing.T) {
	b := newUncheckedBench(t, options())
	b.set(elevensim.Faults{NoKeyID: true, FullUpdate: true, LegacyErrors: true})
	r := b.do("POST", keysOfA, adminKey, plainKey)
	equal(t, "create", strings.Contains(string(r.body), "key_id"), false)
	one := keysOfA + "/" + b.State()[0].Keys[0].ID
	equal(t, "a part of an update", b.do("PATCH", one, adminKey, `{"is_enabled":false}`).status, 422)
	equal(t, "the three", b.do("PATCH", one, adminKey, `{"is_enabled":false,"name":"n","permissions":"no_update"}`).status, 200)
	equal(t, "an error", string(b.do("GET", accounts, "sk_x", "").body), `{"detail":{"status":"invalid_api_key","message":"Invalid API key"}}`)

	b.set(elevensim.Faults{ExtraFields: true})
	b.do("PATCH", one, adminKey, `{"permissions":["user_read"]}`)
	equalJSON(t, "permissions", b.list()[0]["permissions"], `["user_read","future_permission"]`)
	if b.list()[0]["future_object"] == nil {
		t.Error("no unknown field in a listing")
	}
	equalJSON(t, "stored permissions", b.State()[0].Keys[0].Permissions, `["user_read"]`)
}

func TestMissingList(t *testing.T) {
	b := newUncheckedBench(t, options())
	b.create(plainKey)
	for _, field := range []string{"service-accounts", "api-keys", "key_id"} {
		equal(t, field+" is there", strings.Contains(string(b.do("GET", accounts, adminKey, "").body), `"`+field+`"`), true)
		b.set(elevensim.Faults{MissingList: field})
		r := b.do("GET", accounts, adminKey, "")
		equal(t, "status without "+field, r.status, 200)
		equal(t, field+" is missing", strings.Contains(string(r.body), `"`+field+`"`), false)
		b.set(elevensim.Faults{})
	}
}

func TestShuffle(t *testing.T) {
	b := newBench(t, options())
	for range 6 {
		b.create(plainKey)
	}
	order := func() string {
		ids := ""
		for _, k := range b.list() {
			ids += k["key_id"].(string)
		}
		return ids
	}
	sorted := order()
	equal(t, "without the knob", order(), sorted)
	b.set(elevensim.Faults{Shuffle: true})
	if first, second := order(), order(); first == sorted && second == sorted {
		t.Error("twice in the order of creation")
	}
	b.set(elevensim.Faults{})
	equal(t, "afterwards", order(), sorted)
}

func TestUsage(t *testing.T) {
	b := newBench(t, options())
	c := b.create(`{"name":"n","permissions":"all","character_limit":25}`)
	b.status(c.Secret, "/v1/user")
	equal(t, "free", b.list()[0]["character_count"], any(0.0))
	b.set(elevensim.Faults{UsagePerRequest: 10})
	b.status(c.Secret, "/v1/user")
	b.status(c.Secret, "/v1/user")
	equal(t, "two requests", b.list()[0]["character_count"], any(20.0))
	equal(t, "past the limit", b.do("GET", "/v1/user", c.Secret, "").code(t), "quota_exceeded")
	if err := b.AddUsage(c.ID, 3); err != nil {
		t.Fatal(err)
	}
	equal(t, "added", b.list()[0]["character_count"], any(23.0))
}

func TestFaultsAreChecked(t *testing.T) {
	s := elevensim.New(options())
	for _, tt := range []struct {
		faults elevensim.Faults
		want   string
	}{
		{rules(elevensim.Rule{Kind: "501"}), `rule 1: kind "501"`},
		{rules(elevensim.Rule{Kind: elevensim.Hang}, elevensim.Rule{Kind: elevensim.Hang, Operation: "fly"}), `rule 2: operation "fly"`},
		{rules(elevensim.Rule{Kind: elevensim.Hang, Probability: 2}), "probability"},
		{rules(elevensim.Rule{Kind: elevensim.Status}), "status 0"},
		{rules(elevensim.Rule{Kind: elevensim.Delay}), "needs a duration"},
		{elevensim.Faults{MissingList: "all"}, `missing_list "all"`},
		{elevensim.Faults{Latency: elevensim.Range{Min: 2, Max: 1}}, "latency"},
		{elevensim.Faults{RateLimit: elevensim.RateLimit{PerSecond: 1}}, "burst"},
	} {
		if err := s.SetFaults(tt.faults); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want one with %q", err, tt.want)
		}
	}
}

// Over real HTTP the cuts are seen as such, too.
func TestCutsOverHTTP(t *testing.T) {
	s, client, url := overHTTP(t)
	for _, tt := range []struct {
		kind    elevensim.Kind
		want    error
		applied bool
	}{
		{elevensim.CutBefore, io.EOF, false},
		{elevensim.CutAfter, io.EOF, true},
		{elevensim.Truncate, io.ErrUnexpectedEOF, true},
	} {
		if err := s.SetFaults(rules(elevensim.Rule{Kind: tt.kind})); err != nil {
			t.Fatal(err)
		}
		before := len(s.State()[0].Keys)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+keysOfA, strings.NewReader(plainKey))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Xi-Api-Key": {adminKey}, "Content-Type": {"application/json"}}
		resp, err := client.Do(r)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.kind, err, tt.want)
		}
		equal(t, string(tt.kind)+": applied", len(s.State()[0].Keys) > before, tt.applied)
	}
}

const fullKey = `{"name":"n","permissions":"all","third_party_disable_allowed":true,"tts_concurrency_limit":1,"dubbing_concurrency_limit":2,"music_concurrency_limit":0}`

// A plan that does not offer a setting says which one, whatever is set beside it; clearing it is no use of it.
func TestAPlanThatDoesNotOfferASetting(t *testing.T) {
	for _, field := range []string{"third_party_disable_allowed", "tts_concurrency_limit", "dubbing_concurrency_limit", "music_concurrency_limit"} {
		b := newBench(t, options())
		old := b.create(fullKey)
		b.set(elevensim.Faults{NotOffered: []string{field}})
		for method, path := range map[string]string{"POST": keysOfA, "PATCH": keysOfA + "/" + old.ID} {
			r := b.do(method, path, adminKey, fullKey)
			var e struct {
				Detail struct{ Code, Param, Message string }
			}
			r.into(t, &e)
			equal(t, method+" "+field, r.status, 403)
			equal(t, method+" "+field, e.Detail.Code+" "+e.Detail.Param, "feature_not_available "+field)
			equal(t, "named in the message: "+field, strings.Contains(e.Detail.Message, field), true)
		}
		equal(t, "keys", b.living(), 1)
		equal(t, "clearing it", b.do("PATCH", keysOfA+"/"+old.ID, adminKey, `{"`+field+`":"clear"}`).status, 200)
		equal(t, "without it", b.do("POST", keysOfA, adminKey, plainKey).status, 200)
	}
}

func TestAPlanThatDropsASetting(t *testing.T) {
	b := newBench(t, options())
	b.set(elevensim.Faults{NotTaken: []string{"tts_concurrency_limit", "third_party_disable_allowed"}})
	b.create(fullKey)
	k := b.State()[0].Keys[0]
	equal(t, "tts", k.TTSConcurrency == nil, true)
	equal(t, "third party", k.ThirdPartyDisable == nil, true)
	equal(t, "dubbing", *k.DubConcurrency, int64(2))
}

// An older API neither shows nor knows the optional settings.
func TestAnOlderAPIWithoutOptionalSettings(t *testing.T) {
	b := newBench(t, options())
	b.create(fullKey)
	b.set(elevensim.Faults{NoOptionalFields: true})
	for _, field := range []string{"platform_limits", "third_party_disable_allowed"} {
		if shown, there := b.list()[0][field]; there {
			t.Errorf("the listing shows %s: %v", field, shown)
		}
	}
	equal(t, "a key with them", b.do("POST", keysOfA, adminKey, fullKey).status, 422)
	equal(t, "a key without them", b.do("POST", keysOfA, adminKey, plainKey).status, 200)
}

func TestFaultsThatNameNoOptionalSetting(t *testing.T) {
	s := elevensim.New(options())
	for _, f := range []elevensim.Faults{{NotOffered: []string{"character_limit"}}, {NotTaken: []string{"tts"}}} {
		if err := s.SetFaults(f); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
}
