package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/metrics"
	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/sinks"
)

const (
	adminKey   = "sk_admin_of_a_test"
	adminToken = "admin-token-of-a-test"
)

// world is a simulator, a file sink and a policy file.
type world struct {
	t          testing.TB
	sim        *elevensim.Server
	url        string
	dir        string
	policyFile string
	log        process.Output
}

func newWorld(t testing.TB) *world {
	t.Helper()
	sim := elevensim.New(elevensim.Options{AdminKey: adminKey, Accounts: []elevensim.Account{{ID: "svcacc_a", Name: "A"}}})
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	w := &world{t: t, sim: sim, url: server.URL, dir: dir, policyFile: filepath.Join(dir, "policies.yaml")}
	w.write(w.policyFile, policies("tts-prod"))
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(path, text string) {
	w.t.Helper()
	w.must(os.WriteFile(path, []byte(text), 0o600))
}

func policies(names ...string) string {
	var text strings.Builder
	text.WriteString("policies:\n")
	for _, name := range names {
		fmt.Fprintf(&text, "  - {name: %s, service_account: svcacc_a, schedule: '@every 1h', permissions: all, max_age: 30h, sink: {path: app/%s}}\n", name, name)
	}
	return text.String()
}

func manyPolicies(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("policy-%d", i)
	}
	return policies(names...)
}

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
	variables := map[string]string{
		"REKEYD_POLICY_FILE": w.policyFile, "REKEYD_SINK": "file", "REKEYD_FILE_DIR": filepath.Join(w.dir, "data"), "REKEYD_API_RATE": "1000",
		"REKEYD_RECONCILE_INTERVAL": "100ms", "REKEYD_LISTEN_ADDR": "127.0.0.1:0", "ELEVENLABS_API_KEY": adminKey, "REKEYD_ADMIN_TOKEN": adminToken,
		"REKEYD_SHUTDOWN_TIMEOUT": "10s",
	}
	maps.Copy(variables, change)
	lookuper := envconfig.MapLookuper(variables)
	env, err := config.LoadEnv(lookuper)
	w.must(err)
	redactor, log := new(secret.Redactor), slog.New(slog.NewJSONHandler(&w.log, nil))
	store, err := sinks.NewFile(env.FileDir)
	w.must(err)
	credential := elevenlabs.NewCredential(redactor)
	credential.Use(time.Hour, func(context.Context) (secret.Secret, error) { return secret.New(adminKey), nil })
	client, err := elevenlabs.New(elevenlabs.Options{
		BaseURL: w.url, Credential: credential.Get, Timeout: env.APITimeout, Rate: env.APIRate, MaxConns: env.Concurrency, Redactor: redactor,
	})
	w.must(err)
	r, err := rotator.New(rotator.Options{
		Store: store, Ledger: env.Ledger(), Logger: log, Concurrency: env.Concurrency, ReconcileInterval: env.ReconcileInterval,
		ResyncInterval: env.ResyncInterval, ClaimTTL: env.ClaimTTL, VerifyTimeout: env.VerifyTimeout, ShutdownTimeout: env.ShutdownTimeout,
		Redactor: redactor,
	})
	w.must(err)
	reload := func(ctx context.Context) (int, error) {
		c, err := config.LoadPolicies(ctx, env.Source(), env, lookuper)
		if err != nil {
			return 0, err
		}
		r.Load(c.Policies, map[string]*elevenlabs.Client{"default": client})
		return len(c.Policies), nil
	}
	_, err = reload(w.t.Context())
	w.must(err)
	m := metrics.New("v0", "abc")
	m.Watch(r.Snapshot, nil)
	l, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	w.must(err)
	w.t.Cleanup(func() { _ = l.Close() })
	return &served{rotator: r, env: env, listener: l, Server: New(Options{
		ConfigFile: env.WebConfigFile, StatusPage: env.StatusPage, AdminToken: env.AdminToken, Version: "v0", Rotator: r, Metrics: m.Handler(),
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
	process.Eventually(t, 20*time.Second, func() error {
		if !f() {
			return errors.New(what)
		}
		return nil
	})
}

func client() *http.Client { return &http.Client{Timeout: 20 * time.Second} }

func ask(t testing.TB, url, authorization string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := client().Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}
