package elevensim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Key is one API key with its complete state.
type Key struct {
	ID                string         `json:"id"`
	Account           string         `json:"account"` // service_account_user_id
	Name              string         `json:"name"`
	Secret            string         `json:"secret"`
	Permissions       []string       `json:"permissions"` // nil: all
	AllowedIPs        []netip.Prefix `json:"allowed_ips"` // nil: every address
	CharacterLimit    *int64         `json:"character_limit"`
	CharacterCount    int64          `json:"character_count"`
	ThirdPartyDisable *bool          `json:"third_party_disable_allowed"`
	TTSConcurrency    *int64         `json:"tts_concurrency_limit"`
	DubConcurrency    *int64         `json:"dubbing_concurrency_limit"`
	MusicConcurrency  *int64         `json:"music_concurrency_limit"`
	Disabled          bool           `json:"disabled"`
	DisableReason     string         `json:"disable_reason"`
	CreatedAt         time.Time      `json:"created_at"`
	UsableAt          time.Time      `json:"usable_at"` // later than CreatedAt by Faults.KeyDelay
	DisabledAt        time.Time      `json:"-"`         // or enabled; Faults.DisableLag counts from it
	DeletedAt         time.Time      `json:"deleted_at,omitzero"`

	used int       // requests that were accepted
	past []pastKey // what listings may still show, for Faults.ChangeLag
}

// pastKey is what a key was until a change.
type pastKey struct {
	until time.Time
	key   *Key
}

// Deleted reports whether the key is deleted.
func (k *Key) Deleted() bool { return !k.DeletedAt.IsZero() }

func (k *Key) may(permission string) bool {
	return permission == "" || k.Permissions == nil || slices.Contains(k.Permissions, permission)
}

func (k *Key) admits(ip netip.Addr) bool {
	return k.AllowedIPs == nil || slices.ContainsFunc(k.AllowedIPs, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// clone copies the slices, so that callers cannot change the state; pointed-at values are immutable.
func (k *Key) clone() Key {
	c := *k
	c.Permissions = slices.Clone(k.Permissions)
	c.AllowedIPs = slices.Clone(k.AllowedIPs)
	c.past = nil
	return c
}

// KeySpec describes a key created by another writer.
type KeySpec struct {
	ID             string   `json:"id"`     // "": a new one
	Secret         string   `json:"secret"` // "": a new one
	Name           string   `json:"name"`
	Permissions    []string `json:"permissions"`     // nil: all; names are not checked
	AllowedIPs     []string `json:"allowed_ips"`     // nil: every address
	CharacterLimit *int64   `json:"character_limit"` // nil: none

	ThirdPartyDisable *bool  `json:"third_party_disable_allowed"` // nil: as the plan has it
	TTSConcurrency    *int64 `json:"tts_concurrency_limit"`       // nil: none, as those below
	DubConcurrency    *int64 `json:"dubbing_concurrency_limit"`
	MusicConcurrency  *int64 `json:"music_concurrency_limit"`
}

type account struct {
	Account
	createdAt time.Time
	live      []*Key // in order of creation
	gone      []*Key // in order of deletion
}

// AccountState is a service account with all keys that it ever had: existing ones by creation, then deleted ones by
// deletion.
type AccountState struct {
	Account
	CreatedAt time.Time `json:"created_at"`
	Keys      []Key     `json:"keys"`
}

// ChangeKind says what happened to a key.
type ChangeKind string

// What can happen to a key.
const (
	Created  ChangeKind = "create"
	Enabled  ChangeKind = "enable"
	Disabled ChangeKind = "disable"
	Deleted  ChangeKind = "delete"
	Patched  ChangeKind = "patch" // settings or name
)

// ByManagement is the Change.By of a method of Server or a call under /_sim/.
const ByManagement = "management"

// Change is one change to one key.
type Change struct {
	Time time.Time
	Kind ChangeKind
	By   string // "admin", the id of the key that authenticated the request, or ByManagement
	Key  Key    // after the change
}

// OnChange calls f for every change from now on, in order and under the server's lock: f must be quick and must
// not call the server. One request may change a key in two ways.
func (s *Server) OnChange(f func(Change)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observers = append(s.observers, f)
}

func (s *Server) changed(kind ChangeKind, k *Key, by string) {
	for _, f := range s.observers {
		f(Change{Time: s.now(), Kind: kind, By: by, Key: k.clone()})
	}
}

// State returns every service account with every key, secrets included.
func (s *Server) State() []AccountState {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]AccountState, 0, len(s.accounts))
	for _, a := range s.accounts {
		state := AccountState{Account: a.Account, CreatedAt: a.createdAt, Keys: []Key{}}
		for _, k := range slices.Concat(a.live, a.gone) {
			state.Keys = append(state.Keys, k.clone())
		}
		states = append(states, state)
	}
	return states
}

// KeyBySecret finds the key, deleted or not, that a secret belongs to.
func (s *Server) KeyBySecret(secret string) (Key, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.bySecret[secret]
	if !ok {
		return Key{}, false
	}
	return k.clone(), true
}

// AddAccount adds a service account.
func (s *Server) AddAccount(a Account) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.account(a.ID) != nil {
		return fmt.Errorf("adding account %s: it exists", a.ID)
	}
	s.accounts = append(s.accounts, &account{Account: a, createdAt: s.now()})
	return nil
}

