package elevenlabs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// known is the list of the API's description, in its order.
//
//nolint:gochecknoglobals // a constant list; nothing changes it
var known = [...]string{
	"text_to_speech", "speech_to_speech", "speech_to_text", "models_read", "models_write", "voices_read",
	"voices_write", "voice_collections_read", "voice_collections_write", "speech_history_read",
	"speech_history_write", "sound_generation", "audio_isolation", "voice_generation", "dubbing_read",
	"dubbing_write", "pronunciation_dictionaries_read", "pronunciation_dictionaries_write", "user_read",
	"user_write", "projects_read", "projects_write", "audio_native_read", "audio_native_write", "workspace_read",
	"workspace_write", "forced_alignment", "convai_read", "convai_write", "music_generation",
	"image_video_generation", "flows", "templates", "add_voice_from_voice_library", "create_instant_voice_clone",
	"create_professional_voice_clone", "publish_voice_to_voice_library", "share_voice_externally",
	"create_user_api_key", "workspace_analytics_full_read", "webhooks_write", "service_account_write",
	"group_members_manage", "workspace_members_read", "workspace_members_invite", "workspace_members_remove",
	"terms_of_service_accept", "audit_log_read", "conversation_privacy_manage", "copy_resources_cross_workspace",
	"synthid_detector",
}

// KnownPermissions returns the permission names known to this build. The API's list grows over time.
func KnownPermissions() []string { return slices.Clone(known[:]) }

// Diff names the fields in which s, as observed, differs from want: "permissions", "allowed_ips", "character_limit", and
// those of [Optional] that want manages. Spelling does not count: order, duplicates, an address or its /32. Neither does an
// additional permission of s that this build does not know: the API adds new ones itself.
func (s Settings) Diff(want Settings) []string {
	s, want = s.normal(), want.normal()
	var fields []string
	if !s.Permissions.satisfies(want.Permissions) {
		fields = append(fields, "permissions")
	}
	if !slices.Equal(s.AllowedIPs, want.AllowedIPs) {
		fields = append(fields, "allowed_ips")
	}
	a, b := s.CharacterLimit, want.CharacterLimit
	if (a == nil) != (b == nil) || (a != nil && *a != *b) {
		fields = append(fields, "character_limit")
	}
	return append(fields, s.differences(want.Optional)...)
}

// Fields names every setting, in a fixed order.
func (s Settings) Fields() []string {
	fields := []string{"permissions", "allowed_ips", "character_limit"}
	for _, f := range s.Texts() {
		fields = append(fields, f[0])
	}
	return fields
}

// Words is the value of the named setting for people; "" where s says nothing.
func (s Settings) Words(field string) string {
	switch field {
	case "permissions":
		if s.Permissions.All {
			return "all"
		}
		return "[" + strings.Join(s.Permissions.Names, ", ") + "]"
	case "allowed_ips":
		if len(s.AllowedIPs) == 0 {
			return "every address"
		}
		return fmt.Sprint(s.AllowedIPs)
	case "character_limit":
		if s.CharacterLimit == nil {
			return "no limit"
		}
		return fmt.Sprint(*s.CharacterLimit)
	}
	switch text := s.Text(field); {
	case text != NoneWord:
		return text
	case field == FieldThirdPartyDisable:
		return "not set"
	}
	return "no limit"
}

func (p Permissions) satisfies(want Permissions) bool {
	if p.All || want.All || slices.Equal(p.Names, want.Names) {
		return p.All == want.All
	}
	names := slices.DeleteFunc(slices.Clone(p.Names), func(name string) bool {
		return !slices.Contains(known[:], name) && !slices.Contains(want.Names, name)
	})
	return slices.Equal(names, want.Names)
}

// Digest is a stable fingerprint of the settings, independent of spelling: SHA-256 in hex. The ledger keeps it, so settings
// that an earlier build knew have the digest that they had then.
func (s Settings) Digest() string {
	body := createBody("", s)
	body.optionalFields = s.bodyFields(NoneWord)
	sum := sha256.New()
	_ = json.NewEncoder(sum).Encode(body) // strings and numbers can be encoded
	return hex.EncodeToString(sum.Sum(nil))
}

// normal returns s in canonical spelling. Mostly it is that already, and then the two share their permissions.
func (s Settings) normal() Settings {
	if s.Permissions.All {
		s.Permissions.Names = nil
	} else if names := s.Permissions.Names; names == nil || !ascending(names) {
		names = append([]string{}, names...) // not nil: no permission is [], not null
		slices.Sort(names)
		s.Permissions.Names = slices.Compact(names)
	}
	var ips []netip.Prefix
	for _, p := range s.AllowedIPs {
		ips = append(ips, normalPrefix(p))
	}
	slices.SortFunc(ips, netip.Prefix.Compare)
	s.AllowedIPs = slices.Compact(ips)
	return s
}

func ascending(words []string) bool {
	for i := 1; i < len(words); i++ {
		if words[i-1] >= words[i] {
			return false
		}
	}
	return true
}

// normalPrefix clears the host bits and converts an IPv4 range written as IPv6.
func normalPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}
