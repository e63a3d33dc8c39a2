// Package daemon wires rekeyd together: it is the application, for cmd/rekeyd, for cmd/demo and for tests.
//
// [Load] reads the configuration, [New] builds everything and starts nothing, [Daemon.Run] works until its context ends.
// A running daemon reloads policies, but not its environment.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/events"
	"github.com/rekeyd/rekeyd/internal/metrics"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// Config configures a [Daemon].
type Config struct {
	Settings
	Log               io.Writer      // of log lines; nil: none
	Warnings          []config.Fault // about the environment, to be logged
	Version, Revision string
	// Hangup triggers a reload with each value; nil: only files and HTTP do.
	Hangup <-chan os.Signal
	// Listener serves HTTP and is closed by Run; nil: Run listens on Env.ListenAddr.
	Listener net.Listener
	// Observe receives every state change, beside the metrics. It must not block or call the Daemon; nil: none.
	Observe func(rotator.Event)
	Wall    func() time.Time // the time of day; nil: time.Now

	transport http.RoundTripper // for tests with both remotes in their process; nil: the network
}

// Daemon is rekeyd, ready to run.
type Daemon struct {
	cfg        Config
	log        *slog.Logger
	redactor   *secret.Redactor
	vault      *sinks.Vault // nil with the file sink
	workspaces *workspaces
	rotator    *rotator.Rotator
	metrics    *metrics.Metrics
	events     *events.Sender // nil without REKEYD_EVENTS_URL
	web        *web.Server

	reloading  sync.Mutex             // for one reload at a time; only reloads wait for it
	digest     string                 // of the policies in force
	lastFailed atomic.Pointer[string] // what the last reload failed with; nil when it did not
}

// New builds a Daemon. It makes no call and starts nothing.
func New(cfg Config) (*Daemon, error) {
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	redactor := new(secret.Redactor)
	log := newLogger(cutter{cfg.Log, redactor}, cfg.Env.LogLevel, cfg.Env.LogFormat)
	d := &Daemon{cfg: cfg, log: log, redactor: redactor, metrics: metrics.New(cfg.Version, cfg.Revision)}
	token, err := cfg.Env.AdminToken.Get(context.Background())
	if err != nil {
		return nil, fmt.Errorf("taking REKEYD_ADMIN_TOKEN: %w", err)
	}
	redactor.Add(token)
	holdProxyCredentials(cfg.Lookuper, redactor)
	store, vault, err := openStore(cfg, d.metrics.Called, redactor, log)
	if err != nil {
		return nil, err
	}
	d.vault = vault
	d.workspaces = &workspaces{env: cfg.Env, agent: "rekeyd/" + cfg.Version, store: store, redactor: redactor, observe: d.metrics.Called, transport: cfg.transport}
	if d.rotator, err = rotator.New(d.rotatorOptions(store)); err != nil {
		return nil, err
	}
	d.metrics.Watch(d.rotator.Snapshot, d.rotator.Skew, vault)
	if cfg.Env.EventsURL != "" {
		secret := &holder{redactor: redactor, source: cfg.Env.EventsSecret}
		d.events = events.New(events.Options{URL: cfg.Env.EventsURL, Secret: secret.get, Owner: d.rotator.Owner, Logger: log,
			Count: func(result string) { d.metrics.Events.WithLabelValues(result).Inc() }})
	}
	d.web = web.New(d.webOptions())
	d.warn(append(cfg.Env.Warnings(), cfg.Warnings...))
	if err := d.apply(cfg.Policies); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Daemon) rotatorOptions(store ledger.Store) rotator.Options {
	env := d.cfg.Env
	return rotator.Options{
		Store: store, KeepsVersions: d.vault != nil, Ledger: env.Ledger(), Logger: d.log,
		Concurrency: env.Concurrency, ReconcileInterval: env.ReconcileInterval, ResyncInterval: env.ResyncInterval,
		ClaimTTL: env.ClaimTTL, VerifyTimeout: env.VerifyTimeout, ShutdownTimeout: env.ShutdownTimeout,
		MaxRotationsPerHour: env.MaxRotationsPerHour, Redactor: d.redactor, Observe: d.observe, Wall: d.cfg.Wall,
	}
}

func (d *Daemon) webOptions() web.Options {
	env := d.cfg.Env
	o := web.Options{
		ConfigFile: env.WebConfigFile, StatusPage: env.StatusPage, AdminToken: env.AdminToken, Pprof: env.Pprof, Version: d.cfg.Version,
		MaxRotationsPerHour: env.MaxRotationsPerHour, ReconcileInterval: env.ReconcileInterval,
		Rotator: d.rotator, Metrics: d.metrics.Handler(), Alive: func() error { return d.alive(time.Now()) }, Ready: d.ready,
		Reload:      func(ctx context.Context) (int, error) { return d.reload(ctx, true) },
		ReloadFault: d.reloadFault, Redactor: d.redactor, Logger: d.log,
	}
	if d.vault != nil {
		o.TokenEnding = d.vault.TokenEnding
	}
	if d.events != nil {
		o.EventLost = d.events.Lost
	}
	return o
}

func (d *Daemon) observe(e rotator.Event) {
	d.metrics.Happened(e)
	if d.events != nil {
		d.events.Send(e)
	}
	if d.cfg.Observe != nil {
		d.cfg.Observe(e)
	}
}

// Run works until ctx ends, then spends at most the shutdown timeout on finishing work in flight; HTTP still answers
// meanwhile. It is called once. The error is nil after an orderly stop; unfinished work is no error, since the next start
// resumes it.
func (d *Daemon) Run(ctx context.Context) error {
	listener, err := d.listen(ctx)
	if err != nil {
		return err
	}
	changes, err := d.watchFolder()
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	lasting, end := context.WithCancel(context.WithoutCancel(ctx)) // the Vault token is needed until the last write
	defer end()
	var helpers sync.WaitGroup
	helpers.Go(func() { d.reloadLoop(ctx, changes) })
	if d.vault != nil {
		helpers.Go(func() { _ = d.vault.Run(lasting) }) // it returns nil
	}
	if d.events != nil {
		helpers.Go(func() { d.events.Run(lasting) })
	}
	helpers.Go(func() {
		if err := d.web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("serving HTTP: %w", err))
		}
	})
	d.log.Info("started", "version", d.cfg.Version, "policies", len(d.cfg.Policies.Policies), "sink", d.cfg.Env.Sink, "address", listener.Addr().String())
	d.cfg.Policies.Policies = nil // the rotator has them
	if err := d.rotator.Run(ctx); err != nil {
		d.log.Warn("stopped with work in flight", "err", err)
	}
	end()
	d.web.Shutdown()
	helpers.Wait()
	d.flush(ctx)
	d.log.Info("stopped")
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// flushFor bounds how long an ending process still sends events.
const flushFor = 5 * time.Second

// flush sends the queued events.
func (d *Daemon) flush(ctx context.Context) {
	if d.events == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushFor)
	defer cancel()
	d.events.Flush(ctx)
}

func (d *Daemon) listen(ctx context.Context) (net.Listener, error) {
	if d.cfg.Listener != nil {
		return d.cfg.Listener, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", d.cfg.Env.ListenAddr)
	if err != nil {
		return nil, fmt.Errorf("listening on REKEYD_LISTEN_ADDR: %w", err)
	}
	return l, nil
}
