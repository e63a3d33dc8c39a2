package elevenlabs

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// closedPort is a base URL where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String()
}

// wild serves each connection with raw, after the whole request was read if read is set, and counts the requests. A raw
// that is a whole answer must say that the connection ends with it, or the next request may go into a dead one.
func wild(t *testing.T, read bool, raw string) (base string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if read {
			_, _ = io.ReadAll(req.Body)
		}
		requests.Add(1)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, raw)
		_ = conn.Close()
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

func TestCutConnections(t *testing.T) {
	for name, tc := range map[string]struct {
		read bool
		raw  string
		want error
	}{
		"before the body was read":  {false, "", ErrUnreachable},
		"after the body was read":   {true, "", ErrUnreachable},
		"half a status line":        {true, "HTTP/1.1 20", ErrUnreachable},
		"another protocol":          {true, "SSH-2.0-x " + adminKey + "\r\n\r\n", ErrUnreachable},
		"half a body":               {true, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"xi-api", ErrBadAnswer},
		"half a chunked body":       {true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\"", ErrBadAnswer},
		"half a refusal":            {true, "HTTP/1.1 404 Not Found\r\nContent-Length: 50\r\n\r\n{\"detail\":{\"co", ErrBadAnswer},
		"half a server error":       {true, "HTTP/1.1 500 Oops\r\nContent-Length: 50\r\n\r\n{\"detail\":{\"co", ErrServer},
		"not the gzip that it says": {true, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", ErrBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			base, requests := wild(t, tc.read, tc.raw)
			c := newClient(t, base, nil)
			_, err := c.CreateKey(t.Context(), "a", "n", Settings{})
			if !errors.Is(err, tc.want) || !MaybeApplied(err) || requests.Load() != 1 {
				t.Errorf("create: %v after %d requests", err, requests.Load())
			}
			if _, err := c.ServiceAccounts(t.Context()); !errors.Is(err, tc.want) || MaybeApplied(err) {
				t.Errorf("list: %v", err)
			}
			if err := c.DeleteKey(t.Context(), "a", "k"); !errors.Is(err, tc.want) || !MaybeApplied(err) {
				t.Errorf("delete: %v", err)
			}
			if strings.Contains(err.Error(), adminKey) {
				t.Errorf("the key is in %q", err)
			}
		})
	}
}

