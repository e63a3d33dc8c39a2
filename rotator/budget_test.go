package rotator_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator/plan"
)

// throttling answers 429 while it is switched on, and measures how old claims are when creates are sent.
type throttling struct {
	http.RoundTripper

	mu      sync.Mutex
	on      time.Time // until when; zero: never
	claimed map[string]time.Time
	latest  time.Duration
	sent    int
}

// follow notes when each policy's claim was written last.
func (m *throttling) follow(path string, _ int, data map[string]any) {
	if name, ok := strings.CutPrefix(path, "secret/rekeyd/policies/"); ok && data["claim"] != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.claimed[name] = time.Now()
	}
}

func (m *throttling) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.refuses(r) {
		body := `{"detail":{"code":"rate_limit_exceeded","message":"slow down"}}`
		return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	return m.RoundTripper.RoundTrip(r)
}

func (m *throttling) refuses(r *http.Request) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Method == http.MethodPost && !m.on.IsZero() {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		_, name, _ := strings.Cut(string(body), `"name":"rekeyd.`)
		m.latest, m.sent = max(m.latest, time.Since(m.claimed[strings.Split(name, ".")[1]])), m.sent+1
	}
	return time.Now().Before(m.on)
}

func (m *throttling) until(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on = time.Now().Add(d)
}

// TestTheBudgetIsWaitedForBeforeTheClaimIsLookedAt: however long that wait is, a create follows at once on a claim that was
// written within half a claim TTL.
func TestTheBudgetIsWaitedForBeforeTheClaimIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		var ps []plan.Policy
		for i := range 24 {
			ps = append(ps, testPolicy(t, func(p *plan.Policy) {
				p.Name = fmt.Sprintf("p%02d", i)
				p.Sink.Path = "elevenlabs/" + p.Name
			}))
		}
		_, stop := w.daemon(options{}, ps...)
		after(2*time.Hour + 59*time.Minute)
		stop()
		m := &throttling{RoundTripper: w.api, claimed: map[string]time.Time{}}
		w.kv.OnWrite = m.follow
		_, stopA := w.daemon(options{api: m, rate: 5}, ps...)
		defer stopA()
		_, stopB := w.daemon(options{api: m, rate: 5}, ps...)
		defer stopB()
		after(55 * time.Second)
		m.until(12 * time.Minute)
		after(30 * time.Minute)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.latest > time.Minute || m.sent == 0 {
			t.Errorf("of %d creates the latest was sent %s after its claim was written; half a claim TTL is 1m", m.sent, m.latest)
		}
	})
}
