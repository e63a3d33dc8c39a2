package rotator_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// TestAnyStateCostsABoundedNumberOfCalls puts policies into arbitrary states of entry, record and listing, has the remotes
// give each of them the same answers for ever, and counts its calls for ten hours, in every fourth world for a day (SPEC 9.11).
// Under the race detector, which makes this ten times as slow, it plays every sixth world; make test plays them all without.
func TestAnyStateCostsABoundedNumberOfCalls(t *testing.T) {
	long(t)
	for seed := range uint64(boundedWorlds) {
		if raceDetector && seed%6 != 1 {
			continue
		}
		t.Run(fmt.Sprintf("world %d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newMaze(t, seed).run() })
		})
	}
}

const (
	boundedWorlds   = 60
	boundedPolicies = 10
	// What work that succeeds may cost: a rotation, and the leaving of a key.
	callsOfSuccess = 24
)

// answers is what the remotes say to one policy, always: by operation, "" is that they serve.
type answers map[string]string

// hours is how long a world is watched. Waits grow to an hour within six, and the latest schedule that is due by then is at 06:00.
func (m *maze) hours() int {
	if m.seed%4 == 0 {
		return 24
	}
	return 10
}

// maze is a world of policies in arbitrary states.
type maze struct {
	*world
	rnd      *rand.Rand
	seed     uint64
	docs     map[ledger.Ref]ledger.Doc
	policies []plan.Policy
	answers  map[string]answers // by policy

	mu      sync.Mutex
	calls   map[string][]time.Time // by policy
	success map[string][]time.Time
	probes  int // of a store that does not serve, which are no policy's
}

func newMaze(t *testing.T, seed uint64) *maze {
	w := newWorld(t)
	m := &maze{world: w, rnd: rand.New(rand.NewPCG(seed, 1)), seed: seed, docs: map[ledger.Ref]ledger.Doc{}, answers: map[string]answers{},
		calls: map[string][]time.Time{}, success: map[string][]time.Time{}}
	var accounts []elevensim.Account
	for i := range boundedPolicies {
		accounts = append(accounts, elevensim.Account{ID: fmt.Sprintf("svcacc_%02d", i), Name: "a"})
	}
	w.sim = elevensim.New(elevensim.Options{AdminKey: adminKey, Accounts: accounts, Seed: seed})
	w.api = elevensim.Transport(w.sim)
	m.docs[ledger.Ref{Mount: "secret", Path: "rekeyd/owner"}] = m.doc(map[string]any{"owner": "abcdefgh"}, 1)
	for i := range boundedPolicies {
		m.addPolicy(i)
	}
	return m
}

func (m *maze) chance(percent int) bool { return m.rnd.IntN(100) < percent }

func pick[T any](m *maze, of ...T) T { return of[m.rnd.IntN(len(of))] }

func (m *maze) doc(v any, version int) ledger.Doc {
	text, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return ledger.Doc{JSON: text, Version: version}
}

// at is a time around now, sometimes of a clock that was wrong by months.
func (m *maze) at() time.Time {
	d := time.Duration(m.rnd.Int64N(int64(4*24*time.Hour))) - 3*24*time.Hour
	if m.chance(8) {
		d = time.Duration(m.rnd.IntN(400)) * 24 * time.Hour
	}
	return time.Now().Add(d).UTC()
}

