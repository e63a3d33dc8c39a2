package web

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/localtest"
	"github.com/rekeyd/rekeyd/internal/metrics"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/sinks"
)

const (
	adminKey   = localtest.AdminKey
	adminToken = localtest.AdminToken
)

type world struct {
	*localtest.World
	t testing.TB
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return &world{localtest.New(t), t}
}

func policies(names ...string) string { return localtest.Policies(names...) }

// served is a server, and what the daemon would run beside it.
type served struct {
	*Server
	rotator  *rotator.Rotator
	env      config.Env
	listener net.Listener
}

// build wires a server to a rotator, as the daemon does.
func (w *world) build(change map[string]string) *served {
	w.t.Helper()
	lookuper := w.Env(change)
	env, err := config.LoadEnv(lookuper)
	w.Must(err)
	redactor, log := new(secret.Redactor), slog.New(slog.NewJSONHandler(&w.Log, nil))
	store, err := sinks.NewFile(env.FileDir)
	w.Must(err)
	credential := elevenlabs.NewCredential(redactor)
	credential.Use(time.Hour, func(context.Context) (secret.Secret, error) { return secret.New(adminKey), nil })
	client, err := elevenlabs.New(elevenlabs.Options{
		BaseURL: w.URL, Credential: credential.Get, Timeout: env.APITimeout, Rate: env.APIRate, MaxConns: env.Concurrency, Redactor: redactor,
	})
	w.Must(err)
	r, err := rotator.New(rotator.Options{
		Store: store, Ledger: env.Ledger(), Logger: log, Concurrency: env.Concurrency, ReconcileInterval: env.ReconcileInterval,
		ResyncInterval: env.ResyncInterval, ClaimTTL: env.ClaimTTL, VerifyTimeout: env.VerifyTimeout, ShutdownTimeout: env.ShutdownTimeout,
		Redactor: redactor,
	})
	w.Must(err)
	reload := func(ctx context.Context) (int, error) {
		c, err := config.LoadPolicies(ctx, env.Source(), env, lookuper)
		if err != nil {
			return 0, err
		}
		r.Load(c.Policies, map[string]*elevenlabs.Client{"default": client})
		return len(c.Policies), nil
	}
	_, err = reload(w.t.Context())
	w.Must(err)
	m := metrics.New("v0", "abc")
	m.Watch(r.Snapshot, r.Skew, nil)
	return &served{rotator: r, env: env, listener: w.Listen(), Server: New(Options{
		ConfigFile: env.WebConfigFile, StatusPage: env.StatusPage, AdminToken: env.AdminToken, Pprof: env.Pprof, Version: "v0", Rotator: r, Metrics: m.Handler(),
		Alive: func() error { return nil }, Ready: func(context.Context) error { return r.Ready() },
		Reload: reload, ReloadFault: func() string { return "" }, Redactor: redactor, Logger: log,
	})}
}

// run rotates and serves until stop, which returns what Serve did unless it was shut down.
func (w *world) run(s *served) (url string, stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	rotated, done := make(chan error, 1), make(chan error, 1)
	go func() { rotated <- s.rotator.Run(ctx) }()
	go func() { done <- s.Serve(s.listener) }()
	stop = sync.OnceValue(func() error {
		cancel()
		err := <-rotated
		s.Shutdown()
		if e := <-done; !errors.Is(e, http.ErrServerClosed) {
			return e
		}
		return err
	})
	w.t.Cleanup(func() { _ = stop() })
	return "http://" + s.listener.Addr().String(), stop
}

// up waits until the server answers.
func up(t *testing.T, url string) {
	t.Helper()
	eventually(t, "served", func() bool { status, _, _ := ask(t, url+"/healthz", ""); return status != 0 })
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	localtest.Eventually(t, what, f)
}

func client() *http.Client { return localtest.Client() }

func ask(t testing.TB, url, authorization string) (int, string, http.Header) {
	t.Helper()
	return localtest.Ask(t, http.MethodGet, url, authorization)
}
