package daemon

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// fileFor is how long an admin key from a file is used before the file is read again.
const fileFor = 3 * time.Second

// follow has a credential read its key from source. A key in the store costs a call, so it is read once per reconcile
// interval, and whenever it is refused or was just replaced.
func (w *workspaces) follow(c *elevenlabs.Credential, workspace string, source config.KeySource) {
	keep := fileFor
	if source.Vault != nil {
		keep = w.env.ReconcileInterval
	}
	c.Use(keep, func(ctx context.Context) (secret.Secret, error) {
		key, err := w.read(ctx, source)
		if err != nil {
			return secret.Secret{}, fmt.Errorf("workspace %s: %w", workspace, err)
		}
		return key, nil
	})
}

func (w *workspaces) read(ctx context.Context, source config.KeySource) (secret.Secret, error) {
	at := source.Vault
	if at == nil {
		return source.Secret.Get(ctx)
	}
	doc, err := w.store.Read(ctx, at.Ref, 0)
	if err != nil {
		return secret.Secret{}, err
	}
	value, _ := doc.Fields()[at.Field].(string)
	value = strings.TrimSuffix(value, "\n") // as in a file: easily written by hand without notice
	if value == "" {
		return secret.Secret{}, fmt.Errorf("the field %s of %s is absent, empty or not a text; put the admin key there", at.Field, at.Ref)
	}
	return secret.New(value), nil
}

// workspace is a client and what it was made from.
type workspace struct {
	base       string
	credential *elevenlabs.Credential
	client     *elevenlabs.Client
}

// workspaces makes the clients. A workspace whose base URL stays keeps its client through a reload, and with it the
// connections and the rate budget.
type workspaces struct {
	env      config.Env
	agent    string
	store    ledger.Store
	redactor *secret.Redactor
	observe  observer

	transport http.RoundTripper // nil: the network

	current map[string]*workspace
}

// plan returns the new set and changes nothing: the reload may still fail.
func (w *workspaces) plan(configured []config.Workspace) (map[string]*workspace, error) {
	next := make(map[string]*workspace, len(configured))
	for _, c := range configured {
		if old := w.current[c.Name]; old != nil && old.base == c.BaseURL {
			next[c.Name] = old
			continue
		}
		made, err := w.open(c)
		if err != nil {
			return nil, fmt.Errorf("workspace %s: %w", c.Name, err)
		}
		next[c.Name] = made
	}
	return next, nil
}

// commit makes a planned set current and returns its clients.
func (w *workspaces) commit(next map[string]*workspace, configured []config.Workspace) map[string]*elevenlabs.Client {
	clients := make(map[string]*elevenlabs.Client, len(next))
	for _, c := range configured {
		w.follow(next[c.Name].credential, c.Name, c.APIKey)
		clients[c.Name] = next[c.Name].client
	}
	w.current = next
	return clients
}

func (w *workspaces) open(c config.Workspace) (*workspace, error) {
	key := elevenlabs.NewCredential(w.redactor)
	client, err := elevenlabs.New(elevenlabs.Options{
		BaseURL: c.BaseURL, Transport: w.transport, Credential: key.Get, Reread: key.Reread, Timeout: w.env.APITimeout, Rate: w.env.APIRate,
		MaxConns: w.env.Concurrency + spareConns, UserAgent: w.agent, Redactor: w.redactor,
		Observe: func(operation, code string, d time.Duration) { w.observe("elevenlabs", operation, code, d) },
	})
	if err != nil {
		return nil, err
	}
	return &workspace{c.BaseURL, key, client}, nil
}
