package ledger

import (
	"context"
	"sync"
)

// Session makes reads as new as the writes that came before them, where a store may answer from a replica that lags and offers to
// wait: the store notes in it the index of each write, and asks for that index with each read.
type Session struct {
	mu    sync.Mutex
	index string
}

type sessionKey struct{}

// WithSession begins the session of one process's work on one policy. An index for the whole process would starve its reads
// under load.
func WithSession(ctx context.Context) context.Context {
	return context.WithValue(ctx, sessionKey{}, &Session{})
}

// SessionOf returns the session of a context; nil: it has none, and its reads may lag.
func SessionOf(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s
}

// Begin begins the session anew, for work on another policy.
func (s *Session) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = ""
}

// Index returns the index of the session's last write; "": none, or the store has no such thing.
func (s *Session) Index() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index
}

// Wrote notes the index of a write.
func (s *Session) Wrote(index string) {
	if s == nil || index == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = index
}
