package ledger

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/secret"
)

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, ours := range map[string]bool{
		KeyName("ownerown", "tts-prod", "aaaaaaaaa1"): true,
		"rekeyx.ownerown.tts-prod.aaaaaaaaa1":         false,
		"rekeyd.owner.tts-prod.aaaaaaaaa1":            false,
		"rekeyd.ownerown..aaaaaaaaa1":                 false,
		"rekeyd.ownerown.tts-prod.aaaaaaaaa":          false,
		"rekeyd.ownerown.tts-prod.aaaa.aaaaa":         false,
		"by hand":                                     false,
		"ownerown.tts-prod.aaaaaaaaa1":                false,
	} {
		owner, policy, rotation, ok := ParseKeyName(name)
		if ok != ours || ours && (owner != "ownerown" || policy != "tts-prod" || rotation != "aaaaaaaaa1") || !ours && owner+policy+rotation != "" {
			t.Errorf("%s: %q %q %q %t", name, owner, policy, rotation, ok)
		}
	}
	for name, valid := range map[string]bool{
		"a": true, "z": true, "0": true, "9": true, "-": true, strings.Repeat("a", 36): true,
		"": false, strings.Repeat("a", 37): false, "A": false, "a/b": false, "a:b": false, "`": false, "{": false, "ä": false, ".": false,
	} {
		if ValidName(name) != valid {
			t.Errorf("%q can be the name of a policy: %t", name, !valid)
		}
	}
	for id, valid := range map[string]bool{
		"a": true, "z": true, "A": true, "Z": true, "0": true, "9": true, "-": true, "_": true, strings.Repeat("a", 128): true,
		"": false, strings.Repeat("a", 129): false, "@": false, "[": false, "`": false, "{": false, "/": false, ":": false, ".": false,
	} {
		if ValidKeyID(id) != valid {
			t.Errorf("%q can be the id of a key: %t", id, !valid)
		}
	}
	for _, s := range []string{"sk_1", "hvs.1", "hvb.1"} {
		if !LooksSecret(s) || LooksSecret("x"+s) {
			t.Errorf("%s looks secret: %t", s, LooksSecret(s))
		}
	}
	if id, err := RandomID(strings.NewReader("\x00\x23\x24\xff"), 4); err != nil || id != "a9ad" {
		t.Errorf("a random id: %q, %v", id, err)
	}
	if _, err := RandomID(strings.NewReader("ab"), 3); err == nil {
		t.Error("a random id of too few bytes")
	}
	if a := HashValue("salt", "value"); a == HashValue("salt2", "value") || a == HashValue("salt", "values") || HashValue("a", "bc") == HashValue("ab", "c") {
		t.Error("two values have one hash")
	}
}

func TestWhoseRecordItIs(t *testing.T) {
	t.Parallel()
	ours := KeyName("ownerown", "tts-prod", "aaaaaaaaa1")
	for _, c := range []struct {
		fields    map[string]any
		foreign   []string
		publishes bool
	}{
		{nil, nil, false},
		{map[string]any{"note": "x"}, nil, false},
		{map[string]any{"policy": "x", "key_id": "y"}, []string{"key_id", "policy"}, false},
		{map[string]any{"policy": "x", "key_name": "by hand"}, []string{"key_name", "policy"}, false},
		{map[string]any{"policy": "x", "key_name": ours}, nil, false},
		{map[string]any{"policy": "x", "api_key": "sk_1"}, nil, false},
		{map[string]any{"api_key": "sk_1", "key_name": ours}, nil, true},
		{map[string]any{"api_key": "", "key_name": ours}, nil, false},
		{map[string]any{"api_key": 1, "key_name": ours}, nil, true},
	} {
		r := ParseRecord(Doc{JSON: mustJSON(t, c.fields), Version: 1}, "api_key")
		if got := r.Foreign(); !slices.Equal(got, c.foreign) || r.Publishes(ours) != c.publishes {
			t.Errorf("%v: foreign %v, publishes %t", c.fields, got, r.Publishes(ours))
		}
	}
}

func TestRecordsAreCompared(t *testing.T) {
	t.Parallel()
	r := Record{Secret: secret.New("sk_1"), KeyID: "a", Doc: Doc{JSON: []byte("{}"), Version: 3}}
	other, another := r, r
	other.Secret, another.KeyID = secret.New("sk_2"), "b"
	if !r.SameValue(r) || r.SameValue(other) || r.SameValue(another) {
		t.Error("records with another secret or key have the same value")
	}
	for _, c := range []struct {
		doc     Doc
		deleted bool
	}{{Doc{Version: 4}, true}, {Doc{Version: 3}, false}, {Doc{Version: 5}, false}, {Doc{JSON: []byte("{}"), Version: 4}, false}} {
		if (Record{Doc: c.doc}).DeletedAfter(r) != c.deleted {
			t.Errorf("version %d was deleted right after 3: %t", c.doc.Version, !c.deleted)
		}
	}
	data := Record{Fields: map[string]any{"note": "x", "previous_key_id": "z", "previous_valid_until": "never"}}.With(Publication{KeyRef: KeyRef{ID: "a", Account: "svcacc_1", Sink: Sink{Field: "api_key"}}, Secret: r.Secret, Policy: "tts-prod"})
	if data["policy"] != "tts-prod" || data["service_account_user_id"] != "svcacc_1" {
		t.Errorf("whose record it is: %v", data)
	}
	if n, _ := (Doc{JSON: []byte(`{"n":12345678901234567890}`)}).Fields()["n"].(json.Number); n != "12345678901234567890" {
		t.Errorf("a number of others became %s", n)
	}
	if _, there := data["previous_valid_until"]; data["previous_key_id"] != nil || there || data["note"] != "x" || data["api_key"] != "sk_1" {
		t.Errorf("the first key's record: %v", data)
	}
}
