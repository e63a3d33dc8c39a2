package simulation_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A Vault whose standbys answer reads and lag: by moments, and by minutes while their replication stands still. Each read may come
// from another node than the one before.

// standbys is what a run has of them. It comes from a source of its own, so that the rest of a seed's run does not depend on it.
type standbys struct {
	lags    []time.Duration
	indexed bool // writes return an index that reads may ask for
	r       *rand.Rand
}

// Vault has standbys that answer reads in one seed of so many, by its remainder.
const (
	laggySeeds     = 16
	laggyRemainder = 9
)

func drawStandbys(seed uint64) standbys {
	if seed%laggySeeds != laggyRemainder {
		return standbys{}
	}
	return someStandbys(seed)
}

func someStandbys(seed uint64) standbys {
	r := rand.New(rand.NewPCG(seed, 17))
	s := standbys{r: r, indexed: r.IntN(2) == 0}
	for range 1 + r.IntN(2) {
		s.lags = append(s.lags, time.Duration(1+r.Int64N(int64([]time.Duration{20 * time.Millisecond, time.Second, 8 * time.Second}[r.IntN(3)]))))
	}
	return s
}

const nodeHeader = "Simulated-Node"

// addStandbys gives Vault its standbys, and makes their replication stand still now and then.
func (w *world) addStandbys() {
	s := w.profile.standbys
	if len(s.lags) == 0 {
		return
	}
	w.kv.Standbys(s.indexed, func(r *http.Request) int {
		n, _ := strconv.Atoi(r.Header.Get(nodeHeader))
		return n
	}, s.lags...)
	w.hits["start × standbys that lag"]++
	for range 2 + s.r.IntN(6) {
		node := s.r.IntN(len(s.lags))
		from := time.Duration(s.r.Int64N(int64(w.profile.duration)))
		to := min(from+time.Minute<<s.r.IntN(6), w.profile.duration)
		w.later(from, func() { w.tracef("node %d stands still", node+1); w.kv.Lag(node+1, 24*time.Hour) })
		w.later(to+time.Duration(node+1), func() { w.tracef("node %d catches up", node+1); w.kv.Lag(node+1, s.lags[node]) })
	}
}

// choose returns the node that answers a call.
func (s standbys) choose(seed, call uint64) int {
	if len(s.lags) == 0 {
		return 0
	}
	return rand.New(rand.NewPCG(seed+17, call)).IntN(len(s.lags) + 1)
}

// at sends a call to its node.
func (f fate) at(req *http.Request) *http.Request {
	if f.node == 0 || !isVault(req) {
		return req
	}
	there := req.Clone(req.Context())
	there.Header.Set(nodeHeader, strconv.Itoa(f.node))
	return there
}

// strike has others put an older version of a record back right before a claim: the claim of a disable, at times, and no standby
// shows it yet.
func (w *world) strike(req *http.Request, step string) {
	if len(w.profile.lags) == 0 || step != "claim" || w.calm || w.profile.r.IntN(6) > 0 {
		return
	}
	for _, m := range w.profile.meddling {
		if m == "remove policy" || m == "rename policy" || m == "soft-delete record" || m == "remove field" {
			return // nobody follows that record any more, or nobody has seen it
		}
	}
	name := w.concerns(req)
	if i := slices.IndexFunc(w.policies, func(p plan.Policy) bool { return base(p.Name) == name }); i >= 0 {
		w.meddle("vault kv rollback", w.policies[i])
	}
}

// listener hears when a process takes a lagging answer for a Vault that was restored.
type listener struct {
	slog.Handler
	w *world
}

func (l listener) Enabled(context.Context, slog.Level) bool { return true }

func (l listener) Handle(ctx context.Context, rec slog.Record) error {
	if strings.HasPrefix(rec.Message, "ledger went back in time") {
		l.w.locked(func() {
			if !l.w.oracle.restored && !l.w.oracle.ended {
				l.w.oracle.violated("a lagging answer was taken for a restored Vault")
			}
		})
	}
	if l.Handler.Enabled(ctx, rec.Level) {
		return l.Handler.Handle(ctx, rec)
	}
	return nil
}

func (l listener) WithAttrs(a []slog.Attr) slog.Handler {
	return listener{l.Handler.WithAttrs(a), l.w}
}

func (l listener) WithGroup(name string) slog.Handler {
	return listener{l.Handler.WithGroup(name), l.w}
}
