package daemon

import (
	"context"
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
	maxClients     = 1024             // addresses that are remembered
)

// throttle lets each address try one credential at a time, and only so many wrong ones: what is tried at once is judged one
// after the other, and a failure counts before the next is looked at. Its memory is bounded: it forgets an address that tries
// nothing when it needs the place. A token of 16 characters or more is not guessed that way either.
type throttle struct {
	mu      sync.Mutex
	clients map[string]*caller
}

// caller is one address.
type caller struct {
	turn     chan struct{} // full while a credential is judged
	failures *rate.Limiter
	trying   int // requests that have the turn or wait for it; guarded by throttle.mu
}

func newThrottle() *throttle { return &throttle{clients: map[string]*caller{}} }

// begin waits until the address may try a credential. judged says what became of it and lets the next one try; only its
// first call counts. Not ok is an address that failed too often, or is one of too many.
func (t *throttle) begin(ctx context.Context, from string) (judged func(failed bool), ok bool) {
	c := t.enter(from)
	if c == nil {
		return nil, false
	}
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		c.trying--
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, false
	}
	var once sync.Once
	judged = func(failed bool) {
		once.Do(func() {
			if failed {
				c.failures.Allow()
			}
			<-c.turn
			leave()
		})
	}
	if c.failures.Tokens() < 1 {
		judged(false)
		return nil, false
	}
	return judged, true
}

// enter returns the caller at an address; nil: there is no place for another one.
func (t *throttle) enter(from string) *caller {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.clients[from]
	if c == nil {
		if !t.makeRoom() {
			return nil
		}
		c = &caller{turn: make(chan struct{}, 1), failures: rate.NewLimiter(rate.Every(failureEvery), failuresAtOnce)}
		t.clients[from] = c
	}
	c.trying++
	return c
}

// makeRoom forgets an address where too many are remembered. t.mu is held.
func (t *throttle) makeRoom() bool {
	if len(t.clients) < maxClients {
		return true
	}
	for from, c := range t.clients {
		if c.trying == 0 {
			delete(t.clients, from)
			return true
		}
	}
	return false
}

// refuseAttempt answers a request from an address that may not try another credential.
func refuseAttempt(w http.ResponseWriter, what string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(failureEvery.Seconds())))
	http.Error(w, "Too many calls from this address had "+what+". Wait a few seconds.", http.StatusTooManyRequests)
}

// accepted is the key of a context's function that is called once the password of its request was found right.
type accepted struct{}

// passwords stands before h, which demands basic auth and hands what has the right password to passed. A request without a
// password is no guess: so a browser asks whether it needs one.
func (t *throttle) passwords(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, given := r.BasicAuth(); !given {
			h.ServeHTTP(w, r)
			return
		}
		from := clientAddr(r)
		judged, ok := t.begin(r.Context(), from)
		if !ok {
			refuseAttempt(w, "a wrong password")
			return
		}
		defer judged(false)
		ctx := context.WithValue(r.Context(), accepted{}, func() { judged(false) })
		h.ServeHTTP(&authFailureWriter{w, func() {
			judged(true)
			log.Warn("password refused", "from", from, "path", r.URL.Path)
		}}, r.WithContext(ctx))
	})
}

// passed stands behind basic auth: what reaches it had the right password, and the next one of its address can be judged.
func passed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if judged, ok := r.Context().Value(accepted{}).(func()); ok {
			judged()
		}
		h.ServeHTTP(w, r)
	})
}

// authFailureWriter tells when the answer is that of basic auth to a wrong password.
type authFailureWriter struct {
	http.ResponseWriter
	wrong func()
}

// WriteHeader implements http.ResponseWriter.
func (a *authFailureWriter) WriteHeader(status int) {
	if status == http.StatusUnauthorized && a.Header().Get("WWW-Authenticate") == "Basic" {
		a.wrong()
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *authFailureWriter) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// clientAddr is the address that a request came from; of IPv6 the network, since one machine has many addresses.
func clientAddr(r *http.Request) string {
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
