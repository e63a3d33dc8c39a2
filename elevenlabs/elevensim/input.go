package elevensim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// setting is a field of a request body; not set if the body omits it or says "no_update".
type setting[T any] struct {
	set   bool
	value T // the zero value if the body says "clear", null or "all"
}

func (v setting[T]) apply(to *T) bool {
	if v.set {
		*to = v.value
	}
	return v.set
}

// keyPatch is the change that a create or an update requests.
type keyPatch struct {
	enabled           setting[bool]
	name              setting[string]
	permissions       setting[[]string]
	allowedIPs        setting[[]netip.Prefix]
	characterLimit    setting[*int64]
	thirdPartyDisable setting[*bool]
	tts, dub, music   setting[*int64]
}

// apply changes all but enabled, and reports whether the request set any of it.
func (p *keyPatch) apply(k *Key) bool {
	named := []bool{
		p.name.apply(&k.Name), p.permissions.apply(&k.Permissions), p.allowedIPs.apply(&k.AllowedIPs),
		p.characterLimit.apply(&k.CharacterLimit), p.thirdPartyDisable.apply(&k.ThirdPartyDisable),
		p.tts.apply(&k.TTSConcurrency), p.dub.apply(&k.DubConcurrency), p.music.apply(&k.MusicConcurrency),
	}
	return slices.Contains(named, true)
}

func readCreate(c *call, f *Faults) (*keyPatch, *refusal) {
	b, refused := readForm(c)
	if refused != nil {
		return nil, refused
	}
	b.require("name", "permissions")
	return readKey(b, f)
}

func readUpdate(c *call, f *Faults) (*keyPatch, *refusal) {
	b, refused := readForm(c)
	if refused != nil {
		return nil, refused
	}
	b.update = true
	if f.FullUpdate {
		b.require("is_enabled", "name", "permissions")
	}
	return readKey(b, f)
}

// readKey reads the fields shared by create and update.
func readKey(b *form, f *Faults) (*keyPatch, *refusal) {
	p := &keyPatch{name: b.name(f.NameLimit)}
	if name := []rune(p.name.value); f.NameCut > 0 && len(name) > f.NameCut {
		p.name.value = string(name[:f.NameCut])
	}
	if b.update {
		p.enabled = deref(take[bool](b, "is_enabled", "bool"))
	}
	p.permissions = b.permissions()
	addresses := b.strings(fieldIPs, "clear")
	p.characterLimit = b.count("character_limit")
	if !f.NoOptionalFields {
		p.thirdPartyDisable = take[bool](b, fieldThirdParty, "bool", "clear")
		p.tts, p.dub, p.music = b.count(fieldTTS), b.count(fieldDub), b.count(fieldMusic)
	}
	if refused := b.finish(); refused != nil {
		return nil, refused
	}
	if refused := p.offered(f, addresses.value != nil); refused != nil {
		return nil, refused
	}
	if f.NoManagerKeys && slices.Contains(p.permissions.value, manage) {
		return nil, forbidden("permission_not_allowed", "A service account's API key may not have this permission.")
	}
	for _, limit := range []*setting[*int64]{&p.tts, &p.dub, &p.music} {
		if f.ConcurrencyCap > 0 && limit.value != nil {
			limit.value = new(min(*limit.value, f.ConcurrencyCap))
		}
	}
	ips, err := prefixes(addresses.value)
	if err != nil {
		return nil, badRequest("invalid_ip_address", err.Error(), fieldIPs)
	}
	p.allowedIPs = setting[[]netip.Prefix]{addresses.set && !f.IgnoreAllowedIPs && !slices.Contains(f.NotTaken, fieldIPs), ips}
	return p, nil
}

const (
	fieldThirdParty = "third_party_disable_allowed"
	fieldTTS        = "tts_concurrency_limit"
	fieldDub        = "dubbing_concurrency_limit"
	fieldMusic      = "music_concurrency_limit"
	fieldIPs        = "allowed_ips"
)

func optionalFields() []string { return []string{fieldThirdParty, fieldTTS, fieldDub, fieldMusic} }

// offered refuses what the plan does not offer, and drops what it accepts without effect. Clearing such a field is always
// accepted.
func (p *keyPatch) offered(f *Faults, addresses bool) *refusal {
	for _, s := range []struct {
		name  string
		value bool
		drop  func()
	}{
		{fieldThirdParty, p.thirdPartyDisable.value != nil, func() { p.thirdPartyDisable.set = false }},
		{fieldTTS, p.tts.value != nil, func() { p.tts.set = false }},
		{fieldDub, p.dub.value != nil, func() { p.dub.set = false }},
		{fieldMusic, p.music.value != nil, func() { p.music.set = false }},
		{fieldIPs, addresses, func() {}},
	} {
		if s.value && slices.Contains(f.NotOffered, s.name) {
			return &refusal{status: http.StatusForbidden, kind: "authorization_error", code: "feature_not_available", param: s.name,
				message: s.name + " is not available on the plan of this workspace."}
		}
		if slices.Contains(f.NotTaken, s.name) {
			s.drop()
		}
	}
	return nil
}

