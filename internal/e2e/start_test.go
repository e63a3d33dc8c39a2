package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	for _, c := range []struct {
		name   string
		change map[string]string
		faults []string // one line each, with these words
	}{
		{"no Vault", map[string]string{"VAULT_ADDR": ""}, []string{"VAULT_ADDR is not set, but REKEYD_SINK is vault"}},
		{
			"several", map[string]string{"VAULT_ADDR": "", "REKEYD_CONCURRENCY": "many", "REKEYD_CLAIM_TTL": "0s", "REKEYD_MIN_INTERVAL": "2h"},
			[]string{"REKEYD_CONCURRENCY is", "REKEYD_CLAIM_TTL is", "VAULT_ADDR is not set", "tts-prod"},
		},
		{"no web config", map[string]string{"REKEYD_WEB_CONFIG_FILE": "nowhere.yml"}, []string{"REKEYD_WEB_CONFIG_FILE is"}},
	} {
		for _, command := range []string{"run", "check"} {
			t.Run(c.name+" "+command, func(t *testing.T) {
				status, stdout, stderr := w.command(w.environment(c.change), command)
				lines := strings.Split(strings.TrimSpace(stderr), "\n")
				if status != 2 || stdout != "" || len(lines) != len(c.faults) {
					t.Fatalf("exit status %d, stdout %q, stderr:\n%s", status, stdout, stderr)
				}
				for i, words := range c.faults {
					if !strings.Contains(lines[i], words) {
						t.Errorf("line %d is %q, want %q in it", i+1, lines[i], words)
					}
				}
			})
		}
	}
	status, stdout, stderr := w.command(w.environment(nil), "check")
	if status != 0 || stdout != "ok: 1 policy in 1 workspace\n" {
		t.Errorf("a right configuration: exit status %d, %q, %q", status, stdout, stderr)
	}
}

// TestVaultIsDownAtTheStart waits for it instead of giving up.
func TestVaultIsDownAtTheStart(t *testing.T) {
	t.Parallel()
	vault := vaulttest.StartPersistent(t)
	w := newWorld(t, vault)
	vault.Kill()
	w.policy("@every 1h")
	d := w.start(nil)
	process.Eventually(t, process.Patience, func() error {
		if status, body := d.get("/readyz"); status != http.StatusServiceUnavailable || strings.Count(body, "\n") != 1 || !strings.Contains(body, "connection refused") {
			return fmt.Errorf("HTTP %d: %s", status, body)
		}
		return nil
	})
	if status, body := d.get("/healthz"); status != http.StatusOK {
		t.Errorf("not alive: HTTP %d: %s", status, body)
	}
	if n := len(w.history("createAPIKey")); n != 0 {
		t.Errorf("%d keys were created for which there was no place", n)
	}
	if status := w.start(nil).Stop(); status != 0 {
		t.Errorf("exit status %d after SIGTERM without Vault", status)
	}
	vault.Restart(t)
	process.Eventually(t, process.Patience, func() error {
		if status, body := d.get("/readyz"); status != http.StatusOK {
			return fmt.Errorf("HTTP %d: %s", status, body)
		}
		return nil
	})
	w.settled("")
	d.end()
}

// TestSIGHUP reloads policies that come from the environment, where there is no file to watch.
func TestSIGHUP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	text, err := os.ReadFile(w.policyFile)
	if err != nil {
		t.Fatal(err)
	}
	d := w.start(map[string]string{"REKEYD_POLICY_FILE": "", "REKEYD_POLICIES": string(text)})
	const series = "rekeyd_config_last_reload_success_timestamp_seconds"
	before := d.metric(series)
	d.Signal(syscall.SIGHUP)
	process.Eventually(t, process.Patience, func() error {
		if now := d.metric(series); now == "" || now == before {
			return fmt.Errorf("%s is still %q", series, now)
		}
		return nil
	})
	d.end()
}

// TestStatusOnlyLooks runs the command beside a daemon's work and against its outcome.
func TestStatusOnlyLooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	status, stdout, stderr := w.command(w.environment(nil), "status")
	if status != 0 || !strings.Contains(stdout, "\ntts-prod  ") {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
	if _, version := w.record(); version != 0 || len(w.sim.Keys()) != 0 {
		t.Error("looking made a record or a key")
	}
	if owner, _ := w.document("rekeyd/" + w.id + "/owner"); owner != nil {
		t.Error("looking made an owner in the ledger")
	}
	d := w.start(nil)
	w.settled("")
	d.end()
	record, version := w.record()
	status, stdout, stderr = w.command(w.environment(nil), "status", "tts-prod", "--json")
	if status != 0 || !strings.Contains(stdout, fmt.Sprintf("%q", record["key_id"])) || !strings.Contains(stdout, `"state": "ok"`) {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
	if _, v := w.record(); v != version {
		t.Error("looking wrote the record")
	}
}
