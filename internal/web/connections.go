package web

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxConnections suffices for two Prometheus servers, probes and dozens of open pages. Each costs 10 to 50 KiB.
const maxConnections = 256

// kernelBytes bounds what the kernel buffers of an unread answer; by default that is up to 4 MiB, charged to the pod.
const kernelBytes = 128 << 10

// sparingListener accepts connections with small write buffers.
type sparingListener struct{ net.Listener }

// Accept implements net.Listener.
func (l sparingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(kernelBytes) // fails when the client is gone
	}
	return c, err
}

// connections keeps room for clients that ask: when more than limit connections are open, it closes those that have been
// silent for longest, before their first request or after their last. Idle clients cannot lock others out.
type connections struct {
	limit int

	mu      sync.Mutex
	open    map[net.Conn]time.Time // silent since; zero while a request is served. Without those already closed here
	waiting bool                   // a timer will call makeWayLocked
}

// graceSilent is how long a connection may be silent when others need its place: the first request follows at once, save
// for the network's delay and TLS.
const graceSilent = 300 * time.Millisecond

// changed implements the server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.open[conn]; !known && state != http.StateNew {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		c.open[conn] = time.Now()
	case http.StateActive:
		c.open[conn] = time.Time{}
	default:
		delete(c.open, conn)
	}
	c.makeWayLocked()
}

// makeWayLocked closes connections that have been silent past their grace, as long as there are too many.
func (c *connections) makeWayLocked() {
	for len(c.open) > c.limit && !c.waiting {
		var oldest net.Conn
		for conn, since := range c.open {
			if !since.IsZero() && (oldest == nil || since.Before(c.open[oldest])) {
				oldest = conn
			}
		}
		if oldest == nil {
			return
		}
		if left := graceSilent - time.Since(c.open[oldest]); left > 0 {
			c.waiting = true
			time.AfterFunc(left, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.waiting = false
				c.makeWayLocked()
			})
			return
		}
		delete(c.open, oldest)
		hangUp(oldest)
	}
}

// hangUp closes a connection without TLS's close_notify, which could wait for the client.
func hangUp(conn net.Conn) {
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	_ = conn.Close() // fails when the client is gone
}