func (m *maze) addPolicy(i int) {
	name := fmt.Sprintf("p%02d", i)
	p := testPolicy(m.t, func(p *plan.Policy) {
		p.Name, p.ServiceAccount, p.Sink.Path = name, fmt.Sprintf("svcacc_%02d", i), "elevenlabs/"+name
		p.Schedule, _ = schedule.Parse(pick(m, "0 3 * * *", "@every 6h", "0 0 1 1 *"), "UTC")
		p.Mode = pick(m, plan.ModeAuto, plan.ModeAuto, plan.ModeAuto, plan.ModeManual, plan.ModePaused)
		p.OnDrift = pick(m, plan.DriftPatch, plan.DriftRotate, plan.DriftReport)
		p.Verify = m.chance(70)
		if m.chance(20) {
			p.Group = "g"
		}
		if m.chance(20) {
			p.MaxAge = 100 * time.Hour
		}
		if m.chance(20) {
			p.WaitUntilIdle = 3 * time.Hour
		}
		if m.chance(20) {
			p.Window = time.Hour
		}
	})
	var keys []elevensim.Key
	for n := range m.rnd.IntN(5) {
		rotation := fmt.Sprintf("rotation%02d", n)
		keyName := pick(m, "rekeyd.abcdefgh."+name+"."+rotation, "rekeyd.abcdefgh."+name+"."+rotation, "by hand", "rekeyd.otherone."+name+"."+rotation)
		_, secret, err := m.sim.AddKey(p.ServiceAccount, elevensim.KeySpec{Name: keyName, Permissions: []string{"text_to_speech", "user_read"}})
		if err != nil {
			m.t.Fatal(err)
		}
		k, _ := m.sim.KeyBySecret(secret)
		if m.chance(30) {
			_ = m.sim.DisableKey(k.ID, pick(m, "", "", "exposed_publicly", "self_disabled", "trial_ended", "odd"))
		}
		keys = append(keys, k)
	}
	if m.chance(10) && len(keys) > 0 {
		p.Adopt = keys[0].ID
	}
	m.policies = append(m.policies, p)
	e := m.entry(p, keys)
	if m.chance(90) {
		m.docs[ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + name}] = m.doc(e, 1+m.rnd.IntN(5))
	}
	m.record(p, keys)
	m.answers[name] = answers{}
	for _, op := range []string{"entry read", "entry write", "record read", "record write", "check", "create", "update", "delete", "keys", "verify"} {
		if m.chance(25) {
			m.answers[name][op] = pick(m, "conflict", "403", "404", "429", "500", "timeout")
		}
	}
}

const mazeSalt = "0123456789abcdef"

func mazeHash(secret string) string {
	sum := sha256.Sum256([]byte(mazeSalt + "\x00" + secret))
	return hex.EncodeToString(sum[:])
}

func (m *maze) ref(p plan.Policy, keys []elevensim.Key) ledger.KeyRef {
	ref := ledger.KeyRef{ID: "gone0000000000000000000000000000", Name: "rekeyd.abcdefgh." + p.Name + ".rotationxx", Rotation: "rotationxx"}
	if len(keys) > 0 && m.chance(85) {
		k := pick(m, keys...)
		ref = ledger.KeyRef{ID: k.ID, Name: k.Name, Hash: mazeHash(k.Secret)}
		if parts := strings.Split(k.Name, "."); len(parts) == 4 {
			ref.Rotation = parts[3]
		}
	}
	ref.Workspace, ref.Account, ref.Sink = "default", p.ServiceAccount, p.Sink
	ref.Created, ref.Published, ref.Verified = m.at(), m.at(), m.chance(70)
	if m.chance(10) {
		ref.Sink.Path += "-old"
	}
	if m.chance(10) {
		ref.Hash = ""
	}
	return ref
}

func (m *maze) entry(p plan.Policy, keys []elevensim.Key) *ledger.Entry {
	e := &ledger.Entry{Schema: 1, Owner: "abcdefgh", Policy: p.Name, Salt: mazeSalt}
	if m.chance(75) {
		ref := m.ref(p, keys)
		e.Current, e.LastRotation = &ref, m.at()
	}
	for range m.rnd.IntN(4) {
		r := ledger.Retiring{KeyRef: m.ref(p, keys), State: pick(m, ledger.InOverlap, ledger.InQuarantine), Until: m.at(), Quarantine: ledger.Duration(6 * time.Hour),
			Reason: pick(m, ledger.TriggerSchedule, ledger.TriggerRevoke, ledger.TriggerExposed)}
		if m.chance(20) {
			r.Tries, r.NextTry = 3, m.at()
		}
		e.Retiring = append(e.Retiring, r)
	}
	if m.chance(25) {
		e.Claim = &ledger.Claim{Holder: "somebodyelse", Nonce: 1, Since: m.at()}
		if m.chance(70) {
			e.Intent = &ledger.Intent{Rotation: "rotation00", KeyName: "rekeyd.abcdefgh." + p.Name + ".rotation00", Workspace: "default", Account: p.ServiceAccount,
				Sink: p.Sink, Reason: pick(m, ledger.TriggerSchedule, ledger.TriggerFirst, ledger.TriggerExposed), Started: m.at()}
			if m.chance(20) && len(e.Retiring) > 0 {
				e.Intent.Rollback, e.Intent.Rotation, e.Intent.KeyName = true, e.Retiring[0].Rotation, e.Retiring[0].Name
			}
		}
	}
	if m.chance(25) {
		e.Abandoned = append(e.Abandoned, ledger.Abandoned{Rotation: "rotation01", KeyName: "rekeyd.abcdefgh." + p.Name + ".rotation01", Workspace: "default", Account: p.ServiceAccount, Since: m.at()})
	}
	if m.chance(15) {
		e.Failure = &ledger.LastFailure{Stage: ledger.StageCreate, Reason: ledger.FailureForbidden, At: m.at(), Count: 1 + m.rnd.IntN(9), NextTry: m.at()}
	}
	if m.chance(30) {
		e.Applied = &ledger.Applied{Digest: pick(m, p.Settings.Digest(), "other"), At: m.at()}
	}
	if m.chance(4) {
		e.MovedTo = "elsewhere"
	}
	if m.chance(4) {
		e.Owner = "notourss"
	}
	for range m.rnd.IntN(3) {
		e.Leaks = append(e.Leaks, m.at())
	}
	return e
}

