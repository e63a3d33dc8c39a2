package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// balancer makes a real Vault look like an active node and two standbys that answer reads by themselves and lag, behind a load
// balancer that sends each request to the next of the three. Vault keeps every version, so an answer of a standby is Vault's answer
// for the version that the standby has.
type balancer struct {
	url       string
	indexed   bool // as OpenBao 2.7, and not 2.6
	root      *vaultapi.KVv2
	begun     time.Time
	transport http.Transport

	mu       sync.Mutex
	next     int
	log      []change
	known    map[string]int // the newest version in the log, or the one before the first write
	base     map[string]int // the version before the first write: a document that was not written has none
	pending  map[string]int // writes under way
	standbys [2]standby
	did      struct{ stale, behind, forwarded int }
}

// change is one version in the log; its place there is its index.
type change struct {
	at      time.Time
	path    string
	version int
}

// standby has applied a part of the log. It never goes back.
type standby struct {
	lag        time.Duration
	stillUntil time.Time
	applied    int
	versions   map[string]int
}

const dataPrefix, secretMount = "/v1/secret/data/", "secret"

func startBalancer(t *testing.T, vault *vaulttest.Server, indexed bool, lags ...time.Duration) *balancer {
	t.Helper()
	root := vault.Client(t)
	if _, err := root.Logical().WriteWithContext(t.Context(), "secret/config", map[string]any{"max_versions": 100_000}); err != nil {
		t.Fatal(err)
	}
	b := &balancer{
		indexed: indexed, root: root.KVv2(secretMount), begun: time.Now(),
		known: map[string]int{}, base: map[string]int{}, pending: map[string]int{},
	}
	for i := range b.standbys {
		b.standbys[i] = standby{lag: lags[i], versions: map[string]int{}}
	}
	host := strings.TrimPrefix(vault.Addr, "http://")
	s := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", host },
		Transport: b, ErrorLog: log.New(io.Discard, "", 0),
	})
	t.Cleanup(func() { s.Close(); b.transport.CloseIdleConnections() })
	b.url = s.URL
	return b
}

// RoundTrip has the node whose turn it is answer.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	b.next++
	node := b.next % (1 + len(b.standbys))
	b.mu.Unlock()
	since, forward := r.Header.Get("X-Vault-Index"), r.Header.Get("X-Vault-Inconsistent") == "forward-active-node"
	r = r.Clone(context.WithoutCancel(r.Context())) // what a killed process asked for is carried out
	r.Header.Del("X-Vault-Index")
	r.Header.Del("X-Vault-Inconsistent")
	path, isData := strings.CutPrefix(r.URL.Path, dataPrefix)
	switch {
	case r.URL.Path == "/v1/sys/health":
		version := "2.6.2"
		if b.indexed {
			version = "2.7.0"
		}
		return respond(r, http.StatusOK, fmt.Sprintf(`{"initialized":true,"sealed":false,"standby":%t,"version":%q}`, node > 0, version)), nil
	case r.URL.Path == "/v1/sys/leader":
		return respond(r, http.StatusOK, fmt.Sprintf(`{"ha_enabled":true,"is_self":%t}`, node == 0)), nil
	case forward && !b.forwards():
		return respond(r, http.StatusBadRequest, `{"errors":["forwarding via header X-Vault-Inconsistent=forward-active-node disabled in configuration"]}`), nil
	case isData && r.Method != http.MethodGet:
		return b.write(r, path)
	case isData && node > 0:
		return b.read(r, &b.standbys[node-1], path, since, forward)
	}
	return b.transport.RoundTrip(r)
}

// forwards reports whether the servers' configuration lets a client have its read forwarded: for ten seconds it does, then it does not.
func (b *balancer) forwards() bool {
	return b.indexed && time.Since(b.begun)/(10*time.Second)%2 == 0
}

// write has the active node write, and logs what came of it before the answer.
func (b *balancer) write(r *http.Request, path string) (*http.Response, error) {
	if err := b.begin(r.Context(), path); err != nil {
		return nil, err
	}
	resp, err := b.transport.RoundTrip(r)
	if err != nil {
		return nil, err // it stays pending, and is logged with the next write if it happened
	}
	index, err := b.end(r.Context(), path)
	if b.indexed && resp.StatusCode == http.StatusOK {
		resp.Header.Set("X-Vault-Index", strconv.Itoa(index))
	}
	return resp, err
}

func (b *balancer) begin(ctx context.Context, path string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.base[path]; !known {
		version, err := b.newest(ctx, path)
		if err != nil {
			return err
		}
		b.base[path], b.known[path] = version, version
	}
	b.pending[path]++
	return nil
}