func readAccount(c *call) (string, *refusal) {
	b, refused := readForm(c)
	if refused != nil {
		return "", refused
	}
	b.require("name")
	name := b.name(0)
	take[[]map[string]any](b, "default_sharing_groups", "list")
	return name.value, b.finish()
}

// prefixes reads addresses and CIDR ranges; a bare address becomes /32 or /128.
func prefixes(texts []string) ([]netip.Prefix, error) {
	var ps []netip.Prefix
	for _, t := range texts {
		p, err := netip.ParsePrefix(t)
		if a, bare := netip.ParseAddr(t); bare == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an IP address nor a CIDR range", t)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%q has host bits set", t)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// form reads a JSON object field by field and collects its errors. A field that is not taken is refused as unknown.
type form struct {
	raw      map[string]json.RawMessage
	asked    map[string]bool
	errs     []fieldError
	required map[string]bool
	update   bool // an update of a key, which has words instead of null
}

func readForm(c *call) (*form, *refusal) {
	b := &form{asked: map[string]bool{}, required: map[string]bool{}}
	loc := []string{"body"}
	switch {
	case len(c.body) == 0:
		return nil, invalid([]fieldError{{loc, "Field required", "missing"}})
	case !c.json || !json.Valid(c.body):
		return nil, invalid([]fieldError{{loc, "The body must be JSON, with Content-Type: application/json", "json_invalid"}})
	case json.Unmarshal(c.body, &b.raw) != nil || b.raw == nil:
		return nil, invalid([]fieldError{{loc, "Input should be a valid dictionary", "dict_type"}})
	}
	return b, nil
}

func (b *form) fail(field, kind, msg string) {
	b.errs = append(b.errs, fieldError{[]string{"body", field}, msg, kind})
}

func (b *form) require(fields ...string) {
	for _, f := range fields {
		b.required[f] = true
		if _, ok := b.raw[f]; !ok {
			b.fail(f, "missing", "Field required")
		}
	}
}

func (b *form) finish() *refusal {
	for _, field := range slices.Sorted(maps.Keys(b.raw)) {
		if !b.asked[field] {
			b.fail(field, "extra_forbidden", "Extra inputs are not permitted")
		}
	}
	if b.errs == nil {
		return nil
	}
	return invalid(b.errs)
}

// take reads one field as T. In an update the given words clear it and "no_update" leaves it (but for the name, where
// that is a name like any other); in a create null leaves what is not required.
func take[T any](b *form, field, kind string, words ...string) setting[*T] {
	b.asked[field] = true
	raw, ok := b.raw[field]
	null := bytes.Equal(raw, []byte("null"))
	kept := b.update && field != "name" && string(raw) == `"no_update"`
	if !ok || kept || null && !b.update && !b.required[field] {
		return setting[*T]{}
	}
	if b.update && slices.ContainsFunc(words, func(w string) bool { return string(raw) == `"`+w+`"` }) {
		return setting[*T]{set: true}
	}
	v := new(T)
	if null || json.Unmarshal(raw, v) != nil {
		b.fail(field, kind+"_type", "Input should be a valid "+strings.Join(append([]string{kind}, words...), " or "))
		return setting[*T]{}
	}
	return setting[*T]{true, v}
}

func deref[T any](v setting[*T]) (d setting[T]) {
	if v.value != nil {
		d.value = *v.value
	}
	d.set = v.set
	return d
}

func (b *form) name(limit int) setting[string] {
	v := deref(take[string](b, "name", "string"))
	switch n := utf8.RuneCountInString(v.value); {
	case v.set && n == 0:
		b.fail("name", "string_too_short", "String should have at least 1 character")
	case limit > 0 && n > limit:
		b.fail("name", "string_too_long", fmt.Sprintf("String should have at most %d characters", limit))
	}
	return v
}

func (b *form) count(field string) setting[*int64] {
	v := take[int64](b, field, "integer", "clear")
	if v.value != nil && *v.value < 0 {
		b.fail(field, "greater_than_equal", "Input should be greater than or equal to 0")
	}
	return v
}

func (b *form) strings(field string, words ...string) setting[[]string] {
	elements := deref(take[[]*string](b, field, "list", words...))
	v := setting[[]string]{set: elements.set}
	if elements.value != nil {
		v.value = []string{}
	}
	for _, e := range elements.value {
		if e == nil {
			b.fail(field, "string_type", "Input should be a valid string")
			continue
		}
		v.value = append(v.value, *e)
	}
	if field == fieldIPs && v.value != nil && len(v.value) == 0 {
		b.fail(field, "too_short", "List should have at least 1 item")
	}
	return v
}

func (b *form) permissions() setting[[]string] {
	const field = "permissions"
	if string(b.raw[field]) == `"all"` {
		b.asked[field] = true
		return setting[[]string]{set: true}
	}
	v := b.strings(field)
	known := strings.Fields(knownPermissions)
	for _, p := range v.value {
		if !slices.Contains(known, p) {
			b.fail(field, "enum", fmt.Sprintf("%q is not a known permission", p))
		}
	}
	return v
}
