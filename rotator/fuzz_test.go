package rotator

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// FuzzParseEntry looks for a document that is read, and is another one when it is written back.
func FuzzParseEntry(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ledger.ParseEntry(text, "tts-prod")
		if err != nil {
			if e != nil {
				t.Errorf("an entry together with error %v", err)
			}
			return
		}
		if e.Policy != "tts-prod" || e.Owner == "" || e.Salt == "" || e.Schema < 1 || e.Schema > 2 {
			t.Errorf("an incomplete entry was read: %+v", e)
		}
		written, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := ledger.ParseEntry(written, "tts-prod")
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, written)
		}
		if text, err := json.Marshal(again); err != nil || !bytes.Equal(text, written) {
			t.Errorf("%s became %s, %v", written, text, err)
		}
		if c := e.Clone(); !reflect.DeepEqual(c, e) && !slices.Equal(mustJSON(t, c), written) {
			t.Errorf("a clone of %s is %s", written, mustJSON(t, c))
		}
		e.ForgetOld(time.Unix(1<<40, 0), func(ledger.Abandoned, time.Time) bool { return true }) // beyond every date that JSON can hold
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
		if field == "" || slices.Contains(ledger.RecordFields(), field) || !utf8.ValidString(field) || !json.Valid([]byte(`"`+field+`"`)) {
			return // refused when policies are loaded; a file that is not UTF-8 is no YAML
		}
		before := ledger.ParseRecord(ledger.Doc{JSON: text, Version: 1}, field)
		if before.Secret.IsZero() != emptyValue(before.Fields[field]) {
			t.Errorf("%q: the value %v counts as empty: %t", text, before.Fields[field], before.Secret.IsZero())
		}
		p := ledger.Publication{
			KeyRef: ledger.KeyRef{ID: "key_b", Name: "b", Account: "svcacc", Sink: ledger.Sink{Field: field}, Published: time.Unix(1_770_000_000, 0)},
			Secret: secret.New("sk_published"), Policy: "tts-prod", PreviousID: "key_a", PreviousUntil: time.Unix(1_780_000_000, 0),
		}
		data := before.With(p)
		written, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		after := ledger.ParseRecord(ledger.Doc{JSON: written, Version: 2}, field)
		if after.Secret.Reveal() != "sk_published" || after.KeyID != "key_b" || !after.RotatedAt.Equal(p.Published) || after.PreviousKeyID != "key_a" || !after.PreviousValidUntil.Equal(p.PreviousUntil) {
			t.Errorf("%s is read as %q of %s, %s", written, after.Secret.Reveal(), after.KeyID, after.RotatedAt)
		}
		for name, value := range before.Fields {
			if name != field && !slices.Contains(ledger.RecordFields(), name) && !reflect.DeepEqual(after.Fields[name], value) {
				t.Errorf("the field %q was %v and is %v", name, value, after.Fields[name])
			}
		}
	})
}

func emptyValue(v any) bool { return v == nil || v == "" }
