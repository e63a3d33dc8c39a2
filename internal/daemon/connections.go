package daemon

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxConnections is for two Prometheus, probes and dozens of open pages. Each costs 10 to 50 KiB.
const maxConnections = 256

// kernelBytes is what the kernel keeps of an answer that is not read; by itself it takes up to 4 MiB, on the pod's account.
const kernelBytes = 128 << 10

// sparingListener gives small buffers to its connections.
type sparingListener struct{ net.Listener }

// Accept implements net.Listener.
func (l sparingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(kernelBytes) // one that has gone already
	}
	return c, err
}

// connections keeps room for who asks: when more than limit connections are open, those that have been silent for longest,
// before their first request or after their last, make way. Nobody waits for long behind those who only hold connections.
type connections struct {
	limit int

	mu      sync.Mutex
	open    map[net.Conn]*list.Element // nil while a request is served; without those that were told to go
	silent  *list.List                 // of silence, the longest in front
	waiting bool                       // makeWay will be called
}

// silence is a connection on which nothing is asked.
type silence struct {
	conn  net.Conn
	since time.Time
}

// maySilent is how long a connection may be silent although others need its place: a request follows a connection at once,
// but for what the network and TLS take.
const maySilent = 300 * time.Millisecond

func newConnections(limit int) *connections {
	return &connections{limit: limit, open: map[net.Conn]*list.Element{}, silent: list.New()}
}

// changed is the server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, known := c.open[conn]
	if !known && state != http.StateNew {
		return
	}
	c.forget(e)
	switch state {
	case http.StateNew, http.StateIdle:
		c.open[conn] = c.silent.PushBack(silence{conn, time.Now()})
	case http.StateActive:
		c.open[conn] = nil
	default:
		delete(c.open, conn)
	}
	c.makeWay()
}

func (c *connections) forget(e *list.Element) {
	if e != nil {
		c.silent.Remove(e)
	}
}

// makeWay hangs up on those who were silent for long, as far as their places are needed. c.mu is held.
func (c *connections) makeWay() {
	for len(c.open) > c.limit && c.silent.Len() > 0 && !c.waiting {
		s := c.silent.Front().Value.(silence) //nolint:forcetypeassert // the list holds nothing else
		if left := maySilent - time.Since(s.since); left > 0 {
			c.waiting = true
			time.AfterFunc(left, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.waiting = false
				c.makeWay()
			})
			return
		}
		c.forget(c.open[s.conn])
		delete(c.open, s.conn)
		hangUp(s.conn)
	}
}

// hangUp closes a connection without the farewell of TLS, which could wait for the other side.
func hangUp(conn net.Conn) {
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	_ = conn.Close() // whoever was there has gone
}
