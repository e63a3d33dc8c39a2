package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/rotator"
)

const quick = `policies:
  - {name: quick, service_account: svcacc_speech, schedule: "@every 2s", overlap: 500ms, quarantine: 500ms, permissions: [models_read], sink: {path: PREFIX/quick}}
`

// screen is what a person sees.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// watch runs the demo until the whole life of a key was shown, and returns what was seen.
func watch(t *testing.T, env map[string]string, dir string) string {
	t.Helper()
	return watchFor(t, env, dir, quick, "created the first key", "rotated: new key", "disabled old key", "deleted old key")
}

// watchFor runs the demo until all of these words were shown.
func watchFor(t *testing.T, env map[string]string, dir, policies string, words ...string) string {
	t.Helper()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	seen := new(screen)
	d := demo{env: envconfig.MapLookuper(env), policies: policies, dir: dir, listen: taken.Addr().String(), out: seen}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && !shown(seen.String(), words) {
		select {
		case err := <-done:
			t.Fatalf("the demo ended: %v\n%s", err, seen)
		case <-tick.C:
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("not the whole life of a key was seen:\n%s", seen)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopping: %v", err)
	}
	if !strings.Contains(seen.String(), "Stopped.") || strings.Contains(seen.String(), taken.Addr().String()+"/") {
		t.Errorf("seen:\n%s", seen)
	}
	return seen.String()
}

func shown(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// TestScenes: a probe fails and is mended, and a leak is reported and ended.
func TestScenes(t *testing.T) {
	t.Parallel()
	hurried := strings.NewReplacer("10s", "2s", "15s", "2s", "20s", "3s", "8s", "1s", "4s", "500ms").Replace(embedded)
	seen := watchFor(t, nil, t.TempDir(), hurried, "refused what the policy probes", "shared with the service account again", `"known":true`, "at once")
	if strings.Contains(seen, "sk_") {
		t.Errorf("a secret is shown:\n%s", seen)
	}
}

func TestDemoOnFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seen := watch(t, nil, dir)
	records, err := filepath.Glob(filepath.Join(dir, "demo-*", "secret", "elevenlabs", "demo-*", "quick.json"))
	if err != nil || len(records) != 1 || !strings.Contains(seen, "cat "+records[0]) {
		t.Fatalf("the records are %v (%v); seen:\n%s", records, err, seen)
	}
	if text, err := os.ReadFile(records[0]); err != nil || !bytes.Contains(text, []byte(`"api_key": "sk_`)) {
		t.Errorf("no secret in the record (%v):\n%s", err, text)
	}
}

func TestDemoOnVault(t *testing.T) {
	t.Parallel()
	vault := vaulttest.Start(t)
	hcl, err := os.ReadFile("../../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	seen := watch(t, map[string]string{"VAULT_ADDR": vault.Addr, "VAULT_TOKEN": vault.Token(t, string(hcl))}, dir)
	_, path, ok := strings.Cut(seen, "vault kv get -mount=secret ")
	if !ok || !strings.Contains(seen, "the Vault at "+vault.Addr) {
		t.Fatalf("it does not say which Vault:\n%s", seen)
	}
	path, _, _ = strings.Cut(path, "\n")
	record, err := vault.Client(t).KVv2("secret").Get(t.Context(), path)
	if err != nil || record.Data["api_key"] == nil {
		t.Errorf("there is no secret at %s (%v)", path, err)
	}
}

// slowScreen takes its time for each line.
type slowScreen struct{ screen }

func (s *slowScreen) Write(p []byte) (int, error) {
	<-time.After(10 * time.Millisecond)
	return s.screen.Write(p)
}

func TestNothingIsLostAtTheEnd(t *testing.T) {
	t.Parallel()
	seen := new(slowScreen)
	told := newTeller(seen)
	for range 20 {
		told.tell(rotator.Event{Type: rotator.EventRetired, Policy: "quick", KeyID: "0123456789"})
	}
	told.flush()
	if n := strings.Count(seen.String(), "01234567"); n != 20 {
		t.Errorf("%d of 20 lines were written", n)
	}
}

// TestEmbeddedPolicies are quick enough for a minute.
func TestEmbeddedPolicies(t *testing.T) {
	t.Parallel()
	d := demo{env: envconfig.MapLookuper(nil), policies: embedded}
	lookuper := d.lookuper(t.TempDir(), &simulator{url: "http://127.0.0.1:1", adminKey: "sk_x"})
	env, err := config.LoadEnv(lookuper)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.LoadPolicies(t.Context(), env.Source(), env, lookuper)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Policies {
		every, ok := p.Schedule.Every()
		if life := every + p.Overlap + p.Quarantine; !ok || life > 40*time.Second {
			t.Errorf("%s: the life of a key takes %s", p.Name, life)
		}
	}
}
