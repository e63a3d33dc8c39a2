package rotator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

const (
	adminKey = "sk_admin_0123456789abcdef"
	account  = "svcacc_1"
)

// world is everything around a rotator: a simulated workspace, a file store, and what was told.
type world struct {
	t     *testing.T
	sim   *elevensim.Server
	store ledger.Store
	kept  *memory           // the store, unless the test has another
	keeps bool              // the store keeps versions
	api   http.RoundTripper // to the simulator
	urls  map[string]string // of the workspaces
	last  *process          // that was started
	// Where the workspace default reads its admin key; nil: it has one for ever.
	admin       *ledger.Sink
	adminSource func() string
	logs        *lockedBuffer
	mu          sync.Mutex
	events      []rotator.Event
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// process is what one rotator sees of the world: its calls can be made to fail or to be its last.
type process struct {
	ledger.Store
	api http.RoundTripper

	mu    sync.Mutex
	calls []string
	dead  bool
	fault fault

	held, release chan struct{} // of a call that happens muchLater
}

// fault strikes one call of a process: the n-th whose name has the prefix.
type fault struct {
	call string // "write secret/rekeyd", "POST"
	nth  int
	mode mode
	seen int
	hit  bool
}

type mode string

const (
	notApplied mode = "fails, did not happen"
	applied    mode = "fails, did happen"
	diesBefore mode = "dies right before"
	diesAfter  mode = "dies right after"
	muchLater  mode = "happens much later"
)

// enter names a call and says whether it fails before (instead) or after it was carried out.
func (p *process) enter(call string) (instead, afterwards error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errCut, errCut
	}
	p.calls = append(p.calls, call)
	f := &p.fault
	if f.call == "" || !strings.HasPrefix(call, f.call) {
		return nil, nil
	}
	if f.seen++; f.seen != f.nth {
		return nil, nil
	}
	f.hit = true
	switch f.mode {
	case notApplied:
		return errCut, nil
	case applied:
		return nil, errCut
	case diesBefore:
		p.dead = true
		return errCut, nil
	case muchLater:
		p.mu.Unlock()
		defer p.mu.Lock()
		close(p.held)
		<-p.release
		return nil, nil
	}
	p.dead = true
	return nil, errCut
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// outlives returns a context for a call: one that happens much later is given up by its caller, and carried out all the same.
func (p *process) outlives(ctx context.Context) context.Context {
	if p.held != nil {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// made returns the calls so far.
func (p *process) made() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func lostCall(op string, err error) error {
	return &ledger.Error{Op: op, Reason: ledger.FailureSinkUnreachable, MaybeApplied: true, Err: err}
}

func (p *process) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if instead, _ := p.enter("read " + ref.String()); instead != nil {
		return ledger.Doc{}, lostCall("reading "+ref.String(), instead)
	}
	return p.Store.Read(ctx, ref, version)
}

func (p *process) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	instead, afterwards := p.enter("write " + ref.String())
	if instead != nil {
		return 0, lostCall("writing "+ref.String(), instead)
	}
	v, err := p.Store.Write(p.outlives(ctx), ref, data, cas)
	if afterwards != nil {
		return 0, lostCall("writing "+ref.String(), afterwards)
	}
	return v, err
}

// RoundTrip implements http.RoundTripper for the calls to ElevenLabs.
func (p *process) RoundTrip(req *http.Request) (*http.Response, error) {
	instead, afterwards := p.enter(req.Method + " " + req.URL.Path)
	if instead != nil {
		return nil, instead
	}
	p.mu.Lock()
	api := p.api
	p.mu.Unlock()
	resp, err := api.RoundTrip(req.WithContext(p.outlives(req.Context())))
	if afterwards != nil {
		return nil, afterwards
	}
	return resp, err
}

func newWorld(t *testing.T) *world {
	t.Helper()
	kept := newMemory()
	w := &world{t: t, store: kept, kept: kept, logs: &lockedBuffer{}, urls: map[string]string{"default": "http://127.0.0.1"}}
	w.sim = elevensim.New(elevensim.Options{AdminKey: adminKey, Accounts: []elevensim.Account{{ID: account, Name: "tts"}}, Seed: 1})
	w.api = elevensim.Transport(w.sim)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.logs.String())
		}
		w.noSecrets()
	})
	return w
}

// noSecrets fails the test when any secret was logged.
func (w *world) noSecrets() {
	logged := w.logs.String() + fmt.Sprintf("%+v", w.events)
	secrets := []string{adminKey}
	for _, a := range w.sim.State() {
		for _, k := range a.Keys {
			secrets = append(secrets, k.Secret)
		}
	}
	for _, s := range secrets {
		if strings.Contains(logged, s) {
			w.t.Errorf("a secret was logged: %s…", s[:6])
		}
	}
}

