package ledger

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// schema1 is every field that the first schema may have. A version that knows it refuses an entry with a field more, so
// that nobody overwrites what he does not understand: a field is added or removed together with a new schema, a list
// of its own here, and a reading of the older entries, whose test is in internal/e2e.
const schema1 = `
abandoned account key_id key_name rotation since workspace
applied at digest ignored
claim holder nonce since
current account calls.at calls.id calls.kind created disabling hash id name published rotation sink.field sink.mount sink.path unproven verified version workspace
failure at count message next_try reason stage
intent account key_name reason rollback rotation seen sink.field sink.mount sink.path started verify workspace
last_rotation
leaks
limit_used
moved_to
moves
owner
policy
quarantine
retiring account calls.at calls.id calls.kind created disabling hash id name next_try published quarantine reason rotation sink.field sink.mount sink.path state tries unproven until verified version wait_until_idle workspace
salt
schema
`

// schema2 is what the second schema may have beside schema1.
const schema2 = `
abandoned in_use
claim ttl
history by created deleted disabled key_id previous_key_id probes.path probes.status proof proof_at published reason rotation started words
intent by words
current settings.dubbing_concurrency_limit settings.music_concurrency_limit settings.third_party_disable_allowed settings.tts_concurrency_limit
intent settings.dubbing_concurrency_limit settings.music_concurrency_limit settings.third_party_disable_allowed settings.tts_concurrency_limit
retiring proof wait_until_used settings.dubbing_concurrency_limit settings.music_concurrency_limit settings.third_party_disable_allowed settings.tts_concurrency_limit
`

// fields returns the names that a type has in JSON, those of types within with theirs.
func fields(of reflect.Type) []string {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of == reflect.TypeFor[time.Time]() {
		return nil
	}
	var names []string
	for f := range of.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		within := fields(f.Type)
		switch {
		case !f.IsExported():
		case f.Anonymous:
			names = append(names, within...)
		case within == nil:
			names = append(names, name)
		}
		for _, w := range within {
			if !f.Anonymous {
				names = append(names, name+"."+w)
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestASchemaKeepsItsFields(t *testing.T) {
	t.Parallel()
	var want []string
	for line := range strings.Lines(schema1 + schema2) {
		words := strings.Fields(line)
		switch len(words) {
		case 0:
		case 1:
			want = append(want, words[0])
		default:
			for _, w := range words[1:] {
				want = append(want, words[0]+"."+w)
			}
		}
	}
	slices.Sort(want)
	if got := fields(reflect.TypeFor[Entry]()); EntrySchema != 2 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("schema %d has the fields\n%q\nand schema 2\n%q", EntrySchema, got, want)
	}
}

// fill sets everything below a value to something that is not zero.
func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1700000000, 0).UTC()))
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case !v.CanSet(): // packed: it is not stored
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if !v.Field(i).CanSet() {
				continue
			}
			fill(v.Field(i))
		}
	case v.Kind() == reflect.String:
		v.SetString("something")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	default:
		v.SetInt(1)
	}
}

// The document of a packed entry has all fields that the entry had: each alone, all and none.
func TestADocumentIsTheWholeEntry(t *testing.T) {
	t.Parallel()
	for n := range reflect.TypeFor[Entry]().NumField() + 2 {
		var e Entry
		v := reflect.ValueOf(&e).Elem()
		for i := range v.NumField() {
			if !v.Field(i).CanSet() {
				continue
			}
			if i == n || n == v.NumField() {
				fill(v.Field(i))
			}
		}
		type plain Entry
		want, err := json.Marshal(plain(e))
		if err != nil {
			t.Fatal(err)
		}
		e.Pack()
		got, err := json.Marshal(&e)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := decoded(t, got), decoded(t, want); !reflect.DeepEqual(a, b) {
			t.Errorf("field %d: the document is\n%s\nand the entry\n%s", n, got, want)
		}
	}
}

func decoded(t *testing.T, text []byte) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
