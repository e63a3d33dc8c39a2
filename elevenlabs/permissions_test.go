package elevenlabs

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestKnownPermissions(t *testing.T) {
	names := KnownPermissions()
	if len(names) != 51 || !slices.Contains(names, "service_account_write") {
		t.Errorf("%d names", len(names))
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 51 {
		t.Error("a name appears twice")
	}
	if slices.IsSorted(KnownPermissions()) {
		t.Error("sorting the answer changed the list itself")
	}
}

func named(names ...string) Permissions { return Permissions{Names: names} }

func TestDiffAndDigest(t *testing.T) {
	all := Permissions{All: true}
	capped := Optional{TTSConcurrency: Some(int64(1)), MusicConcurrency: Some(int64(3)), ThirdPartyDisable: Some(true)}
	for name, tc := range map[string]struct {
		have, want Settings
		diff       string
		digest     bool // the digests differ although nothing has drifted
	}{
		"zero":                 {},
		"order and duplicates": {have: Settings{Permissions: named("b", "a", "b")}, want: Settings{Permissions: named("a", "b")}},
		"all, names ignored":   {have: Settings{Permissions: Permissions{All: true, Names: []string{"a"}}}, want: Settings{Permissions: all}},
		"all and none":         {have: Settings{Permissions: all}, want: Settings{}, diff: "permissions"},
		"none and all":         {have: Settings{}, want: Settings{Permissions: all}, diff: "permissions"},
		"one too many":         {have: Settings{Permissions: named("user_read", "flows")}, want: Settings{Permissions: named("flows")}, diff: "permissions"},
		"one too few":          {have: Settings{Permissions: named("flows")}, want: Settings{Permissions: named("user_read", "flows")}, diff: "permissions"},
		"unknown, wanted":      {have: Settings{Permissions: named("flows")}, want: Settings{Permissions: named("newer", "flows")}, diff: "permissions"},
		"same addresses": {
			have: Settings{AllowedIPs: prefixes("10.0.0.1/32", "10.0.0.0/8", "2001:DB8:0::7/128", "::ffff:192.0.2.0/120")},
			want: Settings{AllowedIPs: prefixes("192.0.2.9/24", "2001:db8::7/128", "10.9.9.9/8", "10.0.0.1/32", "10.0.0.1/32")}},
		"empty allowlist":       {have: Settings{AllowedIPs: []netip.Prefix{}}, want: Settings{}},
		"another range":         {have: Settings{AllowedIPs: prefixes("10.0.0.0/8")}, want: Settings{AllowedIPs: prefixes("10.0.0.0/9")}, diff: "allowed_ips"},
		"allowlist ignored":     {have: Settings{}, want: Settings{AllowedIPs: prefixes("10.0.0.0/8")}, diff: "allowed_ips"},
		"same limit":            {have: Settings{CharacterLimit: new(int64(5))}, want: Settings{CharacterLimit: new(int64(5))}},
		"another limit":         {have: Settings{CharacterLimit: new(int64(5))}, want: Settings{CharacterLimit: new(int64(6))}, diff: "character_limit"},
		"no limit":              {have: Settings{}, want: Settings{CharacterLimit: new(int64(0))}, diff: "character_limit"},
		"optional, not managed": {have: Settings{Optional: capped}, want: Settings{}, digest: true},
		"optional, the same":    {have: Settings{Optional: capped}, want: Settings{Optional: capped}},
		"optional, others":      {have: Settings{Optional: capped}, want: Settings{Optional: Optional{TTSConcurrency: Some(int64(2)), ThirdPartyDisable: Some(false)}}, diff: "tts_concurrency_limit third_party_disable_allowed"},
		"optional, zero":        {have: Settings{Optional: Optional{TTSConcurrency: None[int64]()}}, want: Settings{Optional: Optional{TTSConcurrency: Some(int64(0))}}, diff: "tts_concurrency_limit"},
		"optional, cleared":     {have: Settings{Optional: capped}, want: Settings{Optional: Optional{MusicConcurrency: None[int64]()}}, diff: "music_concurrency_limit"},
		"optional, not shown":   {have: Settings{}, want: Settings{Optional: Optional{DubbingConcurrency: None[int64]()}}, digest: true},
		"optional, never taken": {have: Settings{}, want: Settings{Optional: Optional{DubbingConcurrency: Some(int64(0))}}, diff: "dubbing_concurrency_limit"},
		"everything": {have: Settings{Permissions: all, CharacterLimit: new(int64(1))}, want: Settings{AllowedIPs: prefixes("10.0.0.0/8")},
			diff: "permissions allowed_ips character_limit"},
	} {
		if got := strings.Join(tc.have.Diff(tc.want), " "); got != tc.diff {
			t.Errorf("%s: differs in %q, want %q", name, got, tc.diff)
		}
		if same := tc.have.Digest() == tc.want.Digest(); same != (tc.diff == "" && !tc.digest) {
			t.Errorf("%s: same digest: %v", name, same)
		}
	}
}

func TestPermissionsThatTheProductAddsAreNoDrift(t *testing.T) {
	have := Settings{Permissions: named("flows", "from_the_future")}
	if diff := have.Diff(Settings{Permissions: named("flows")}); diff != nil {
		t.Errorf("drifted: %v", diff)
	}
	if diff := have.Diff(Settings{Permissions: named("flows", "user_read")}); !slices.Equal(diff, []string{"permissions"}) {
		t.Errorf("drifted: %v", diff)
	}
}

// The ledger keeps digests: they must be the same in every build.
func TestDigestIsStable(t *testing.T) {
	s := Settings{Permissions: named("voices_read", "text_to_speech"), AllowedIPs: prefixes("203.0.113.0/24"), CharacterLimit: new(int64(100000))}
	const want = "6b99656ffa0fb8570644ae837a83215824acda7e253a61033588ba478b53df3d"
	if got := s.Digest(); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	for want, s := range map[string]Settings{
		"2cfe34d089cc3f3ebaa54541f8810b7ad0e2c5635b82c5d5c54a48dfb1129126": {},
		"7a5e73402d5671a5f980bb3d51494d133a71d7e9680096a8f1879bc46e9fdeb9": {Permissions: Permissions{All: true}},
		"8d5c853fdc14fd12377886f27c7663cd7984719c3cb904bb9b297e373c0ff3d9": {Permissions: named("voices_read", "text_to_speech"),
			AllowedIPs: prefixes("203.0.113.0/24"), CharacterLimit: new(int64(1000))},
	} {
		if got := s.Digest(); got != want {
			t.Errorf("digest %s of settings from before the optional ones, want %s", got, want)
		}
	}
}

func TestNormalisingLeavesTheOriginal(t *testing.T) {
	s := Settings{Permissions: named("b", "a"), AllowedIPs: prefixes("10.0.0.9/8", "10.0.0.1/32")}
	s.Digest()
	s.Diff(Settings{})
	if s.Permissions.Names[0] != "b" || s.AllowedIPs[0].String() != "10.0.0.9/8" {
		t.Errorf("changed: %+v", s)
	}
}

func TestSettingsInWords(t *testing.T) {
	t.Parallel()
	limit := int64(7)
	full := Settings{Permissions: Permissions{Names: []string{"a", "b"}}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, CharacterLimit: &limit,
		Optional: Optional{TTSConcurrency: Some[int64](3), DubbingConcurrency: None[int64](), ThirdPartyDisable: None[bool]()}}
	for want, s := range map[string]Settings{
		"[a, b]|[10.0.0.0/8]|7|3|no limit||not set": full,
		"all|every address|no limit||||":            {Permissions: Permissions{All: true}},
	} {
		var words []string
		for _, field := range s.Fields() {
			words = append(words, s.Words(field))
		}
		if got := strings.Join(words, "|"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
