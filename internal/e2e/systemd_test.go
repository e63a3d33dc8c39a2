package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

const unitFile = "../../deploy/systemd/rekeyd.service"

// unit is the settings of the service, each with its values in order.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			settings[name] = append(settings[name], value)
		}
	}
	return settings
}

// TestSystemdUnit starts rekeyd as the unit says, with files where it has them, in place of systemd: there is none to run
// here. Login is AppRole, as in docs/systemd.md.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vaulttest.Start(t))
	env := variables(first(setUp(t, w.vault, "approle")))
	s, err := w.root.Logical().WriteWithContext(t.Context(), "auth/approle/role/rekeyd/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	etc, credentials := filepath.Dir(w.policyFile), t.TempDir()
	secrets := map[string]string{"/etc/rekeyd/elevenlabs-api-key": w.adminKey, "/etc/rekeyd/vault-secret-id": fmt.Sprint(s.Data["secret_id"])}
	u := unit(t)
	for _, c := range u["LoadCredential"] {
		name, source, _ := strings.Cut(c, ":")
		if err := os.WriteFile(filepath.Join(credentials, name), []byte(secrets[source]), 0o400); err != nil || secrets[source] == "" {
			t.Fatalf("LoadCredential=%s: %v; the test has %d secrets", c, err, len(secrets))
		}
	}
	inPlace := strings.NewReplacer("%d", credentials, "/etc/rekeyd", etc)
	for _, line := range u["Environment"] {
		for _, assignment := range strings.Fields(inPlace.Replace(line)) {
			name, value, _ := strings.Cut(assignment, "=")
			env[name] = value
		}
	}
	env["ELEVENLABS_API_KEY"], env["VAULT_TOKEN"] = "", ""
	if got := u["ExecStart"]; len(got) != 1 || got[0] != "/usr/local/bin/rekeyd run" {
		t.Errorf("the unit runs %q, and this test rekeyd run", got)
	}
	w.policy("@every 5s")
	d := w.start(env)
	w.settled("")
	before, _ := w.record()
	w.settled(fmt.Sprint(before["key_id"]))
	d.end()

	if err := os.WriteFile(w.policyFile, []byte("policies: none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := w.command(w.environment(env), "run"); fmt.Sprint(status) != u["RestartPreventExitStatus"][0] {
		t.Errorf("with faulty policies the exit status is %d, and the unit restarts it but after %v: %s", status, u["RestartPreventExitStatus"], stderr)
	}
}

// TestSystemdUnitIsValidAndConfined asks systemd's own tools, without a systemd that runs.
func TestSystemdUnitIsValidAndConfined(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal("systemd-analyze is not installed, so the unit is not checked")
	case err != nil:
		t.Skip("systemd-analyze is not installed, so the unit is not checked")
	}
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rekeyd.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/rekeyd", common.Rekeyd)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := regexp.MustCompile(`(?m)^.*Unknown key (name )?'Restart(Steps|MaxDelaySec)'.*\n`) // than the systemd of this machine
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", file).CombinedOutput()
	if said := newer.ReplaceAllString(string(out), ""); err != nil || said != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, said)
	}
	const threshold = "--threshold=20" // of 100: the unit has 12, an ordinary one 96
	if out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", threshold, file).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// TestTheUnitShowsEnoughOfProc runs rekeyd with the /proc of ProcSubset=pid, and asks for the start time that alerts rest on.
func TestTheUnitShowsEnoughOfProc(t *testing.T) {
	t.Parallel()
	if got := unit(t)["ProcSubset"]; len(got) != 1 || got[0] != "pid" {
		t.Fatalf("the unit has ProcSubset=%q", got)
	}
	const mount = "mount -t proc -o subset=pid proc /proc"
	if out, err := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", mount).CombinedOutput(); err != nil {
		t.Skipf("this user may not mount: %v: %s", err, out)
	}
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	env := w.environment(map[string]string{"REKEYD_SINK": "file", "VAULT_ADDR": "", "VAULT_TOKEN": "", "PATH": os.Getenv("PATH")})
	d := w.run(env, "unshare", "-m", "sh", "-c", mount+` && exec "$@"`, "sh")
	for _, name := range []string{"process_start_time_seconds", "process_open_fds", "process_resident_memory_bytes"} {
		if d.metric(name) == "" {
			t.Errorf("there is no %s", name)
		}
	}
	d.end()
}
