package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/reader"
)

// example returns the first fenced block of a page that has some words in it.
func example(t *testing.T, page, words string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(text), "```") {
		if i%2 == 1 && strings.Contains(block, words) {
			_, code, _ := strings.Cut(block, "\n")
			return code
		}
	}
	t.Fatalf("docs/%s has no example with %q", page, words)
	return ""
}

// agent is a Vault Agent beside a daemon that has published its first key. It has a configuration of docs/consuming.md, with the
// folder dir in place of others.
type agent struct {
	*world
	*process.Process
	daemon *rekeyd
	dir    string
}

func startAgent(t *testing.T, change func(config string) string) *agent {
	t.Helper()
	w := newWorld(t, vaulttest.Start(t))
	dir := t.TempDir()
	for path, data := range map[string]map[string]any{
		"sys/policies/acl/reader": {"policy": strings.ReplaceAll(example(t, "consuming.md", `capabilities = ["read"]`), "elevenlabs/tts-prod", w.sink())},
		"sys/auth/approle":        {"type": "approle"},
	} {
		w.administer(t, path, data)
	}
	w.administer(t, "auth/approle/role/reader", map[string]any{"token_policies": "reader"})
	role, err := w.root.Logical().ReadWithContext(t.Context(), "auth/approle/role/reader/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := w.root.Logical().WriteWithContext(t.Context(), "auth/approle/role/reader/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer("/etc/vault-agent", dir, "/run/elevenlabs", dir, "/usr/local/bin/speech", dir+"/speech", "elevenlabs/tts-prod", w.sink()).
		Replace(change(example(t, "consuming.md", "auto_auth")))
	for name, text := range map[string]string{"role-id": fmt.Sprint(role.Data["role_id"]), "secret-id": fmt.Sprint(secret.Data["secret_id"]), "agent.hcl": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The program writes as the template does, so that both are looked at in one way. It ends with the agent.
	const program = "#!/bin/sh\ncd \"${0%/*}\" && printf %s \"$ELEVENLABS_API_KEY\" >key && echo reloaded >>reloads\nwhile kill -0 $PPID; do sleep 1; done >/dev/null 2>&1\n"
	if err := os.WriteFile(filepath.Join(dir, "speech"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	w.policy("@every 1h")
	d := w.start(nil)
	w.settled("")
	p := process.Start(t, []string{"VAULT_ADDR=" + w.vault.Addr, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}, vaulttest.Binary(t), "agent", "-config="+filepath.Join(dir, "agent.hcl"))
	return &agent{w, p, d, dir}
}

// agentInterval is that of the configuration.
const agentInterval = 5 * time.Second

// follows rotates, and then writes the record once more as it is, as the fence of a takeover does: the program is reloaded for the
// new key only.
func (a *agent) follows() {
	a.t.Helper()
	a.rendered(process.Patience, 1)
	if status, _, stderr := a.command(a.environment(nil), "rotate", "tts-prod"); status != 0 {
		a.t.Fatalf("exit status %d: %s", status, stderr)
	}
	begun := time.Now()
	a.rendered(2*agentInterval+process.Patience, 2) // two intervals, and a slow machine
	a.t.Logf("the agent had the new key after %s", time.Since(begun).Round(100*time.Millisecond))
	a.settled("") // until no more is written
	record, version := a.record()
	a.put(a.sink(), record)
	select { // nothing tells that nothing happens
	case <-time.After(2*agentInterval + time.Second):
	case <-a.t.Context().Done():
	}
	if _, now := a.record(); now <= version {
		a.t.Errorf("the record has version %d, as before", now)
	}
	a.rendered(0, 2)
	a.Stop()
	a.daemon.end()
}

// rendered waits until the file holds what the record holds, and that the program was reloaded so often.
func (a *agent) rendered(patience time.Duration, reloads int) {
	a.t.Helper()
	process.Eventually(a.t, patience, func() error {
		record, _ := a.record()
		text, err := os.ReadFile(filepath.Join(a.dir, "key"))
		if err != nil || string(text) != record["api_key"] {
			return fmt.Errorf("the file does not hold the key of the record (%w); the agent says:\n%s%s", err, a.Stdout.String(), a.Stderr.String())
		}
		if text, err := os.ReadFile(filepath.Join(a.dir, "reloads")); err != nil || strings.Count(string(text), "reloaded") != reloads {
			return fmt.Errorf("the program was not reloaded %d times: %q, %w", reloads, text, err)
		}
		return nil
	})
}

// TestVaultAgentFollowsARotation runs the agent with the configuration of docs/consuming.md beside a daemon: after a
// rotation the new key is in its file within two of its intervals, which is what the page says.
func TestVaultAgentFollowsARotation(t *testing.T) {
	t.Parallel()
	startAgent(t, func(config string) string { return config }).follows()
}

// TestVaultAgentRestartsAProgram with the new key in its environment.
func TestVaultAgentRestartsAProgram(t *testing.T) {
	t.Parallel()
	startAgent(t, func(config string) string {
		before, _, _ := strings.Cut(config, "template {")
		return before + example(t, "consuming.md", "env_template")
	}).follows()
}

// TestReaderThroughAnAgent that adds its token, so that the program needs none.
func TestReaderThroughAnAgent(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a := startAgent(t, func(config string) string {
		return config + strings.ReplaceAll(example(t, "consuming.md", "api_proxy"), "127.0.0.1:8100", addr)
	})
	a.rendered(process.Patience, 1)
	keys, err := reader.New(reader.Options{Address: "http://" + addr, Path: a.sink()})
	if err != nil {
		t.Fatal(err)
	}
	record, _ := a.record()
	process.Eventually(t, process.Patience, func() error {
		key, err := keys.Read(t.Context())
		if err != nil || key.ID != record["key_id"] {
			return fmt.Errorf("key %s and not %v: %w", key.ID, record["key_id"], err)
		}
		return nil
	})
	a.Stop()
	a.daemon.end()
}
