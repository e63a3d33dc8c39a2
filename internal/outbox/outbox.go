package outbox

import (
	"bytes"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Bounds of what is made and held for clients.
const (
	ScrapesAtOnce = 1 // that are made: one of 10,000 policies takes a second of a core and 100 MiB
	PagesAtOnce   = 2 // … of the others

	turnWithin   = 5 * time.Second // a request waits for its answer to be made
	sendWithin   = 5 * time.Second // an answer is taken, and beside that
	slowestBytes = 256 << 10       // of it in each second more
	HeldBytes    = 32 << 20        // of answers that are made and not taken yet
	undisturbed  = time.Second     // an answer may be taken before others need its place
)

// Outbox bounds what large answers cost, whoever asks and however slowly they read. An answer is made whole while few others
// are, so that making one waits for no reader. Readers then hold at most HeldBytes, or one answer; when another needs the
// place, those who have read for longest are cut off, and a reader of gzip needs a tenth of the place.
type Outbox struct {
	turns chan struct{}

	Mu      sync.Mutex
	Sending []*sending // in the order in which they began
	Bytes   int
}

// sending is one answer on its way.
type sending struct {
	since time.Time
	bytes int
	cut   func()
}

// New returns an outbox in which so many answers are made at once.
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
		_, _ = w.Write(made.body.Bytes()) // an error means that the client has gone, or was too slow
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

// begin reports whether there is place for an answer, and makes it where others were read for too long.
func (o *Outbox) begin(s *sending) bool {
	o.Mu.Lock()
	defer o.Mu.Unlock()
	for len(o.Sending) > 0 && o.Bytes+s.bytes > HeldBytes {
		oldest := o.Sending[0]
		if s.since.Sub(oldest.since) < undisturbed {
			return false
		}
		oldest.cut()
		o.drop(0)
	}
	o.Sending, o.Bytes = append(o.Sending, s), o.Bytes+s.bytes
	return true
}

func (o *Outbox) end(s *sending) {
	o.Mu.Lock()
	defer o.Mu.Unlock()
	for i, other := range o.Sending {
		if other == s {
			o.drop(i)
			return
		}
	}
}

// drop forgets an answer. o.mu is held.
func (o *Outbox) drop(i int) {
	o.Bytes -= o.Sending[i].bytes
	o.Sending = append(o.Sending[:i], o.Sending[i+1:]...)
}

// wholeAnswer is an answer that nobody reads yet.
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
