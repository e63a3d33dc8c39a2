package memkv

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// change is one entry of the log that the active node ships to its standbys.
type change struct {
	index int
	at    time.Time
	apply func(mounts map[string]*mount)
}

// standby answers reads from what it has applied of the log. It never goes back.
type standby struct {
	mounts  map[string]*mount
	applied int
	lag     time.Duration
}

// Standbys adds nodes that answer reads by themselves, each with what was written at least its lag ago. balance chooses the node
// for a request: 0 is the active one, which carries out what changes anything. With indexed, the server returns the index of each
// write and answers a read that names one only once the node has reached it, as Vault Enterprise and OpenBao 2.7 do; without, it
// is like OpenBao 2.5. Call it before the first request.
func (s *Server) Standbys(indexed bool, balance func(*http.Request) int, lags ...time.Duration) {
	s.locked(func() {
		s.indexed, s.balance = indexed, balance
		for _, lag := range lags {
			s.standbys = append(s.standbys, &standby{mounts: cloneMounts(s.mounts), lag: lag})
		}
	})
}

// Lag changes how far a standby is behind, from now on; the first is 1.
func (s *Server) Lag(node int, lag time.Duration) {
	s.locked(func() { s.standbys[node-1].lag = lag })
}

func (s *Server) nodeOf(r *http.Request) int {
	s.mu.Lock()
	balance := s.balance
	s.mu.Unlock()
	if balance == nil {
		return 0
	}
	return balance(r)
}

// changed logs the state of a document after it was changed.
func (s *Server) changed(path string) {
	if len(s.standbys) == 0 {
		return
	}
	m, name, rest := s.route(path)
	if m == nil {
		return
	}
	var now *document
	if d := m.docs[rest]; d != nil {
		now = d.clone()
	}
	most, cas := m.maxVersions, m.casRequired
	s.ship(func(mounts map[string]*mount) {
		to := mounts[name]
		if to == nil {
			to = &mount{docs: map[string]*document{}}
			mounts[name] = to
		}
		to.maxVersions, to.casRequired = most, cas
		if now == nil {
			delete(to.docs, rest)
			return
		}
		to.docs[rest] = now // no node changes it
	})
}

// changedAll replaces everything at every node at once, as an operator does who restores a snapshot.
func (s *Server) changedAll() {
	s.index++
	s.log = nil
	for _, n := range s.standbys {
		n.mounts, n.applied = cloneMounts(s.mounts), s.index
	}
}

func (s *Server) ship(apply func(map[string]*mount)) {
	s.index++
	s.log = append(s.log, change{s.index, time.Now(), apply})
}

// catchUp applies what a standby has received by now, and drops what all of them have.
func (s *Server) catchUp(n *standby) {
	for _, c := range s.log {
		if c.index > n.applied && time.Since(c.at) >= n.lag {
			c.apply(n.mounts)
			n.applied = c.index
		} else if c.index > n.applied {
			break
		}
	}
	least := s.index
	for _, other := range s.standbys {
		least = min(least, other.applied)
	}
	for len(s.log) > 0 && s.log[0].index <= least {
		s.log = s.log[1:]
	}
}

// handleAt carries the request out at its node.
func (s *Server) handleAt(q request) (answer, error) {
	if q.forward != "" && !s.indexed {
		return answer{}, refuse(http.StatusBadRequest, "forwarding via header X-Vault-Inconsistent=forward-active-node disabled in configuration")
	}
	if q.node == 0 || q.node > len(s.standbys) || q.method != http.MethodGet && q.method != "LIST" || s.sealed {
		return s.handle(q)
	}
	n := s.standbys[q.node-1]
	s.catchUp(n)
	if since, err := strconv.Atoi(q.since); q.since != "" && s.indexed && (err != nil || since > n.applied) {
		if q.forward == "forward-active-node" {
			return s.handle(q)
		}
		return answer{}, refuse(http.StatusPreconditionFailed, "required index state not present")
	}
	active := s.mounts
	s.mounts = n.mounts
	defer func() { s.mounts = active }()
	return s.handle(q)
}

// serveNode answers what a node is: OpenBao where there are standbys that answer reads, else Vault's community edition.
func (s *Server) serveNode(q request) answer {
	standby := q.node > 0
	health := map[string]any{"initialized": true, "sealed": false, "standby": standby, "version": "1.21.0", "enterprise": false}
	switch {
	case len(s.standbys) > 0 && s.indexed:
		health["version"] = "2.7.0"
		delete(health, "enterprise")
	case len(s.standbys) > 0:
		health["version"] = "2.6.2"
		delete(health, "enterprise")
	}
	if q.path == "sys/leader" {
		health = map[string]any{"ha_enabled": len(s.standbys) > 0, "is_self": !standby, "leader_address": fmt.Sprintf("http://node%d", 0)}
	}
	return answer{status: http.StatusOK, plain: health}
}
