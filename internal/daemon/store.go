package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// observer is told of a remote call: its target, operation and HTTP status or "error".
type observer func(target, operation, code string, d time.Duration)

// openStore makes the store that the environment names, without calling it. vault is nil with the file sink.
func openStore(cfg Config, observe observer, redactor *secret.Redactor, log *slog.Logger) (store ledger.Store, vault *sinks.Vault, err error) {
	env := cfg.Env
	if env.Sink == "file" {
		files, err := sinks.NewFile(env.FileDir)
		if err != nil {
			return nil, nil, err
		}
		return files, nil, nil
	}
	o, err := vaultOptions(env, redactor)
	if err != nil {
		return nil, nil, err
	}
	o.Observe = func(operation, code string, d time.Duration) { observe("vault", operation, code, d) }
	o.Logger, o.Transport = log, cfg.transport
	vault, err = sinks.NewVault(o)
	if err != nil {
		return nil, nil, err
	}
	return vault, vault, nil
}

func vaultOptions(env config.Env, redactor *secret.Redactor) (sinks.VaultOptions, error) {
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
		Config: c, Namespace: env.VaultNamespace, Resync: env.ResyncInterval,
		MaxConns: env.Concurrency + spareConns, Redactor: redactor,
	}
	return o, chooseLogin(&o, env)
}

// chooseLogin sets how the store comes to its token.
func chooseLogin(o *sinks.VaultOptions, env config.Env) error {
	held := func(s config.SecretSource) sinks.Source { return (&holder{redactor: o.Redactor, source: s}).get }
	mount, role, jwt := env.VaultAuthMount, env.VaultRole, held(config.SecretFile(env.VaultJWTFile))
	switch env.VaultAuth {
	case "token":
		token, err := env.VaultToken.Get(context.Background())
		if err != nil {
			return fmt.Errorf("taking the Vault token: %w", err)
		}
		o.Token = token
		if env.VaultToken.Path() != "" {
			o.Reread = now(env.VaultToken)
		}
	case "token_file":
		file := now(config.SecretFile(env.VaultTokenFile))
		o.Login, o.Reread = sinks.TokenLogin(file), file
	case "approle":
		o.Login = sinks.AppRoleLogin(mount, env.VaultRoleID, held(env.VaultSecretID))
		if env.VaultSecretIDWrapped.IsSet() {
			o.Login = sinks.WrappedAppRoleLogin(mount, env.VaultRoleID, held(env.VaultSecretIDWrapped), o.Redactor)
		}
	case "kubernetes":
		o.Login = sinks.KubernetesLogin(mount, role, jwt)
	case "jwt":
		o.Login = sinks.JWTLogin(mount, role, jwt)
	case "cert":
		o.Login = sinks.CertLogin(mount, role)
	default:
		return fmt.Errorf("logging in to Vault: there is no method %q", env.VaultAuth)
	}
	return nil
}

// now is what a source says at the time of asking. Reading it is bounded by itself.
func now(s config.SecretSource) sinks.Source {
	return func() (secret.Secret, error) { return s.Get(context.Background()) }
}

// holder has a credential cut out of whatever Vault says, from the moment it is read until there is another.
type holder struct {
	redactor *secret.Redactor
	source   config.SecretSource

	mu     sync.Mutex
	forget func()
}

func (h *holder) get() (secret.Secret, error) {
	s, err := h.source.Get(context.Background())
	if err != nil {
		return s, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	forget := h.redactor.Add(s)
	if h.forget != nil {
		h.forget()
	}
	h.forget = forget
	return s, nil
}

// spareConns is for what happens beside rotations: listing, probing, renewing, readiness.
const spareConns = 4

// vaultReady bounds how long a readiness probe waits for Vault.
const vaultReady = 2 * time.Second

func askVault(ctx context.Context, vault *sinks.Vault) error {
	if vault == nil {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, vaultReady)
	defer cancel()
	err := vault.Ready(short)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("no answer from Vault within %s; see whether it is overloaded or a firewall drops its packets", vaultReady)
	}
	return err
}
