package rotator

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// FuzzTheFieldThatReadersRead: whatever a record held before, a policy that is not refused publishes a record whose field
// holds the secret.
func FuzzTheFieldThatReadersRead(f *testing.F) {
	f.Add("api_key", `{"api_key": "old", "theirs": 1}`, "sk_1")
	for _, name := range RecordFields() {
		f.Add(name, `{}`, "sk_1")
	}
	accepted := regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`) // what the policy file can say
	f.Fuzz(func(t *testing.T, field, before, secret string) {
		if !accepted.MatchString(field) || !accepted.MatchString(secret) {
			return
		}
		p := Policy{Name: "p", Sink: Sink{Ref: Ref{Mount: "secret", Path: "p"}, Field: field}}
		if Plan(p, Observed{}, time.Unix(0, 0)).Reason == ReasonSinkField {
			return
		}
		rec := parseRecord(Doc{JSON: json.RawMessage(before), Version: 1}, field)
		pub := publication{sink: p.Sink, secret: elevenlabs.NewSecret(secret), policy: p.Name, account: "a", keyID: "k2", keyName: "n", at: time.Unix(0, 0), previousID: "k1"}
		text, err := json.Marshal(rec.withKey(pub))
		if err != nil {
			t.Fatal(err)
		}
		if got := (Doc{JSON: text}).Fields()[field]; got != secret {
			t.Errorf("field %s holds %v, not the secret", field, got)
		}
		if back := parseRecord(Doc{JSON: text}, field); !back.holds("n") || back.Secret.Reveal() != secret || back.KeyID != "k2" {
			t.Errorf("what is read back is %q of key %s", back.Secret.Reveal(), back.KeyID)
		}
	})
}

// TestHints: the characters after the last one that hides something are the secret's end.
func TestHints(t *testing.T) {
	const value = "sk_0123456789abcdef0123456709c5"
	v := RecordView{HasValue: true, Ending: ending(value)}
	for hint, want := range map[string]fit{
		"...09c5": fits, "…09c5": fits, "sk_012***09c5": fits, "09c5": fits, "...456709c5": fits, "...ab456709c5": fits,
		"...09c6": misfit, "…9c50": misfit, "": unsaid, "...": unsaid, "sk_012...": unsaid, "****": unsaid,
	} {
		if got := v.fit(hint); got != want {
			t.Errorf("hint %q: %d, want %d", hint, got, want)
		}
	}
	if got := (RecordView{}).fit("...09c5"); got != unsaid {
		t.Errorf("without a value: %d", got)
	}
	if got := (RecordView{HasValue: true, Ending: ending("too short 09c5")}).fit("...09c5"); got != misfit {
		t.Errorf("a value that is too short to be a key: %d", got)
	}
}
