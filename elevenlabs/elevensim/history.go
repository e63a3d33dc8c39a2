package elevensim

import (
	"encoding/json"
	"time"
)

// Request is one API request as the server saw it. It never holds the credential.
type Request struct {
	Seq            uint64          `json:"seq"`  // in order of arrival, from 1
	Time           time.Time       `json:"time"` // when it was carried out or turned away
	Operation      string          `json:"operation,omitzero"`
	Method         string          `json:"method"`
	Path           string          `json:"path"`
	Account        string          `json:"account,omitzero"`
	KeyID          string          `json:"key_id,omitzero"` // the key that was created, changed or deleted
	Body           json.RawMessage `json:"body,omitempty"`  // as sent; a JSON string if it is not JSON
	Status         int             `json:"status"`          // as answered; 0: no answer
	Applied        bool            `json:"applied"`         // it was carried out, whatever the answer
	CredentialKind string          `json:"credential_kind"` // "admin", a key's id, "unknown" or "none"
	Fault          string          `json:"fault,omitzero"`  // the kind of rule, or the 429
}

func rawJSON(body []byte) json.RawMessage {
	if len(body) == 0 || json.Valid(body) {
		return body
	}
	quoted, _ := json.Marshal(string(body)) // a string always marshals
	return quoted
}

// history is a ring of the newest requests, in the order in which they were carried out.
type history struct {
	limit int
	ring  []Request
	next  int // position of the next request, once the ring is full
}

func (h *history) add(r Request) {
	if len(h.ring) < h.limit {
		h.ring = append(h.ring, r)
		return
	}
	h.ring[h.next] = r
	h.next = (h.next + 1) % h.limit
}

// History returns the requests that are remembered, in the order in which they were carried out.
func (s *Server) History() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &s.history
	return append(append(make([]Request, 0, len(h.ring)), h.ring[h.next:]...), h.ring[:h.next]...)
}

// Reset forgets the history and starts the counters of the faults anew; keys, accounts and the numbering of requests
// stay.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = history{limit: s.history.limit}
	s.faults = s.freshFaults(s.faults.Faults)
}
