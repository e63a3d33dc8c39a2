package elevenlabs

import (
	"strings"
	"testing"
)

// What the listing says of a key's optional settings: a value, none, or nothing at all.
func TestOptionalSettingsOfAListing(t *testing.T) {
	const key = `{"key_id":"k","name":"n","service_account_user_id":"a"`
	none := Optional{None[int64](), None[int64](), None[int64](), None[bool]()}
	for name, tc := range map[string]struct {
		fields string
		want   Optional
	}{
		"an older API":         {"", Optional{}},
		"null":                 {`,"platform_limits":null,"third_party_disable_allowed":null`, none},
		"everything":           {`,"platform_limits":{"concurrency":{"limit":10},"dubbing_concurrency":{"limit":0},"music_concurrency":{"limit":3}},"third_party_disable_allowed":false`, Optional{Some(int64(10)), Some(int64(0)), Some(int64(3)), Some(false)}},
		"null within":          {`,"platform_limits":{"concurrency":{"limit":null},"dubbing_concurrency":null,"music_concurrency":{"limit":3}},"third_party_disable_allowed":true`, Optional{None[int64](), None[int64](), Some(int64(3)), Some(true)}},
		"some not there":       {`,"platform_limits":{"concurrency":{},"dubbing_concurrency":{"limit":4}}`, Optional{DubbingConcurrency: Some(int64(4))}},
		"limits of the future": {`,"platform_limits":{"credits":{"limit":1},"pvc":{"limit":1},"concurrency":{"limit":2,"burst":9}}`, Optional{TTSConcurrency: Some(int64(2))}},
	} {
		keys, err := decodeKeys("a", []byte(`{"api-keys":[`+key+tc.fields+`}]}`))
		if err != nil || keys[0].Settings.Optional != tc.want {
			t.Errorf("%s: %+v (%v), want %+v", name, keys, err, tc.want)
		}
	}
	for _, wrong := range []string{`"platform_limits":7`, `"platform_limits":{"concurrency":{"limit":"many"}}`, `"third_party_disable_allowed":"yes"`} {
		if keys, err := decodeKeys("a", []byte(`{"api-keys":[`+key+","+wrong+`}]}`)); err == nil {
			t.Errorf("%s was read as %+v", wrong, keys)
		}
	}
}

func TestOptionalOr(t *testing.T) {
	policy := Optional{TTSConcurrency: Some(int64(1)), DubbingConcurrency: None[int64]()}
	key := Optional{Some(int64(10)), Some(int64(20)), Some(int64(30)), None[bool]()}
	want := Optional{Some(int64(1)), None[int64](), Some(int64(30)), None[bool]()}
	if got := policy.Or(key); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := strings.Join(policy.Unknown(), " "); got != "music_concurrency_limit third_party_disable_allowed" {
		t.Errorf("of the policy, unknown: %s", got)
	}
	for field, want := range map[string]string{FieldTTSConcurrency: "1", FieldDubbingConcurrency: "none", FieldMusicConcurrency: "", "permissions": ""} {
		if got := policy.Text(field); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
}
