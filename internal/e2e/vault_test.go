package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// setUp runs the set-up script as a person does and returns the variables that it prints.
func setUp(t *testing.T, vault *vaulttest.Server, method string, more ...string) (printed, said string) {
	t.Helper()
	return setUpWith(t, "vault", vault, method, more...)
}

// setUpWith has the command line under another name.
func setUpWith(t *testing.T, name string, vault *vaulttest.Server, method string, more ...string) (printed, said string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.Symlink(vaulttest.Binary(t), filepath.Join(bin, name)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "../../deploy/vault/setup.sh", method)
	cmd.Env = append([]string{"PATH=" + bin + ":/usr/bin:/bin", "HOME=" + t.TempDir(), "VAULT_ADDR=" + vault.Addr, "VAULT_TOKEN=" + vault.RootToken}, more...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("setup.sh: %v\n%s%s", err, out, stderr.String())
	}
	return string(out), stderr.String()
}

// variables reads lines of NAME=value.
func variables(printed string) map[string]string {
	vars := map[string]string{}
	for line := range strings.Lines(printed) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[name] = value
	}
	return vars
}

// TestAppRoleFromTheSetUpScript is a machine without Kubernetes: a role made by the script, a secret id in a file that is
// replaced, a token that is revoked, all under a running daemon and with commands beside it.
func TestAppRoleFromTheSetUpScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vaulttest.Start(t))
	printed, _ := setUp(t, w.vault, "approle", "MOUNT=machines", "TOKEN_TTL=5s", "TOKEN_MAX_TTL=8s")
	if again, said := setUpWith(t, "bao", w.vault, "approle", "MOUNT=machines", "TOKEN_TTL=5s", "TOKEN_MAX_TTL=8s"); again != printed || !strings.Contains(said, "as it should be") {
		t.Errorf("the second run says something else:\n%s%s%s", printed, again, said)
	}
	file := filepath.Join(t.TempDir(), "secret-id")
	secretID := func() string {
		s, err := w.root.Logical().WriteWithContext(t.Context(), "auth/machines/role/rekeyd/secret-id", nil)
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint(s.Data["secret_id"])
		if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := secretID()
	env := variables(printed)
	env["VAULT_TOKEN"], env["REKEYD_VAULT_SECRET_ID_FILE"] = "", file
	w.policy("@every 1h")
	d := w.start(env)
	w.settled("")
	before, _ := w.record()

	second := secretID()
	if _, err := w.root.Logical().WriteWithContext(t.Context(), "auth/machines/role/rekeyd/secret-id/destroy", map[string]any{"secret_id": first}); err != nil {
		t.Fatal(err)
	}
	w.revokeLogins("auth/machines/login")
	process.Eventually(t, process.Patience, func() error {
		if status, body := d.get("/readyz"); status != http.StatusOK {
			return fmt.Errorf("HTTP %d: %s", status, body)
		}
		return nil
	})
	if status, _, stderr := w.command(w.environment(env), "rotate", "tts-prod"); status != 0 {
		t.Errorf("a command with the same login: exit status %d: %s", status, stderr)
	}
	if after, _ := w.record(); after["key_id"] == before["key_id"] {
		t.Error("the command rotated nothing")
	}
	d.end()
	process.CheckNoSecretIn(t, w.said, map[string]string{"first secret id": first, "second secret id": second})
}

