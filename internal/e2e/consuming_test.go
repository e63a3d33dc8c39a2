package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
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

// TestVaultAgentFollowsARotation runs the agent with the configuration of docs/consuming.md beside a daemon: after a
// rotation the new key is in its file within two of its intervals, which is what the page says.
func TestVaultAgentFollowsARotation(t *testing.T) {
	t.Parallel()
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
	config := strings.NewReplacer("/etc/vault-agent", dir, "/run/elevenlabs", dir, "elevenlabs/tts-prod", w.sink()).Replace(example(t, "consuming.md", "auto_auth"))
	for name, text := range map[string]string{"role-id": fmt.Sprint(role.Data["role_id"]), "secret-id": fmt.Sprint(secret.Data["secret_id"]), "agent.hcl": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	w.policy("@every 1h")
	d := w.start(nil)
	w.settled("")
	agent := process.Start(t, []string{"VAULT_ADDR=" + w.vault.Addr, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}, vaulttest.Binary(t), "agent", "-config="+filepath.Join(dir, "agent.hcl"))
	w.rendered(dir, agent, process.Patience)
	if status, _, stderr := w.command(w.environment(nil), "rotate", "tts-prod"); status != 0 {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	begun := time.Now()
	w.rendered(dir, agent, 2*5*time.Second+process.Patience) // two intervals, and a slow machine
	t.Logf("the agent had the new key after %s", time.Since(begun).Round(100*time.Millisecond))
	process.Eventually(t, process.Patience, func() error {
		if text, err := os.ReadFile(filepath.Join(dir, "reloads")); err != nil || strings.Count(string(text), "reloaded") < 2 {
			return fmt.Errorf("the program was not reloaded: %q, %w", text, err)
		}
		return nil
	})
	d.end()
}

// rendered waits until the agent's file holds what the record holds.
func (w *world) rendered(dir string, agent *process.Process, patience time.Duration) {
	w.t.Helper()
	process.Eventually(w.t, patience, func() error {
		record, _ := w.record()
		text, err := os.ReadFile(filepath.Join(dir, "key"))
		if err != nil || string(text) != record["api_key"] {
			return fmt.Errorf("the file does not hold the key of the record (%w); the agent says:\n%s%s", err, agent.Stdout.String(), agent.Stderr.String())
		}
		return nil
	})
}
