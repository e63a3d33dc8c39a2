package web

import (
	"net/http"
	"net/http/pprof"
	"strconv"
)

// longestProfile bounds how many seconds a client may have measured: a CPU profile costs little, an execution trace a lot.
const longestProfile = 30

// profiles serves Go's profiles and goroutines, one request at a time. They hold no variable's value, but show what the
// process is doing, and measuring slows it down: so they are for a client on this host, one that proved its identity, or
// one that has the admin token.
func (s *Server) profiles(local bool) http.Handler {
	turn := make(chan struct{}, 1)
	measure := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if given := r.FormValue("seconds"); given != "" {
			if n, err := strconv.ParseFloat(given, 64); err != nil || !(n > 0 && n <= longestProfile) { // NaN is refused, too
				http.Error(w, "seconds must be a number up to "+strconv.Itoa(longestProfile)+".", http.StatusBadRequest)
				return
			}
		}
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		default:
			w.Header().Set("Retry-After", strconv.Itoa(longestProfile))
			http.Error(w, "Another profile is being made. Ask again when it is done.", http.StatusServiceUnavailable)
			return
		}
		switch r.PathValue("name") {
		case "profile":
			pprof.Profile(w, r)
		case "trace":
			pprof.Trace(w, r)
		default:
			pprof.Index(w, r)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case local || s.authenticated(r):
			measure(w, r)
		case s.cfg.AdminToken.IsSet():
			s.asAdmin(measure)(w, r)
		default:
			http.Error(w, "Profiles are served on a loopback address (REKEYD_LISTEN_ADDR=127.0.0.1:9466), to clients that authenticate "+
				"(REKEYD_WEB_CONFIG_FILE), and with REKEYD_ADMIN_TOKEN.", http.StatusForbidden)
		}
	})
}
