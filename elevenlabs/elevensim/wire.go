package elevensim

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The wire types follow openapi.yaml.

type wireAccountList struct {
	ServiceAccounts *[]wireAccount `json:"service-accounts,omitempty"`
	wireFuture
}

type wireAccount struct {
	ID                   string     `json:"service_account_user_id"`
	Name                 string     `json:"name"`
	CreatedAtUnix        int64      `json:"created_at_unix"`
	APIKeys              *[]wireKey `json:"api-keys,omitempty"`
	DefaultSharingGroups []struct{} `json:"default_sharing_groups"`
	wireFuture
}

type wireKeyList struct {
	APIKeys *[]wireKey `json:"api-keys,omitempty"`
	wireFuture
}

type wireKey struct {
	Name                 string         `json:"name"`
	Hint                 string         `json:"hint"`
	KeyID                string         `json:"key_id,omitempty"`
	ServiceAccountUserID string         `json:"service_account_user_id"`
	CreatedAtUnix        int64          `json:"created_at_unix"`
	IsDisabled           bool           `json:"is_disabled"`
	Permissions          []string       `json:"permissions"`
	DisableReason        *string        `json:"disable_reason"`
	CharacterLimit       *int64         `json:"character_limit"`
	CharacterCount       int64          `json:"character_count"`
	HashedXiAPIKey       string         `json:"hashed_xi_api_key"`
	AllowedIPs           []netip.Prefix `json:"allowed_ips"`
	*wireOptional                       // nil: an older API
	wireFuture
}

type wireOptional struct {
	ThirdPartyDisableAllowed *bool       `json:"third_party_disable_allowed"`
	PlatformLimits           *wireLimits `json:"platform_limits"`
}

type wireLimits struct {
	Concurrency        *wireLimit `json:"concurrency"`
	DubbingConcurrency *wireLimit `json:"dubbing_concurrency"`
	MusicConcurrency   *wireLimit `json:"music_concurrency"`
}

type wireLimit struct {
	Limit int64 `json:"limit"`
}

type wireCreatedKey struct {
	XiAPIKey string `json:"xi-api-key"`
	KeyID    string `json:"key_id,omitempty"`
	wireFuture
}

type wireCreatedAccount struct {
	ID string `json:"service-account-user-id"`
	wireFuture
}

// wireFuture holds fields unknown to current clients, for Faults.ExtraFields.
type wireFuture struct {
	Future       map[string]any `json:"future_object,omitempty"`
	FutureString string         `json:"future_string,omitempty"`
}

const futurePermission = "future_permission"

type wireError struct {
	Detail any `json:"detail"`
}

type wireDetail struct {
	Type      string `json:"type,omitempty"`
	Code      string `json:"code,omitempty"`
	Status    string `json:"status,omitempty"`
	Message   string `json:"message"`
	RequestID string `json:"request_id,omitempty"`
	Param     string `json:"param,omitempty"`
}

// fieldError is one entry of a 422's list.
type fieldError struct {
	Loc  []string `json:"loc"`
	Msg  string   `json:"msg"`
	Type string   `json:"type"`
}

func (s *Server) errorBody(r *refusal) wireError {
	if r.fields != nil {
		return wireError{r.fields}
	}
	if s.faults.LegacyErrors {
		return wireError{wireDetail{Status: r.code, Message: r.message}}
	}
	return wireError{wireDetail{Type: r.kind, Code: r.code, Status: r.code, Message: r.message,
		RequestID: fmt.Sprintf("req_%012x", s.requests), Param: r.param}}
}

// The functions below expect the lock to be held.

func (s *Server) future() wireFuture {
	if !s.faults.ExtraFields {
		return wireFuture{}
	}
	return wireFuture{Future: map[string]any{"nested": []int{1}}, FutureString: "unknown to every client"}
}

// wireKeys lists an account's visible keys, or nil if listings lack them.
func (s *Server) wireKeys(a *account) *[]wireKey {
	if s.faults.MissingList == "api-keys" {
		return nil
	}
	listed := []wireKey{}
	for _, k := range s.listed(a) {
		listed = append(listed, s.wireKey(s.shown(k)))
	}
	shuffle(s, listed)
	return &listed
}

// listed are the keys that listings show, which lag behind the existing ones by Faults.ListLag.
func (s *Server) listed(a *account) []*Key {
	lag := time.Duration(s.faults.ListLag)
	if lag == 0 {
		return a.live
	}
	then := s.now().Add(-lag)
	keys := slices.DeleteFunc(slices.Clone(a.live), func(k *Key) bool { return k.CreatedAt.After(then) })
	for _, k := range slices.Backward(a.gone) {
		if !k.DeletedAt.After(then) {
			break // the rest was deleted earlier
		}
		if !k.CreatedAt.After(then) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (s *Server) wireKey(k *Key) wireKey {
	hash := sha256.Sum256(fmt.Appendf(nil, "%d %s", s.hashSalt, k.Secret))
	w := wireKey{
		Name: k.Name, Hint: "..." + k.Secret[len(k.Secret)-4:], KeyID: k.ID, ServiceAccountUserID: k.Account,
		CreatedAtUnix: k.CreatedAt.Unix(), IsDisabled: k.Disabled, Permissions: slices.Clone(k.Permissions),
		CharacterLimit: k.CharacterLimit, CharacterCount: k.CharacterCount, HashedXiAPIKey: hex.EncodeToString(hash[:]),
		AllowedIPs: slices.Clone(k.AllowedIPs), wireFuture: s.future(),
	}
	if !s.faults.NoOptionalFields {
		w.wireOptional = &wireOptional{cmp.Or(k.ThirdPartyDisable, s.faults.ListThirdParty), limitsOf(k, s.faults.ListPlanLimit)}
	}
	if k.Permissions == nil && s.faults.ListAllNames {
		w.Permissions = strings.Fields(knownPermissions)
	}
	if k.AllowedIPs == nil && s.faults.ListAnyAddress {
		w.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	if k.DisableReason != "" {
		reason := k.DisableReason
		w.DisableReason = &reason
	}
	if s.faults.MissingList == "key_id" {
		w.KeyID = ""
	}
	if s.faults.ExtraFields && w.Permissions != nil {
		w.Permissions = append(w.Permissions, futurePermission)
	}
	shuffle(s, w.Permissions)
	shuffle(s, w.AllowedIPs)
	return w
}

// limitsOf are a key's concurrency limits, with that of the plan, unless it is 0, where the key has none.
func limitsOf(k *Key, plan int64) *wireLimits {
	if plan == 0 && k.TTSConcurrency == nil && k.DubConcurrency == nil && k.MusicConcurrency == nil {
		return nil
	}
	limit := func(n *int64) *wireLimit {
		switch {
		case n != nil:
			return &wireLimit{*n}
		case plan > 0:
			return &wireLimit{plan}
		}
		return nil
	}
	return &wireLimits{limit(k.TTSConcurrency), limit(k.DubConcurrency), limit(k.MusicConcurrency)}
}

// shuffle reorders a list if Faults.Shuffle is set.
func shuffle[T any](s *Server, list []T) {
	if s.faults.Shuffle {
		s.dice.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
}
