package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/reader"
)

const account = "svcacc_prod"

// world is one test's own: a simulator, paths in Vault that nobody else uses, and the daemons that it starts.
type world struct {
	t          *testing.T
	binary     string // rekeyd's
	sim        *process.Simulator
	vault      *vaulttest.Server
	root       *vaultapi.Client // looks at Vault with rights that rekeyd does not have
	id         string
	adminKey   string
	vaultToken string
	adminToken string
	policyFile string
	said       []*process.Output // everything that rekeyd wrote or answered
}

func newWorld(t *testing.T, vault *vaulttest.Server) *world {
	t.Helper()
	w := &world{
		t: t, binary: common.Rekeyd, vault: vault, root: vault.Client(t), id: "e2e-" + strings.ToLower(rand.Text()[:8]),
		adminKey: "sk_admin" + rand.Text(), adminToken: "admin-token-" + rand.Text(), vaultToken: vault.Token(t, policyHCL(t)),
		policyFile: filepath.Join(t.TempDir(), "policies.yaml"),
	}
	w.sim = common.StartSimulator(t, w.adminKey, uint64(time.Now().UnixNano()), account)
	t.Cleanup(w.noSecretWasSaid)
	return w
}

// policyHCL is Vault's policy as it is shipped.
func policyHCL(t *testing.T) string {
	t.Helper()
	hcl, err := os.ReadFile("../../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return string(hcl)
}

func (w *world) sink() string { return "elevenlabs/" + w.id + "/tts-prod" }

// policy writes the policy file.
func (w *world) policy(schedule string) {
	w.t.Helper()
	text := fmt.Sprintf(`policies:
  - name: tts-prod
    service_account: %s
    schedule: %q
    permissions: [text_to_speech, models_read]
    allowed_ips: [127.0.0.1, "2001:db8::/32"]
    character_limit: 100000
    overlap: 1s
    quarantine: 1s
    sink: {path: %s}
`, account, schedule, w.sink())
	if err := os.WriteFile(w.policyFile, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// environment is a quick one; change adds to it or, with an empty value, takes away.
func (w *world) environment(change map[string]string) []string {
	env := map[string]string{
		"REKEYD_POLICY_FILE": w.policyFile, "REKEYD_LISTEN_ADDR": "127.0.0.1:0", "REKEYD_LOG_LEVEL": "debug",
		"REKEYD_LEDGER_PATH": "rekeyd/" + w.id, "REKEYD_MIN_INTERVAL": "1s", "REKEYD_RECONCILE_INTERVAL": "300ms",
		"REKEYD_RESYNC_INTERVAL": "2s", "REKEYD_CLAIM_TTL": "2s", "REKEYD_API_RATE": "1000", "REKEYD_SHUTDOWN_TIMEOUT": "10s",
		"REKEYD_ADMIN_TOKEN": w.adminToken, "ELEVENLABS_API_KEY": w.adminKey, "ELEVENLABS_BASE_URL": w.sim.URL,
		"VAULT_ADDR": w.vault.Addr, "VAULT_TOKEN": w.vaultToken, "HOME": w.t.TempDir(),
	}
	maps.Copy(env, change)
	var lines []string
	for name, value := range env {
		if value != "" {
			lines = append(lines, name+"="+value)
		}
	}
	return lines
}

// command runs rekeyd with arguments to its end.
func (w *world) command(env []string, args ...string) (status int, stdout, stderr string) {
	w.t.Helper()
	p := process.Start(w.t, env, w.binary, args...)
	w.said = append(w.said, &p.Stdout, &p.Stderr)
	status = p.Wait()
	return status, p.Stdout.String(), p.Stderr.String()
}

// rekeyd is a running daemon.
type rekeyd struct {
	*process.Process
	w   *world
	url string
}

func (w *world) start(change map[string]string) *rekeyd {
	w.t.Helper()
	return w.run(w.environment(change))
}

// run executes the daemon, by another program where one is given with its arguments.
func (w *world) run(env []string, by ...string) *rekeyd {
	w.t.Helper()
	args := append(by, w.binary, "run")
	p := process.Start(w.t, env, args[0], args[1:]...)
	w.said = append(w.said, &p.Stdout, &p.Stderr)
	return &rekeyd{p, w, "http://" + p.Find(&p.Stderr, `"msg":"started".*"address":"([^"]+)"`)}
}

// get asks the daemon; what it answers is looked through for secrets at the end.
func (r *rekeyd) get(path string) (int, string) {
	r.w.t.Helper()
	status, body := process.Request(r.w.t, http.MethodGet, r.url+path, "", "")
	r.w.heard(body)
	return status, body
}

// heard has a text looked through for secrets at the end.
func (w *world) heard(text string) {
	said := new(process.Output)
	_, _ = said.Write([]byte(text))
	w.said = append(w.said, said)
}

// end looks at every page, then stops the daemon in good order.
func (r *rekeyd) end() {
	r.w.t.Helper()
	for _, path := range []string{"/", "/policies/tts-prod", "/api/v1/policies", "/api/v1/policies/tts-prod", "/metrics", "/readyz", "/healthz", "/nowhere"} {
		if status, body := r.get(path); status == 0 || body == "" {
			r.w.t.Errorf("GET %s: HTTP %d %s", path, status, body)
		}
	}
	if status := r.Stop(); status != 0 {
		r.w.t.Errorf("exit status %d after SIGTERM; it said:\n%s", status, r.Stderr.String())
	}
}

// metric returns the value of one series, as it is written; "" where there is none.
func (r *rekeyd) metric(series string) string {
	r.w.t.Helper()
	_, body := r.get("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// record is what is in Vault at the sink, and its version.
func (w *world) record() (map[string]any, int) { return w.document(w.sink()) }

func (w *world) document(path string) (map[string]any, int) {
	w.t.Helper()
	s, err := w.root.KVv2("secret").Get(context.Background(), path)
	if err != nil {
		return nil, 0
	}
	return s.Data, s.VersionMetadata.Version
}

func (w *world) put(path string, data map[string]any) {
	w.t.Helper()
	if _, err := w.root.KVv2("secret").Put(context.Background(), path, data); err != nil {
		w.t.Fatal(err)
	}
}

// seed publishes a key that is two hours old, as if rekeyd had made it, and returns its id.
func (w *world) seed() string {
	w.t.Helper()
	id, secret := w.sim.AddKey(account, "by hand")
	w.put(w.sink(), map[string]any{
		"api_key": secret, "key_id": id, "rotated_at": time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339), "team": "speech",
	})
	return id
}

func (w *world) history(operation string) []elevensim.Request {
	w.t.Helper()
	return slices.DeleteFunc(w.sim.History(), func(r elevensim.Request) bool { return r.Operation != operation })
}

func (w *world) key(id string) elevensim.Key {
	w.t.Helper()
	keys := w.sim.Keys()
	i := slices.IndexFunc(keys, func(k elevensim.Key) bool { return k.ID == id })
	if i < 0 {
		w.t.Fatalf("the simulator never had a key %q", id)
	}
	return keys[i]
}

func (w *world) gone(id string) bool {
	w.t.Helper()
	k := w.key(id)
	return k.Deleted()
}

// settled waits until the key that is published is the only one left in the account, and it works.
func (w *world) settled(not string) {
	w.t.Helper()
	process.Eventually(w.t, process.Patience, func() error {
		record, _ := w.record()
		var left []string
		for _, k := range w.sim.Keys() {
			switch {
			case k.Deleted():
			case k.ID != record["key_id"] || k.Disabled || k.Secret != record["api_key"] || k.ID == not:
				left = append(left, fmt.Sprintf("%s (%s, disabled %v)", k.ID, k.Name, k.Disabled))
			}
		}
		if len(left) > 0 || record["key_id"] == nil {
			return fmt.Errorf("beside %v there are %v", record["key_id"], left)
		}
		return nil
	})
}

// read is a reader of the secret: until stop it uses whatever is published, which must always work. As package reader does, it
// reads once more before it counts a refusal.
func (w *world) read() (stop func()) {
	w.t.Helper()
	keys, err := reader.New(reader.Options{Address: w.vault.Addr, Path: w.sink(), Token: func(context.Context) (string, error) { return w.vault.RootToken, nil }})
	if err != nil {
		w.t.Fatal(err)
	}
	client := &http.Client{Timeout: process.Patience, Transport: keys.Transport(w.sim.URL, nil)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.readUntil(ctx, keys, client) }()
	return func() {
		w.t.Helper()
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) readUntil(ctx context.Context, keys *reader.Reader, client *http.Client) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for reads := 0; ; reads++ {
		select {
		case <-ctx.Done():
			if reads == 0 {
				return fmt.Errorf("the reader never read")
			}
			return nil
		case <-tick.C:
		}
		key, err := keys.Read(w.t.Context())
		if err != nil {
			return fmt.Errorf("a reader is broken: %w", err)
		}
		resp, err := client.Get(w.sim.URL + "/v1/models")
		if err != nil {
			return fmt.Errorf("a reader is broken: %w", err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("a reader is broken: %s after it read key %s", resp.Status, key.ID)
		}
	}
}

// noSecretWasSaid is asked at the end of every test.
func (w *world) noSecretWasSaid() {
	secrets := map[string]string{"admin key": w.adminKey, "Vault token": w.vaultToken, "admin token": w.adminToken}
	for _, k := range w.sim.Keys() {
		secrets["secret of key "+k.ID] = k.Secret
	}
	process.CheckNoSecretIn(w.t, w.said, secrets)
}

func object(t *testing.T, raw json.RawMessage) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return m
}
