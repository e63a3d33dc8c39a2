package conformance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
)

func askNoKey(ctx context.Context, s *Session) (string, error) {
	err := s.send(ctx, secret.New("sk_not_sent"), pathUser, func(req *http.Request) { req.Header.Del("xi-api-key") })
	e := (*elevenlabs.Error)(nil)
	switch {
	case err != nil && !refused(err):
		return "", err
	case !errors.As(err, &e) || e.Status != http.StatusUnauthorized || e.Code != "needs_authorization":
		return "", differ("%s", s.said(err))
	}
	return s.said(err), nil
}

func askDeadKeys(ctx context.Context, s *Session) (string, error) {
	random := make([]byte, 24)
	_, _ = rand.Read(random) // it does not fail
	_, err := s.get(ctx, secret.New("sk_"+hex.EncodeToString(random)), pathUser)
	if err := invalid(s, "a made-up key", answered(err)); err != nil {
		return "", err
	}
	lived, err := s.lives(ctx)
	if err != nil {
		return "", err
	}
	disabled, deleted := 0, 0
	for _, l := range lived {
		if l.disabled != nil {
			disabled++
		}
		if l.deleted != nil && s.deleted[l.key.id] {
			deleted++
		}
		if err := errors.Join(invalid(s, "a disabled key", l.disabled), invalid(s, "a deleted key", l.deleted)); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("a made-up key, %d disabled, %d deleted", disabled, deleted), nil
}

// invalid checks what a key that cannot work is answered; nil is no answer.
func invalid(s *Session, which string, err error) error {
	if errors.Is(err, errSuccess) || refused(err) && !errors.Is(err, elevenlabs.ErrInvalidKey) {
		return differ("%s: %s", which, s.said(err))
	}
	return nil
}

func askMissing(ctx context.Context, s *Session) (string, error) {
	k, err := s.plain(ctx)
	if err != nil {
		return "", err
	}
	status, err := s.get(ctx, k.secret, pathModels)
	switch {
	case err == nil:
		return "", unasked("a key without models_read is answered HTTP %d for %s", status, pathModels)
	case !refused(err):
		return "", err
	case !errors.Is(err, elevenlabs.ErrMissingPermissions):
		return "", differ("%s", s.said(err))
	}
	return s.said(err), nil
}

func askUnprivileged(ctx context.Context, s *Session) (string, error) {
	k, err := s.plain(ctx)
	if err != nil {
		return "", err
	}
	other, err := s.client(s.meter, func(context.Context) (secret.Secret, error) { return k.secret, nil }, s.opt.Rate)
	if err != nil {
		return "", err
	}
	get := func(path string) func() error {
		return func() error { _, err := s.get(ctx, k.secret, path); return err }
	}
	for _, call := range []struct {
		what string
		do   func() error
	}{
		{"listing service accounts", get(pathList)},
		{"listing keys", get(pathList + "/" + url.PathEscape(s.opt.Account) + "/api-keys")},
		{"updating a key", func() error {
			on := true
			return s.ask(ctx, func(ctx context.Context) error {
				return other.UpdateKey(ctx, s.opt.Account, k.id, elevenlabs.Update{Name: k.name, Enabled: &on})
			})
		}},
	} {
		err := call.do()
		switch {
		case err == nil:
			return "", differ("%s: done with a key that has user_read alone", call.what)
		case !refused(err):
			return "", err
		}
	}
	return "listing accounts, listing keys and an update are refused", nil
}

func askManager(ctx context.Context, s *Session) (string, error) {
	seen, err := s.with(ctx, may("user_read", "service_account_write"), func(k *key) (string, error) {
		var result elevenlabs.ProbeResult
		err := s.ask(ctx, func(ctx context.Context) (err error) {
			result, err = s.api.ProbeAdmin(ctx, k.secret)
			return err
		})
		switch {
		case result == elevenlabs.Valid:
			return "a key with it lists the accounts", nil
		case refused(err):
			return "", differ("a key with it lists accounts: %s", s.said(err))
		case err == nil:
			return "", differ("a key with it lists accounts: refused as invalid")
		}
		return "", err
	})
	if s.aboutSettings(err) {
		return "", differ("creating a key with it: %s", s.said(err))
	}
	return seen, err
}

func askEnable(ctx context.Context, s *Session) (string, error) {
	settings := plainSettings()
	settings.ThirdPartyDisable = elevenlabs.Some(true)
	use := func(k *key) (string, error) { return s.disableAndEnable(ctx, k) }
	seen, err := s.with(ctx, settings, use)
	if s.aboutSettings(err) { // by a plan, or an API, without the setting
		return s.with(ctx, plainSettings(), use)
	}
	return seen, err
}

func (s *Session) disableAndEnable(ctx context.Context, k *key) (string, error) {
	if err := s.send(ctx, k.secret, selfPath, func(req *http.Request) { req.Method = http.MethodPost }); err != nil && !errors.Is(err, elevenlabs.ErrInvalidKey) { // an earlier try did it
		return "", unasked("a key that disables itself: %s", s.said(err))
	}
	reason := ""
	l := s.listing(k, func(listed *elevenlabs.Key) bool {
		if listed == nil || !listed.Disabled {
			return false
		}
		reason = listed.DisableReason
		return true
	})
	if err := s.watch(ctx, l); err != nil {
		return "", err
	}
	if !l.seen {
		return "", unasked("no listing shows a key as disabled that disabled itself")
	}
	if err := s.enable(ctx, k, true); refused(err) && !errors.Is(err, elevenlabs.ErrNotFound) {
		return "", differ("enabling a key with the reason %q: %s", word(reason), s.said(err))
	} else if err != nil {
		return "", err
	}
	works := s.works(k)
	if err := s.watch(ctx, works); err != nil {
		return "", err
	}
	if !works.seen && !refused(works.last) {
		return "", works.last
	}
	if !works.seen {
		return "", differ("a key with the reason %q was enabled, and is refused after %s: %s", word(reason), s.opt.Patience, s.said(works.last))
	}
	return "reason " + word(reason), nil
}

func askAddress(ctx context.Context, s *Session) (string, error) {
	walled := s.look(ctx, keyWalled)
	if walled.key != nil {
		defer func() { _ = s.drop(ctx, walled.key) }() // create and sweep try again
	}
	switch {
	case walled.err != nil:
		return "", walled.err
	case len(walled.listed.Settings.AllowedIPs) == 0:
		return "", unasked("allowed_ips was dropped")
	}
	l := &look{ask: func(ctx context.Context) (bool, error) {
		_, err := s.api.ProbePath(ctx, walled.key.secret, pathUser)
		return elevenlabs.RefusesAddress(err), err
	}}
	err := s.watch(ctx, l)
	switch {
	case err != nil:
		return "", err
	case l.seen:
		return s.said(l.last), nil
	case errors.Is(l.last, elevenlabs.ErrInvalidKey) && s.slow:
		return "", unasked("a new key did not work within %s", s.opt.Patience)
	case l.last != nil && !refused(l.last):
		return "", l.last
	}
	return "", differ("from an address outside of allowed_ips: %s", s.said(l.last))
}

func askRetryAfter(_ context.Context, s *Session) (string, error) {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	if len(s.meter.retryAfter) == 0 {
		return "", unasked("no request was answered with a 429")
	}
	with := 0
	for _, text := range s.meter.retryAfter {
		if text == "" {
			continue
		}
		with++
		switch wait, ok := waits(text, time.Now()); {
		case !ok:
			return "", differ("Retry-After is neither a number of seconds nor a date")
		case wait > longestPause:
			return "", differ("Retry-After asks to wait %s", wait.Round(time.Second))
		}
	}
	return fmt.Sprintf("%d of %d answers with 429 had it", with, len(s.meter.retryAfter)), nil
}

func askLimit(ctx context.Context, s *Session) (string, error) {
	err := s.look(ctx, keyPlain).err
	e := (*elevenlabs.Error)(nil)
	switch {
	case errors.Is(err, elevenlabs.ErrKeyLimit):
		return s.said(err), nil
	case err == nil:
		return "", unasked("no create was refused, and finding the limit would take more than %d keys", maxKeys)
	case !errors.As(err, &e) || !refused(err) || slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}, e.Status):
		return "", err
	}
	return "", differ("a create was refused, perhaps for the number of keys: %s", s.said(err))
}

func askNoCredits(ctx context.Context, s *Session) (string, error) {
	return s.with(ctx, plainSettings(), func(k *key) (string, error) {
		settings := plainSettings()
		settings.CharacterLimit = new(int64)
		err := s.ask(ctx, func(ctx context.Context) error {
			return s.api.UpdateKey(ctx, s.opt.Account, k.id, elevenlabs.Update{Name: k.name, Settings: &settings})
		})
		if err != nil {
			return "", err
		}
		_, err = s.get(ctx, k.secret, pathUser)
		e := (*elevenlabs.Error)(nil)
		switch {
		case err == nil:
			return "", unasked("%s is free for a key with a limit of 0, and nothing that costs is asked for", pathUser)
		case !refused(err) && !errors.Is(err, elevenlabs.ErrRateLimited):
			return "", err
		case errors.Is(err, elevenlabs.ErrInvalidKey) || !errors.As(err, &e) || e.Status != http.StatusUnauthorized && e.Status != http.StatusForbidden:
			return "", differ("%s", s.said(err))
		}
		return s.said(err), nil
	})
}
