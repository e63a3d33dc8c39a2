// Package localtest is what tests of a daemon or server within their own process need: a simulated ElevenLabs, a policy file
// and a folder for the file sink.
package localtest

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
	"testing"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// The credentials of a World.
const (
	AdminKey   = "sk_admin_of_a_test"
	AdminToken = "admin-token-of-a-test"
)

// World is a simulator, a file sink and a policy file.
type World struct {
	Sim             *elevensim.Server
	URL             string // of the simulator
	Dir, PolicyFile string
	Log             process.Output

	t testing.TB
}

// New starts a world with the account svcacc_a and the policy tts-prod.
func New(t testing.TB) *World {
	t.Helper()
	sim := elevensim.New(elevensim.Options{AdminKey: AdminKey, Accounts: []elevensim.Account{{ID: "svcacc_a", Name: "A"}}})
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	w := &World{Sim: sim, URL: server.URL, Dir: dir, PolicyFile: filepath.Join(dir, "policies.yaml"), t: t}
	w.Write(w.PolicyFile, Policies("tts-prod"))
	return w
}

// Must fails the test on an error.
func (w *World) Must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Write writes a file.
func (w *World) Write(path, text string) {
	w.t.Helper()
	w.Must(os.WriteFile(path, []byte(text), 0o600))
}

// Env is a daemon's environment, with changes.
func (w *World) Env(change map[string]string) envconfig.Lookuper {
	env := map[string]string{
		"REKEYD_POLICY_FILE": w.PolicyFile, "REKEYD_SINK": "file", "REKEYD_FILE_DIR": filepath.Join(w.Dir, "data"),
		"REKEYD_LISTEN_ADDR": "127.0.0.1:0", "REKEYD_RECONCILE_INTERVAL": "100ms", "REKEYD_API_RATE": "1000", "REKEYD_LOG_LEVEL": "debug",
		"REKEYD_SHUTDOWN_TIMEOUT": "10s", "ELEVENLABS_API_KEY": AdminKey, "ELEVENLABS_BASE_URL": w.URL, "REKEYD_ADMIN_TOKEN": AdminToken,
	}
	maps.Copy(env, change)
	return envconfig.MapLookuper(env)
}

// Listen listens on a free port of loopback, until the test ends.
func (w *World) Listen() net.Listener {
	w.t.Helper()
	l, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	w.Must(err)
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

// Policies is a policy file.
func Policies(names ...string) string {
	var text strings.Builder
	text.WriteString("policies:\n")
	for _, name := range names {
		fmt.Fprintf(&text, "  - {name: %s, service_account: svcacc_a, schedule: '@every 1h', permissions: all, max_age: 30h, sink: {path: app/%s}}\n", name, name)
	}
	return text.String()
}

// ManyPolicies is a policy file with n policies.
func ManyPolicies(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("policy-%d", i)
	}
	return Policies(names...)
}

// Eventually waits for a condition.
func Eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	process.Eventually(t, process.Patience, func() error {
		if !f() {
			return errors.New(what)
		}
		return nil
	})
}

// Client is for requests of tests.
func Client() *http.Client { return &http.Client{Timeout: process.Patience} }

// Ask makes a request. A server that cannot be reached answers with status 0.
func Ask(t testing.TB, method, url, authorization string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := Client().Do(req)
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
