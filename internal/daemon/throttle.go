package daemon

import (
	"net"
	"net/http"
	"net/netip"
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
