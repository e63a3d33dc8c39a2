package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"

	"github.com/rekeyd/rekeyd/internal/outbox"
)

const (
	maxRequest = 64 << 10 // bytes of a body
	maxHeader  = 16 << 10
	maxStreams = 16 // requests at once on a connection of HTTP/2

	// adminHeader carries the admin token where Authorization is taken by basic auth. A browser sends it to no other
	// origin unasked, nor on behalf of one.
	adminHeader = "Rekeyd-Admin-Token"
)

func (d *Daemon) newServer(l net.Listener) *http.Server {
	return &http.Server{
		Handler:           http.MaxBytesHandler(d.handler(loopback(l.Addr())), maxRequest),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // large answers have deadlines of their own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug), // what strangers send is their business
	}
}

// serve adds the TLS and authentication of the web config, with a throttle before them. The toolkit puts its handler into
// the server and begins at once, so that what stands before it is put there when the server asks for BaseContext.
func (d *Daemon) serve(server *http.Server, l net.Listener) error {
	local, limit := loopback(l.Addr()), connectionLimit()
	server.ConnState = newConnections(limit - limit/8).changed
	if d.cfg.Env.WebConfigFile != "" {
		server.Handler = passed(server.Handler)
	}
	server.BaseContext = func(net.Listener) context.Context {
		if d.cfg.Env.WebConfigFile != "" {
			server.Handler = newThrottle().passwords(server.Handler, d.log)
		}
		server.Handler = front(local, server.Handler)
		return context.Background()
	}
	return web.Serve(netutil.LimitListener(sparingListener{l}, limit), server, &web.FlagConfig{WebConfigFile: &d.cfg.Env.WebConfigFile}, slog.New(webLog{d.log.Handler()}))
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func (d *Daemon) handler(local bool) http.Handler {
	mux := http.NewServeMux()
	pages := outbox.New(outbox.PagesAtOnce)
	mux.Handle("GET /metrics", d.metrics.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { d.answer(w, d.alive(time.Now())) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { d.answer(w, d.ready(r.Context())) })
	page, tokens := newPage(d), newThrottle()
	mux.Handle("GET /{$}", d.guarded(local, pages.Wrap(http.HandlerFunc(page.html))))
	mux.Handle("GET /page.json", d.guarded(local, pages.Wrap(http.HandlerFunc(page.parts))))
	mux.Handle("GET /api/v1/policies", d.guarded(local, pages.Wrap(http.HandlerFunc(page.json))))
	mux.HandleFunc("GET /page.css", asset("text/css; charset=utf-8", pageCSS))
	mux.HandleFunc("GET /page.js", asset("text/javascript; charset=utf-8", pageJS))
	mux.HandleFunc("POST /-/reload", d.asAdmin(tokens, d.reloadRequest))
	mux.HandleFunc("POST /api/v1/policies/{name}/rotate", d.asAdmin(tokens, d.rotateRequest))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("Referrer-Policy", "no-referrer")
		mux.ServeHTTP(w, r)
	})
}

// answer is that of a probe: ok, or why not in one line.
func (d *Daemon) answer(w http.ResponseWriter, err error) {
	if err == nil {
		_, _ = fmt.Fprintln(w, "ok") // an error means that the client has gone
		return
	}
	http.Error(w, d.oneLine(err.Error()), http.StatusServiceUnavailable)
}

// oneLine makes a message fit to be shown: without secrets and without line breaks.
func (d *Daemon) oneLine(text string) string {
	return d.redactor.Cut(strings.Join(strings.Fields(text), " "))
}

// ready says why the daemon cannot do its work: Vault first, without which nothing is read either.
func (d *Daemon) ready(ctx context.Context) error {
	if err := askVault(ctx, d.vault); err != nil {
		return err
	}
	return d.rotator.Ready()
}

// alive says whether a reconcile loop stands still. One that tries in vain is alive: restarting heals no outage of
// others.
func (d *Daemon) alive(now time.Time) error {
	limit := 5*d.cfg.Env.ReconcileInterval + d.cfg.Env.APITimeout + time.Minute
	for _, ws := range d.rotator.Snapshot().Workspaces {
		if !ws.LastTry.IsZero() && now.Sub(ws.LastTry) > limit {
			return fmt.Errorf("nobody has tried to list workspace %s since %s", ws.Name, ws.LastTry.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// guarded serves what tells about policies, if that was allowed.
func (d *Daemon) guarded(local bool, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mode := d.cfg.Env.StatusPage
		if mode == "on" || mode == "auto" && (local || d.authenticated(r)) {
			h.ServeHTTP(w, r)
			return
		}
		http.Error(w, "The status page is off here. To enable it, set REKEYD_STATUS_PAGE=on, or leave it at auto and listen on a loopback "+
			"address (REKEYD_LISTEN_ADDR=127.0.0.1:9466) or demand authentication (basic_auth_users or client certificates in REKEYD_WEB_CONFIG_FILE).",
			http.StatusForbidden)
	})
}

// authenticated reports whether this request had to prove who sends it: a verified client certificate, or basic auth,
// which the web toolkit demands by the file as it is at each request.
func (d *Daemon) authenticated(r *http.Request) bool {
	if d.cfg.Env.WebConfigFile == "" {
		return false
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	c, err := readWebConfig(d.cfg.Env.WebConfigFile)
	return err == nil && len(c.Users) > 0
}

// asAdmin serves a call that changes something. Without an admin token it does not exist.
func (d *Daemon) asAdmin(t *throttle, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !d.cfg.Env.AdminToken.IsSet() {
			http.NotFound(w, r)
			return
		}
		judged, ok := t.begin(r.Context(), clientAddr(r))
		if !ok {
			refuseAttempt(w, "a wrong admin token")
			return
		}
		admin := d.admin(r)
		judged(!admin)
		if !admin {
			d.log.Warn("admin token refused", "from", clientAddr(r), "path", r.URL.Path)
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "This call needs REKEYD_ADMIN_TOKEN in the header Authorization: Bearer, or beside basic auth in the header "+adminHeader+".",
				http.StatusUnauthorized)
			return
		}
		h(w, r)
	}
}

// reloadRequest is POST /-/reload.
func (d *Daemon) reloadRequest(w http.ResponseWriter, r *http.Request) {
	n, err := d.reload(r.Context(), true)
	if err != nil {
		http.Error(w, d.redactor.Cut(err.Error()), http.StatusUnprocessableEntity)
		return
	}
	_, _ = fmt.Fprintf(w, "reloaded %d policies\n", n) // an error means that the client has gone
}

// admin compares hashes, whose length says nothing. A token in a file is read anew, so that it can be replaced.
func (d *Daemon) admin(r *http.Request) bool {
	token, err := d.cfg.Env.AdminToken.Get(r.Context())
	if err != nil || token.IsZero() {
		return false
	}
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if h := r.Header.Get(adminHeader); h != "" {
		given, ok = h, true
	}
	want, got := sha256.Sum256([]byte(token.Reveal())), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && ok
}
