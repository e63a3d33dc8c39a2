package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"sync"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// observer receives each remote call: its target, operation and HTTP status or "error".
type observer func(target, operation, code string, d time.Duration)

// openStore returns the store that the environment names, without calling it. vault is nil with the file sink.
func openStore(cfg Config, observe observer, redactor *secret.Redactor, log *slog.Logger) (store ledger.Store, vault *sinks.Vault, err error) {
	env := cfg.Env
	if env.Sink == "file" {
		files, err := sinks.NewFile(env.FileDir)
		if err != nil {
			return nil, nil, err
		}
		return files, nil, nil
	}
	o, err := vaultOptions(cfg.Settings, redactor)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Lookuper != nil {
		useProxy(o.Config.HttpClient, cfg.Lookuper)
	}
	o.Observe = func(operation, code string, d time.Duration) { observe("vault", operation, code, d) }
	o.Logger, o.Transport = log, cfg.transport
	vault, err = sinks.NewVault(o)
	if err != nil {
		return nil, nil, err
	}
	return vault, vault, nil
}

func vaultOptions(s Settings, redactor *secret.Redactor) (sinks.VaultOptions, error) {
	env := s.Env
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
			return sinks.VaultOptions{}, fmt.Errorf("reading the files of VAULT_CACERT and the other TLS variables: %w", err)
		}
	}
	o := sinks.VaultOptions{
		Config: c, Namespace: env.VaultNamespace, Resync: env.ResyncInterval,
		MaxConns: env.Concurrency + spareConns, Redactor: redactor, Timeout: clientTimeout(s.Lookuper),
	}
	return o, chooseLogin(&o, s)
}

// clientTimeout is VAULT_CLIENT_TIMEOUT, a duration or a number of seconds; 0: it is not set. The library refuses what is neither.
func clientTimeout(lookuper envconfig.Lookuper) time.Duration {
	text, _ := config.OrBao(lookuper).Lookup("VAULT_CLIENT_TIMEOUT")
	if d, err := time.ParseDuration(text); err == nil {
		return d
	}
	seconds, _ := strconv.Atoi(text)
	return time.Duration(seconds) * time.Second
}

// chooseLogin sets how the store obtains its token.
func chooseLogin(o *sinks.VaultOptions, s Settings) error {
	env := s.Env
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
		if !env.VaultSecretID.IsSet() { // a command beside the daemon has one, so that it leaves the daemon's wrapped one alone
			o.Login = sinks.WrappedAppRoleLogin(mount, env.VaultRoleID, held(env.VaultSecretIDWrapped), o.Redactor, func() {
				if s.Unwrapped != nil {
					s.Unwrapped()
				}
			})
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

// now reads a source at each call. The source bounds the read itself.
func now(s config.SecretSource) sinks.Source {
	return func() (secret.Secret, error) { return s.Get(context.Background()) }
}

// holder has a credential redacted from the moment it is read until the next one is.
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
	h.forget = h.redactor.Replace(h.forget, s)
	return s, nil
}

// spareConns serve the calls other than rotations: listing, probing, renewing, readiness.
const spareConns = 4
