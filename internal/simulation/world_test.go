// Package simulation runs the real rotator, the real ElevenLabs client and the real Vault client, several replicas of
// them, over an in-memory Vault and the ElevenLabs simulator, in simulated time, and breaks everything that can break.
// A seed decides all of it. An oracle that knows only SPEC section 9 watches every event.
package simulation_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/internal/model"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
	"github.com/rekeyd/rekeyd/sinks"
)

const (
	vaultHost     = "vault.invalid"
	adminKey      = "sk_admin_of_the_simulation"
	vaultToken    = "hvs.token-of-the-simulation"
	recordPrefix  = "elevenlabs/"
	ledgerPrefix  = "secret/rekeyd/"
	reconcile     = 30 * time.Minute
	claimTTL      = 2 * time.Minute
	verifyTimeout = 30 * time.Second
)

// profile is how bad a run is. The seed draws it.
type profile struct {
	replicas  int
	latency   time.Duration
	fault     float64 // chance of one for each call
	crash     float64 // … for each write
	freeze    float64 // … for each write
	skew      time.Duration
	listLag   time.Duration
	keyDelay  time.Duration
	outages   int
	keyLimit  int  // keys that an account may have
	ignoreIPs bool // the workspace's plan offers no allowlists, and the policies ask for one
	adopt     bool
	meddling  []string // what others do to keys and records, in this order
	pounce    bool     // … not when they like, but in the middle of a rotation
	duration  time.Duration

	late    float64         // chance for each write that it arrives when its sender has long given it up
	doubled float64         // … for each create that a proxy sends it twice
	ttls    []time.Duration // of the replicas' claims
	evidence
	standbys
	suspended int     // the replica whose clocks stand still while it is frozen; -1: none
	wrong     int     // the replica whose wall clock is wrong by days for a while; -1: none
	uses      bool    // readers use the keys that a restored Vault has forgotten
	again     bool    // a removed policy may be loaded again
	asks      bool    // requests come right after publications
	equal     bool    // all claim TTLs are the usual one
	budget    float64 // requests a second to ElevenLabs; 0: no limit
	team      bool    // one policy's record is in a mount of its own, which is refused now and then
}

func drawProfile(r *rand.Rand) profile {
	p := profile{replicas: 1 + r.IntN(3), latency: time.Duration(1+r.IntN(400)) * time.Millisecond, duration: 20 * time.Hour}
	p.fault = []float64{0, 0.005, 0.03, 0.15}[r.IntN(4)]
	p.crash = []float64{0, 0.01, 0.05}[r.IntN(3)]
	p.freeze = []float64{0, 0.01, 0.03}[r.IntN(3)]
	p.skew = []time.Duration{0, 0, 3 * time.Minute}[r.IntN(3)]
	p.listLag = []time.Duration{0, 0, 5 * time.Second, 40 * time.Second}[r.IntN(4)]
	p.keyDelay = []time.Duration{0, 0, 3 * time.Second, 20 * time.Second}[r.IntN(4)]
	p.outages = r.IntN(4)
	p.keyLimit = []int{0, 0, 0, 6}[r.IntN(4)]
	p.ignoreIPs, p.adopt = r.IntN(6) == 0, r.IntN(6) == 0
	if r.IntN(4) > 0 {
		for range 1 + r.IntN(5) {
			p.meddling = append(p.meddling, meddlings()[r.IntN(len(meddlings()))])
		}
	}
	p.suspended, p.wrong = -1, -1
	if r.IntN(4) == 0 {
		p.suspended = r.IntN(p.replicas)
	}
	if r.IntN(8) == 0 {
		p.wrong = r.IntN(p.replicas)
	}
	p.team, p.asks, p.uses, p.again = r.IntN(3) == 0, r.IntN(6) == 0, true, true
	p.late = []float64{0, 0, 0.02, 0.08}[r.IntN(4)]
	p.doubled = []float64{0, 0, 0.1}[r.IntN(3)]
	return p
}

// world is one run.
type world struct {
	t        *testing.T
	seed     uint64
	mu       sync.Mutex // of all below; held while a call is carried out
	rng      *rand.Rand // of the chaos; calls have their own, see gate
	readers  *rand.Rand // of evidence_test.go
	profile  profile
	sim      *elevensim.Server
	other    *elevensim.Server // of a second workspace, where there is one
	api      http.RoundTripper
	admin    *plan.Policy // of the admin key of the workspace default; nil: it has one for ever
	kv       *memkv.Server
	oracle   *oracle
	model    *model.Checker // what the protocol allows
	replicas []*replica
	actor    *gate // whose call is being carried out; nil: somebody else
	lateNow  bool  // … which its sender has long given up
	calm     bool
	vaultBad string
	vaultEnd time.Time
	apiBad   string
	apiEnd   time.Time
	teamBad  string // of one mount
	teamEnd  time.Time
	hits     map[string]int
	toldMu   sync.Mutex
	told     map[string]time.Time // when a failure of each policy was last told
	path     string               // of the call that is being carried out
	trace    []event
	started  time.Time
	policies []plan.Policy
	limit    *int64 // of the edited policies
	edited   time.Time
	removed  *plan.Policy
	renamed  bool // one policy has another name now
	paused   bool // one policy is not in mode auto
	commands int
	running  sync.WaitGroup // commands
	lurking  []string       // what others will do in the middle of the next rotations
	snapshot bool           // one was taken, and will be restored
}

