package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/kubetest"
	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestKubernetesLogin is the whole chain: a real API server issues a token, Vault's own plugin has it reviewed there, and
// rekeyd rotates with what Vault gives it. Its servers take minutes to build, so make test-kubernetes runs it.
func TestKubernetesLogin(t *testing.T) {
	if os.Getenv("REKEYD_KUBERNETES") == "" {
		t.Log("set REKEYD_KUBERNETES=1 to run it; make test-kubernetes does")
		return
	}
	cluster := kubetest.Start(t)
	vault := vaulttest.StartWithPlugins(t, pluginFolder(t))
	cluster.AddServiceAccount("vault", "vault")
	cluster.LetReview("vault", "vault")
	cluster.AddServiceAccount("rekeyd", "rekeyd")
	cluster.AddServiceAccount("rekeyd", "somebody")
	dir := t.TempDir()
	put := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	settings := []string{"MOUNT=cluster-7", "TOKEN_TTL=5s", "KUBERNETES_HOST=" + cluster.URL, "KUBERNETES_CA_CERT=" + cluster.CACert,
		"TOKEN_REVIEWER_JWT=" + put("reviewer", cluster.Token("vault", "vault", ""))}
	printed, _ := setUp(t, vault, "kubernetes", settings...)
	if again, said := setUp(t, vault, "kubernetes", settings...); again != printed || !strings.Contains(said, "as it should be") {
		t.Errorf("the second run says something else:\n%s%s%s", printed, again, said)
	}

	w := newWorld(t, vault)
	w.policy("@every 1h")
	file := put("token", cluster.Token("rekeyd", "rekeyd", "vault"))
	env := variables(printed)
	env["VAULT_TOKEN"], env["REKEYD_VAULT_JWT_FILE"] = "", file
	d := w.start(env)
	w.settled("")
	put("token", cluster.Token("rekeyd", "rekeyd", "vault")) // as the kubelet does
	w.revokeLogins("auth/cluster-7/login")
	process.Eventually(t, process.Patience, func() error {
		if status, body := d.get("/readyz"); status != http.StatusOK {
			return fmt.Errorf("HTTP %d: %s", status, body)
		}
		return nil
	})
	if status, _, stderr := w.command(w.environment(env), "rotate", "tts-prod"); status != 0 {
		t.Errorf("a command with the same login: exit status %d: %s", status, stderr)
	}
	d.end()
	created := len(w.history("createAPIKey"))

	cluster.AddServiceAccount("rekeyd", "dismissed")
	gone := cluster.Token("rekeyd", "dismissed", "vault")
	cluster.Do(http.MethodDelete, "/api/v1/namespaces/rekeyd/serviceaccounts/dismissed", nil)
	for name, token := range map[string]string{
		"another service account": cluster.Token("rekeyd", "somebody", "vault"),
		"another audience":        cluster.Token("rekeyd", "rekeyd", "elsewhere"),
		"a deleted account":       gone,
	} {
		t.Run(name, func(t *testing.T) {
			env["REKEYD_VAULT_JWT_FILE"] = put("wrong", token)
			d := w.start(env)
			process.Eventually(t, process.Patience, func() error {
				status, body := d.get("/readyz")
				if said := d.Stderr.String(); status != http.StatusServiceUnavailable || !strings.Contains(said, "logging in to Vault: Vault answers 403") {
					return fmt.Errorf("HTTP %d: %s; it said:\n%s", status, body, said)
				}
				return nil
			})
			d.end()
		})
	}
	if n := len(w.history("createAPIKey")); n != created {
		t.Errorf("%d keys were created by daemons that could not log in", n-created)
	}
}

// pluginFolder returns a folder with Vault's own plugin, named so that it is found as its built-in twin would be.
func pluginFolder(t *testing.T) string {
	t.Helper()
	binary := kubetest.Build(t, "vaultkubernetes", "Vault's Kubernetes auth plugin once: about a minute")
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubernetes"), text, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
