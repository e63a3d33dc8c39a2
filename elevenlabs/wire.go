package elevenlabs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

const noUpdate, clearIt = "no_update", "clear"

type wireAccount struct {
	ID   string     `json:"service_account_user_id"`
	Name string     `json:"name"`
	Keys *[]wireKey `json:"api-keys"`
}

type wireKey struct {
	ID             string          `json:"key_id"`
	Name           string          `json:"name"`
	Hint           string          `json:"hint"`
	Account        string          `json:"service_account_user_id"`
	CreatedAt      *int64          `json:"created_at_unix"`
	Disabled       bool            `json:"is_disabled"`
	DisableReason  string          `json:"disable_reason"`
	CharacterCount int64           `json:"character_count"`
	CharacterLimit *int64          `json:"character_limit"`
	Permissions    json.RawMessage `json:"permissions"`
	AllowedIPs     []string        `json:"allowed_ips"`
	wireOptional
}

func decodeAccounts(body []byte) ([]ServiceAccount, error) {
	var list struct {
		Accounts *[]wireAccount `json:"service-accounts"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	if list.Accounts == nil {
		return nil, errors.New("no service-accounts in it")
	}
	read := permissionReader{}
	accounts := make([]ServiceAccount, 0, len(*list.Accounts))
	for i, w := range *list.Accounts {
		if w.ID == "" {
			return nil, fmt.Errorf("service account %d has no service_account_user_id", i)
		}
		keys, err := convertKeys(w.ID, w.Keys, read)
		if err != nil {
			return nil, fmt.Errorf("service account %d: %w", i, err)
		}
		accounts = append(accounts, ServiceAccount{ID: w.ID, Name: w.Name, Keys: keys})
	}
	return accounts, nil
}

func decodeKeys(account string, body []byte) ([]Key, error) {
	var list struct {
		Keys *[]wireKey `json:"api-keys"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	return convertKeys(account, list.Keys, permissionReader{})
}

func convertKeys(account string, list *[]wireKey, read permissionReader) ([]Key, error) {
	if list == nil {
		return nil, errors.New("no api-keys in it")
	}
	keys := make([]Key, 0, len(*list))
	for i, w := range *list {
		key, err := w.key(account, read)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// key converts one entry of an account's listing. It refuses an entry of another account: calls by id would get a 404,
// which would count as deleted.
func (w wireKey) key(account string, read permissionReader) (Key, error) {
	if w.ID == "" {
		return Key{}, errors.New("no key_id")
	}
	if w.Account != "" && w.Account != account {
		return Key{}, errors.New("it is listed for one service account and names another")
	}
	permissions, err := read.permissions(w.Permissions)
	if err != nil {
		return Key{}, err
	}
	ips, err := parsePrefixes(w.AllowedIPs)
	if err != nil {
		return Key{}, err
	}
	return Key{
		ID: w.ID, Name: w.Name, Hint: w.Hint, ServiceAccount: account, CreatedAt: unixTime(w.CreatedAt),
		Disabled: w.Disabled, DisableReason: w.DisableReason, CharacterCount: w.CharacterCount,
		Settings: Settings{Permissions: permissions, AllowedIPs: ips, CharacterLimit: w.CharacterLimit, Optional: w.optional()},
	}, nil
}

// permissionReader caches the permissions of one listing by their JSON: most keys have the same.
type permissionReader map[string]Permissions

func (r permissionReader) permissions(raw json.RawMessage) (Permissions, error) {
	if p, known := r[string(raw)]; known {
		return p, nil
	}
	p, err := permissionsOf(raw)
	if err == nil {
		r[string(raw)] = p
	}
	return p, err
}

// permissionsOf reads the permissions of a listed key. Assumption A01: null stands for all.
func permissionsOf(raw json.RawMessage) (Permissions, error) {
	var names *[]string
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &names); err != nil {
			return Permissions{}, fmt.Errorf("permissions: %w", err)
		}
	}
	if names == nil {
		return Permissions{All: true}, nil
	}
	return Permissions{Names: *names}, nil
}

// parsePrefixes reads an allowlist. Assumption A12: an empty one stands for every address, like none.
func parsePrefixes(list []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			ip, err := netip.ParseAddr(text)
			if err != nil || ip.Zone() != "" {
				return nil, errors.New("allowed_ips has an entry that is neither address nor CIDR range")
			}
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		prefixes = append(prefixes, normalPrefix(p))
	}
	return prefixes, nil
}

// unixTime is zero for a time that no record can hold: absent, before 1970, or a year of five digits.
func unixTime(seconds *int64) time.Time {
	if seconds == nil || *seconds <= 0 || *seconds > 253402300799 {
		return time.Time{}
	}
	return time.Unix(*seconds, 0).UTC()
}

func decodeCreated(body []byte) (CreatedKey, error) {
	var w struct {
		Secret string `json:"xi-api-key"`
		ID     string `json:"key_id"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return CreatedKey{ID: w.ID}, err
	}
	if w.Secret == "" {
		return CreatedKey{ID: w.ID}, errors.New("no xi-api-key in it")
	}
	if !printable(w.Secret) { // unusable in a header, and a risk to readers of the record
		return CreatedKey{ID: w.ID}, errors.New("its xi-api-key has characters that no header can carry")
	}
	return CreatedKey{ID: w.ID, Secret: secret.New(w.Secret)}, nil
}

type wireCreate struct {
	Name           string   `json:"name"`
	Permissions    any      `json:"permissions"`
	CharacterLimit *int64   `json:"character_limit,omitempty"`
	AllowedIPs     []string `json:"allowed_ips,omitempty"`
	optionalFields
}

// createBody gives a new key the settings; a value of none is left out, as the API has it.
func createBody(name string, s Settings) wireCreate {
	s = s.normal()
	return wireCreate{Name: name, Permissions: s.Permissions.wire(), CharacterLimit: s.CharacterLimit,
		AllowedIPs: prefixTexts(s.AllowedIPs), optionalFields: s.bodyFields(nil)}
}

// wireUpdate always carries the first three: the API of 2025 requires them together.
type wireUpdate struct {
	IsEnabled      any    `json:"is_enabled"`
	Name           string `json:"name"`
	Permissions    any    `json:"permissions"`
	CharacterLimit any    `json:"character_limit,omitempty"`
	AllowedIPs     any    `json:"allowed_ips,omitempty"`
	optionalFields
}

func updateBody(u Update) wireUpdate {
	w := wireUpdate{IsEnabled: noUpdate, Name: u.Name, Permissions: noUpdate}
	if u.Enabled != nil {
		w.IsEnabled = *u.Enabled
	}
	if u.Settings == nil {
		return w
	}
	s := u.Settings.normal()
	w.Permissions, w.CharacterLimit, w.AllowedIPs = s.Permissions.wire(), clearIt, clearIt
	if s.CharacterLimit != nil {
		w.CharacterLimit = *s.CharacterLimit
	}
	if s.AllowedIPs != nil {
		w.AllowedIPs = prefixTexts(s.AllowedIPs)
	}
	w.optionalFields = s.bodyFields(clearIt) // what is not managed is left out, which leaves it as it is
	return w
}

func (p Permissions) wire() any {
	if p.All {
		return "all"
	}
	return p.Names
}

func prefixTexts(prefixes []netip.Prefix) []string {
	var texts []string
	for _, p := range prefixes {
		texts = append(texts, p.String())
	}
	return texts
}
