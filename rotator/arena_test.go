package rotator_test

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/sinks"
)

// arena is a world whose store is the in-memory Vault behind the real client.
type arena struct {
	*world
	kv *memkv.Server
}

func newArena(t *testing.T) *arena {
	t.Helper()
	w := newWorld(t)
	a := &arena{world: w, kv: memkv.New("hvs.tok", "secret")}
	config := vaultapi.DefaultConfig()
	config.Address = "http://vault.invalid"
	store, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.tok"), Transport: a.kv})
	if err != nil {
		t.Fatal(err)
	}
	w.store, w.keeps = store, true
	return a
}

// holding keeps the first call that matches back until it is released, then carries it out, whatever its context says: as
// if the process had stood still right before it sent it.
type holding struct {
	next    http.RoundTripper
	match   func(*http.Request) bool
	held    chan struct{} // closed when the call is there
	release chan struct{} // to be closed by the test

	mu    sync.Mutex
	armed bool
}

// hold returns a holding that is armed from the start.
func hold(next http.RoundTripper, match func(*http.Request) bool) *holding {
	return &holding{next: next, match: match, armed: true, held: make(chan struct{}), release: make(chan struct{})}
}

// holdLater returns a holding that lets everything pass until it is armed.
func holdLater(next http.RoundTripper, match func(*http.Request) bool) *holding {
	h := hold(next, match)
	h.armed = false
	return h
}

func (h *holding) arm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed = true
}

func (h *holding) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	hit := h.armed && h.match(r)
	if hit {
		h.armed = false
	}
	h.mu.Unlock()
	if hit {
		close(h.held)
		<-h.release
		r = r.Clone(context.WithoutCancel(r.Context()))
	}
	return h.next.RoundTrip(r)
}

// method matches requests by their method.
func method(m string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == m }
}

// options is how a process of the test differs from the others; the zero value is an ordinary one.
type options struct {
	claimTTL time.Duration
	wall     func() time.Time
	rate     float64
	api      http.RoundTripper
	max      int
}

// build returns a rotator over the world that does not run, as a command's.
func (w *world) build(o options, policies ...plan.Policy) *rotator.Rotator {
	w.t.Helper()
	if o.claimTTL == 0 {
		o.claimTTL = 2 * time.Minute
	}
	if o.api == nil {
		o.api = w.api
	}
	clients := map[string]*elevenlabs.Client{}
	for name, url := range w.urls {
		cred := elevenlabs.NewCredential(nil)
		cred.Use(time.Minute, w.readAdminKey)
		c, err := elevenlabs.New(elevenlabs.Options{BaseURL: url, Transport: o.api, Timeout: 15 * time.Second, Credential: cred.Get, Reread: cred.Reread, Rate: o.rate})
		if err != nil {
			w.t.Fatal(err)
		}
		clients[name] = c
	}
	r, err := rotator.New(rotator.Options{
		Store: w.store, KeepsVersions: w.keeps, Ledger: ledger.Ref{Mount: "secret", Path: "rekeyd"},
		Logger:      slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Concurrency: 8, ReconcileInterval: time.Minute, ResyncInterval: 15 * time.Minute, ClaimTTL: o.claimTTL,
		VerifyTimeout: 30 * time.Second, ShutdownTimeout: 25 * time.Second, Wall: o.wall, MaxRotationsPerHour: o.max,
		Observe: func(e rotator.Event) { w.mu.Lock(); w.events = append(w.events, e); w.mu.Unlock() },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Load(policies, clients)
	return r
}

// daemon runs a rotator over the world until stop is called.
func (w *world) daemon(o options, policies ...plan.Policy) (r *rotator.Rotator, stop func()) {
	r = w.build(o, policies...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	return r, func() { cancel(); _ = <-done } //nolint:staticcheck // a late stop is no failure here
}

// key returns the key with this secret.
func (w *world) key(secret string) elevensim.Key { k, _ := w.sim.KeyBySecret(secret); return k }

// recordHolds returns the key whose secret the record holds, if there is one.
func (w *world) recordHolds(p plan.Policy) (elevensim.Key, bool) {
	secret, _ := w.record(p)[p.Sink.Field].(string)
	return w.sim.KeyBySecret(secret)
}

// mustWork fails the test where readers of the policy's record find a secret that does not work.
func (w *world) mustWork(p plan.Policy, when string) {
	w.t.Helper()
	k, known := w.recordHolds(p)
	if !known || k.Disabled || k.Deleted() {
		w.t.Errorf("a reader is broken %s: %s holds key %s (%s): known %t disabled %t deleted %t", when, p.Sink, k.ID, k.Name, known, k.Disabled, k.Deleted())
	}
}

// state returns how the i-th policy by name stands.
func (w *world) state(r *rotator.Rotator, i int) rotator.PolicyStatus {
	return r.Snapshot().Policies[i]
}