// RemoveAccount deletes a service account with all of its keys. State no longer shows it; KeyBySecret still knows
// its keys.
func (s *Server) RemoveAccount(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.account(id)
	if a == nil {
		return fmt.Errorf("removing account %s: there is none", id)
	}
	for _, k := range slices.Clone(a.live) {
		s.deleteKey(k, ByManagement)
	}
	s.accounts = slices.DeleteFunc(s.accounts, func(b *account) bool { return b == a })
	return nil
}

// AddKey creates a key as another writer would, regardless of limits and permissions, and returns its id and secret.
func (s *Server) AddKey(accountID string, spec KeySpec) (id, secret string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.account(accountID)
	if a == nil {
		return "", "", fmt.Errorf("adding a key: there is no account %s", accountID)
	}
	if s.keys[spec.ID] != nil {
		return "", "", fmt.Errorf("adding a key: there is a key %s already", spec.ID)
	}
	k := &Key{ID: spec.ID, Secret: spec.Secret, Name: spec.Name, Permissions: slices.Clone(spec.Permissions), CharacterLimit: spec.CharacterLimit,
		ThirdPartyDisable: spec.ThirdPartyDisable, TTSConcurrency: spec.TTSConcurrency, DubConcurrency: spec.DubConcurrency, MusicConcurrency: spec.MusicConcurrency}
	if k.AllowedIPs, err = prefixes(spec.AllowedIPs); err != nil {
		return "", "", fmt.Errorf("adding a key: %w", err)
	}
	s.insert(a, k, ByManagement)
	return k.ID, k.Secret, nil
}

// DisableKey disables a key as the provider does, with a reason, or as a person does, with "".
func (s *Server) DisableKey(id, reason string) error {
	return s.withKey("disabling", id, func(k *Key) { s.setEnabled(k, false, reason, ByManagement) })
}

// EnableKey enables a key.
func (s *Server) EnableKey(id string) error {
	return s.withKey("enabling", id, func(k *Key) { s.setEnabled(k, true, "", ByManagement) })
}

// DeleteKey deletes a key.
func (s *Server) DeleteKey(id string) error {
	return s.withKey("deleting", id, func(k *Key) { s.deleteKey(k, ByManagement) })
}

// ShareVoice makes a voice readable for a service account, or for a single key alone, by its id.
func (s *Server) ShareVoice(voice, with string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.voices[voice] = append(s.voices[voice], with)
}

// UnshareVoice undoes ShareVoice.
func (s *Server) UnshareVoice(voice, with string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.voices[voice] = slices.DeleteFunc(s.voices[voice], func(id string) bool { return id == with })
}

// AddUsage counts credits on a key. They may be negative: a counter is smaller again when a billing month begins.
func (s *Server) AddUsage(id string, credits int64) error {
	return s.withKey("adding usage to", id, func(k *Key) { k.CharacterCount += credits })
}

func (s *Server) withKey(doing, id string, f func(*Key)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[id]
	if k == nil || k.Deleted() {
		return fmt.Errorf("%s key %s: there is none", doing, id)
	}
	f(k)
	return nil
}

// The functions below expect the lock to be held.

func (s *Server) account(id string) *account {
	i := slices.IndexFunc(s.accounts, func(a *account) bool { return a.ID == id })
	if i < 0 {
		return nil
	}
	return s.accounts[i]
}

func (s *Server) insert(a *account, k *Key, by string) {
	k.ID = cmp.Or(k.ID, s.hex(2))
	k.Secret = cmp.Or(k.Secret, "sk_"+s.hex(3))
	k.Account = a.ID
	k.CreatedAt = s.now()
	k.UsableAt = k.CreatedAt.Add(time.Duration(s.faults.KeyDelay))
	a.live = append(a.live, k)
	s.keys[k.ID], s.bySecret[k.Secret] = k, k
	s.changed(Created, k, by)
}

func (s *Server) setEnabled(k *Key, enabled bool, reason, by string) {
	if enabled == !k.Disabled && reason == "" {
		return
	}
	s.remember(k)
	k.Disabled, k.DisableReason = !enabled, reason
	k.DisabledAt = s.now()
	kind := Disabled
	if enabled {
		kind = Enabled
	}
	s.changed(kind, k, by)
}

// remember keeps what a key is before a change, if listings lag behind changes.
func (s *Server) remember(k *Key) {
	if s.faults.ChangeLag > 0 {
		now := k.clone()
		k.past = append(k.past, pastKey{s.now(), &now})
	}
}

// shown is the key as listings show it.
func (s *Server) shown(k *Key) *Key {
	then := s.now().Add(-time.Duration(s.faults.ChangeLag))
	for _, p := range k.past {
		if p.until.After(then) {
			return p.key
		}
	}
	return k
}

func (s *Server) deleteKey(k *Key, by string) {
	k.DeletedAt = s.now()
	if a := s.account(k.Account); a != nil {
		a.live = slices.DeleteFunc(a.live, func(l *Key) bool { return l == k })
		a.gone = append(a.gone, k)
	}
	s.changed(Deleted, k, by)
}

// hex returns 16 random digits for each word.
func (s *Server) hex(words int) string {
	digits := ""
	for range words {
		digits += fmt.Sprintf("%016x", s.ids.Uint64())
	}
	return digits
}
