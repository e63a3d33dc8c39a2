package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
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

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
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

func (w *world) write(path, text string) {
	w.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func policies(names ...string) string {
	var text strings.Builder
	text.WriteString("policies:\n")
	for _, name := range names {
		fmt.Fprintf(&text, "  - {name: %s, service_account: svcacc_a, schedule: '@every 1h', permissions: all, max_age: 30h, sink: {path: app/%s}}\n", name, name)
	}
	return text.String()
}

func (w *world) env(change map[string]string) envconfig.Lookuper {
	env := map[string]string{
		"REKEYD_POLICY_FILE": w.policyFile, "REKEYD_SINK": "file", "REKEYD_FILE_DIR": filepath.Join(w.dir, "data"),
		"REKEYD_LISTEN_ADDR": "127.0.0.1:0", "REKEYD_RECONCILE_INTERVAL": "100ms", "REKEYD_API_RATE": "1000", "REKEYD_LOG_LEVEL": "debug",
		"REKEYD_SHUTDOWN_TIMEOUT": "10s", "ELEVENLABS_API_KEY": adminKey, "ELEVENLABS_BASE_URL": w.url, "REKEYD_ADMIN_TOKEN": adminToken,
	}
	maps.Copy(env, change)
	return envconfig.MapLookuper(env)
}

func (w *world) build(change map[string]string, hangup <-chan os.Signal) *Daemon {
	w.t.Helper()
	s, err := Load(w.env(change))
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = l.Close() })
	d, err := New(Config{Settings: s, Log: &w.log, Version: "v0", Revision: "abc", Hangup: hangup, Listener: l})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// run runs the daemon until stop, which returns what Run did.
func (w *world) run(d *Daemon) (url string, stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	w.t.Cleanup(func() { _ = stop() })
	return "http://" + d.cfg.Listener.Addr().String(), stop
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

func ask(t testing.TB, method, url, authorization string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := client().Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
