package sinks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// ensureToken logs in if there is no token yet: the first call logs in while the others wait. Later logins are Run's.
// After a failure Run tries again, or a call some seconds later.
func (v *Vault) ensureToken(ctx context.Context) error {
	if v.opt.Login == nil || v.client.Token() != "" {
		return nil
	}
	select {
	case v.logins <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting for a login to Vault: %w", ctx.Err())
	}
	defer func() { <-v.logins }()
	switch {
	case v.client.Token() != "":
		return nil
	case v.loginErr != nil && time.Since(v.loginAt) < loginAgain:
		return v.loginErr
	}
	err := v.login(ctx)
	if ctx.Err() == nil {
		v.loginAt, v.loginErr = time.Now(), err
	}
	return err
}

// loginAgain spaces the logins that calls trigger.
const loginAgain = 5 * time.Second

func (v *Vault) login(ctx context.Context) error {
	start := time.Now()
	value, err := v.tryLogin(ctx)
	v.opt.Observe(opLogin, loginCode(err), time.Since(start))
	if err != nil {
		return v.loginFailure(ctx, "logging in to Vault", "check REKEYD_VAULT_AUTH, the role and its credentials", err)
	}
	v.useToken(secret.New(value.Auth.ClientToken))
	v.opt.Logger.Info("logged in to vault")
	if value.Auth.LeaseDuration == 0 { // a token that was read, not created
		return v.lookup(ctx)
	}
	v.token.learn(start, time.Duration(value.Auth.LeaseDuration)*time.Second, value.Auth.Renewable)
	return nil
}

// changeTo switches to another token if Vault confirms it: a mistake in the file must not replace a working token.
func (v *Vault) changeTo(ctx context.Context, next secret.Secret) error {
	defer v.opt.Redactor.Add(next)()
	client, err := newClient(v.opt, maxLogin)
	if err != nil {
		return err
	}
	client.SetToken(next.Reveal())
	bounded, cancel := context.WithTimeout(ctx, v.opt.Timeout)
	defer cancel()
	start := time.Now()
	_, err = client.Auth().Token().LookupSelfWithContext(bounded)
	v.opt.Observe(opLookup, loginCode(err), time.Since(start))
	if err != nil {
		return v.loginFailure(ctx, "switching to the new Vault token", "check the token's file", err)
	}
	v.useToken(next)
	v.opt.Logger.Info("switched to the new vault token")
	err = v.lookup(ctx)
	v.warnOfEnd()
	return err
}

// tryLogin uses a separate client without a token.
func (v *Vault) tryLogin(ctx context.Context) (*vaultapi.Secret, error) {
	client, err := newClient(v.opt, maxLogin)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, v.opt.Timeout)
	defer cancel()
	secret, err := v.opt.Login(ctx, client)
	if err == nil && (secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "") {
		return nil, errors.New("the answer has no token")
	}
	return secret, err
}

func loginCode(err error) string {
	if err == nil {
		return "200"
	}
	if said, ok := errors.AsType[*vaultapi.ResponseError](err); ok {
		return strconv.Itoa(said.StatusCode)
	}
	return "error"
}

// loginFailure leaves out the URL and the raw body of the library's errors.
func (v *Vault) loginFailure(ctx context.Context, op, advice string, err error) error {
	if own, ok := errors.AsType[*ledger.Error](err); ok {
		return fmt.Errorf("%s: %w", op, own)
	}
	err = notVault(err)
	said, ok := errors.AsType[*vaultapi.ResponseError](err)
	if !ok {
		return v.failure(ctx, op, answer{fault: err}, false)
	}
	a := answer{status: said.StatusCode}
	if !said.RawError {
		a.errs = said.Errors
	}
	if said.StatusCode >= 500 || said.StatusCode == http.StatusTooManyRequests {
		return v.failure(ctx, op, a, false)
	}
	return &ledger.Error{Op: op, Reason: ledger.FailureSinkDenied, Outage: true, Err: v.message(a),
		Advice: advice}
}

// useToken sets the token of all further calls.
func (v *Vault) useToken(token secret.Secret) {
	v.token.mu.Lock()
	defer v.token.mu.Unlock()
	v.token.forget = v.opt.Redactor.Replace(v.token.forget, token)
	v.client.SetToken(token.Reveal())
	v.forget()
	v.token.readyAt = time.Time{}
	select { // a refusal of the old token does not apply to the new one
	case <-v.token.refused:
	default:
	}
}