// replica is one process, through all of its lives.
type replica struct {
	id      int
	life    int
	command bool // a command's process: it is not started again
	crash   float64
	skew    time.Duration
	ttl     time.Duration // of its claims
	wrong   [2]time.Time  // from when to when its wall clock is wrong, and
	days    time.Duration // … by how much
	gate    *gate
	rotator *rotator.Rotator
	clients map[string]*elevenlabs.Client
	stop    context.CancelFunc
	done    chan struct{}
	alive   bool
	loaded  []plan.Policy
	since   map[string]time.Time // when each policy's mode was loaded
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), hits: map[string]int{}, told: map[string]time.Time{}, started: time.Now()}
	w.profile = drawProfile(w.rng)
	w.readers = rand.New(rand.NewPCG(seed, 13))
	w.profile.evidence = drawEvidence(w.readers)
	w.profile.standbys = drawStandbys(seed)
	w.profile.drawBudget(seed)
	if err := w.profile.directed(*direct, seed); err != nil {
		t.Fatal(err)
	}
	w.profile.drawClocks(w.rng)
	w.profile.pounce = seed%3 == 0
	w.sim = elevensim.New(elevensim.Options{AdminKey: adminKey, Seed: seed, HistoryLimit: 1,
		Accounts: []elevensim.Account{{ID: "svcacc_a", Name: "a"}, {ID: "svcacc_b", Name: "b"}}})
	w.api = elevensim.Transport(w.sim)
	byHand := w.moreWorkspaces()
	w.faults()
	w.kv = memkv.New(vaultToken, "secret", teamMount)
	w.addStandbys()
	w.policies = w.drawPolicies()
	w.oracle = newOracle(w)
	w.addAdmin(byHand)
	w.adoptOne()
	for i := range w.profile.replicas {
		r := &replica{id: i, skew: time.Duration(i), ttl: w.profile.ttls[i]} // a nanosecond, so that no two wake up at one instant: their order would be chance
		if w.profile.skew > 0 {
			r.skew += time.Duration(w.rng.Int64N(int64(2*w.profile.skew))) - w.profile.skew
		}
		w.replicas = append(w.replicas, r)
	}
	w.setWrong()
	w.limitByHand()
	w.shareByHand()
	w.billByMonth()
	w.findSecrets()
	return w
}

// faults sets what the workspace is like from the start.
func (w *world) faults() {
	f := elevensim.Faults{ListLag: elevensim.Duration(w.profile.listLag), KeyDelay: elevensim.Duration(w.profile.keyDelay), Shuffle: w.seed%2 == 0,
		DisableLag: elevensim.Duration(w.profile.disableLag)}
	if w.profile.keyLimit > 0 {
		f.KeyLimit = w.profile.keyLimit
		w.hits["start × full account"]++
	}
	if f.IgnoreAllowedIPs = w.profile.ignoreIPs; f.IgnoreAllowedIPs {
		w.hits["start × ignored allowlist"]++
	}
	if w.deviate(&f); w.deviant() {
		w.profile.meddling = slices.DeleteFunc(w.profile.meddling, func(m string) bool { return m == "delete key" }) // nothing proves that it is gone
	}
	for _, sim := range w.sims() {
		if err := sim.SetFaults(f); err != nil {
			w.t.Fatal(err)
		}
	}
}

// adoptOne puts a key that a person made into one policy's record before anything else happens.
func (w *world) adoptOne() {
	if !w.profile.adopt || w.profile.listLag > 0 {
		return // a key that a person made is not so new that listings lack it
	}
	w.hits["start × adopted key"]++
	p := w.policies[1]
	id, secret, err := w.home(p).AddKey(p.ServiceAccount, foreign(p.Settings.Permissions.Names))
	if err != nil {
		w.t.Fatal(err)
	}
	w.oracle.keys[id].account = p.ServiceAccount
	w.oracle.adopt(p, w.oracle.keys[id])
	w.put(p.Sink.String(), func(d map[string]any) { d["api_key"], d["key_id"] = secret, id })
	w.copyToo(w.oracle.keys[id])
}

