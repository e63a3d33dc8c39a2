package rotator_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// listings notes when each host was asked for its accounts.
type listings struct {
	http.RoundTripper
	mu sync.Mutex
	at map[string][]time.Duration
	t0 time.Time
}

func (l *listings) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/service-accounts") {
		l.mu.Lock()
		l.at[req.URL.Host] = append(l.at[req.URL.Host], time.Since(l.t0))
		l.mu.Unlock()
	}
	return l.RoundTripper.RoundTrip(req)
}

// Four workspaces are listed at once at the start, then a quarter of the reconcile interval apart; none twice within an interval.
func TestListingsOfWorkspacesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.urls = map[string]string{"default": "http://default", "b": "http://b", "c": "http://c", "d": "http://d"}
		seen := &listings{RoundTripper: w.api, at: map[string][]time.Duration{}, t0: time.Now()}
		w.api = seen
		_, stop := w.start(testPolicy(t, nil))
		after(5*time.Minute - time.Second)
		stop()
		for i, host := range []string{"b", "c", "d", "default"} {
			first := time.Minute + time.Duration(i)*15*time.Second
			want := []time.Duration{0, first, first + time.Minute, first + 2*time.Minute, first + 3*time.Minute, first + 4*time.Minute}
			got := seen.at[host]
			for n, at := range got {
				if n >= len(want) || at.Round(time.Second) != want[n] {
					t.Fatalf("%s was listed at %v, want %v", host, got, want)
				}
			}
			if len(got) < 4 {
				t.Errorf("%s was listed at %v only", host, got)
			}
		}
	})
}
