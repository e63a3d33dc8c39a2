package sinks_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// node answers reads with the statuses of a script, and then well.
type node struct {
	tokenVault
	mu     sync.Mutex
	script []int
	index  string   // that a write returns
	asked  []string // index and what to do, of each read
	says   string   // the body of a scripted answer; "": that of a success
}

func (n *node) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := n.tokenVault.RoundTrip(r)
	if err != nil || !strings.Contains(r.URL.Path, "/data/") {
		return resp, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.Method == http.MethodPut {
		resp.Header.Set("X-Vault-Index", n.index)
		resp.Body = io.NopCloser(strings.NewReader(`{"data":{"version":1}}`))
		return resp, nil
	}
	n.asked = append(n.asked, r.Header.Get("X-Vault-Index")+" "+r.Header.Get("X-Vault-Inconsistent"))
	if len(n.script) > 0 {
		resp.StatusCode, n.script = n.script[0], n.script[1:]
		if n.says != "" {
			resp.Body = io.NopCloser(strings.NewReader(n.says))
		}
	}
	return resp, nil
}

// TestReadsInASession: a read asks for the index of the session's write, and asks again while the node has not reached it, for ten
// seconds; what a community server refuses is not asked again; without an index nothing is asked for.
func TestReadsInASession(t *testing.T) {
	many := func(status, n int) []int { return slices.Repeat([]int{status}, n) }
	for name, c := range map[string]struct {
		index  string
		script []int
		asked  []string
		took   time.Duration // at most
		err    string
		says   string
	}{
		"no index":                 {asked: []string{" "}},
		"reached":                  {index: "i1", asked: []string{"i1 forward-active-node"}},
		"behind":                   {index: "i1", script: []int{412, 412}, asked: slices.Repeat([]string{"i1 forward-active-node"}, 3), took: time.Second},
		"behind, as OpenBao says":  {index: "i1", script: []int{429}, asked: slices.Repeat([]string{"i1 forward-active-node"}, 2), took: time.Second},
		"a quota":                  {index: "i1", script: many(429, 100), says: `{"errors":["request path \"secret/data/a\": rate limit quota exceeded"]}`, asked: []string{"i1 forward-active-node"}, err: "quota exceeded"},
		"forwarding is off":        {index: "i1", script: []int{400}, asked: []string{"i1 forward-active-node", "i1 "}},
		"behind for good":          {index: "i1", script: many(412, 100), took: 10 * time.Second, err: "active node"},
		"another refusal":          {index: "i1", script: many(500, 100), asked: []string{"i1 forward-active-node"}, err: "500"},
		"a bad request in any way": {index: "i1", script: many(400, 100), asked: []string{"i1 forward-active-node", "i1 "}, err: "400"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &node{index: c.index, script: c.script, says: c.says}
				n.token, n.ttl, n.expiry = "hvs.t", 24*time.Hour, time.Now().Add(24*time.Hour)
				v, err := sinks.NewVault(sinks.VaultOptions{Token: secret.New("hvs.t"), Transport: n})
				if err != nil {
					t.Fatal(err)
				}
				ref := ledger.Ref{Mount: "secret", Path: "a"}
				ctx := ledger.WithSession(t.Context())
				if _, err := v.Write(ctx, ref, map[string]any{"n": 1}, 0); err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				_, err = v.Read(ctx, ref, 0)
				if said := fmt.Sprint(err); (err != nil) != (c.err != "") || !strings.Contains(said, c.err) {
					t.Errorf("it says %v, want %q", err, c.err)
				}
				if took := time.Since(begun); took > c.took {
					t.Errorf("it took %s", took)
				}
				if c.asked != nil && !slices.Equal(n.asked, c.asked) {
					t.Errorf("asked %q, want %q", n.asked, c.asked)
				}
				other := ledger.WithSession(t.Context()) // the index of one policy is not asked for another
				n.asked, n.script, n.says = nil, nil, ""
				if _, err := v.Read(other, ref, 0); err != nil || !slices.Equal(n.asked, []string{" "}) {
					t.Errorf("another session asked %q, %v", n.asked, err)
				}
			})
		})
	}
}

// TestWhatANodeSays: which servers' standbys answer reads, and which of them return an index.
func TestWhatANodeSays(t *testing.T) {
	for name, c := range map[string]struct {
		health, leader string
		want           sinks.Node
		lags           bool
	}{
		"community":           {`{"standby":false,"performance_standby":false,"version":"1.21.0","enterprise":false}`, `{"ha_enabled":true}`, sinks.Node{Version: "1.21.0"}, false},
		"community standby":   {`{"standby":true,"performance_standby":false,"version":"1.21.0","enterprise":false}`, `{"ha_enabled":true}`, sinks.Node{Version: "1.21.0", Standby: true}, false},
		"enterprise":          {`{"standby":false,"performance_standby":false,"version":"1.21.0+ent","enterprise":true}`, `{"ha_enabled":true}`, sinks.Node{Version: "1.21.0+ent", Reads: true, Indexed: true}, true},
		"performance standby": {`{"standby":true,"performance_standby":true,"version":"1.21.0+ent","enterprise":true}`, `{"ha_enabled":true}`, sinks.Node{Version: "1.21.0+ent", Standby: true, Reads: true, Indexed: true}, true},
		"OpenBao 2.4":         {`{"standby":true,"version":"2.4.4"}`, `{"ha_enabled":true}`, sinks.Node{Version: "2.4.4", Standby: true}, false},
		"OpenBao 2.6":         {`{"standby":true,"performance_standby":false,"version":"2.6.2"}`, `{"ha_enabled":true}`, sinks.Node{Version: "2.6.2", Standby: true, Reads: true}, true},
		"OpenBao 2.6, alone":  {`{"standby":false,"version":"2.6.2"}`, `{"ha_enabled":false}`, sinks.Node{Version: "2.6.2"}, false},
		"OpenBao 2.7":         {`{"standby":false,"version":"2.7.0"}`, `{"ha_enabled":true}`, sinks.Node{Version: "2.7.0", Reads: true, Indexed: true}, true},
		"OpenBao 3":           {`{"standby":false,"version":"3.0.1"}`, `{"ha_enabled":true}`, sinks.Node{Version: "3.0.1", Reads: true, Indexed: true}, true},
		"something else":      {`{"standby":false,"version":"dev"}`, `{"ha_enabled":true}`, sinks.Node{Version: "dev"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			v, _ := stub(t, func(w http.ResponseWriter, r *http.Request) {
				calls++
				if r.Header.Get("X-Vault-Namespace") != "" {
					t.Errorf("%s asked in a namespace", r.URL.Path)
				}
				body := c.health
				if strings.HasSuffix(r.URL.Path, "/sys/leader") {
					body = c.leader
				}
				_, _ = w.Write([]byte(body))
			}, func(o *sinks.VaultOptions) { o.Namespace = "team" })
			if n, err := v.Node(t.Context()); err != nil || n != c.want {
				t.Errorf("%+v, %v; want %+v", n, err, c.want)
			}
			for range 3 {
				if v.Lags(t.Context()) != c.lags {
					t.Errorf("lags: %t", !c.lags)
				}
			}
			if calls != 4 {
				t.Errorf("%d calls, want two for each of Node and the first Lags", calls)
			}
		})
	}
}