func (w *world) drawPolicies() []plan.Policy {
	var ps []plan.Policy
	for i, s := range []string{"@every 6h0m1s", "0 */6 * * *", "30 1,7,13,19 * * *"} {
		schedule, err := schedule.Parse(s, "UTC")
		if err != nil {
			w.t.Fatal(err)
		}
		name := fmt.Sprintf("p%d", i)
		settings := elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: []string{"text_to_speech", "user_read"}}}
		if w.profile.ignoreIPs {
			settings.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}
		settings.Optional = managed(i)
		ps = append(ps, plan.Policy{
			Name: name, Workspace: "default", ServiceAccount: []string{"svcacc_a", "svcacc_a", "svcacc_b"}[i], Schedule: schedule,
			Group: []string{"both", "both", ""}[i], WaitUntilIdle: []time.Duration{0, 0, 2 * time.Hour}[i], MaxAge: []time.Duration{0, 0, 30 * time.Hour}[i],
			Splay:      time.Duration(w.rng.IntN(3)) * 5 * time.Minute,
			Overlap:    time.Duration(30+w.rng.IntN(150)) * time.Minute,
			Settings:   settings,
			Quarantine: time.Duration(w.rng.IntN(240)) * time.Minute, Verify: true, OnDrift: plan.DriftPatch, Mode: plan.ModeAuto,
			Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: recordPrefix + name}, Field: "api_key"},
		})
	}
	w.addEvidence(ps)
	if w.profile.team {
		ps[0].Sink.Mount = teamMount
	}
	return ps
}

// boot starts a replica's next life.
func (w *world) boot(r *replica) {
	r.life++
	r.loaded, r.since = nil, map[string]time.Time{}
	r.gate = &gate{w: w, replica: r.id, life: r.life, counts: map[string]uint64{}, listings: newListings()}
	r.alive = true
	rot := w.newRotator(r)
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.done = stop, make(chan struct{})
	done := r.done
	go func() {
		defer close(done)
		_ = rot.Run(ctx) // a late stop is no failure here
	}()
}

func (w *world) newRotator(r *replica) *rotator.Rotator {
	config := vaultapi.DefaultConfig()
	config.Address = "http://" + vaultHost
	store, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New(vaultToken), Transport: r.gate, Timeout: r.patience()})
	if err != nil {
		w.t.Fatal(err)
	}
	var h [32]byte // no two processes draw the same ids
	binary.LittleEndian.PutUint64(h[:], w.seed)
	binary.LittleEndian.PutUint64(h[8:], uint64(r.id))
	binary.LittleEndian.PutUint64(h[16:], uint64(r.life))
	rot, err := rotator.New(rotator.Options{
		Store: store, Ledger: ledger.Ref{Mount: "secret", Path: "rekeyd"}, Logger: w.logger(r), Concurrency: 4,
		ReconcileInterval: reconcile, ResyncInterval: 2 * time.Hour, ClaimTTL: r.ttl, VerifyTimeout: verifyTimeout, ShutdownTimeout: 25 * time.Second,
		Random: rand.NewChaCha8(h), Wall: r.wall, Observe: w.observe,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r.rotator, r.clients = rot, w.newClients(r, store)
	w.load(r)
	return rot
}

// kill ends a life at once: nothing of it reaches the world any more.
func (w *world) kill(g *gate) {
	g.dead = true
	if g.command != nil {
		w.tracef("command %d killed", g.replica)
		g.command.stop()
		return
	}
	r := w.replicas[g.replica]
	if r.gate != g {
		return
	}
	w.tracef("r%d.%d killed", r.id, r.life)
	r.alive = false
	r.stop()
	w.later(time.Second+time.Duration(w.rng.Int64N(int64(10*time.Minute))), func() {
		if !r.alive && !w.oracle.ended {
			w.boot(r)
		}
	})
}

// later does something to the world after a while.
func (w *world) later(d time.Duration, do func()) {
	time.AfterFunc(d, func() { w.locked(do) })
}

func (w *world) locked(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// down says whether the remote of a call does not serve, and how that looks.
func (w *world) down(req *http.Request) string {
	now := time.Now()
	switch {
	case isVault(req) && now.Before(w.vaultEnd):
		return w.vaultBad
	case isVault(req) && now.Before(w.teamEnd) && strings.HasPrefix(req.URL.Path, "/v1/"+teamMount+"/"):
		return w.teamBad
	case !isVault(req) && now.Before(w.apiEnd):
		return w.apiBad
	}
	return ""
}

func (w *world) hit(fault, step string) { w.hits[fault+" × "+step]++ }

func (w *world) tracef(format string, args ...any) {
	w.trace = append(w.trace, event{time.Since(w.started), format, args})
	if len(w.trace) > 40000 {
		w.trace = slices.Clone(w.trace[20000:])
	}
}

// event is a line of the trace. Most are never read, so none is written out before it is.
type event struct {
	at     time.Duration
	format string
	args   []any
}

func (e event) String() string { return e.at.String() + " " + fmt.Sprintf(e.format, e.args...) }

func (w *world) lines() []string {
	lines := make([]string, len(w.trace))
	for i, e := range w.trace {
		lines[i] = e.String()
	}
	return lines
}

// logger keeps what the rotators say in the trace when traces are asked for.
func (w *world) logger(r *replica) *slog.Logger {
	h := w.handler(r)
	if len(w.profile.lags) > 0 {
		h = listener{h, w}
	}
	return slog.New(h)
}

func (w *world) handler(r *replica) slog.Handler {
	if !*verbose {
		return slog.DiscardHandler
	}
	prefix := fmt.Sprintf("r%d.%d", r.id, r.life)
	return slog.NewTextHandler(traceWriter{w, prefix, r.gate}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "replica" {
			return slog.Attr{}
		}
		return a
	}})
}

