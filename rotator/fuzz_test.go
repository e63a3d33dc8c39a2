package rotator

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// FuzzParseEntry looks for a document that is read, and is another one when it is written back.
func FuzzParseEntry(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ParseEntry(text, "tts-prod")
		if err != nil {
			if e != nil {
				t.Errorf("an entry together with error %v", err)
			}
			return
		}
		if e.Policy != "tts-prod" || e.Owner == "" || e.Salt == "" || e.Schema != ledgerSchema {
			t.Errorf("an incomplete entry was read: %+v", e)
		}
		written, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := ParseEntry(written, "tts-prod")
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, written)
		}
		if text, err := json.Marshal(again); err != nil || !bytes.Equal(text, written) {
			t.Errorf("%s became %s, %v", written, text, err)
		}
		if c := e.clone(); !reflect.DeepEqual(c, e) && !slices.Equal(mustJSON(t, c), written) {
			t.Errorf("a clone of %s is %s", written, mustJSON(t, c))
		}
		e.forgetOld(time.Unix(1<<40, 0), func(Abandoned, time.Time) bool { return true }) // beyond every date that JSON can hold
		if len(e.Leaks) > 0 {
			t.Errorf("leaks are remembered for ever: %v", e.Leaks)
		}
	})
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// FuzzRecord looks for a record in which a published key cannot be read back, or that takes a field of others with it.
func FuzzRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte, field string) {
		if field == "" || slices.Contains(RecordFields(), field) || !utf8.ValidString(field) || !json.Valid([]byte(`"`+field+`"`)) {
			return // refused when policies are loaded; a file that is not UTF-8 is no YAML
		}
		before := parseRecord(Doc{JSON: text, Version: 1}, field)
		if before.Secret.IsZero() != emptyValue(before.fields[field]) {
			t.Errorf("%q: the value %v counts as empty: %t", text, before.fields[field], before.Secret.IsZero())
		}
		p := publication{
			sink: Sink{Field: field}, secret: elevenlabs.NewSecret("sk_published"), policy: "tts-prod", account: "svcacc", keyID: "key_b", keyName: "b",
			at: time.Unix(1_770_000_000, 0), previousID: "key_a", previousUntil: time.Unix(1_780_000_000, 0),
		}
		data := before.withKey(p)
		written, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		after := parseRecord(Doc{JSON: written, Version: 2}, field)
		if after.Secret.Reveal() != "sk_published" || after.KeyID != "key_b" || !after.RotatedAt.Equal(p.at) || after.PreviousKeyID != "key_a" || !after.PreviousValidUntil.Equal(p.previousUntil) {
			t.Errorf("%s is read as %q of %s, %s", written, after.Secret.Reveal(), after.KeyID, after.RotatedAt)
		}
		for name, value := range before.fields {
			if name != field && !slices.Contains(RecordFields(), name) && !reflect.DeepEqual(after.fields[name], value) {
				t.Errorf("the field %q was %v and is %v", name, value, after.fields[name])
			}
		}
	})
}

func emptyValue(v any) bool { return v == nil || v == "" }
