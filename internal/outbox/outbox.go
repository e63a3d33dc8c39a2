// Package outbox bounds the cost of large answers, for any number of clients, however slowly they read.
package outbox

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Bounds of the answers that are made and held for clients.
const (
	turnWithin   = 5 * time.Second // a request waits this long for its turn
	sendWithin   = 5 * time.Second // a client has this long to read its answer, plus one second
	slowestBytes = 256 << 10       // per this many bytes
	heldBytes    = 32 << 20        // bounds the answers that are made but not yet read
	undisturbed  = time.Second     // a client may read this long before its place can be taken
)

// Outbox bounds the cost of large answers, for any number of clients, however slowly they read. It makes a few answers at a
// time, each in memory, so that making one does not wait for a reader. Readers then hold at most heldBytes, or one answer; when
// an answer lacks space, the outbox cuts off the longest readers. A gzip answer needs a tenth of the space.
type Outbox struct {
	turns chan struct{}

	mu      sync.Mutex
	sending []*sending // in the order in which they began
	bytes   int
}

// sending is one answer on its way.
type sending struct {
	since time.Time
	bytes int
	cut   func()
}

// New returns an outbox that makes at most the given number of answers at once.
func New(atOnce int) *Outbox { return &Outbox{turns: make(chan struct{}, atOnce)} }

// Wrap returns next with its answers bounded.
func (o *Outbox) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		made := o.make(next, r)
		control := http.NewResponseController(w)
		now := time.Now()
		s := &sending{now, made.body.Len(), func() { _ = control.SetWriteDeadline(now) }} // a writer that cannot have deadlines is a test's
		if made.status == 0 || !o.begin(s) {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "Too many answers are being made or sent. Ask again in a few seconds.", http.StatusServiceUnavailable)
			return
		}
		defer o.end(s)
		_ = control.SetWriteDeadline(now.Add(sendWithin + time.Duration(s.bytes/slowestBytes)*time.Second))
		for name, values := range made.header {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Length", strconv.Itoa(s.bytes))
		w.WriteHeader(made.status)
		_, _ = w.Write(made.body.Bytes()) // an error means that the client has left or was too slow
	})
}

// make makes an answer; status 0: there was no turn in time.
func (o *Outbox) make(next http.Handler, r *http.Request) *wholeAnswer {
	a := &wholeAnswer{header: http.Header{}}
	late := time.NewTimer(turnWithin)
	defer late.Stop()
	select {
	case o.turns <- struct{}{}:
	case <-late.C:
		return a
	case <-r.Context().Done():
		return a
	}
	defer func() { <-o.turns }()
	a.status = http.StatusOK
	next.ServeHTTP(a, r)
	return a
}

// begin reports whether there is space for an answer, after cutting off readers that take too long.
func (o *Outbox) begin(s *sending) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.sending) > 0 && o.bytes+s.bytes > heldBytes {
		oldest := o.sending[0]
		if s.since.Sub(oldest.since) < undisturbed {
			return false
		}
		oldest.cut()
		o.dropLocked(0)
	}
	o.sending, o.bytes = append(o.sending, s), o.bytes+s.bytes
	return true
}

func (o *Outbox) end(s *sending) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.Index(o.sending, s); i >= 0 {
		o.dropLocked(i)
	}
}

// dropLocked forgets an answer.
func (o *Outbox) dropLocked(i int) {
	o.bytes -= o.sending[i].bytes
	o.sending = slices.Delete(o.sending, i, i+1)
}

// wholeAnswer buffers an answer before it is sent.
type wholeAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *wholeAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *wholeAnswer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *wholeAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }
