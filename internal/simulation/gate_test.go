package simulation_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// gate is the boundary between one incarnation of a replica and the world. Every call passes it, and there, and only
// there, everything bad happens: delays, lost and mutilated answers, crashes, freezes. What happens to a call is a
// function of the seed, the replica and the call's own number, so that it does not depend on scheduling.
type gate struct {
	w       *world
	replica int
	life    int
	command *replica // set for a command's process
	dead    bool
	frozen  time.Time
	refused time.Time // since when its admin key is refused; zero: it is not
	looked  time.Time // when it last read the record of the admin key
	missed  time.Time // when it last could not
	counts  map[string]uint64
	listings
}

// fate is what befalls one call.
type fate struct {
	before, after time.Duration
	fault         string // "" or a word of faults()
	crash         string // "", "before", "after"
	freeze        time.Duration
	late          time.Duration // how long the call is held back while its sender goes on
	doubled       bool
	node          int // that answers it
}

// The faults. Those of the first list leave the call undone, those of the second lose or spoil the answer of a call
// that was carried out.
func undone() []string {
	return []string{"refused", "cut before", "500 before", "502", "429", "sealed"}
}

func done() []string { return []string{"cut after", "500 after", "truncated", "timeout"} }

var errCut = errors.New("connection reset by peer")

func (g *gate) fate(step, id string) fate {
	n := g.counts[id]
	g.counts[id]++
	h := fnv.New64a()
	_, _ = io.WriteString(h, id)
	_ = binary.Write(h, binary.LittleEndian, []uint64{uint64(g.replica), uint64(g.life), n})
	r := rand.New(rand.NewPCG(g.w.seed, h.Sum64()))
	p := g.w.profile
	f := fate{
		before: time.Duration(1+r.Int64N(int64(p.latency))) * time.Nanosecond,
		after:  time.Duration(1+r.Int64N(int64(p.latency))) * time.Nanosecond,
	}
	f.node = p.choose(g.w.seed, h.Sum64())
	if g.w.calm {
		return f
	}
	x, y, z := r.Float64(), r.Float64(), r.Float64()
	writes := !strings.HasSuffix(step, "read") && !strings.HasPrefix(step, "list")
	if x < p.fault {
		kinds := undone()
		if r.IntN(2) == 0 {
			kinds = done()
		}
		f.fault = kinds[r.IntN(len(kinds))]
	}
	if g.command != nil {
		p.crash = g.command.crash
	}
	if writes && y < p.crash {
		f.crash = []string{"before", "after"}[r.IntN(2)]
	}
	if writes && z < p.freeze {
		f.freeze = time.Duration(r.Int64N(int64(12 * time.Minute)))
	}
	g.more(&f, step, writes, r)
	return f
}

// RoundTrip carries one call from the replica to the world.
func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := drain(req)
	if err != nil {
		return nil, err
	}
	step := classify(req, body)
	f := g.meet(step, req, body)
	listed := g.lists(req, step)
	req = f.at(req)
	if !wait(req.Context(), f.before) {
		return nil, f.givenUp(req)
	}
	g.freeze(req, step, f)
	resp, err := g.pass(req, body, step, f)
	if err == nil && f.fault == "timeout" {
		<-req.Context().Done()
		return nil, f.givenUp(req)
	}
	if err == nil && !wait(req.Context(), f.after) {
		return nil, f.givenUp(req)
	}
	listed(err == nil && resp.StatusCode == http.StatusOK && f.fault == "")
	return resp, err
}

// releaseFailed returns why the caller no longer waits, a moment later: calls that end together would go on in an order of chance.
func (f fate) givenUp(req *http.Request) error {
	sleep(f.before + f.after)
	return req.Context().Err()
}

func (g *gate) meet(step string, req *http.Request, body []byte) fate {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.rests(req, step)
	id := req.Method + " " + req.URL.Path + " " + step
	if step == "other read" {
		id += " " + string(body) // one path for all policies
	}
	return g.fate(step, id)
}

// freeze holds the call back for as long as the process is frozen. A frozen process sends nothing; what it was about
// to send it sends when it wakes up, its timeouts long over.
func (g *gate) freeze(req *http.Request, step string, f fate) {
	d := f.freeze
	left := func() time.Duration {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		if d > 0 {
			g.w.hit("freeze", step)
			if g.standsStill() {
				g.w.hit("suspended", step)
				g.w.provoke(req, step, d)
			}
			g.frozen, d = time.Now().Add(d), 0
		}
		if g.dead || !time.Now().Before(g.frozen) {
			return 0
		}
		return time.Until(g.frozen) + f.before // no two calls at the same instant: their order would be chance
	}
	for wait := left(); wait > 0; wait = left() {
		sleep(wait)
	}
}

