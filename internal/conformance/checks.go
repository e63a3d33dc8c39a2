package conformance

import (
	"context"
	"errors"
	"net/netip"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// Check is one row of FIDELITY.md that is an assumption.
type Check struct {
	ID         string
	Assumption string
	How        string // what is done to ask
}

type check struct {
	Check

	// ask returns what was seen where the assumption holds. Its error is a differs, or why it could not be asked.
	ask func(context.Context, *Session) (string, error)
}

// Checks returns what a run asks.
func Checks() []Check {
	all := make([]Check, len(checks))
	for i, c := range checks {
		all[i] = c.Check
	}
	return all
}

const (
	pathUser   = "/v1/user"   // needs user_read, and costs nothing
	pathModels = "/v1/models" // needs models_read, and costs nothing
	pathList   = "/v1/service-accounts"
	selfPath   = "/v1/workspaces/api-keys/disable?api_key_name=self"

	longestName = 63 // rekeyd.OWNER.POLICY.ROTATION
)

//nolint:gochecknoglobals // a constant table; nothing changes it
var checks = []check{
	{Check{"A01", "permissions: null in a listing stands for all", "lists a key with all permissions"}, askAll},
	{Check{"A02", "no key: 401 needs_authorization", "asks for /v1/user without a key"}, askNoKey},
	{Check{"A03", "unknown, deleted or disabled key: 401 invalid_api_key", "asks for /v1/user with a made-up key, a disabled one, a deleted one"}, askDeadKeys},
	{Check{"A04", "a permission that the key lacks: 401 or 403 missing_permissions", "asks for /v1/models with a key that has user_read alone"}, askMissing},
	{Check{"A05", "every management call needs service_account_write", "lists accounts and keys, and updates a key as it is, with a key that has user_read alone"}, askUnprivileged},
	{Check{"A06", "a service account's key may have service_account_write", "lists accounts with a key that has it"}, askManager},
	{Check{"A07", "a key disabled by the provider can be enabled again", "has a key disable itself, as a leaked key is disabled, and enables it; ElevenLabs may notify the workspace of that"}, askEnable},
	{Check{"A08", "deleting is final; a second delete is 404", "deletes a deleted key"}, aboutLives(askSecondDelete)},
	{Check{"A09", "names of keys need not be unique", "creates two keys with one name"}, askTwins},
	{Check{"A10", "platform_limits is null for a key without a limit, and a limit that is not set is null in it", "lists a key without limits, and one with tts_concurrency_limit"}, askNoLimits},
	{Check{"A11", "a key created without third_party_disable_allowed lists it as null", "lists a key without it"}, aboutPlain(askThirdParty)},
	{Check{"A12", "a key without an allowlist lists null or an empty list", "lists a key without allowed_ips"}, aboutPlain(askNoAllowlist)},
	{Check{"A13", "a request from another address gets a 403 that speaks of the IP", "uses a key whose allowed_ips hold a range for documentation alone"}, askAddress},
	{Check{"A14", "Retry-After may or may not come with a 429, in seconds or as a date, and at most a minute", "looks at the 429s that come, and provokes none"}, askRetryAfter},
	{Check{"A15", "a new key may take a moment to work: 401 invalid_api_key until then, and then it works", "measures three keys"}, aboutLives(askDelay)},
	{Check{"A16", "listings may lag a moment behind creates and deletes", "measures three keys"}, askListings},
	{Check{"A17", "calls by id know a key from its create on", "updates three keys as they are, right after their create"}, aboutLives(askByID)},
	{Check{"A18", "a disabled key may work for a moment longer", "measures three keys"}, aboutLives(askDisabled)},
	{Check{"A19", "listings may lag a moment behind changes of a key", "measures three keys"}, aboutLives(askChanges)},
	{Check{"A20", "a refusal for the number of keys speaks of a limit of keys", "looks at the refusals that come: there are never more than three keys"}, askLimit},
	{Check{"A21", "the longest name is not shorter than rekeyd's 63 characters", "creates a key with a name of 63 characters"}, askLongName},
	{Check{"A22", "past character_limit a key is not refused as an invalid one", "asks for /v1/user with a key that has a character_limit of 0"}, askNoCredits},
	{Check{"A23", "a plan without allowlisting drops allowed_ips silently", "creates a key with allowed_ips"}, askAllowlist},
	{Check{"A24", "a plan that refuses an optional setting names it", "creates a key with tts_concurrency_limit"}, askNotOffered},
	{Check{"A25", "a plan that does not refuse an optional setting takes it as it is, or drops it", "creates a key with tts_concurrency_limit"}, askNotTaken},
}

func plainSettings() elevenlabs.Settings { return may("user_read") }

func may(permissions ...string) elevenlabs.Settings {
	return elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: permissions}}
}

// result is a key that several checks look at, as it is listed.
type result struct {
	key    *key
	listed elevenlabs.Key
	err    error
}

// Keys that several checks look at.
const (
	keyPlain   = "plain"   // user_read and nothing else; it stays until the end
	keyWalled  = "walled"  // used by no address
	keyLimited = "limited" // with a concurrency limit
)

// nowhere is a range for documentation (RFC 5737).
const nowhere = "192.0.2.0/24"

const limit = 2

// look makes one of these keys, once in a run.
func (s *Session) look(ctx context.Context, which string) result {
	r, there := s.cache[which]
	if there {
		return r
	}
	settings := plainSettings()
	switch which {
	case keyWalled:
		settings.AllowedIPs = []netip.Prefix{netip.MustParsePrefix(nowhere)}
	case keyLimited:
		settings.TTSConcurrency = elevenlabs.Some(int64(limit))
	}
	if r.key, r.err = s.create(ctx, "", settings); r.err == nil {
		r.listed, r.err = s.listed(ctx, r.key)
	}
	if which == keyLimited && r.key != nil {
		_ = s.drop(ctx, r.key) // create and sweep try again
	}
	if ctx.Err() == nil {
		s.cache[which] = r
	}
	return r
}

// plain is a key with user_read that works.
func (s *Session) plain(ctx context.Context) (*key, error) {
	r := s.look(ctx, keyPlain)
	if r.key == nil {
		return nil, r.err
	}
	return r.key, s.usable(ctx, r.key)
}

// aboutLives is a check of the keys that were measured.
func aboutLives(ask func(*Session, []*life) (string, error)) func(context.Context, *Session) (string, error) {
	return func(ctx context.Context, s *Session) (string, error) {
		lived, err := s.lives(ctx)
		if err != nil {
			return "", err
		}
		return ask(s, lived)
	}
}

// aboutPlain is a check of what the listing shows of a key without any setting.
func aboutPlain(ask func(elevenlabs.Settings) (string, error)) func(context.Context, *Session) (string, error) {
	return func(ctx context.Context, s *Session) (string, error) {
		r := s.look(ctx, keyPlain)
		if r.err != nil {
			return "", r.err
		}
		return ask(r.listed.Settings)
	}
}

// with makes a key that works for one check, and deletes it after that.
func (s *Session) with(ctx context.Context, settings elevenlabs.Settings, use func(*key) (string, error)) (string, error) {
	k, err := s.create(ctx, "", settings)
	if err != nil {
		return "", err
	}
	defer func() { _ = s.drop(ctx, k) }() // create and sweep try again
	if err := s.usable(ctx, k); err != nil {
		return "", err
	}
	return use(k)
}

// aboutSettings reports whether a refused create says something about what it asked for: one that asked for less was not refused.
func (s *Session) aboutSettings(err error) bool {
	return refused(err) && !errors.Is(err, elevenlabs.ErrKeyLimit) && s.cache[keyPlain].key != nil
}