// end logs every write under way that Vault has carried out: one that is answered later may have come before this one.
func (b *balancer) end(ctx context.Context, path string) (index int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, newest := time.Now(), map[string]int{}
	for path := range b.pending {
		if newest[path], err = b.newest(ctx, path); err != nil {
			return 0, err
		}
	}
	for path, version := range newest {
		for ; b.known[path] < version; b.known[path]++ {
			b.log = append(b.log, change{at, path, b.known[path] + 1})
		}
	}
	if b.pending[path]--; b.pending[path] == 0 {
		delete(b.pending, path)
	}
	return len(b.log), nil
}

func (b *balancer) newest(ctx context.Context, path string) (int, error) {
	m, err := b.root.GetMetadata(ctx, path)
	if errors.Is(err, vaultapi.ErrSecretNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return m.CurrentVersion, nil
}

// read answers a read as a standby that has applied what it has.
func (b *balancer) read(r *http.Request, s *standby, path, since string, forward bool) (*http.Response, error) {
	version, written, refusal := b.apply(s, path, since, forward)
	query := r.URL.Query()
	asked, _ := strconv.Atoi(query.Get("version"))
	switch {
	case refusal != 0:
		return respond(r, refusal, `{"errors":["required index state not present"]}`), nil
	case written && (version == 0 || asked > version):
		return respond(r, http.StatusNotFound, `{"errors":[]}`), nil
	case written && asked == 0:
		query.Set("version", strconv.Itoa(version))
		r.URL.RawQuery = query.Encode()
	}
	return b.transport.RoundTrip(r)
}

// apply has a standby apply what it has received, and returns the version that it shows. It shows what Vault does of a document that was
// not written, and where it forwards.
func (b *balancer) apply(s *standby, path, since string, forward bool) (version int, written bool, refusal int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for now := time.Now(); s.applied < len(b.log) && now.Sub(b.log[s.applied].at) >= s.lag && now.After(s.stillUntil); s.applied++ {
		s.versions[b.log[s.applied].path] = b.log[s.applied].version
	}
	if index, err := strconv.Atoi(since); b.indexed && since != "" && (err != nil || index > s.applied) {
		if forward {
			b.did.forwarded++
			return 0, false, 0
		}
		b.did.behind++
		return 0, false, []int{http.StatusPreconditionFailed, http.StatusTooManyRequests}[b.did.behind%2] // Vault's answer, and OpenBao's
	}
	version, written = b.base[path]
	if version = max(version, s.versions[path]); version < b.known[path] {
		b.did.stale++
	}
	return version, written, 0
}

func respond(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// slow has the slower standby apply nothing for a while, and then lag by so much.
func (b *balancer) slow(still, lag time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.standbys[1].stillUntil, b.standbys[1].lag = time.Now().Add(still), lag
}

// TestBalancer writes a document twice, and reads it from each node at once and later.
func TestBalancer(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		t.Run(fmt.Sprintf("indexed %t", indexed), func(t *testing.T) {
			vault := vaulttest.Start(t)
			b := startBalancer(t, vault, indexed, 200*time.Millisecond, time.Hour)
			client := (&vaulttest.Server{Addr: b.url, RootToken: vault.RootToken}).Client(t)
			var index string
			for n := range 2 {
				if _, err := client.WithResponseCallbacks(vaultapi.RecordState(&index)).Logical().WriteWithContext(t.Context(), "secret/data/a/b", map[string]any{"data": map[string]any{"n": n}}); err != nil {
					t.Fatal(err)
				}
			}
			if indexed != (index == "2") {
				t.Errorf("the second write's index is %q", index)
			}
			seen := func(how ...vaultapi.RequestCallback) (versions string) {
				for range 1 + len(b.standbys) {
					s, err := client.WithRequestCallbacks(how...).KVv2(secretMount).Get(t.Context(), "a/b")
					var refused *vaultapi.ResponseError
					switch {
					case errors.As(err, &refused):
						versions += fmt.Sprint(refused.StatusCode, " ")
					case errors.Is(err, vaultapi.ErrSecretNotFound):
						versions += "none "
					case err != nil:
						t.Fatal(err)
					default:
						versions += fmt.Sprint(s.VersionMetadata.Version, " ")
					}
				}
				return versions
			}
			b.next = -1
			if got := seen(); got != "2 none none " {
				t.Errorf("at once the nodes show %s", got)
			}
			process.Eventually(t, 5*time.Second, func() error {
				if got := seen(); got != "2 2 none " {
					return fmt.Errorf("later the nodes show %s", got)
				}
				return nil
			})
			if got := seen(vaultapi.RequireState("2")); indexed != (got == "2 2 429 ") {
				t.Errorf("with an index the nodes show %s", got)
			}
			if got := seen(vaultapi.RequireState("2"), vaultapi.ForwardInconsistent()); indexed != (got == "2 2 2 ") {
				t.Errorf("if they may forward, the nodes show %s", got)
			}
		})
	}
}