// revokeLogins revokes every token that was made at a path.
func (w *world) revokeLogins(path string) {
	w.t.Helper()
	list, err := w.root.Logical().ListWithContext(w.t.Context(), "auth/token/accessors")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, accessor := range list.Data["keys"].([]any) {
		s, err := w.root.Auth().Token().LookupAccessorWithContext(w.t.Context(), fmt.Sprint(accessor))
		if err != nil || s.Data["path"] != path {
			continue // of another test, or gone by itself
		}
		if err := w.root.Auth().Token().RevokeAccessorWithContext(w.t.Context(), fmt.Sprint(accessor)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestAWrappedSecretIDThatWasUsed raises an alarm and makes no key.
func TestAWrappedSecretIDThatWasUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vaulttest.Start(t))
	env := variables(first(setUp(t, w.vault, "approle")))
	w.root.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	s, err := w.root.Logical().WriteWithContext(t.Context(), "auth/approle/role/rekeyd/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.root.SetWrappingLookupFunc(nil)
	if _, err := w.root.Logical().UnwrapWithContext(t.Context(), s.WrapInfo.Token); err != nil {
		t.Fatal(err)
	}
	env["VAULT_TOKEN"], env["REKEYD_VAULT_SECRET_ID_WRAPPED"] = "", s.WrapInfo.Token
	w.policy("@every 1h")
	d := w.start(env)
	process.Eventually(t, process.Patience, func() error {
		status, body := d.get("/readyz")
		if status != http.StatusServiceUnavailable || !strings.Contains(body+d.Stderr.String(), "another process may have unwrapped it") {
			return fmt.Errorf("HTTP %d: %s", status, body)
		}
		return nil
	})
	if n := len(w.history("createAPIKey")); n != 0 {
		t.Errorf("%d keys were created", n)
	}
	d.end()
	process.CheckNoSecretIn(t, w.said, map[string]string{"wrapping token": s.WrapInfo.Token})
}

// TestACommandLeavesTheWrappedSecretIDAlone where it has a secret id of its own; else it says that it used it up.
func TestACommandLeavesTheWrappedSecretIDAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vaulttest.Start(t))
	env := variables(first(setUp(t, w.vault, "approle")))
	issue := func() *vaultapi.Secret {
		s, err := w.root.Logical().WriteWithContext(t.Context(), "auth/approle/role/rekeyd/secret-id", nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain, _ := issue().Data["secret_id"].(string)
	wrap := func() string {
		w.root.SetWrappingLookupFunc(func(string, string) string { return "5m" })
		defer w.root.SetWrappingLookupFunc(nil)
		return issue().WrapInfo.Token
	}
	w.calm("")
	env["VAULT_TOKEN"], env["REKEYD_VAULT_SECRET_ID_WRAPPED"], env["REKEYD_VAULT_SECRET_ID"] = "", wrap(), plain
	w.examined(0, env, "ok      token: valid")
	env["REKEYD_VAULT_SECRET_ID"] = ""
	w.examined(0, env, "warning token: valid, but its wrapped secret id is used up by this check") // so it was still there
	w.examined(1, env, "another process may have unwrapped it")
	for _, command := range []string{"status", "plan", "history", "discover", "prune"} {
		env["REKEYD_VAULT_SECRET_ID_WRAPPED"] = wrap()
		_, _, stderr := w.command(w.environment(env), command)
		if strings.Count(stderr, "this command has used up the wrapped secret id") != 1 {
			t.Errorf("%s says only:\n%s", command, stderr)
		}
	}
	adminKey := "elevenlabs-admin/" + w.id
	w.put(adminKey, map[string]any{"api_key": w.adminKey})
	w.rewrite("policies:", fmt.Sprintf("workspaces: [{name: default, base_url: %q, api_key: {vault: {path: %s}}}]\npolicies:", w.sim.URL, adminKey))
	env["REKEYD_VAULT_SECRET_ID_WRAPPED"] = wrap()
	if status, stdout, stderr := w.command(w.environment(env), "discover"); status != 0 || strings.Contains(stdout+stderr, "another process may have unwrapped it") {
		t.Errorf("with the admin key in Vault, discover exits with %d and says:\n%s%s", status, stdout, stderr)
	}
	env["REKEYD_VAULT_SECRET_ID"] = plain
	if _, _, stderr := w.command(w.environment(env), "status"); stderr != "" {
		t.Errorf("with a secret id of its own, status says %s", stderr)
	}
}

func first(a, _ string) string { return a }
