package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

func askAll(ctx context.Context, s *Session) (string, error) {
	plain := s.look(ctx, keyPlain)
	if plain.err != nil {
		return "", plain.err
	}
	if plain.listed.Settings.Permissions.All {
		return "", differ("a key with user_read alone is listed with null, or without permissions")
	}
	k, err := s.create(ctx, "", elevenlabs.Settings{Permissions: elevenlabs.Permissions{All: true}})
	if err != nil {
		return "", err
	}
	defer func() { _ = s.drop(ctx, k) }() // create and sweep try again
	listed, err := s.listed(ctx, k)
	switch p := listed.Settings.Permissions; {
	case err != nil:
		return "", err
	case !p.All:
		return "", differ("a key with all permissions is listed with %d names", len(p.Names))
	}
	return "null for a key with all permissions, names for another", nil
}

func askTwins(ctx context.Context, s *Session) (string, error) {
	first, err := s.create(ctx, "", plainSettings())
	if err != nil {
		return "", err
	}
	defer func() { _ = s.drop(ctx, first) }() // create and sweep try again
	second, err := s.create(ctx, first.name, plainSettings())
	switch {
	case s.aboutSettings(err):
		return "", differ("a second key with the same name: %s", s.said(err))
	case err != nil:
		return "", err
	}
	return "two keys have one name", s.drop(ctx, second)
}

func askNoLimits(ctx context.Context, s *Session) (string, error) {
	plain := s.look(ctx, keyPlain)
	if plain.err != nil {
		return "", plain.err
	}
	o := plain.listed.Settings.Optional
	all := []elevenlabs.Value[int64]{o.TTSConcurrency, o.DubbingConcurrency, o.MusicConcurrency}
	for _, v := range all {
		if v.Has() {
			return "", differ("a key without limits is listed with one of %d", v.Value)
		}
	}
	if !all[0].Known {
		return "", unasked("listings show no platform_limits")
	}
	limited := s.look(ctx, keyLimited)
	l := limited.listed.Settings
	switch {
	case limited.err != nil || !l.TTSConcurrency.Has():
		return "null for a key without limits; the plan takes none", nil
	case l.DubbingConcurrency.Has() || l.MusicConcurrency.Has():
		return "", differ("a key with tts_concurrency_limit alone is listed with others")
	}
	return "null for a key without limits, and for those that are not set", nil
}

func askThirdParty(listed elevenlabs.Settings) (string, error) {
	switch v := listed.ThirdPartyDisable; {
	case v.Has():
		return "", differ("it is listed as %t", v.Value)
	case !v.Known:
		return "", unasked("listings show no third_party_disable_allowed")
	}
	return "null", nil
}

func askNoAllowlist(listed elevenlabs.Settings) (string, error) {
	if n := len(listed.AllowedIPs); n > 0 {
		return "", differ("it is listed with %d ranges", n)
	}
	return "none is listed", nil
}

func askLongName(ctx context.Context, s *Session) (string, error) {
	name := s.name() + "."
	k, err := s.create(ctx, name+strings.Repeat("x", longestName-len(name)), plainSettings())
	switch {
	case s.aboutSettings(err):
		return "", differ("a name of %d characters: %s", longestName, s.said(err))
	case err != nil:
		return "", err
	}
	defer func() { _ = s.drop(ctx, k) }() // create and sweep try again
	listed, err := s.listed(ctx, k)
	switch {
	case err != nil:
		return "", err
	case listed.Name != k.name:
		return "", differ("a name of %d characters is listed with %d", longestName, len([]rune(listed.Name)))
	}
	return fmt.Sprintf("%d characters are listed as they are", longestName), nil
}

func askAllowlist(ctx context.Context, s *Session) (string, error) {
	r := s.look(ctx, keyWalled)
	switch ips := r.listed.Settings.AllowedIPs; {
	case s.aboutSettings(r.err):
		return "", differ("a key with it: %s", s.said(r.err))
	case r.err != nil:
		return "", r.err
	case len(ips) == 0:
		return "it was dropped", nil
	case len(ips) > 1 || ips[0].String() != nowhere:
		return "", differ("it is listed with %d ranges, not as it was given", len(ips))
	}
	return "", unasked("the plan takes it")
}

func askNotOffered(ctx context.Context, s *Session) (string, error) {
	err := s.look(ctx, keyLimited).err
	switch {
	case err == nil:
		return "", unasked("the plan does not refuse tts_concurrency_limit")
	case errors.Is(err, elevenlabs.ErrSettingRefused):
		return s.said(err), nil
	case s.aboutSettings(err):
		return "", differ("%s, which does not name the field", s.said(err))
	}
	return "", err
}

func askNotTaken(ctx context.Context, s *Session) (string, error) {
	r := s.look(ctx, keyLimited)
	switch v := r.listed.Settings.TTSConcurrency; {
	case s.aboutSettings(r.err):
		return "", unasked("the plan refuses tts_concurrency_limit")
	case r.err != nil:
		return "", r.err
	case !v.Known:
		return "", unasked("listings show no platform_limits")
	case v.None:
		return "tts_concurrency_limit was dropped", nil
	case v.Value != limit:
		return "", differ("a tts_concurrency_limit of %d is listed as %d", limit, v.Value)
	}
	return "tts_concurrency_limit was taken", nil
}
