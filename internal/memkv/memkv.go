// Package memkv is the part of Vault's HTTP API that rekeyd uses, in memory and in the caller's own goroutine, for
// simulations inside testing/synctest: the real Vault client runs over it as its transport. It keeps KV version 2's
// semantics exactly; a test holds it against a real server, answer by answer. It refuses other
// requests with an error of the transport.
package memkv

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Server is one Vault with KV version 2 mounts and one token, which may do everything that Deny does not refuse.
// It is an http.RoundTripper. Set the fields before the first request; the methods may be called at any time, but
// not from OnWrite.
type Server struct {
	// OnWrite receives each version written through the API, under the lock that orders them: the path with its mount,
	// and the data.
	OnWrite func(path string, version int, data map[string]any)
	// Deny refuses requests to a path of the API, such as secret/data/x.
	Deny func(path string) bool

	mu     sync.Mutex
	before func(*http.Request) error
	after  func(*http.Request, *http.Response) error
	mounts map[string]*mount
	token  token
	sealed bool
	serial int // of request ids

	standbys []*standby // that answer reads
	balance  func(*http.Request) int
	indexed  bool
	log      []change // what the standbys have still to apply
	index    int      // of the last change
}

var _ http.RoundTripper = (*Server)(nil)

// Before sets what is called with each request from now on, outside of any lock, so it may sleep; nil for nothing. An error is
// that of the transport: the request never arrived. A *Refusal instead is Vault's own answer.
func (s *Server) Before(f func(*http.Request) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// After sets what is called when a request was carried out; nil for nothing. An error loses the answer.
func (s *Server) After(f func(*http.Request, *http.Response) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = f
}

func (s *Server) hooks() (before func(*http.Request) error, after func(*http.Request, *http.Response) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.before, s.after
}

// New returns an unsealed server with the given mounts, whose token never ends.
func New(rootToken string, mounts ...string) *Server {
	s := &Server{mounts: map[string]*mount{}, token: token{value: rootToken, issued: time.Now()}}
	for _, name := range mounts {
		s.mounts[name] = &mount{docs: map[string]*document{}}
	}
	return s
}

// Seal makes the server answer that it is sealed, until Unseal.
func (s *Server) Seal() { s.locked(func() { s.sealed = true }) }

// Unseal undoes Seal.
func (s *Server) Unseal() { s.locked(func() { s.sealed = false }) }

// SetTTL makes the token one that ends after ttl unless it is renewed, which gives it ttl again.
func (s *Server) SetTTL(ttl time.Duration) {
	s.locked(func() { s.token.ttl, s.token.expiry = ttl, time.Now().Add(ttl) })
}

// Revoke makes the token invalid for good.
func (s *Server) Revoke() { s.locked(func() { s.token.revoked = true }) }

// Put writes a version as a person would, without check-and-set, and returns its number. The error is that data
// cannot be JSON.
func (s *Server) Put(path string, data map[string]any) (version int, err error) {
	text, err := json.Marshal(data)
	if err != nil {
		return 0, fmt.Errorf("memkv: putting %s: %w", path, err)
	}
	s.locked(func() {
		m, p := s.find(path)
		version = m.write(p, text).current
		s.changed(path)
	})
	return version, nil
}

// SoftDelete deletes the newest version; its number stays taken.
func (s *Server) SoftDelete(path string) {
	s.locked(func() { m, p := s.find(path); m.softDelete(p); s.changed(path) })
}

// Delete removes a document with all of its versions and its metadata.
func (s *Server) Delete(path string) {
	s.locked(func() { m, p := s.find(path); delete(m.docs, p); s.changed(path) })
}

// Get returns a version of a document, the newest for 0: nil for what is not there, deleted or destroyed.
func (s *Server) Get(path string, version int) (data map[string]any, number int) {
	s.locked(func() {
		m, p := s.find(path)
		d := m.docs[p]
		if d == nil {
			return
		}
		if number = version; version == 0 {
			number = d.current
		}
		if v := d.versions[number]; v != nil && v.readable() {
			data = decode(v.data)
		}
	})
	return data, number
}

// Paths returns every document's path with its mount, sorted.
func (s *Server) Paths() (paths []string) {
	s.locked(func() {
		for name, m := range s.mounts {
			for p := range m.docs {
				paths = append(paths, name+"/"+p)
			}
		}
	})
	slices.Sort(paths)
	return paths
}

// Snapshot is the content of all mounts at one time.
type Snapshot struct{ mounts map[string]*mount }

// Snapshot takes one, as an operator's backup does.
func (s *Server) Snapshot() (snap Snapshot) {
	s.locked(func() { snap.mounts = cloneMounts(s.mounts) })
	return snap
}

// Restore puts a snapshot back; what was written since is gone.
func (s *Server) Restore(snap Snapshot) {
	s.locked(func() { s.mounts = cloneMounts(snap.mounts); s.changedAll() })
}

func (s *Server) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// find splits a path at its mount; a path below none gets one, named as its first segment.
func (s *Server) find(path string) (*mount, string) {
	if m, _, rest := s.route(path); m != nil {
		return m, rest
	}
	name, rest, _ := strings.Cut(path, "/")
	s.mounts[name] = &mount{docs: map[string]*document{}}
	return s.mounts[name], rest
}

func (s *Server) route(path string) (m *mount, name, rest string) {
	for n, candidate := range s.mounts {
		if r, ok := strings.CutPrefix(path, n+"/"); ok && len(n) > len(name) {
			m, name, rest = candidate, n, r
		}
	}
	return m, name, rest
}

func cloneMounts(mounts map[string]*mount) map[string]*mount {
	out := make(map[string]*mount, len(mounts))
	for name, m := range mounts {
		c := *m
		c.docs = make(map[string]*document, len(m.docs))
		for p, d := range m.docs {
			c.docs[p] = d.clone()
		}
		out[name] = &c
	}
	return out
}

func (d *document) clone() *document {
	c := *d
	c.versions = maps.Clone(d.versions)
	for n, v := range c.versions {
		copied := *v
		c.versions[n] = &copied
	}
	return &c
}
