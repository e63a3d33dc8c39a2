// Package hostile lets a client of HTTP meet servers that mean harm, or are broken. Whatever they do, a call must end in
// time, take a bounded part of memory, send no write twice and nothing elsewhere, and its error must be one short line
// without a secret.
package hostile

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
)

// Target is a server to call.
type Target struct {
	URL       string
	Authority []byte // in PEM; nil: the client knows that of the system, which did not sign the server
}

// Client is what is tested.
type Client struct {
	// Calls are all kinds of calls, each of a fresh client and with a patience of at most a second. They return text
	// that a remote may have had a part in as an error.
	Calls func(t *testing.T, to Target) []func() error
	// Writes is how many requests other than GET each of them makes at most.
	Writes int64
	// Bytes is how much memory each may allocate, all in all, and with what the server needs.
	Bytes uint64
	// Secrets are what the client holds or sends.
	Secrets []string
	// HTTP2 says that the client speaks it.
	HTTP2 bool
	// AnyBody says that the client does not read what a server answers with success.
	AnyBody bool
}

const (
	patience = 15 * time.Second // on a busy machine
	longest  = 600              // runes of an error
)

// Run tries the client on every server.
func Run(t *testing.T, c Client) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(elsewhere.Close)
	for _, h := range slices.Concat(manners(elsewhere.URL), texts(), raw()) {
		t.Run(h.name, func(t *testing.T) { c.meet(t, h, func(s *httptest.Server) { s.Start() }) })
	}
	for _, h := range manners(elsewhere.URL) {
		if c.HTTP2 {
			t.Run(h.name+" over HTTP/2", func(t *testing.T) { c.meet(t, h, over2) })
		}
	}
	for name, start := range untrusted() {
		t.Run(name, func(t *testing.T) {
			never := handler{serve: func(http.ResponseWriter, *http.Request) {
				t.Error("a request reached a server without a valid certificate")
			}}
			c.meet(t, never, start)
		})
	}
}

func (c Client) meet(t *testing.T, h handler, start func(*httptest.Server)) {
	var writes atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			writes.Add(1)
		}
		text, _ := io.ReadAll(r.Body) // before that, a server does not notice that the client goes
		r.Body = io.NopCloser(bytes.NewReader(text))
		h.serve(w, r)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	start(s)
	defer s.Close()
	defer s.CloseClientConnections()
	to := Target{URL: s.URL}
	if s.EnableHTTP2 {
		to.Authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	}
	for i, call := range c.Calls(t, to) {
		writes.Store(0)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begun := time.Now()
		err := call()
		took := time.Since(begun)
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc); n > c.Bytes || took > patience || writes.Load() > c.Writes {
			t.Errorf("call %d took %s, allocated %d MiB and made %d writes", i, took, n>>20, writes.Load())
		}
		c.check(t, h, err)
	}
}

func over2(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.StartTLS()
}

func (c Client) check(t *testing.T, h handler, err error) {
	t.Helper()
	if err == nil {
		if !h.fine && !c.AnyBody {
			t.Error("a call succeeded")
		}
		return
	}
	text := err.Error()
	if n := len([]rune(text)); n > longest || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("the error has %d characters, or some that do not print: %.2000q", n, text)
	}
	for _, secret := range c.Secrets {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is in: %s", text)
		}
	}
}

// handler is one way to do harm.
type handler struct {
	name  string
	serve http.HandlerFunc
	fine  bool // some calls may take the answer for a good one
}

// echo returns what a request carries.
func echo(r *http.Request) string {
	var b strings.Builder
	b.WriteString(r.URL.Path + " ")
	for _, values := range r.Header {
		b.WriteString(strings.Join(values, " ") + " ")
	}
	body, _ := io.ReadAll(r.Body)
	return b.String() + string(body)
}

// untrusted are servers that no call may speak to, though they answer at the right address.
func untrusted() map[string]func(*httptest.Server) {
	with := func(change func(*tls.Config)) func(*httptest.Server) {
		return func(s *httptest.Server) {
			s.TLS = new(tls.Config)
			change(s.TLS)
			s.StartTLS()
		}
	}
	return map[string]func(*httptest.Server){
		"TLS of an unknown authority": (*httptest.Server).StartTLS,
		"TLS 1.1":                     with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }),
		"TLS of another name":         with(func(c *tls.Config) { c.Certificates = certificate("elsewhere.example", time.Now().Add(time.Hour)) }),
		"TLS that has expired":        with(func(c *tls.Config) { c.Certificates = certificate("127.0.0.1", time.Now().Add(-time.Hour)) }),
		"no TLS": func(s *httptest.Server) {
			s.Start()
			s.URL = strings.Replace(s.URL, "http", "https", 1)
		},
	}
}

// Server is one server that means harm, for a client that is a process.
type Server struct {
	Name  string
	Serve http.HandlerFunc
}

// Servers are those that speak HTTP without TLS. Redirects lead to elsewhere.
func Servers(elsewhere string) []Server {
	var all []Server
	for _, h := range slices.Concat(manners(elsewhere), texts(), raw()) {
		all = append(all, Server{h.name, h.serve})
	}
	return all
}
