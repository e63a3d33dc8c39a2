package elevenlabs

import (
	"context"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// Credential is an admin key as this process last read it from its source. Its methods Get and Reread fit [Options]. It
// is safe for concurrent use.
type Credential struct {
	redactor *secret.Redactor
	turn     chan struct{} // taken while the key is read; not a mutex, since a waiting caller may give up

	mu     sync.Mutex
	read   func(context.Context) (secret.Secret, error)
	keep   time.Duration
	key    secret.Secret
	readAt time.Time
	forget func() // takes the key out of the redactor
}

// NewCredential returns a Credential without a source. The redactor, which may be nil, holds the key in use.
func NewCredential(r *secret.Redactor) *Credential {
	return &Credential{redactor: r, turn: make(chan struct{}, 1)}
}

// Use sets the source of the key, and how long a key is used before it is read again.
func (c *Credential) Use(keep time.Duration, read func(context.Context) (secret.Secret, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.keep, c.readAt = read, keep, time.Time{}
}

// Get returns the key, read again if the last read is too old. If that fails, it returns the previous key: the remote
// decides whether that one is still valid.
func (c *Credential) Get(ctx context.Context) (secret.Secret, error) {
	if key, fresh := c.cached(); fresh {
		return key, nil
	}
	key, err := c.look(ctx, false)
	if held, _ := c.cached(); err != nil && !held.IsZero() && ctx.Err() == nil {
		return held, nil
	}
	return key, err
}

// Reread reads the key from its source.
func (c *Credential) Reread(ctx context.Context) (secret.Secret, error) { return c.look(ctx, true) }

func (c *Credential) cached() (key secret.Secret, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key, !c.readAt.IsZero() && time.Since(c.readAt) < c.keep
}

// look reads the key, unless another caller has just read it and anew is false.
func (c *Credential) look(ctx context.Context, anew bool) (secret.Secret, error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return secret.Secret{}, ctx.Err()
	}
	defer func() { <-c.turn }()
	if key, fresh := c.cached(); fresh && !anew {
		return key, nil
	}
	c.mu.Lock()
	read := c.read
	c.mu.Unlock()
	key, err := read(ctx)
	return key, c.store(key, err)
}

func (c *Credential) store(key secret.Secret, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if !c.key.IsZero() {
			c.readAt = time.Now().Add(c.keep/10 - c.keep) // read again soon, but not before every request
		}
		return err
	}
	c.key, c.readAt, c.forget = key, time.Now(), c.redactor.Replace(c.forget, key)
	return nil
}
