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
	readyFor     = 2 * time.Second // how long Ready's result is reused
	shortestWait = 100 * time.Millisecond
	firstRetry   = time.Second
	longestRetry = time.Minute
	foreverCheck = 12 * time.Hour // interval of lookups of a token that never ends
	rereadEvery  = time.Second
	rounding     = 2 * time.Second  // of a TTL, and the time of a lookup
	soon         = 24 * time.Hour   // is the end of a token for a person
	refusedRetry = 15 * time.Second // Vault locks out a user after a few refused logins in a row
)

// tokenLife is the known state of the current token.
type tokenLife struct {
	mu        sync.Mutex
	known     bool
	expiry    time.Time // zero: never
	renewable bool
	since     time.Time // of the last renewal, login or lookup
	moved     time.Time // when the expiry last became another, by more than a lookup's rounding
	forget    func()    // takes the token out of the redactor
	readyAt   time.Time
	readyErr  error

	refused chan struct{} // holds a value once Vault calls the token invalid
}

// noticeRefusal wakes Run, since an invalid token must be replaced.
func (t *tokenLife) noticeRefusal() {
	select {
	case t.refused <- struct{}{}:
	default:
	}
}

// learn records a token's TTL, counted from the request, and so not later than Vault counts it; zero is for ever.
func (t *tokenLife) learn(asked time.Time, ttl time.Duration, renewable bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.expiry
	t.known, t.renewable, t.since, t.expiry = true, renewable, asked, time.Time{}
	if ttl > 0 {
		t.expiry = asked.Add(ttl)
	}
	if t.expiry.Sub(was).Abs() > rounding {
		t.moved = asked
	}
}

// extend records a renewal. A renewal below the maximum TTL gains all the time since the last one; a smaller gain shows
// that the token nears its maximum, and a new login is due while the token still has long to live.
func (t *tokenLife) extend(asked time.Time, ttl time.Duration, renewable bool) {
	t.mu.Lock()
	gained, passed := ttl-t.expiry.Sub(asked), asked.Sub(t.since)
	t.mu.Unlock()
	t.learn(asked, ttl, renewable && gained >= passed*9/10)
}

// stay records that the token cannot be renewed.
func (t *tokenLife) stay() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renewable = false
}

// end records that Vault refuses the token.
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
	return &ledger.Error{Op: op, Reason: ledger.FailureSinkDenied, Outage: true, Err: errors.New("the Vault token has ended"),
		Advice: "provide a new one"}
}

// wait is the time until the next renewal: about two thirds of the remaining life, with jitter between replicas.
func (t *tokenLife) wait() time.Duration {
	_, expiry, _ := t.state()
	if expiry.IsZero() {
		return foreverCheck
	}
	return max(shortestWait, time.Duration(float64(time.Until(expiry))*(0.6+0.1*rand.Float64()))) //nolint:gosec // jitter
}

// retry is the pause after the given number of failures: it doubles, but ends before the token does.
func (t *tokenLife) retry(failures int) time.Duration {
	d := min(firstRetry<<min(failures, 10), longestRetry)
	if _, expiry, _ := t.state(); time.Now().Before(expiry) {
		d = max(shortestWait, min(d, time.Until(expiry)/3))
	}
	return d + time.Duration(rand.Int64N(int64(d/4))) //nolint:gosec // jitter
}

// afterRefusal is the pause after a refused login: long enough that Vault does not lock the role out, but over before the
// token ends.
func (t *tokenLife) afterRefusal() time.Duration {
	_, expiry, _ := t.state()
	if left := time.Until(expiry); left > 0 {
		return min(refusedRetry, max(firstRetry, left/3))
	}
	return refusedRetry
}

// TokenExpiry returns when the token ends, the zero time for never. ok is false until that is known.
func (v *Vault) TokenExpiry() (at time.Time, ok bool) {
	known, expiry, _ := v.token.state()
	return expiry, known
}

// TokenEnding returns when the token ends, if that is soon and nothing renews it. rekeyd renews a token at about two thirds of its
// remaining life, so one that has a quarter left is not renewed.
func (v *Vault) TokenEnding(now time.Time) (at time.Time, ending bool) {
	t := &v.token
	t.mu.Lock()
	defer t.mu.Unlock()
	left := t.expiry.Sub(now)
	return t.expiry, t.known && !t.expiry.IsZero() && left < soon && now.Sub(t.moved) > 3*left
}

// Run keeps the token alive until the context ends: it logs in if it can, renews at about two thirds of the remaining
// life, and logs in again when renewals gain no more time. It returns nil.
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
				v.opt.Logger.Warn("keeping the vault token alive failed", "err", err)
			}
			wait = v.token.retry(failures)
			if refusal, ok := errors.AsType[*ledger.Error](err); ok && v.opt.Login != nil && refusal.Reason == ledger.FailureSinkDenied {
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

// sleep waits for d. It returns early when the token file changes, or when Vault refuses the token and a login can replace
// it.
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

// reread returns the token in the file if it differs from the current one. An unreadable file changes nothing.
func (v *Vault) reread() (next secret.Secret, changed bool) {
	if v.opt.Reread == nil {
		return secret.Secret{}, false
	}
	next, err := v.opt.Reread()
	return next, err == nil && next.Reveal() != v.client.Token()
}

// tend does what the token needs now: switch, log in, renew or look up.
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
		TTL        int     `json:"ttl"`         // whole seconds, so 0 in the last one too
		ExpireTime *string `json:"expire_time"` // by Vault's clock, so only its absence is used
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
	a := v.put(ctx, opRenew, "auth/token/renew-self", []byte("{}"))
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

// warnOfEnd logs when a token that can be neither renewed nor replaced will end.
func (v *Vault) warnOfEnd() {
	if _, expiry, renewable := v.token.state(); !renewable && !expiry.IsZero() && v.opt.Login == nil {
		v.opt.Logger.Warn("vault token cannot be renewed", "expiry", expiry)
	}
}

const mayLookUp = "read on auth/token/lookup-self"

// tokenFailure is the error of a call about the token itself; a refusal needs no capability lookup.
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

// Ready returns an error if Vault does not answer or the token is not valid. It reuses a result for two seconds.
func (v *Vault) Ready(ctx context.Context) error {
	t := &v.token
	t.mu.Lock()
	fresh, err := !t.readyAt.IsZero() && time.Since(t.readyAt) < readyFor, t.readyErr
	t.mu.Unlock()
	if fresh {
		return err
	}
	a := v.get(ctx, opLookup, "auth/token/lookup-self", nil)
	err = v.tokenFailure(ctx, "asking Vault whether the token is valid", mayLookUp, a)
	if ctx.Err() == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.readyAt, t.readyErr = time.Now(), err
	}
	return err
}