func testPolicy(t testing.TB, change func(*plan.Policy)) plan.Policy {
	t.Helper()
	s, err := schedule.Parse("0 3 * * *", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Policy{
		Name: "tts-prod", Workspace: "default", ServiceAccount: account, Schedule: s,
		Settings: elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: []string{"text_to_speech", "user_read"}}},
		Overlap:  4 * time.Hour, Quarantine: 6 * time.Hour, Verify: true, OnDrift: plan.DriftPatch, Mode: plan.ModeAuto,
		Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "elevenlabs/tts-prod"}, Field: "api_key"},
	}
	if change != nil {
		change(&p)
	}
	return p
}

// betweenResyncs moves a policy's rotation to a minute at which not everything is read again.
func betweenResyncs(t *testing.T) func(*plan.Policy) {
	t.Helper()
	return func(p *plan.Policy) { p.Schedule = mustParse(t, "7 3 * * *") }
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) setFaults(f elevensim.Faults) { w.t.Helper(); w.must(w.sim.SetFaults(f)) }

// forbidding fails so many calls of an operation, or all of them.
func forbidding(operation string, count int) elevensim.Faults {
	return elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: operation, Count: count, Status: 403, Code: "forbidden", Message: "no"}}}
}

// start runs a rotator over the world until stop is called. It must be called in a synctest bubble.
func (w *world) start(policies ...plan.Policy) (r *rotator.Rotator, stop func()) {
	return w.startProcess(&process{}, policies...)
}

// buildProcess returns a rotator that does not run, whose calls go through p.
func (w *world) buildProcess(p *process, policies ...plan.Policy) *rotator.Rotator {
	w.t.Helper()
	p.Store, p.api, w.last = w.store, w.api, p
	clients := w.clients(p)
	r, err := rotator.New(rotator.Options{
		Store: p, KeepsVersions: w.keeps, Ledger: ledger.Ref{Mount: "secret", Path: "rekeyd"},
		Logger:      slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Concurrency: 4, ReconcileInterval: time.Minute, ResyncInterval: 15 * time.Minute, ClaimTTL: 2 * time.Minute,
		VerifyTimeout: 30 * time.Second, ShutdownTimeout: 25 * time.Second,
		Observe: func(e rotator.Event) { w.mu.Lock(); w.events = append(w.events, e); w.mu.Unlock() },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Load(policies, clients)
	return r
}

// startProcess runs a rotator whose calls go through p.
func (w *world) startProcess(p *process, policies ...plan.Policy) (r *rotator.Rotator, stop func()) {
	w.t.Helper()
	r = w.buildProcess(p, policies...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("stopping: %v", err)
		}
	}
}

// clients returns those of the world's workspaces, their calls going through t.
func (w *world) clients(t http.RoundTripper) map[string]*elevenlabs.Client {
	w.t.Helper()
	clients := map[string]*elevenlabs.Client{}
	for name, url := range w.urls {
		cred := elevenlabs.NewCredential(nil)
		cred.Use(time.Minute, w.readAdminKey)
		c, err := elevenlabs.New(elevenlabs.Options{
			BaseURL: url, Transport: t, Timeout: 15 * time.Second, Credential: cred.Get, Reread: cred.Reread,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		clients[name] = c
	}
	return clients
}

func (w *world) readAdminKey(ctx context.Context) (secret.Secret, error) {
	switch {
	case w.adminSource != nil:
		return secret.New(w.adminSource()), nil
	case w.admin == nil:
		return secret.New(adminKey), nil
	}
	doc, err := w.store.Read(ctx, w.admin.Ref, 0)
	if err != nil {
		return secret.Secret{}, err
	}
	key, _ := doc.Fields()[w.admin.Field].(string)
	return secret.New(key), nil
}

// after lets simulated time pass.
func after(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // simulated time: nothing really sleeps
	synctest.Wait()
}

func (w *world) record(p plan.Policy) map[string]any {
	w.t.Helper()
	doc, err := w.store.Read(context.Background(), p.Sink.Ref, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return doc.Fields()
}

// inRecord returns the key whose secret the record holds; the record must hold one that exists.
func (w *world) inRecord(p plan.Policy) elevensim.Key {
	w.t.Helper()
	secret, _ := w.record(p)[p.Sink.Field].(string)
	k, ok := w.sim.KeyBySecret(secret)
	if !ok {
		w.t.Fatalf("the record holds a secret of no key")
	}
	return k
}

// alive returns the keys of the account that are not deleted.
func (w *world) alive() []elevensim.Key {
	var keys []elevensim.Key
	for _, a := range w.sim.State() {
		for _, k := range a.Keys {
			if !k.Deleted() {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

func (w *world) countEvents(kind rotator.EventType) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e.Type == kind {
			n++
		}
	}
	return n
}

var errCut = errors.New("the connection was cut")
