package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/sinks"
)

// observer is told of a remote call: its target, operation and HTTP status or "error".
type observer func(target, operation, code string, d time.Duration)

// openStore makes the store that the environment names, without calling it. vault is nil with the file sink.
func openStore(cfg Config, observe observer, redactor *elevenlabs.Redactor, log *slog.Logger) (store rotator.Store, vault *sinks.Vault, err error) {
	env := cfg.Env
	if env.Sink == "file" {
		files, err := sinks.NewFile(env.FileDir)
		if err != nil {
			return nil, nil, err
		}
		return files, nil, nil
	}
	o, err := vaultOptions(env)
	if err != nil {
		return nil, nil, err
	}
	o.Observe = func(operation, code string, d time.Duration) { observe("vault", operation, code, d) }
	o.Redactor, o.Logger, o.Transport = redactor, log, cfg.transport
	vault, err = sinks.NewVault(o)
	if err != nil {
		return nil, nil, err
	}
	return vault, vault, nil
}

func vaultOptions(env config.Env) (sinks.VaultOptions, error) {
	token, err := env.VaultToken.Get()
	if err != nil {
		return sinks.VaultOptions{}, fmt.Errorf("taking the Vault token: %w", err)
	}
	c, err := sinks.VaultConfig()
	if err != nil {
		return sinks.VaultOptions{}, err
	}
	c.Address = env.VaultAddr
	tls := vaultapi.TLSConfig{
		CACert: env.VaultCACert, CAPath: env.VaultCAPath, ClientCert: env.VaultClientCert, ClientKey: env.VaultClientKey,
		TLSServerName: env.VaultTLSServerName, Insecure: env.VaultSkipVerify,
	}
	if !reflect.ValueOf(tls).IsZero() {
		if err := c.ConfigureTLS(&tls); err != nil {
			return sinks.VaultOptions{}, fmt.Errorf("reading what VAULT_CACERT and its like name: %w", err)
		}
	}
	o := sinks.VaultOptions{
		Config: c, Token: token, Namespace: env.VaultNamespace, Resync: env.ResyncInterval,
		MaxConns: env.Concurrency + spareConns,
	}
	if env.VaultToken.Path() != "" {
		o.Reread = env.VaultToken.Get
	}
	return o, nil
}

// spareConns is for what happens beside rotations: listing, probing, renewing, readiness.
const spareConns = 4

// vaultReady bounds how long a readiness probe waits for Vault.
const vaultReady = 2 * time.Second

func askVault(ctx context.Context, vault *sinks.Vault) error {
	if vault == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, vaultReady)
	defer cancel()
	return vault.Ready(ctx)
}
