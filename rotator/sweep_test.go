package rotator_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnAbandonedKeyThatCannotBeDeletedIsTold: it works, and nobody holds its secret.
func TestAnAbandonedKeyThatCannotBeDeletedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, nil)
		_, stop := w.start(p)
		after(time.Minute)
		stop()
		refusing := &refusedDeletes{RoundTripper: w.api, refuse: true}
		w.api = refusing
		r, stop := w.startProcess(&process{fault: fault{call: "POST /v1/service-accounts", nth: 1, mode: applied}}, p)
		defer stop()
		untilThree()
		after(3 * time.Minute)
		if s := r.Snapshot().Policies[0]; s.Unswept < 2 || len(w.alive()) < 2 {
			t.Errorf("%d tries are told, of %d keys", s.Unswept, len(w.alive()))
		}
		if n := strings.Count(w.logs.String(), "abandoned key not deleted"); n < 2 {
			t.Errorf("%d tries are logged", n)
		}
		if _, rest, _ := strings.Cut(w.logs.String(), "abandoned key not deleted"); !strings.HasPrefix(rest, `" policy=tts-prod action=rotate`) {
			t.Error("the first try, right after the failure, is not logged")
		}
		refusing.set(false)
		after(2 * time.Hour) // the tries in vain may have spent what they may cost in one
		if s := r.Snapshot().Policies[0]; s.Unswept != 0 {
			t.Errorf("%d tries are told of a key that is gone", s.Unswept)
		}
	})
}

// refusedDeletes is an ElevenLabs that lets nobody delete a key while refuse is set.
type refusedDeletes struct {
	http.RoundTripper

	mu     sync.Mutex
	refuse bool
}

func (d *refusedDeletes) set(refuse bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = refuse
}

func (d *refusedDeletes) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse && r.Method == http.MethodDelete {
		body := `{"detail":{"code":"missing_permissions","message":"may not delete"}}`
		return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	return d.RoundTripper.RoundTrip(r)
}
