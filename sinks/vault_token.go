package sinks

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

const (
	readyFor     = 2 * time.Second // how long an answer to Ready holds
	shortestWait = 100 * time.Millisecond
	firstRetry   = time.Second
	longestRetry = time.Minute
	foreverCheck = 12 * time.Hour // a token that never ends is looked at this often all the same
	rereadEvery  = time.Second
	refusedRetry = 15 * time.Second // Vault locks out whoever it refuses a few times in a row
)

// tokenLife is what is known about the token in use.
type tokenLife struct {
	mu        sync.Mutex
	known     bool
	expiry    time.Time // zero: never
	renewable bool
	since     time.Time // of the last renewal, login or lookup
	forget    func()    // takes the token out of the redactor
	readyAt   time.Time
	readyErr  error

	refused chan struct{} // holds one note that Vault takes the token for invalid
}

// noticeRefusal wakes Run: an invalid token can only be replaced.
func (t *tokenLife) noticeRefusal() {
	select {
	case t.refused <- struct{}{}:
	default:
	}
}

// learn notes for how long a token lives from when Vault was asked, which is at most as long as it lives from when
// Vault answered; zero is for ever.
func (t *tokenLife) learn(asked time.Time, ttl time.Duration, renewable bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.renewable, t.since, t.expiry = true, renewable, asked, time.Time{}
	if ttl > 0 {
		t.expiry = asked.Add(ttl)
	}
}

// extend notes a renewal. Below the token's maximum life it brings all of the time since the last one; one that brings
// less shows that the token nears that maximum, and another token is to be had while this one still lives for long.
func (t *tokenLife) extend(asked time.Time, ttl time.Duration, renewable bool) {
	t.mu.Lock()
	gained, passed := ttl-t.expiry.Sub(asked), asked.Sub(t.since)
	t.mu.Unlock()
	t.learn(asked, ttl, renewable && gained >= passed*9/10)
}

// stay notes that the token cannot be renewed.
func (t *tokenLife) stay() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renewable = false
}

// end notes that Vault refuses the token.
func (t *tokenLife) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.renewable, t.expiry, t.readyAt = true, false, time.Now(), time.Time{}
}

func (t *tokenLife) state() (known bool, expiry time.Time, renewable bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known, t.expiry, t.renewable
}

func (t *tokenLife) ended(op string) error {
	if _, expiry, _ := t.state(); expiry.IsZero() || time.Now().Before(expiry) {
		return nil
	}
	return &ledger.Error{Op: op, Reason: ledger.ReasonSinkDenied, Outage: true, Err: errors.New("the Vault token has ended"),
		Advice: "give a new one"}
}

// wait is how long to leave the token alone: two thirds of its remaining life, give or take, so that replicas and
// their tokens spread.
func (t *tokenLife) wait() time.Duration {
	_, expiry, _ := t.state()
	if expiry.IsZero() {
		return foreverCheck
	}
	return max(shortestWait, time.Duration(float64(time.Until(expiry))*(0.6+0.1*rand.Float64()))) //nolint:gosec // jitter
}

// retry is how long to wait after the given number of failures: doubling, but in time before the token ends.
func (t *tokenLife) retry(failures int) time.Duration {
	d := min(firstRetry<<min(failures, 10), longestRetry)
	if _, expiry, _ := t.state(); time.Now().Before(expiry) {
		d = max(shortestWait, min(d, time.Until(expiry)/3))
	}
	return d + time.Duration(rand.Int64N(int64(d/4))) //nolint:gosec // jitter
}

// afterRefusal is how long to wait after a login was refused: not so short that Vault locks the role out, but in time
// before the token ends.
func (t *tokenLife) afterRefusal() time.Duration {
	_, expiry, _ := t.state()
	if left := time.Until(expiry); left > 0 {
		return min(refusedRetry, max(firstRetry, left/3))
	}
	return refusedRetry
}

// TokenExpiry is when the token ends, the zero time for never. It is not ok while that is not known yet.
func (v *Vault) TokenExpiry() (at time.Time, ok bool) {
	known, expiry, _ := v.token.state()
	return expiry, known
}

// Run keeps the token alive until the context ends: it logs in where it can, renews at about two thirds of the
// remaining life, and logs in again when renewing brings no more. It returns nil.
func (v *Vault) Run(ctx context.Context) error {
	var failures int
	var last string
	for {
		wait := time.Duration(0)
		err := v.tend(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if last != err.Error() {
				last = err.Error()
				v.opt.Logger.Warn("vault token cannot be kept alive", "error", err)
			}
			wait = v.token.retry(failures)
			if refusal := (*ledger.Error)(nil); v.opt.Login != nil && errors.As(err, &refusal) && refusal.Reason == ledger.ReasonSinkDenied {
				wait = max(wait, v.token.afterRefusal())
			}
			failures++
		default:
			failures, last = 0, ""
			wait = v.token.wait()
		}
		if !v.sleep(ctx, wait) {
			return nil
		}
	}
}

