package simulation_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Calls that arrive when nobody expects them any more: held back on the way while their sender goes on, gives up or dies,
// or in the hand of a process that is suspended, and none of whose clocks moves. While a call is held, others do what
// makes it dangerous.

// longestHold is how long a call may be under way.
const longestHold = 3 * time.Hour

// more draws what has its own chances.
func (g *gate) more(f *fate, step string, writes bool, r *rand.Rand) {
	p := g.w.profile
	if writes && f.fault == "" && f.crash == "" && f.freeze == 0 && r.Float64() < p.late {
		f.late = hold(r)
	}
	if step == "record write" && len(g.w.lurking) > 0 && r.Float64() < 0.1 {
		f.crash, f.late, f.fault = "after", 0, ""
	}
	if step == "create" && f.late == 0 && r.Float64() < p.doubled {
		f.doubled = true
	}
	chance := 0.004
	if writes {
		chance = 0.04
	}
	if g.standsStill() && r.Float64() < chance {
		f.freeze = hold(r)
	}
}

// hold draws a time of which short ones are as likely as long ones.
func hold(r *rand.Rand) time.Duration {
	return min(20*time.Second<<r.IntN(9)+time.Duration(r.Int64N(int64(20*time.Second))), longestHold)
}

// holdBack carries the call out later. Its sender sees a connection that was cut, or no answer.
func (g *gate) holdBack(req *http.Request, body []byte, step string, f fate) (*http.Response, error) {
	w := g.w
	w.hit("late", step)
	w.tracef("r%d.%d %s is held back for %s", g.replica, g.life, step, f.late)
	held := req.Clone(context.WithoutCancel(req.Context()))
	w.later(f.late, func() {
		if w.oracle.ended {
			return
		}
		w.lateNow = true
		defer func() { w.lateNow = false }()
		resp, err := g.apply(held, body) //nolint:bodyclose // nobody reads it: the answer is lost, and its body is in memory
		w.tracef("r%d.%d %s, held back for %s → %s", g.replica, g.life, step, f.late, outcome(resp, err))
	})
	w.provoke(req, step, f.late)
	switch f.after % 3 {
	case 0:
		return nil, errCut
	case 1:
		return answer(req, http.StatusInternalServerError, `{"errors":["internal error"],"detail":{"code":"internal","status":"internal","message":"internal"}}`), nil
	}
	return answer(req, http.StatusGatewayTimeout, "<html>gateway timeout</html>"), nil
}

// provoke has others do, before the held call arrives, what it is dangerous together with.
func (w *world) provoke(req *http.Request, step string, within time.Duration) {
	what := map[string][]string{
		"disable":      {"rollback", "vault kv rollback"},
		"delete":       {"rollback", "vault kv rollback"},
		"patch":        {"rotate --revoke-now", "rotate --revoke-now", "rotate"},
		"create":       {"rotate"},
		"record write": {"rotate", "rotate --revoke-now", "vault kv rollback"},
		"record read":  {"rotate"},
		"verify read":  {"rotate"},
		"list keys":    {"rotate"},
		"commit":       {"rollback", "rotate"},
	}[step]
	policy := w.concerns(req)
	i := slices.IndexFunc(w.policies, func(p plan.Policy) bool { return base(p.Name) == policy })
	if len(what) == 0 || i < 0 || w.calm || w.rng.IntN(2) == 0 {
		return
	}
	do := what[w.rng.IntN(len(what))]
	w.hits["held "+step+" × "+do]++
	w.later(time.Duration(w.rng.Int64N(int64(within))), func() {
		if !w.calm {
			w.meddle(do, w.policies[min(i, len(w.policies)-1)])
		}
	})
}

// concerns returns the policy that a call is about; "" where that cannot be told.
func (w *world) concerns(req *http.Request) string {
	path := req.URL.Path
	if isVault(req) {
		return base(strings.TrimSuffix(path[strings.LastIndex(path, "/")+1:], otherPlace))
	}
	if k := w.oracle.keys[path[strings.LastIndex(path, "/")+1:]]; k != nil {
		return k.policy
	}
	if k := w.oracle.bySecret(req.Header.Get("xi-api-key")); k != nil && !strings.HasPrefix(path, "/v1/service-accounts") {
		return k.policy
	}
	return ""
}
