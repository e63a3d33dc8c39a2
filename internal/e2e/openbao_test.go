package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"testing"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/reader"
)

// TestOpenBaosVariables has none of Vault's.
func TestOpenBaosVariables(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	env := map[string]string{"VAULT_ADDR": "", "VAULT_TOKEN": "", "BAO_ADDR": w.vault.Addr, "BAO_TOKEN": w.vaultToken}
	d := w.start(env)
	w.settled("")
	if status, _, stderr := w.command(w.environment(env), "rotate", "tts-prod"); status != 0 {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	d.end()
}

// TestNamespace keeps record and ledger in a namespace, and nothing outside.
func TestNamespace(t *testing.T) {
	t.Parallel()
	ctx, outside, name := context.Background(), common.vault.Client(t), "team-"+strings.ToLower(rand.Text()[:8])
	var said *vaultapi.ResponseError
	if _, err := outside.Logical().WriteWithContext(ctx, "sys/namespaces/"+name, nil); errors.As(err, &said) && said.StatusCode == http.StatusNotFound {
		t.Skipf("this server has no namespaces: OpenBao has, and Vault with a licence (%v)", said)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = outside.Logical().DeleteWithContext(ctx, "sys/namespaces/"+name) })
	w := newWorld(t, common.vault)
	w.root = outside.WithNamespace(name)
	process.Eventually(t, process.Patience, func() error {
		return w.root.Sys().PutPolicyWithContext(ctx, "rekeyd", policyHCL(t)) // a new namespace may still be preparing itself
	})
	w.administer(t, "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	process.Eventually(t, process.Patience, func() error {
		_, err := w.root.Logical().ReadWithContext(ctx, "secret/config")
		return err
	})
	token, err := w.root.Auth().Token().CreateWithContext(ctx, &vaultapi.TokenCreateRequest{Policies: []string{"rekeyd"}, NoDefaultPolicy: true, NoParent: true})
	if err != nil {
		t.Fatal(err)
	}
	w.vaultToken = token.Auth.ClientToken

	w.policy("@every 1h")
	d := w.start(map[string]string{"VAULT_NAMESPACE": name})
	w.settled("")
	if status, _, stderr := w.command(w.environment(map[string]string{"BAO_NAMESPACE": name}), "rotate", "tts-prod"); status != 0 {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	record, _ := w.record()
	keys, err := reader.New(reader.Options{Address: w.vault.Addr, Namespace: name, Path: w.sink(), Token: func(context.Context) (string, error) { return w.vaultToken, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if key, err := keys.Read(ctx); err != nil || key.ID != record["key_id"] {
		t.Errorf("a reader has key %s and not %v: %v", key.ID, record["key_id"], err)
	}
	if _, err := outside.KVv2("secret").Get(ctx, w.sink()); !errors.Is(err, vaultapi.ErrSecretNotFound) {
		t.Errorf("there is a record outside of the namespace (%v)", err)
	}
	d.end()
}
