package elevenlabs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// sharing lets listings that would wait for the budget be one: a listing that begins after its caller asked is as good as one of
// its own.
type sharing struct {
	mu   sync.Mutex
	open *round    // has not begun, so others may join
	last time.Time // when a listing last began

	listed atomic.Pointer[accountList] // the last one of the workspace
}

// round is one listing and those that wait for it.
type round struct {
	place    *place
	accounts map[string]bool // asked for
	all      bool            // the whole workspace was asked for
	waiters  int
	cancel   context.CancelFunc
	done     chan struct{}

	listed map[string][]Key // by account
	whole  []ServiceAccount
	err    error
}

// together is by how much other calls that wait for the budget may come later and go before a listing: each makes one more that
// shares it.
const together = time.Second

// gatherCalls is how many calls of the budget a listing with patience leaves to others after the last listing, so that one
// serves many. With the default budget it is four seconds.
const (
	gatherCalls = 20
	maxGather   = 5 * time.Second
)

// Keys lists the keys of one service account; as strict as ServiceAccounts. The listing begins after the call of Keys. Where it
// would have to wait for the budget, all that wait share one: of the account, or where they ask for several, of the workspace.
func (c *Client) Keys(ctx context.Context, account string) ([]Key, error) {
	if ctx, ok := c.alone(ctx); ok {
		return c.keys(ctx, account)
	}
	r, err := c.join(ctx, account, false)
	if err != nil {
		return nil, err
	}
	keys, found := r.listed[account]
	if !found {
		return c.keys(ctx, account) // says what ElevenLabs says of an account that the workspace lacks
	}
	return slices.Clone(keys), nil
}

// ServiceAccounts lists every service account of the workspace with all of its keys. An answer that lacks a list or an id
// is ErrBadAnswer, not an empty list. It is shared as in Keys, and with later listings that show the same: it is read-only.
func (c *Client) ServiceAccounts(ctx context.Context) ([]ServiceAccount, error) {
	if ctx, ok := c.alone(ctx); ok {
		return c.accounts(ctx, opList, secret.Secret{})
	}
	r, err := c.join(ctx, "", true)
	if err != nil {
		return nil, err
	}
	return r.whole, nil
}

// alone reports whether a listing need not wait, and returns the context for it.
func (c *Client) alone(ctx context.Context) (context.Context, bool) {
	if _, reserved := ctx.Value(slotKey{}).(*slot); reserved {
		return ctx, true
	}
	s := c.share
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil || patience(ctx) > 0 && c.gather() > 0 {
		return ctx, false
	}
	leave := c.budget.try()
	if leave == nil {
		return ctx, false
	}
	s.last = time.Now()
	return context.WithValue(ctx, slotKey{}, leave), true
}

// gather returns how long a listing with patience still waits for others.
func (c *Client) gather() time.Duration {
	if c.opt.Rate == 0 || c.share.last.IsZero() {
		return 0
	}
	return min(time.Duration(gatherCalls/c.opt.Rate*float64(time.Second)), maxGather) - time.Since(c.share.last)
}

// join waits for a listing that has not begun yet.
func (c *Client) join(ctx context.Context, account string, all bool) (*round, error) {
	s := c.share
	s.mu.Lock()
	r := s.open
	if r == nil {
		r = &round{place: &place{granted: make(chan struct{})}, accounts: map[string]bool{}, done: make(chan struct{})}
		s.open = r
		var shared context.Context
		shared, r.cancel = context.WithCancel(context.Background())
		go c.run(shared, r)
	}
	r.waiters++
	r.all = r.all || all
	if !all {
		r.accounts[account] = true
	}
	wait := time.Duration(0)
	if patience(ctx) > 0 {
		wait = c.gather()
	}
	s.mu.Unlock()
	at := time.Now().Add(patience(ctx))
	if patience(ctx) >= 0 {
		at = at.Add(together)
	}
	if wait > 0 {
		timer := time.AfterFunc(wait, func() { c.budget.enqueue(r.place, at) })
		defer timer.Stop()
	} else {
		c.budget.enqueue(r.place, at)
	}
	select {
	case <-r.done:
		if n, counted := ctx.Value(countKey{}).(*atomic.Int64); counted {
			n.Add(1)
		}
		return r, r.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.waiters--; r.waiters == 0 {
		r.cancel()
		if s.open == r {
			s.open = nil
		}
	}
	return nil, &Error{Operation: opKeys, Err: fmt.Errorf("waiting for the rate budget: %w", ctx.Err())}
}

// run makes the listing of a round once it may be sent.
func (c *Client) run(ctx context.Context, r *round) {
	defer close(r.done)
	defer r.cancel()
	slot, err := c.budget.granted(ctx, r.place)
	s := c.share
	s.mu.Lock()
	if s.open == r {
		s.open = nil
	}
	s.last = time.Now()
	accounts, all := r.accounts, r.all
	s.mu.Unlock()
	if err != nil {
		r.err = &Error{Operation: opKeys, Err: err}
		return
	}
	ctx = context.WithValue(ctx, slotKey{}, slot)
	r.listed = map[string][]Key{}
	if !all && len(accounts) == 1 {
		for account := range accounts {
			r.listed[account], r.err = c.keys(ctx, account)
		}
		return
	}
	r.whole, r.err = c.accounts(ctx, opList, secret.Secret{})
	for _, a := range r.whole {
		r.listed[a.ID] = a.Keys
	}
}