// pass decides what becomes of the call, and carries it out.
func (g *gate) pass(req *http.Request, body []byte, step string, f fate) (*http.Response, error) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	if f.crash == "before" && !g.dead {
		g.w.hit("crash before", step)
		g.w.kill(g)
	}
	if g.dead {
		return nil, errCut
	}
	g.w.oracle.counted(g, req)
	failing := f.fault != "" || g.w.down(req) != ""
	if failing && g.w.oracle.readsAdminKey(req, step) {
		g.missed = time.Now()
	}
	if resp, hit, err := g.undone(req, step, f.fault); hit {
		return resp, err
	}
	if f.late > 0 {
		return g.holdBack(req, body, step, f)
	}
	g.w.strike(req, step)
	g.w.oracle.checkPaused(g, g.w.concerns(req), step)
	resp, err := g.apply(req, body)
	if f.doubled {
		g.w.hits["create × doubled"]++
		g.w.lateNow = true
		defer func() { g.w.lateNow = false }()
		if again, err := g.apply(req, body); err == nil && f.after%2 == 0 {
			resp = again
		}
	}
	g.w.oracle.called(g, req, step, resp, err)
	g.w.oracle.answers(req, step, resp, f)
	g.w.tracef("r%d.%d %s → %s %s", g.replica, g.life, step, outcome(resp, err), f.fault)
	if f.crash == "after" {
		g.w.hit("crash after", step)
		g.w.kill(g)
		if step == "record write" {
			g.w.bury(req.URL.Path)
		}
		return nil, errCut
	}
	if f.fault != "" {
		g.w.hit(f.fault, step)
		return g.spoil(req, resp, f.fault)
	}
	return resp, err
}

func (g *gate) apply(req *http.Request, body []byte) (*http.Response, error) {
	defer g.w.follow(g, req)()
	// The call is under way whatever its sender's clock says by now.
	r := req.Clone(context.WithoutCancel(req.Context()))
	r.Body = io.NopCloser(bytes.NewReader(body))
	g.w.actor, g.w.path = g, req.URL.Path
	defer func() { g.w.actor, g.w.path = nil, "" }()
	remote := g.w.api
	if isVault(req) {
		remote = g.w.kv
	}
	resp, err := remote.RoundTrip(r)
	if err == nil {
		resp.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	return resp, err
}

// undone answers a call that is not carried out, because of its own fault or because the remote is down.
func (g *gate) undone(req *http.Request, step, fault string) (resp *http.Response, hit bool, err error) {
	down := g.w.down(req)
	switch {
	case down != "":
		fault = down
	case !contains(undone(), fault):
		return nil, false, nil
	}
	g.w.hit(fault, step)
	g.w.tracef("r%d.%d %s ✗ %s", g.replica, g.life, step, fault)
	switch fault {
	case "refused":
		return nil, true, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	case "cut before":
		return nil, true, errCut
	case "502":
		return answer(req, 502, "<html>bad gateway</html>"), true, nil
	case "429":
		if isVault(req) {
			return answer(req, 429, `{"errors":["request path \"x\": rate limit quota exceeded"]}`), true, nil
		}
		return answer(req, 429, `{"detail":{"code":"rate_limit_exceeded","status":"rate_limit_exceeded","message":"slow down"}}`), true, nil
	case "403":
		return answer(req, 403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`), true, nil
	case "sealed":
		if isVault(req) {
			return answer(req, 503, `{"errors":["Vault is sealed"]}`), true, nil
		}
		return answer(req, 503, `{"detail":{"code":"unavailable","status":"unavailable","message":"unavailable"}}`), true, nil
	}
	return answer(req, 500, `{"errors":["internal error"],"detail":{"code":"internal","status":"internal","message":"internal"}}`), true, nil
}

// spoil loses or mutilates the answer to a call that was carried out.
func (g *gate) spoil(req *http.Request, resp *http.Response, fault string) (*http.Response, error) {
	switch fault {
	case "500 after":
		return answer(req, 500, `{"errors":["internal error"],"detail":{"code":"internal","status":"internal","message":"internal"}}`), nil
	case "timeout": // the caller waits until it gives up
		return resp, nil
	case "truncated":
		if resp == nil {
			return nil, errCut
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), failing{}))
		return resp, nil
	}
	return nil, errCut
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func answer(req *http.Request, status int, body string) *http.Response {
	return &http.Response{Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}
}

func outcome(resp *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return http.StatusText(resp.StatusCode)
}

func drain(req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	b, err := io.ReadAll(req.Body)
	_ = req.Body.Close()
	return b, err
}

func isVault(req *http.Request) bool { return req.URL.Host == vaultHost }

// classify names the step of the protocol that a call is.
func classify(req *http.Request, body []byte) string {
	path := req.URL.Path
	if !isVault(req) {
		switch {
		case req.Method == http.MethodPost:
			return "create"
		case req.Method == http.MethodPatch:
			if bytes.Contains(body, []byte(`"is_enabled":false`)) {
				return "disable"
			}
			return "patch"
		case req.Method == http.MethodDelete:
			return "delete"
		case strings.HasSuffix(path, "/user"):
			return "verify read"
		case strings.HasPrefix(path, "/v1/voices/"), strings.HasPrefix(path, "/v1/models"):
			return "probe read"
		case strings.HasSuffix(path, "/api-keys"):
			return "list keys"
		}
		return "list accounts"
	}
	kind := "other"
	switch {
	case strings.Contains(path, "/data/rekeyd/groups/"):
		kind = "group"
	case strings.Contains(path, "/data/"+recordPrefix), strings.HasPrefix(path, "/v1/"+teamMount+"/data/"):
		kind = "record"
	case strings.Contains(path, "/data/rekeyd/policies/"):
		kind = "ledger"
	case strings.Contains(path, "/owner"):
		kind = "owner"
	}
	if req.Method == http.MethodGet || kind == "other" {
		return kind + " read"
	}
	if kind != "ledger" {
		return kind + " write"
	}
	var doc struct {
		Data struct{ Claim, Intent *json.RawMessage }
	}
	if json.Unmarshal(body, &doc) == nil && doc.Data.Claim != nil {
		if doc.Data.Intent != nil {
			return "claim and intent"
		}
		return "claim"
	}
	return "commit"
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleep lets simulated time pass.
func sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // simulated time: nothing really sleeps
}
