package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
)

// keyFor is how long an admin key is used before it is looked for again where it came from.
const keyFor = 3 * time.Second

// credential is the admin key of one workspace.
type credential struct {
	workspace string
	store     rotator.Store
	redactor  *elevenlabs.Redactor

	mu     sync.Mutex
	source config.KeySource
	key    elevenlabs.Secret
	readAt time.Time
	forget func() // takes the key out of the redactor
}

// use changes where the key comes from.
func (c *credential) use(source config.KeySource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source, c.readAt = source, time.Time{}
}

// get is what elevenlabs asks before each request.
func (c *credential) get(ctx context.Context) (elevenlabs.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.readAt.IsZero() && time.Since(c.readAt) < keyFor {
		return c.key, nil
	}
	key, err := c.read(ctx)
	if err != nil {
		return elevenlabs.Secret{}, fmt.Errorf("workspace %s: %w", c.workspace, err)
	}
	c.hold(key)
	return key, nil
}

func (c *credential) hold(key elevenlabs.Secret) {
	forget := c.redactor.Add(key)
	if c.forget != nil {
		c.forget()
	}
	c.key, c.readAt, c.forget = key, time.Now(), forget
}

func (c *credential) read(ctx context.Context) (elevenlabs.Secret, error) {
	at := c.source.Vault
	if at == nil {
		return c.source.Secret.Get()
	}
	doc, err := c.store.Read(ctx, at.Ref, 0)
	if err != nil {
		return elevenlabs.Secret{}, err
	}
	value, _ := doc.Data[at.Field].(string)
	if value == "" {
		return elevenlabs.Secret{}, fmt.Errorf("looking at the field %s of %s: %w; put the admin key there", at.Field, at.Ref, errNoKey)
	}
	return elevenlabs.NewSecret(value), nil
}

var errNoKey = errors.New("it is not there, or not a text")

// workspace is a client, and what it was made from.
type workspace struct {
	base       string
	credential *credential
	client     *elevenlabs.Client
}

// workspaces makes the clients. One whose base URL stays keeps its client through a reload, and with it its
// connections and its rate budget.
type workspaces struct {
	env      config.Env
	agent    string
	store    rotator.Store
	redactor *elevenlabs.Redactor
	observe  observer

	transport http.RoundTripper // nil: the network

	current map[string]*workspace
}

// plan returns what the new set would be, and changes nothing: a reload may yet fail.
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

// commit makes a planned set the current one and returns its clients.
func (w *workspaces) commit(next map[string]*workspace, configured []config.Workspace) map[string]*elevenlabs.Client {
	clients := make(map[string]*elevenlabs.Client, len(next))
	for _, c := range configured {
		next[c.Name].credential.use(c.APIKey)
		clients[c.Name] = next[c.Name].client
	}
	w.current = next
	return clients
}

func (w *workspaces) open(c config.Workspace) (*workspace, error) {
	key := &credential{workspace: c.Name, store: w.store, redactor: w.redactor}
	client, err := elevenlabs.New(elevenlabs.Options{
		BaseURL: c.BaseURL, Transport: w.transport, Credential: key.get, Timeout: w.env.APITimeout, Rate: w.env.APIRate,
		MaxConns: w.env.Concurrency + spareConns, UserAgent: w.agent, Redactor: w.redactor,
		Observe: func(operation, code string, d time.Duration) { w.observe("elevenlabs", operation, code, d) },
	})
	if err != nil {
		return nil, err
	}
	return &workspace{c.BaseURL, key, client}, nil
}