func (m *maze) record(p plan.Policy, keys []elevensim.Key) {
	fields := map[string]any{"note": "of others"}
	switch m.rnd.IntN(6) {
	case 0:
		return
	case 1:
		fields["api_key"] = "sk_by_hand_0123456789"
	case 2:
		if m.chance(50) {
			fields["policy"] = "formername"
			fields["api_key"] = "sk_by_hand_0123456789"
		}
	default:
		if len(keys) == 0 {
			return
		}
		k := pick(m, keys...)
		fields["api_key"], fields["key_name"], fields["policy"] = k.Secret, k.Name, p.Name
		fields["rotated_at"] = m.at().Format(time.RFC3339)
		if m.chance(80) {
			fields["key_id"] = k.ID
		}
	}
	m.docs[p.Sink.Ref] = m.doc(fields, 1+m.rnd.IntN(5))
}

// policyAt names the policy that a document belongs to.
func policyAt(ref ledger.Ref) (policy, kind string) {
	if name, ok := strings.CutPrefix(ref.Path, "rekeyd/policies/"); ok {
		return name, "entry"
	}
	if name, ok := strings.CutPrefix(ref.Path, "elevenlabs/"); ok {
		return strings.TrimSuffix(name, "-old"), "record"
	}
	return "", ""
}

// spend counts a call, and ends what loops.
func (m *maze) spend(ctx context.Context, policy string, d time.Duration) {
	m.mu.Lock()
	by := rotator.CountedFor(ctx)
	if by != "" {
		m.calls[by] = append(m.calls[by], time.Now())
	} else if policy != "" {
		m.probes++
	}
	if len(m.calls[by]) > 5000 {
		d = time.Hour
	}
	m.mu.Unlock()
	time.Sleep(d) //nolint:forbidigo // simulated time
}

func (m *maze) refusal(answer, op string) error {
	e := &ledger.Error{Op: op, Reason: ledger.FailureSinkError, Err: errors.New("no")}
	switch answer {
	case "":
		return nil
	case "conflict":
		return ledger.ErrConflict
	case "403", "404":
		e.Reason = ledger.FailureSinkDenied
	case "429":
		e.Reason, e.Outage = ledger.FailureSinkRateLimited, true
	case "500":
		e.MaybeApplied = true
	case "timeout":
		time.Sleep(10 * time.Second) //nolint:forbidigo // simulated time
		e.Reason, e.Outage, e.MaybeApplied = ledger.FailureSinkTimeout, true, true
	}
	return e
}

