package elevenlabs

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/rekeyd/rekeyd/internal/jsonvalues"
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

// accountList is a workspace's accounts as they were decoded, with the sums of the whole text and of each account's.
type accountList struct {
	sum      [sha256.Size]byte
	sums     [][sha256.Size]byte
	accounts []ServiceAccount
}

// decodeAccounts decodes a listing. Where its text is that of the listing before, or that of an account in the same place, what was
// decoded then is taken: mostly nothing has changed.
func decodeAccounts(body []byte, before *accountList) (*accountList, error) {
	sum := sha256.Sum256(body)
	if sum == before.sum {
		return before, nil
	}
	accounts := &accountsReader{before: before, permissions: permissionReader{}}
	list := struct {
		Accounts *accountsReader `json:"service-accounts"`
	}{accounts}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	if list.Accounts == nil || accounts.accountList == nil {
		return nil, errors.New("no service-accounts in it")
	}
	accounts.sum = sum
	return accounts.accountList, nil
}

type accountsReader struct {
	*accountList // nil: none was read
	before       *accountList
	permissions  permissionReader
}

// UnmarshalJSON reads the list of accounts.
func (r *accountsReader) UnmarshalJSON(list []byte) error {
	if list[0] != '[' {
		return json.Unmarshal(list, new([]wireAccount)) // says what it is instead
	}
	n := len(r.before.accounts)
	r.accountList = &accountList{sums: make([][sha256.Size]byte, 0, n), accounts: make([]ServiceAccount, 0, n)}
	for _, text := range jsonvalues.Parts(list) {
		i, sum := len(r.accounts), sha256.Sum256(text)
		if i < n && r.before.sums[i] == sum {
			r.accounts = append(r.accounts, r.before.accounts[i])
		} else if a, err := decodeAccount(text, r.permissions); err == nil {
			r.accounts = append(r.accounts, a)
		} else {
			return fmt.Errorf("service account %d: %w", i, err)
		}
		r.sums = append(r.sums, sum)
	}
	return nil
}

func decodeAccount(text []byte, read permissionReader) (ServiceAccount, error) {
	var w wireAccount
	if err := json.Unmarshal(text, &w); err != nil {
		return ServiceAccount{}, err
	}
	if w.ID == "" {
		return ServiceAccount{}, errors.New("no service_account_user_id")
	}
	keys, err := convertKeys(w.ID, w.Keys, read)
	return ServiceAccount{ID: w.ID, Name: w.Name, Keys: keys}, err
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
