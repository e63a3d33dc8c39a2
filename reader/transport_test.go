package reader_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestTransportFollowsALeak: the old key is refused and the new one published, and no request fails whose body can be sent again.
func TestTransportFollowsALeak(t *testing.T) {
	w := newWorld(t)
	w.rotate()
	client := &http.Client{Transport: w.reader().Transport(w.url, nil)}
	if status, said := do(t, client, http.MethodGet, w.url+"/v1/user", nil); status != http.StatusOK {
		t.Fatalf("HTTP %d: %s", status, said)
	}
	for _, body := range []string{"", "some text", strings.Repeat("long", 1<<20)} {
		w.rotate()
		if status, said := do(t, client, http.MethodPost, w.url, strings.NewReader(body)); status != http.StatusOK || said != body {
			t.Errorf("HTTP %d and %d bytes for %d", status, len(said), len(body))
		}
	}
	w.rotate()
	if status, said := do(t, client, http.MethodPost, w.url, once("a stream")); status != http.StatusUnauthorized || !strings.Contains(said, "invalid_api_key") {
		t.Errorf("a body that cannot be sent again: HTTP %d: %s", status, said)
	}
	reads := w.reads.Load()
	if status, said := do(t, client, http.MethodPost, w.url, once("a stream")); status != http.StatusOK || said != "a stream" || w.reads.Load() != reads {
		t.Errorf("the request after it: HTTP %d: %s", status, said)
	}
}

// TestTransportUnderLoad has keys leak while many requests are in flight.
func TestTransportUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.rotate()
	client := &http.Client{Transport: w.reader().Transport(w.url, nil)}
	var requests sync.WaitGroup
	var sent [16]atomic.Int64
	rotated := make(chan struct{})
	for i := range sent {
		requests.Go(func() {
			for {
				if status, said := do(t, client, http.MethodPost, w.url, strings.NewReader("text")); status != http.StatusOK {
					t.Errorf("HTTP %d: %s", status, said)
				}
				sent[i].Add(1)
				select {
				case <-rotated:
					return
				default:
				}
			}
		})
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 5 {
		for i := range sent { // no request is in flight over two rotations: it would be refused twice
			for before := sent[i].Load(); sent[i].Load() < before+2; {
				<-tick.C
			}
		}
		w.rotate()
	}
	close(rotated)
	requests.Wait()
	if n := w.reads.Load(); n > 6*2 {
		t.Errorf("%d reads for 6 keys", n)
	}
}

// TestTransportPassesRefusals on: what no other key would change, and the same key's second refusal.
func TestTransportPassesRefusals(t *testing.T) {
	w := newWorld(t)
	id, _ := w.rotate()
	client := &http.Client{Transport: w.reader().Transport(w.url+"/", nil)}
	for range 3 {
		if status, said := do(t, client, http.MethodGet, w.url+"/v1/service-accounts", nil); status != http.StatusUnauthorized || !strings.Contains(said, "missing_permissions") {
			t.Errorf("HTTP %d: %s", status, said)
		}
	}
	if n := w.reads.Load(); n != 1 {
		t.Errorf("%d reads, for a permission that the key lacks", n)
	}
	if err := w.sim.DisableKey(id, "exposed_publicly"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if status, said := do(t, client, http.MethodGet, w.url+"/v1/user", nil); status != http.StatusUnauthorized || !strings.Contains(said, "invalid_api_key") {
			t.Errorf("HTTP %d: %s", status, said)
		}
	}
	if n := w.reads.Load(); n < 2 || n > 10 {
		t.Errorf("%d reads, for a record that still holds the refused key", n)
	}
}

// TestTheKeyGoesToItsOriginOnly: neither by a redirect nor by a mistaken URL anywhere else.
func TestTheKeyGoesToItsOriginOnly(t *testing.T) {
	w := newWorld(t)
	w.rotate()
	seen := make(chan http.Header, 10)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header }))
	defer other.Close()
	redirect := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer redirect.Close()
	client := &http.Client{Transport: w.reader().Transport(redirect.URL, nil)}
	for _, url := range []string{redirect.URL, other.URL, strings.Replace(other.URL, "http:", "https:", 1)} {
		body := &closing{Reader: strings.NewReader("text")}
		resp, err := client.Post(url, "text/plain", body) //nolint:noctx // loopback
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s: HTTP %d", url, resp.StatusCode)
		} else if !strings.Contains(err.Error(), "which the key is for") {
			t.Errorf("%s: %v", url, err)
		}
		if !body.closed.Load() {
			t.Errorf("%s: the body is not closed", url)
		}
	}
	if len(seen) > 0 {
		t.Errorf("another server was asked: %v", <-seen)
	}
}

type closing struct {
	io.Reader
	closed atomic.Bool
}

func (c *closing) Close() error { c.closed.Store(true); return nil }
