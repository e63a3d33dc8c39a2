package torture

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/rekeyd/rekeyd/internal/process"
)

// proxy sends each request to the next server, whether that is well or not. Only if no connection was to be had does the
// server after it get the request: a write that was sent is not sent again, and fails with 502.
type proxy struct {
	url       string
	turns     []turn
	next      atomic.Uint64
	transport http.Transport
}

// turn counts what came of the requests to a server.
type turn struct {
	host       string
	sent, dead atomic.Uint64
}

func startProxy(t *testing.T, urls ...string) *proxy {
	t.Helper()
	p := &proxy{turns: make([]turn, len(urls))}
	for i, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		p.turns[i].host = u.Host
	}
	s := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme = "http" },
		Transport: p, ErrorLog: log.New(io.Discard, "", 0),
	})
	t.Cleanup(func() { s.Close(); p.transport.CloseIdleConnections() })
	p.url = s.URL
	return p
}

// RoundTrip sends a request to the server whose turn it is.
func (p *proxy) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	var err error
	if r.Body != nil {
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	first := p.next.Add(1)
	for i := range p.turns {
		turn := &p.turns[(first+uint64(i))%uint64(len(p.turns))]
		out := r.Clone(r.Context())
		out.URL.Host, out.Body = turn.host, io.NopCloser(bytes.NewReader(body))
		var resp *http.Response
		resp, err = p.transport.RoundTrip(out)
		if op := (*net.OpError)(nil); !errors.As(err, &op) || op.Op != "dial" {
			turn.sent.Add(1)
			return resp, err
		}
		turn.dead.Add(1)
	}
	return nil, err
}

func TestProxy(t *testing.T) {
	var got [3]atomic.Int64
	var urls []string
	for n := range got {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if body, _ := io.ReadAll(r.Body); string(body) != "hello" {
				t.Errorf("server %d was sent %q", n, body)
			}
			if got[n].Add(1); n == 2 {
				panic(http.ErrAbortHandler) // cuts the connection
			}
		}))
		if n == 1 {
			s.Close() // refuses connections
		} else {
			t.Cleanup(s.Close)
		}
		urls = append(urls, s.URL)
	}
	p := startProxy(t, urls...)
	statuses := map[int]int{}
	for range 30 {
		status, _ := process.Request(t, http.MethodPost, p.url, "", "hello")
		statuses[status]++
	}
	if got[0].Load() != 10 || got[1].Load() != 0 || got[2].Load() != 20 {
		t.Errorf("the servers got %d, %d and %d of 30 requests", got[0].Load(), got[1].Load(), got[2].Load())
	}
	if statuses[http.StatusOK] != 10 || statuses[http.StatusBadGateway] != 20 {
		t.Errorf("these statuses came so often: %v", statuses)
	}
}
