package daemon

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	failuresAtOnce = 5
	failureEvery   = 10 * time.Second // that another failure is allowed
	maxStrangers   = 1024             // addresses that are remembered
)

// throttle counts failed authentications by address, in bounded memory. Where more addresses fail than it remembers,
// it forgets one of them: a token of 16 characters or more is not guessed that way either.
type throttle struct {
	mu        sync.Mutex
	strangers map[string]*rate.Limiter
}

func newThrottle() *throttle { return &throttle{strangers: map[string]*rate.Limiter{}} }

// blocked reports that too many requests from this address failed.
func (t *throttle) blocked(from string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.strangers[from]
	return l != nil && l.Tokens() < 1
}

// failed notes a failure.
func (t *throttle) failed(from string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.strangers[from]
	if l == nil {
		if len(t.strangers) >= maxStrangers {
			for other := range t.strangers {
				delete(t.strangers, other)
				break
			}
		}
		l = rate.NewLimiter(rate.Every(failureEvery), failuresAtOnce)
		t.strangers[from] = l
	}
	l.Allow()
}

// refuse answers a request from an address that is blocked.
func (t *throttle) refuse(w http.ResponseWriter, what string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(failureEvery.Seconds())))
	http.Error(w, "Too many calls from this address had "+what+". Wait a few seconds.", http.StatusTooManyRequests)
}

// passwords stands before h, which demands basic auth, and throttles addresses that send wrong passwords. What comes
// without one is no guess: so a browser asks whether it needs one.
func (t *throttle) passwords(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := stranger(r)
		switch _, _, given := r.BasicAuth(); {
		case !given:
			h.ServeHTTP(w, r)
		case t.blocked(from):
			t.refuse(w, "a wrong password")
		default:
			h.ServeHTTP(&guessed{w, func() {
				t.failed(from)
				log.Warn("password refused", "from", from, "path", r.URL.Path)
			}}, r)
		}
	})
}

// guessed tells when the answer is that of basic auth to a wrong password.
type guessed struct {
	http.ResponseWriter
	wrong func()
}

// WriteHeader implements http.ResponseWriter.
func (g *guessed) WriteHeader(status int) {
	if status == http.StatusUnauthorized && g.Header().Get("WWW-Authenticate") == "Basic" {
		g.wrong()
	}
	g.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (g *guessed) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// stranger is the address that a request came from; of IPv6 the network, since one machine has many addresses.
func stranger(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Unmap().Is4() {
		return host
	}
	network, err := addr.WithZone("").Prefix(64)
	if err != nil {
		return host
	}
	return network.String()
}