func (m *maze) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	policy, kind := policyAt(ref)
	m.spend(ctx, policy, 5*time.Millisecond)
	if a := m.answers[policy][kind+" read"]; a != "conflict" {
		if err := m.refusal(a, "reading "+ref.String()); err != nil {
			return ledger.Doc{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	doc := m.docs[ref]
	if version != 0 && version != doc.Version {
		return ledger.Doc{Version: version}, nil
	}
	return doc, nil
}

func (m *maze) Lags(context.Context) bool { return false }

func (m *maze) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	policy, kind := policyAt(ref)
	m.spend(ctx, policy, 5*time.Millisecond)
	if err := m.refusal(m.answers[policy][kind+" write"], "writing "+ref.String()); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.docs[ref].Version != cas {
		return 0, ledger.ErrConflict
	}
	m.docs[ref] = m.doc(data, cas+1)
	return cas + 1, nil
}

func (m *maze) List(context.Context, ledger.Ref) ([]string, error) { return nil, nil }

func (m *maze) Check(ctx context.Context, refs ...ledger.Ref) error {
	policy, _ := policyAt(refs[0])
	if a := m.answers[policy]["check"]; a != "conflict" && a != "" {
		m.spend(ctx, policy, 5*time.Millisecond)
		return m.refusal(a, "checking")
	}
	return nil
}

// RoundTrip is ElevenLabs. What lists the whole workspace is nobody's call.
func (m *maze) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path == "/v1/service-accounts" {
		return m.api.RoundTrip(r)
	}
	op, policy := map[string]string{"POST": "create", "PATCH": "update", "DELETE": "delete", "GET": "keys"}[r.Method], ""
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v1/service-accounts/svcacc_"); ok {
		policy = "p" + rest[:2]
	} else {
		op = "verify"
		if k, ok := m.sim.KeyBySecret(r.Header.Get("xi-api-key")); ok {
			policy = "p" + strings.TrimPrefix(k.Account, "svcacc_")
		}
	}
	m.spend(r.Context(), policy, 20*time.Millisecond)
	status := 0
	switch a := m.answers[policy][op]; a {
	case "", "conflict":
		return m.api.RoundTrip(r)
	case "timeout":
		<-r.Context().Done()
		return nil, r.Context().Err()
	default:
		_, _ = fmt.Sscan(a, &status)
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"detail":{"status":"no","message":"no"}}`)), Request: r}, nil
}

func (m *maze) run() {
	r, err := rotator.New(rotator.Options{
		Store: m, Ledger: ledger.Ref{Mount: "secret", Path: "rekeyd"}, Logger: slog.New(slog.DiscardHandler), Concurrency: 8, ReconcileInterval: time.Minute,
		ResyncInterval: 15 * time.Minute, ClaimTTL: 2 * time.Minute, VerifyTimeout: 30 * time.Second, ShutdownTimeout: 25 * time.Second,
		Observe: m.happened, MaxRotationsPerHour: pick(m, 0, 100, 3),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	cred := elevenlabs.NewCredential(nil)
	cred.Use(time.Hour, m.readAdminKey)
	c, err := elevenlabs.New(elevenlabs.Options{BaseURL: "http://127.0.0.1", Transport: m, Credential: cred.Get, Reread: cred.Reread})
	if err != nil {
		m.t.Fatal(err)
	}
	r.Load(m.policies, map[string]*elevenlabs.Client{"default": c})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	after(time.Minute)
	for _, p := range m.policies {
		if m.chance(15) {
			_ = r.Request(p.Name, rotator.RotateOptions{Revoke: m.chance(50)}) // refused where it is paused
		}
	}
	after(time.Duration(m.hours()) * time.Hour)
	snapshot := r.Snapshot()
	cancel()
	if err := <-done; err != nil {
		m.t.Log(err) // a late stop is no failure here
	}
	for i, p := range m.policies {
		m.check(p, snapshot.Policies[i])
	}
	if most := 2 * m.hours() * 60; m.probes > most { // of the mount and of the server, once per reconcile interval
		m.t.Errorf("seed %d: %d probes of the store, at most %d are expected", m.seed, m.probes, most)
	}
}

func (m *maze) happened(e rotator.Event) {
	switch e.Type {
	case rotator.EventRotated, rotator.EventRetired, rotator.EventLostDeleted, rotator.EventKeyDisabled:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.success[e.Policy] = append(m.success[e.Policy], time.Now())
	}
}

// check wants no hour with more calls than there may be, work that succeeded in it and around it aside.
func (m *maze) check(p plan.Policy, s rotator.PolicyStatus) {
	calls := m.calls[p.Name]
	worst, at := 0, time.Time{}
	for i, from := range calls {
		n := 0
		for _, c := range calls[i:] {
			if c.Sub(from) >= time.Hour {
				break
			}
			n++
		}
		for _, done := range m.success[p.Name] {
			if d := done.Sub(from); d > -time.Minute && d < time.Hour+time.Minute {
				n -= callsOfSuccess
			}
		}
		if n > worst {
			worst, at = n, from
		}
	}
	const most = 60
	if worst > most {
		entry := m.docs[ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + p.Name}]
		m.t.Errorf("seed %d: %s made %d calls in the hour from %s (%d in all, %d successes); answers %v; it is %s %s %s, steps %v\n%s",
			m.seed, p.Name, worst, at.Format("15:04:05"), len(calls), len(m.success[p.Name]), m.answers[p.Name], s.State, s.Reason, s.Message, s.Steps, entry.JSON)
	}
}
