package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// The operations passed to VaultOptions.Observe.
const (
	opRead   = "read"
	opWrite  = "write"
	opList   = "list"
	opCheck  = "check"
	opLogin  = "login"
	opRenew  = "renew"
	opLookup = "lookup"
)

// Login obtains a token. Its client has no token, and the transport and namespace of the store. The signature is that of
// vaultapi.AuthMethod's Login, so that Vault's own login packages fit.
type Login func(ctx context.Context, c *vaultapi.Client) (*vaultapi.Secret, error)

// VaultOptions configures a Vault.
type VaultOptions struct {
	// Config is the address and TLS; nil is VaultConfig(). NewVault takes ownership of it.
	Config *vaultapi.Config
	// Token is the token to use, unless Login is set: then the first call logs in, and Run keeps the token valid.
	Token secret.Secret
	Login Login
	// Reread returns the current token, for a token in a file: Vault.Run calls it every second, and switches to another
	// token once Vault has confirmed it. nil: Token never changes.
	Reread func() (secret.Secret, error)
	// Namespace is the Vault namespace; empty is the root namespace.
	Namespace string
	// Timeout bounds each call; 0 is 10 seconds.
	Timeout time.Duration
	// MaxConns is how many connections stay open for reuse, which should match the concurrent calls; 0 is 16.
	MaxConns int
	// Resync is how long capabilities and mount types are cached; 0 is 15 minutes.
	Resync time.Duration
	// Transport replaces the transport of Config, for tests with Vault in their own process.
	Transport http.RoundTripper
	// Observe receives every call: its operation (read, write, list, check, login, renew, lookup) and HTTP status or "error".
	Observe func(operation, code string, d time.Duration)
	// Redactor cuts the process's secrets out of Vault's messages. The token is added to it.
	Redactor *secret.Redactor
	// Logger logs logins, renewals and the token's end; nil is silence.
	Logger *slog.Logger
}

// Vault is a ledger.Store in Vault's KV version 2 engine. Make it with NewVault, and let Run keep its token alive.
type Vault struct {
	opt    VaultOptions
	client *vaultapi.Client
	token  tokenLife

	logins   chan struct{} // holds a value while ensureToken logs in
	loginAt  time.Time
	loginErr error

	mu     sync.Mutex
	able   facts[ledger.Ref]    // documents whose capabilities suffice
	mounts facts[string]        // that are KV version 2 engines
	next   iter.Seq[ledger.Ref] // that may be checked next
	turn   int                  // of those, the first to be asked about next
	date   time.Time            // of Vault's last answer
	seen   time.Time            // when it came; monotonic

	staysLocal atomic.Bool // the server lets no client choose the node
	lags       bool        // what Lags last learned, and when
	lagsAsked  time.Time
}

var (
	_ ledger.Store     = (*Vault)(nil)
	_ ledger.Foresight = (*Vault)(nil)
)

// VaultConfig reads Vault's own environment variables: VAULT_ADDR, VAULT_CACERT and so on.
func VaultConfig() (*vaultapi.Config, error) {
	c := vaultapi.DefaultConfig()
	if c.Error != nil {
		return nil, fmt.Errorf("reading Vault's environment variables: %w", c.Error)
	}
	return c, nil
}

// NewVault makes the store. It does not call Vault.
func NewVault(o VaultOptions) (*Vault, error) {
	if o.Login == nil && o.Token.IsZero() {
		return nil, errors.New("making the Vault store: neither a token nor a login is set")
	}
	if o.Config == nil {
		var err error
		if o.Config, err = VaultConfig(); err != nil {
			return nil, err
		}
	}
	o.fillIn()
	o.harden()
	client, err := newClient(o, maxAnswer)
	if err != nil {
		return nil, err
	}
	v := &Vault{opt: o, client: client, logins: make(chan struct{}, 1)}
	v.token.refused = make(chan struct{}, 1)
	if o.Login == nil {
		v.useToken(o.Token)
	}
	return v, nil
}

// newClient makes a client without a token that reads at most most bytes of an answer, after decompression. The library
// itself reads refusals and logins without a bound.
func newClient(o VaultOptions, most int64) (*vaultapi.Client, error) {
	client, err := vaultapi.NewClient(o.Config)
	if err != nil {
		return nil, fmt.Errorf("making the Vault client: %w", err)
	}
	// The library reads these from the environment; the options must win, also when they are empty.
	client.ClearToken()
	client.ClearNamespace()
	if o.Namespace != "" {
		client.SetNamespace(o.Namespace)
	}
	return client.WithResponseCallbacks(func(r *vaultapi.Response) { r.Body = http.MaxBytesReader(nil, r.Body, most) }), nil
}

func (o *VaultOptions) fillIn() {
	o.Timeout = cmp.Or(max(o.Timeout, 0), 10*time.Second)
	o.MaxConns = cmp.Or(max(o.MaxConns, 0), 16)
	o.Resync = cmp.Or(max(o.Resync, 0), 15*time.Minute)
	o.Redactor = cmp.Or(o.Redactor, new(secret.Redactor))
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Observe == nil {
		o.Observe = func(string, string, time.Duration) {}
	}
}

// harden turns off two defaults of the library: retries, and following a standby's redirect with the token.
func (o *VaultOptions) harden() {
	c := o.Config
	c.MaxRetries, c.Timeout, c.DisableRedirects = 0, 0, true
	c.CheckRetry = func(context.Context, *http.Response, error) (bool, error) { return false, nil }
	client := *cmp.Or(c.HttpClient, new(http.Client))
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Timeout = 0
	if o.Transport != nil {
		client.Transport = o.Transport
	} else if t, ok := client.Transport.(*http.Transport); ok {
		t.MaxIdleConnsPerHost = o.MaxConns
		t.MaxIdleConns = max(t.MaxIdleConns, o.MaxConns)
		t.MaxResponseHeaderBytes = 256 << 10
	}
	c.HttpClient = &client
}

// facts are what Vault has said. All are forgotten a resync interval after the first.
type facts[K comparable] struct {
	first time.Time
	known map[K]struct{}
}

func remembered[K comparable](v *Vault, f *facts[K], key K) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Since(f.first) >= v.opt.Resync {
		f.known = nil
	}
	_, known := f.known[key]
	return known
}

func remember[K comparable](v *Vault, f *facts[K], keys ...K) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if f.known == nil {
		*f = facts[K]{time.Now(), map[K]struct{}{}}
	}
	for _, k := range keys {
		f.known[k] = struct{}{}
	}
}

// forget drops the cached capabilities and mounts, which Vault has just contradicted.
func (v *Vault) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.able.known, v.mounts.known = nil, nil
}