type traceWriter struct {
	w      *world
	prefix string
	gate   *gate
}

func (t traceWriter) Write(b []byte) (int, error) {
	t.w.locked(func() {
		if !t.gate.dead { // what ends in a process that was killed ends in an order of chance
			t.w.tracef("%s says %s", t.prefix, strings.TrimSpace(string(b)))
		}
	})
	return len(b), nil
}

var _ io.Writer = traceWriter{}

// run plays a seed to its end and returns the world as it then is.
func run(t *testing.T, seed uint64) *world {
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, seed)
		w.locked(func() {
			for _, r := range w.replicas {
				w.boot(r)
			}
		})
		w.locked(w.use)
		w.chaos()
		w.heal()
		w.running.Wait()
		w.locked(w.oracle.conclude)
		for _, r := range w.replicas {
			r.stop()
			<-r.done
		}
	})
	return w
}

// chaos lets the run's faults happen for its duration.
func (w *world) chaos() {
	end := time.Now().Add(w.profile.duration)
	type occasion struct {
		at time.Duration
		do func()
	}
	var events []occasion
	w.mu.Lock()
	at := func() time.Duration { return time.Duration(w.rng.Int64N(int64(w.profile.duration))) }
	for range w.profile.outages {
		events = append(events, occasion{at(), w.outage})
	}
	for _, m := range w.profile.meddling {
		events = append(events, occasion{time.Hour + at()*9/10, func() { w.meddleOrLurk(m) }})
	}
	w.mu.Unlock()
	slices.SortFunc(events, func(a, b occasion) int { return int(a.at - b.at) })
	for _, e := range events {
		sleep(time.Until(w.started.Add(e.at)))
		w.locked(e.do)
	}
	sleep(time.Until(end))
}

func (w *world) outage() {
	d := time.Duration(w.rng.Int64N(int64(90 * time.Minute)))
	end := time.Now().Add(d)
	switch n := w.rng.IntN(3); {
	case n == 0 && w.profile.team:
		w.teamBad, w.teamEnd = []string{"429", "403"}[w.rng.IntN(2)], end
		w.hits["outage × one mount"]++
		w.tracef("mount %s is refused for %s: %s", teamMount, d, w.teamBad)
	case n == 1:
		w.vaultBad, w.vaultEnd = []string{"sealed", "refused", "429", "500 before"}[w.rng.IntN(4)], end
		w.tracef("Vault is down for %s: %s", d, w.vaultBad)
	default:
		w.apiBad, w.apiEnd = []string{"sealed", "refused", "429", "502"}[w.rng.IntN(4)], end
		w.tracef("ElevenLabs is down for %s: %s", d, w.apiBad)
	}
}

// heal ends all faults and gives the replicas time to put everything in order.
func (w *world) heal() {
	w.locked(func() {
		w.tracef("calm from here on")
		w.calm, w.vaultEnd, w.apiEnd, w.teamEnd = true, time.Time{}, time.Time{}, time.Time{}
		w.oracle.calmSince = time.Now()
		if w.profile.team && w.rng.IntN(3) == 0 {
			w.hits["outage × one mount to the end"]++
			w.teamBad, w.teamEnd = "429", time.Now().Add(24*time.Hour)
		}
		w.settleEdits()
		w.wakeUp()
		for _, r := range w.replicas {
			if !r.alive {
				w.boot(r)
			}
		}
	})
	// A frozen replica may sleep on for a while; what a claim covers is settled within a claim TTL and two intervals.
	sleep(longestTTL + 2*reconcile + verifyTimeout + 15*time.Minute)
	w.locked(w.oracle.settled)
	sleep(5 * time.Hour)
	w.locked(func() { w.oracle.ended = true })
}
