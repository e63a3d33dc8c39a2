// Package web serves rekeyd over HTTP: the status page, the API, probes and metrics, and the authentication before them.
package web

import (
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/outbox"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
)

const (
	maxRequest = 64 << 10 // bytes of a body
	maxHeader  = 16 << 10
	maxStreams = 16 // concurrent requests on an HTTP/2 connection

	pagesAtOnce = 2 // are made
	leaksAtOnce = 2 // are looked for
)

// Options configure a [Server].
type Options struct {
	ConfigFile          string              // the web config, with TLS and basic auth; "": neither
	StatusPage          string              // on, off or auto
	AdminToken          config.SecretSource // authorises calls that change something; unset: they do not exist
	Pprof               bool                // serve profiles, where the client may have them
	Version             string              // shown on the page
	MaxRotationsPerHour int                 // per workspace; 0 is no limit
	Rotator             *rotator.Rotator
	Metrics             http.Handler
	Alive               func() error                                    // why /healthz fails
	Ready               func(context.Context) error                     // why /readyz fails
	Reload              func(context.Context) (n int, err error)        // loads the policies again and counts them
	ReloadFault         func() string                                   // why the last reload failed; "" when it did not
	ReconcileInterval   time.Duration                                   // between two listings of a workspace
	TokenEnding         func(now time.Time) (at time.Time, ending bool) // when the Vault token ends, if nothing renews it; nil without Vault
	EventLost           func() (at time.Time, why string)               // the last event that was given up; nil where none are sent
	Redactor            *secret.Redactor
	Logger              *slog.Logger
}

// Server answers HTTP requests about one rotator.
type Server struct {
	cfg   Options
	http  *http.Server
	pages *template.Template
	// What the pages show, of the rotator.
	snapshot func() rotator.Snapshot
	listed   func(policy string) (elevenlabs.Key, bool)
	skew     func() rotator.Skew
	started  time.Time
	tokens   *throttle // wrong admin tokens
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	return &Server{
		cfg:   o,
		pages: pages(), snapshot: o.Rotator.Snapshot, listed: o.Rotator.ListedKey, skew: o.Rotator.Skew, started: time.Now(),
		tokens: newThrottle(),
		http: &http.Server{
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second, // large answers set their own deadlines
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    maxHeader,
			HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
			ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug), // clients cause these errors
		},
	}
}

// Serve answers on l until Shutdown, and closes l. The toolkit adds TLS and authentication: it wraps the handler and
// starts serving in one call, so the middleware before it is added when the server asks for BaseContext.
func (s *Server) Serve(l net.Listener) error {
	addr, isTCP := l.Addr().(*net.TCPAddr)
	local, limit := isTCP && addr.IP.IsLoopback(), connectionLimit()
	s.http.ConnState = (&connections{limit: limit - limit/8, open: map[net.Conn]time.Time{}}).changed
	s.http.Handler = passed(http.MaxBytesHandler(s.handler(local), maxRequest))
	s.http.BaseContext = func(net.Listener) context.Context {
		s.http.Handler = front(local, s.throttlePasswords(s.http.Handler))
		return context.Background()
	}
	return toolkit.Serve(netutil.LimitListener(sparingListener{l}, limit), s.http, &toolkit.FlagConfig{WebConfigFile: &s.cfg.ConfigFile}, slog.New(toolkitLog{s.cfg.Logger.Handler()}))
}

// Shutdown lets requests in flight end, but not for long: the rotator they ask about has stopped.
func (s *Server) Shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // cuts the rest
	}
}

func (s *Server) handler(local bool) http.Handler {
	mux := http.NewServeMux()
	limited := outbox.New(pagesAtOnce)
	visible := func(h http.HandlerFunc) http.Handler {
		return s.whereVisible(local, limited.Wrap(outbox.Compressed(h)))
	}
	mux.Handle("GET /metrics", s.cfg.Metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { s.probe(w, s.cfg.Alive()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { s.probe(w, s.cfg.Ready(r.Context())) })
	mux.Handle("GET /{$}", visible(s.listPage))
	mux.Handle("GET /calendar", visible(s.calendarPage))
	mux.Handle("GET /policies/{name}", visible(s.policyPage))
	mux.Handle("GET /api/v1/policies", visible(s.policies))
	mux.Handle("GET /api/v1/policies/{name}", visible(s.policy))
	mux.Handle("GET /page.css", outbox.Compressed(asset("text/css; charset=utf-8", "page.css")))
	mux.Handle("GET /page.js", outbox.Compressed(asset("text/javascript; charset=utf-8", "page.js")))
	if s.cfg.Pprof {
		mux.Handle("GET /debug/pprof/{name...}", s.profiles(local))
	}
	mux.HandleFunc("POST /-/reload", s.asAdmin(s.reload))
	mux.HandleFunc("POST /api/v1/policies/{name}/rotate", s.asAdmin(s.rotate))
	mux.HandleFunc("POST /api/v1/leaked", s.asAdmin(outbox.New(leaksAtOnce).Wrap(http.HandlerFunc(s.leaked)).ServeHTTP))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("Referrer-Policy", "no-referrer")
		mux.ServeHTTP(w, r)
	})
}

// probe answers ok, or the error in one line.
func (s *Server) probe(w http.ResponseWriter, err error) {
	if err == nil {
		_, _ = fmt.Fprintln(w, "ok") // fails when the client is gone
		return
	}
	http.Error(w, s.oneLine(err), http.StatusServiceUnavailable)
}

// oneLine returns an error's text without secrets and line breaks.
func (s *Server) oneLine(err error) string {
	return s.cfg.Redactor.Cut(strings.Join(strings.Fields(err.Error()), " "))
}
