// Package elevensim simulates the part of the ElevenLabs API that openapi.yaml describes, as an [http.Handler].
// It is stricter than the real API, and can be made worse: every fault is a field of [Faults] and off by default.
// FIDELITY.md names the source of each behaviour.
//
// It keeps its own wire types, so that a client's mistake is not mirrored here.
package elevensim

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// AdminID is the admin key's id for [Server.DisableKey] and [Server.EnableKey].
const AdminID = "admin"

const defaultHistoryLimit = 100_000

// Options describe a simulated workspace.
type Options struct {
	AdminKey         string                         // the key that manages service accounts; "": none
	AdminPermissions []string                       // nil: all
	Accounts         []Account                      // service accounts that exist from the start
	Seed             uint64                         // equal seeds and request orders give equal ids and secrets
	HistoryLimit     int                            // requests remembered; 0: 100,000
	Now              func() time.Time               // nil: time.Now
	ClientIP         func(*http.Request) netip.Addr // matched against allowlists; nil: from RemoteAddr
}

// Account names a service account.
type Account struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Server is a simulated workspace; its methods may be called concurrently. It starts no goroutine, and waits
// only in timers that end with the request's context, so it works in a testing/synctest bubble.
type Server struct {
	now        func() time.Time
	clientIP   func(*http.Request) netip.Addr
	operations []operation

	mu        sync.Mutex
	ids       *rand.Rand // ids and secrets only, so that faults do not change them
	dice      *rand.Rand // latencies, probabilities, order
	accounts  []*account
	keys      map[string]*Key // by id, deleted ones and the admin key too
	bySecret  map[string]*Key
	history   history
	observers []func(Change)
	voices    map[string][]string // by id: the ids of the accounts and keys that it is shared with
	faults    faultState
	inFlight  int
	requests  uint64
	hashSalt  uint64
}

// New returns a workspace without faults.
func New(o Options) *Server {
	s := &Server{
		now:        o.Now,
		clientIP:   o.ClientIP,
		operations: operations(),
		ids:        rand.New(rand.NewPCG(o.Seed, 1)), //nolint:gosec // repeatable on purpose; these secrets open nothing
		dice:       rand.New(rand.NewPCG(o.Seed, 2)), //nolint:gosec // repeatable on purpose
		keys:       map[string]*Key{},
		bySecret:   map[string]*Key{},
		voices:     map[string][]string{},
		history:    history{limit: o.HistoryLimit},
		hashSalt:   o.Seed,
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.clientIP == nil {
		s.clientIP = remoteIP
	}
	if s.history.limit <= 0 {
		s.history.limit = defaultHistoryLimit
	}
	for _, a := range o.Accounts {
		s.accounts = append(s.accounts, &account{Account: a, createdAt: s.now()})
	}
	if o.AdminKey != "" {
		k := &Key{ID: AdminID, Name: AdminID, Secret: o.AdminKey, Permissions: o.AdminPermissions}
		s.keys[k.ID], s.bySecret[k.Secret] = k, k
	}
	return s
}

func remoteIP(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // in no allowlist
	}
	return ap.Addr().Unmap()
}

// ServeHTTP answers one API request. Where a fault cuts the connection it panics with [http.ErrAbortHandler], which
// net/http and [Transport] understand.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.newCall(w, r)
	p := s.arrive(c)
	defer s.leave(p)
	if !wait(r.Context(), p.before) {
		p.gone = true
	}
	a := s.perform(c, p)
	if a.cut || !wait(r.Context(), p.after) {
		panic(http.ErrAbortHandler)
	}
	a.send(w)
}

// perform carries the call out, unless the plan forbids it, and records it in the same critical section, so that the
// history is in the order of effects.
func (s *Server) perform(c *call, p plan) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var a answer
	if p.applies() {
		value, refused := s.apply(c)
		c.record.Applied = refused == nil
		a = s.answer(value, refused)
	}
	a = s.disturb(a, p)
	c.record.Status = a.status
	c.record.Fault = p.fault
	if p.after == forever {
		c.record.Status = 0
	}
	c.record.Time = s.now()
	s.history.add(c.record)
	return a
}

// apply checks the credential and runs the operation. The lock is held.
func (s *Server) apply(c *call) (any, *refusal) {
	if c.refused != nil {
		return nil, c.refused
	}
	k, refused := s.authenticate(c)
	if refused != nil {
		return nil, refused
	}
	return c.op.handle(s, c, k)
}

const forever time.Duration = -1

// wait reports whether d passed before the context ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d == forever {
		<-ctx.Done()
	}
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
