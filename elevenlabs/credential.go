package elevenlabs

import (
	"context"
	"sync"
	"time"
)

// Credential is an admin key as this process last read it from where it is kept. Its methods Get and Reread are what
// [Options] asks for. It is safe for concurrent use.
type Credential struct {
	// Redactor holds the key for as long as it is the one in use.
	Redactor *Redactor

	mu     sync.Mutex
	read   func(context.Context) (Secret, error)
	keep   time.Duration
	key    Secret
	readAt time.Time
	forget func() // takes the key out of the redactor
}

// Use says where the key is read, and for how long what was read is used without another look.
func (c *Credential) Use(keep time.Duration, read func(context.Context) (Secret, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.keep, c.readAt = read, keep, time.Time{}
}

// Get returns the key, read anew where the last look was too long ago. A key that cannot be read is still the one that
// was read before: whether it is any good is for the remote to say.
func (c *Credential) Get(ctx context.Context) (Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.readAt.IsZero() && time.Since(c.readAt) < c.keep {
		return c.key, nil
	}
	err := c.look(ctx)
	if err != nil && c.key.IsZero() {
		return Secret{}, err
	}
	return c.key, nil
}

// Reread returns the key as it is now where it is kept.
func (c *Credential) Reread(ctx context.Context) (Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.look(ctx); err != nil {
		return Secret{}, err
	}
	return c.key, nil
}

func (c *Credential) look(ctx context.Context) error {
	key, err := c.read(ctx)
	if err == nil || !c.key.IsZero() {
		c.readAt = time.Now() // a source that fails is not asked before every request
	}
	if err != nil {
		return err
	}
	forget := c.Redactor.Add(key)
	if c.forget != nil {
		c.forget()
	}
	c.key, c.forget = key, forget
	return nil
}
