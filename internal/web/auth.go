package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// adminHeader carries the admin token where basic auth takes Authorization. A browser sends it only from this origin.
const adminHeader = "Rekeyd-Admin-Token"

// whereVisible serves what describes policies, where the configuration allows it.
func (s *Server) whereVisible(local bool, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if mode := s.cfg.StatusPage; mode == "on" || mode == "auto" && (local || s.authenticated(r)) {
			h.ServeHTTP(w, r)
			return
		}
		http.Error(w, "The status page is off here. To enable it, set REKEYD_STATUS_PAGE=on, or leave it at auto and listen on a loopback "+
			"address (REKEYD_LISTEN_ADDR=127.0.0.1:9466) or demand authentication (basic_auth_users or client certificates in REKEYD_WEB_CONFIG_FILE).",
			http.StatusForbidden)
	})
}

// authenticated reports whether the client proved its identity: by a verified certificate, or by basic auth, which the
// toolkit demands according to the file's content at each request.
func (s *Server) authenticated(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	c, err := readWebConfig(s.cfg.ConfigFile)
	return err == nil && len(c.Users) > 0
}

// asAdmin serves a call that changes something. Without an admin token the call does not exist.
func (s *Server) asAdmin(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.cfg.AdminToken.IsSet() {
			http.NotFound(w, r)
			return
		}
		judged, ok := s.tokens.begin(r.Context(), clientAddr(r))
		if !ok {
			refuseAttempt(w, "a wrong admin token")
			return
		}
		admin := s.admin(r)
		judged(!admin)
		if !admin {
			s.cfg.Logger.Warn("admin token refused", "from", clientAddr(r), "path", r.URL.Path)
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "This call needs REKEYD_ADMIN_TOKEN in the header Authorization: Bearer, or beside basic auth in the header "+adminHeader+".",
				http.StatusUnauthorized)
			return
		}
		h(w, r)
	}
}

// admin compares hashes, so that timing reveals no length. A token file is read each time, so that it can be replaced.
func (s *Server) admin(r *http.Request) bool {
	token, err := s.cfg.AdminToken.Get(r.Context())
	if err != nil || token.IsZero() {
		return false
	}
	scheme, given, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	ok = ok && strings.EqualFold(scheme, "Bearer")
	if h := r.Header.Get(adminHeader); h != "" {
		given, ok = h, true
	}
	want, got := sha256.Sum256([]byte(token.Reveal())), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && ok
}

// throttlePasswords wraps the toolkit's basic auth, which hands requests with the right password to [passed]. A request
// without a password is no guess: that is how a browser finds out that it needs one.
func (s *Server) throttlePasswords(basicAuth http.Handler) http.Handler {
	t := newThrottle()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, given := r.BasicAuth(); !given {
			basicAuth.ServeHTTP(w, r)
			return
		}
		judged, ok := t.begin(r.Context(), clientAddr(r))
		if !ok {
			refuseAttempt(w, "a wrong password")
			return
		}
		defer judged(false)
		basicAuth.ServeHTTP(&authFailureWriter{w, func(failed bool) {
			judged(failed)
			if failed {
				s.cfg.Logger.Warn("password refused", "from", clientAddr(r), "path", r.URL.Path)
			}
		}}, r)
	})
}

// passed runs behind basic auth: the password was right, so the client's next one can be judged while h runs.
func passed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, ok := w.(*authFailureWriter); ok {
			a.judged(false)
			w = a.ResponseWriter
		}
		h.ServeHTTP(w, r)
	})
}

// authFailureWriter is basic auth's writer, and notices when it refuses a password.
type authFailureWriter struct {
	http.ResponseWriter
	judged func(failed bool)
}

// WriteHeader implements http.ResponseWriter.
func (a *authFailureWriter) WriteHeader(status int) {
	if status == http.StatusUnauthorized && a.Header().Get("WWW-Authenticate") == "Basic" {
		a.judged(true)
	}
	a.ResponseWriter.WriteHeader(status)
}

// refuseAttempt answers a client that must wait before it may try another credential.
func refuseAttempt(w http.ResponseWriter, what string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(failureEvery.Seconds())))
	http.Error(w, "Too many calls from this address had "+what+". Wait a few seconds.", http.StatusTooManyRequests)
}

// clientAddr returns the address a request came from; for IPv6 the /64, since one machine has many addresses.
func clientAddr(r *http.Request) string {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	switch addr := remote.Addr().Unmap(); {
	case err != nil:
		return r.RemoteAddr
	case addr.Is4():
		return addr.String()
	default:
		return netip.PrefixFrom(addr.WithZone(""), 64).Masked().String()
	}
}