// The transport itself repeats requests when a connection that it kept turns out to be dead. A create must not be.
func TestCreateIsNeverSentTwice(t *testing.T) {
	var creates, connections atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"service-accounts":[]}`)
			return
		}
		_, _ = io.ReadAll(req.Body)
		creates.Add(1)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c := newClient(t, s.URL, nil)
	for i := range int64(20) {
		if _, err := c.ServiceAccounts(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := connections.Load()
		_, err := c.CreateKey(t.Context(), "a", "n", Settings{})
		if !errors.Is(err, ErrUnreachable) || !MaybeApplied(err) || creates.Load() != i+1 {
			t.Fatalf("create %d: %v, %d arrived", i, err, creates.Load())
		}
		if connections.Load() != before {
			t.Fatal("the create did not use the kept connection, so this shows nothing")
		}
	}
}

// failing is a transport of one mind; it does not report to httptrace.
type failing struct{ err error }

func (f failing) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.GetBody != nil {
		return nil, errors.New("the body could be sent again")
	}
	return nil, f.err
}

func TestWhatWasNeverSentWasNotApplied(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	noName := NewTransport(1)
	noName.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "api.example.com", IsNotFound: true}
	}
	stuck := NewTransport(1)
	stuck.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	for name, tc := range map[string]struct {
		base      string
		transport http.RoundTripper
		maybe     bool
	}{
		"nobody listens":              {base: closedPort(t)},
		"certificate not trusted":     {base: secure.URL},
		"no such name":                {base: "http://127.0.0.1", transport: noName},
		"dialling takes too long":     {base: "http://127.0.0.1", transport: stuck},
		"dial of a silent transport":  {base: "http://127.0.0.1", transport: failing{&net.OpError{Op: "dial", Err: io.EOF}}},
		"error of a silent transport": {base: "http://127.0.0.1", transport: failing{io.ErrUnexpectedEOF}, maybe: true},
		"write of a silent transport": {base: "http://127.0.0.1", transport: failing{&net.OpError{Op: "write", Err: io.EOF}}, maybe: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, tc.base, func(o *Options) { o.Transport = tc.transport; o.Timeout = 500 * time.Millisecond })
			_, err := c.CreateKey(t.Context(), "a", "n", Settings{})
			if !errors.Is(err, ErrUnreachable) || MaybeApplied(err) != tc.maybe {
				t.Errorf("%v, maybe applied %v", err, MaybeApplied(err))
			}
			if _, err = c.ServiceAccounts(t.Context()); !errors.Is(err, ErrUnreachable) || MaybeApplied(err) {
				t.Errorf("list: %v", err)
			}
		})
	}
	if MaybeApplied(nil) || MaybeApplied(io.EOF) {
		t.Error("an error of others counts as a write")
	}
}

func TestSlowAnswers(t *testing.T) {
	for name, begin := range map[string]string{"no header": "", "half a body": `{"xi-api-key":`} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				_, _ = io.ReadAll(req.Body)
				if begin != "" {
					_, _ = io.WriteString(w, begin)
					_ = http.NewResponseController(w).Flush()
				}
				<-req.Context().Done()
			}))
			defer s.Close()
			c := newClient(t, s.URL, func(o *Options) { o.Timeout = 50 * time.Millisecond })
			_, err := c.CreateKey(t.Context(), "a", "n", Settings{})
			if !errors.Is(err, ErrUnreachable) || !MaybeApplied(err) || !strings.Contains(err.Error(), "nothing within 50ms") {
				t.Errorf("timeout: %v", err)
			}
			c = newClient(t, s.URL, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err = c.CreateKey(ctx, "a", "n", Settings{})
			if errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) || !MaybeApplied(err) {
				t.Errorf("the caller gave up: %v", err)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	other := newRemote(t, 200, nil, `{"service-accounts":[],"xi-api-key":"sk_new_key"}`)
	for _, status := range []int{301, 302, 303, 307, 308, 300, 304} {
		c := newClient(t, newRemote(t, status, http.Header{"Location": {other.URL}}, "").URL, nil)
		if _, err := c.ServiceAccounts(t.Context()); !errors.Is(err, ErrBadAnswer) || MaybeApplied(err) {
			t.Errorf("%d: list: %v", status, err)
		}
		if _, err := c.CreateKey(t.Context(), "a", "n", Settings{}); !errors.Is(err, ErrBadAnswer) || !MaybeApplied(err) {
			t.Errorf("%d: create: %v", status, err)
		}
	}
	if n := len(other.requests()); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// inProcess answers with a function, in the bubble's time.
type inProcess func(*http.Request) (status int, header http.Header, body string)

func (f inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	status, header, body := f(req)
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

func list(ctx context.Context, c *Client) error {
	_, err := c.ServiceAccounts(ctx)
	return err
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		c := newClient(t, "http://127.0.0.1", func(o *Options) {
			o.Rate = 5
			o.Transport = inProcess(func(*http.Request) (int, http.Header, string) {
				sent.Add(1)
				return 200, nil, `{"service-accounts":[]}`
			})
		})
		for range 30 {
			go func() { _, _ = c.Probe(context.Background(), secret.New("sk_probe")) }() // listings would be shared
		}
		for after, want := range []int64{5, 10, 15, 20, 25, 30} {
			synctest.Wait()
			if got := sent.Load(); got != want {
				t.Errorf("after %d s: %d requests, want %d", after, got, want)
			}
			<-time.After(time.Second)
		}
	})
}

func TestWaitingForTheBudgetEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		c := newClient(t, "http://127.0.0.1", func(o *Options) {
			o.Rate = 0.1
			o.Transport = inProcess(func(*http.Request) (int, http.Header, string) {
				sent.Add(1)
				return 200, nil, `{"xi-api-key":"sk_new_key"}`
			})
		})
		create := func(ctx context.Context) error {
			_, err := c.CreateKey(ctx, "a", "n", Settings{})
			return err
		}
		if err := create(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := create(short); !errors.Is(err, context.DeadlineExceeded) || MaybeApplied(err) || time.Since(start) != time.Second {
			t.Errorf("a deadline before its turn: %v after %v", err, time.Since(start))
		}
		start = time.Now()
		cancelled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		err := create(cancelled)
		if !errors.Is(err, context.Canceled) || MaybeApplied(err) || errors.Is(err, ErrUnreachable) || time.Since(start) != 3*time.Second {
			t.Errorf("cancelled: %v after %v", err, time.Since(start))
		}
		if sent.Load() != 1 {
			t.Errorf("%d requests", sent.Load())
		}
	})
}

func TestPauses(t *testing.T) {
	refusal := func(code string) string { return `{"detail":{"code":"` + code + `","message":"m"}}` }
	after := func(text string) http.Header { return http.Header{"Retry-After": {text}} }
	for name, tc := range map[string]struct {
		status int
		header http.Header
		body   string
		pauses []time.Duration // before the second, third, … request
	}{
		"rate limit":                         {429, nil, refusal("rate_limit_exceeded"), []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}},
		"429 of a proxy":                     {429, nil, "<html>", []time.Duration{1, 2, 4}},
		"concurrency limit":                  {429, nil, refusal("concurrent_limit_exceeded"), []time.Duration{0, 0}},
		"legacy concurrency limit":           {429, nil, `{"detail":{"status":"concurrent_limit_exceeded"}}`, []time.Duration{0, 0}},
		"concurrency limit with Retry-After": {429, after("3"), refusal("concurrent_limit_exceeded"), []time.Duration{3, 3}},
		"Retry-After":                        {429, after("7"), refusal("rate_limit_exceeded"), []time.Duration{7, 7, 7}},
		"Retry-After of nothing":             {429, after("0"), refusal("rate_limit_exceeded"), []time.Duration{1, 2}},
		"Retry-After of days":                {503, after("1000000"), "", []time.Duration{60, 60}},
		"server error":                       {500, nil, "", []time.Duration{0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, "http://127.0.0.1", func(o *Options) {
					o.Transport = inProcess(func(*http.Request) (int, http.Header, string) { return tc.status, tc.header, tc.body })
				})
				if err := list(t.Context(), c); err == nil {
					t.Fatal("no error")
				}
				for i, want := range tc.pauses {
					start := time.Now()
					_ = list(t.Context(), c)
					if got := time.Since(start); got != want*time.Second {
						t.Errorf("pause %d took %v, want %d s", i, got, want)
					}
				}
			})
		})
	}
}

// Sixteen at once are refused; that is one pause and one cut of the rate, not sixteen, and it holds for everybody.
func TestOnePauseForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var sent atomic.Int64
		c := newClient(t, "http://127.0.0.1", func(o *Options) {
			o.Rate = 16
			o.Transport = inProcess(func(*http.Request) (int, http.Header, string) {
				sent.Add(1)
				<-time.After(10 * time.Millisecond)
				if time.Since(start) < time.Second {
					return 429, nil, `{"detail":{"code":"rate_limit_exceeded"}}`
				}
				return 200, nil, `{"service-accounts":[]}`
			})
		})
		for range 16 {
			go func() { _, _ = c.Probe(context.Background(), secret.New("sk_new")) }()
		}
		<-time.After(500 * time.Millisecond)
		for range 40 {
			go func() { _, _ = c.Probe(context.Background(), secret.New("sk_new")) }()
		}
		synctest.Wait()
		if sent.Load() != 16 {
			t.Errorf("%d requests before the pause ended", sent.Load())
		}
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := c.Probe(short, secret.New("sk_new")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a short deadline in a pause: %v", err)
		}
		if got, want := c.budget.limiter.Limit(), rate.Limit(16.*cut/deepest); got < want || got > want*1.01 {
			t.Errorf("the rate is %v, want %v or little more", got, want)
		}
		<-time.After(520 * time.Millisecond)
		synctest.Wait()
		if got := sent.Load(); got <= 16 || got > 32 {
			t.Errorf("%d requests right after the pause", got)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if sent.Load() != 56 {
			t.Errorf("%d requests in all", sent.Load())
		}
		if c.budget.next != firstPause {
			t.Errorf("after success the next pause is %v", c.budget.next)
		}
	})
}