// sleep waits, but no longer than until Vault refuses the token where another can be had, or until there is another.
func (v *Vault) sleep(ctx context.Context, d time.Duration) bool {
	timer, poll := time.NewTimer(d), time.NewTicker(rereadEvery)
	defer timer.Stop()
	defer poll.Stop()
	refused := v.token.refused
	if v.opt.Login == nil {
		refused = nil
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-refused:
			v.token.end()
			return true
		case <-timer.C:
			return true
		case <-poll.C:
			if _, changed := v.reread(); changed {
				return true
			}
		}
	}
}

// reread returns the token that is to be used instead of the one in use. A file that cannot be read just now changes
// nothing.
func (v *Vault) reread() (next secret.Secret, changed bool) {
	if v.opt.Reread == nil {
		return secret.Secret{}, false
	}
	next, err := v.opt.Reread()
	return next, err == nil && next.Reveal() != v.client.Token()
}

// tend does the one thing that the token needs now.
func (v *Vault) tend(ctx context.Context) error {
	if next, changed := v.reread(); changed {
		return v.changeTo(ctx, next)
	}
	known, _, renewable := v.token.state()
	switch {
	case !known && v.opt.Login != nil:
		return v.ensureToken(ctx)
	case renewable:
		err := v.renew(ctx)
		if _, _, still := v.token.state(); !still && v.opt.Login != nil {
			return v.login(ctx)
		}
		return err
	case v.opt.Login != nil:
		return v.login(ctx)
	default:
		err := v.lookup(ctx)
		if err == nil && !known {
			v.warnOfEnd()
		}
		return err
	}
}

func (v *Vault) lookup(ctx context.Context) error {
	const op = "looking up the Vault token"
	asked := time.Now()
	a := v.get(ctx, opLookup, "auth/token/lookup-self", nil)
	if err := v.tokenFailure(ctx, op, mayLookUp, a); err != nil {
		return err
	}
	var t struct {
		TTL        int     `json:"ttl"`         // whole seconds: 0 also in the last one
		ExpireTime *string `json:"expire_time"` // by Vault's clock, so only its absence is of use
		Renewable  bool    `json:"renewable"`
	}
	if err := decode(a.data, &t); err != nil {
		return v.failure(ctx, op, a, false)
	}
	ttl := time.Duration(t.TTL) * time.Second
	if ttl == 0 && t.ExpireTime != nil {
		ttl = time.Nanosecond // its last second
	}
	v.token.learn(asked, ttl, t.Renewable)
	return nil
}

func (v *Vault) renew(ctx context.Context) error {
	const op = "renewing the Vault token"
	asked := time.Now()
	a := v.put(ctx, opRenew, "auth/token/renew-self", struct{}{})
	if a.says("max TTL") || a.says("not renewable") {
		v.token.stay()
		v.warnOfEnd()
		return nil
	}
	if err := v.tokenFailure(ctx, op, "update on auth/token/renew-self", a); err != nil {
		return err
	}
	var t struct {
		TTL       int  `json:"lease_duration"` // seconds
		Renewable bool `json:"renewable"`
	}
	if err := decode(a.auth, &t); err != nil {
		return v.failure(ctx, op, a, false)
	}
	v.token.extend(asked, time.Duration(t.TTL)*time.Second, t.Renewable)
	v.warnOfEnd()
	return nil
}

// warnOfEnd says when a token will end that can be neither renewed nor replaced.
func (v *Vault) warnOfEnd() {
	if _, expiry, renewable := v.token.state(); !renewable && !expiry.IsZero() && v.opt.Login == nil {
		v.opt.Logger.Warn("vault token cannot be renewed", "expiry", expiry)
	}
}

const mayLookUp = "read on auth/token/lookup-self"

// tokenFailure is the error of a call about the token itself, where a refusal needs no looking up.
func (v *Vault) tokenFailure(ctx context.Context, op, needed string, a answer) error {
	if a.ok() {
		return nil
	}
	if a.fault == nil && a.status == http.StatusForbidden {
		if a.says("invalid token") {
			v.token.end()
		}
		v.forget()
		return v.refused(op, a, needed)
	}
	return v.failure(ctx, op, a, false)
}

// Ready says whether Vault answers now, to a valid token. An answer holds for two seconds, however many ask.
func (v *Vault) Ready(ctx context.Context) error {
	if fresh, err := v.token.ready(); fresh {
		return err
	}
	a := v.get(ctx, opLookup, "auth/token/lookup-self", nil)
	err := v.tokenFailure(ctx, "asking Vault whether the token is valid", mayLookUp, a)
	if ctx.Err() == nil {
		v.token.noteReady(err)
	}
	return err
}

func (t *tokenLife) ready() (fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.readyAt.IsZero() && time.Since(t.readyAt) < readyFor, t.readyErr
}

func (t *tokenLife) noteReady(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readyAt, t.readyErr = time.Now(), err
}
