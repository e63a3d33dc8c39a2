package sinks_test

import (
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/hostile"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

const (
	hostileToken    = "hvs.token_that_is_sent"
	hostileSecretID = "secret-id-that-is-sent"
)

func TestVaultHostileServers(t *testing.T) {
	ref := ledger.Ref{Mount: "secret", Path: "a"}
	hostile.Run(t, hostile.Client{
		Writes: 1, Bytes: 384 << 20, Secrets: []string{hostileToken, hostileSecretID}, HTTP2: true,
		Calls: func(t *testing.T, to hostile.Target) []func() error {
			fresh := func(change func(*sinks.VaultOptions)) *sinks.Vault { return hostileVault(t, to, change) }
			token := func(o *sinks.VaultOptions) { o.Token = secret.New(hostileToken) }
			secretID := func() (secret.Secret, error) { return secret.New(hostileSecretID), nil }
			login := func(o *sinks.VaultOptions) { o.Login = sinks.AppRoleLogin("approle", "role", secretID) }
			wrapped := func(o *sinks.VaultOptions) {
				o.Login = sinks.WrappedAppRoleLogin("approle", "role", secretID, o.Redactor, func() {})
			}
			return []func() error{
				func() error { _, err := fresh(token).Read(t.Context(), ref, 0); return err },
				func() error { _, err := fresh(token).Write(t.Context(), ref, nil, 0); return err },
				func() error { _, err := fresh(token).List(t.Context(), ref); return err },
				func() error { return fresh(token).Check(t.Context(), ref) },
				func() error { return fresh(token).Ready(t.Context()) },
				func() error { return fresh(login).Ready(t.Context()) },
				func() error { return fresh(wrapped).Ready(t.Context()) },
			}
		},
	})
}

func hostileVault(t *testing.T, to hostile.Target, change func(*sinks.VaultOptions)) *sinks.Vault {
	t.Helper()
	config := vaultapi.DefaultConfig()
	config.Address = to.URL
	if to.Authority != nil {
		must(t, config.ConfigureTLS(&vaultapi.TLSConfig{CACertBytes: to.Authority}))
	}
	redactor := new(secret.Redactor)
	redactor.Add(secret.New(hostileSecretID))
	o := sinks.VaultOptions{Config: config, Timeout: 250 * time.Millisecond, Redactor: redactor}
	change(&o)
	v, err := sinks.NewVault(o)
	must(t, err)
	return v
}
