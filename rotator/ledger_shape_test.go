package rotator

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// schema1 is every field that the first schema may have. A version that knows it refuses an entry with a field more, so
// that nobody overwrites what he does not understand: a field is added or removed together with a new ledgerSchema, a list
// of its own here, and a reading of the older entries, whose test is in internal/e2e.
const schema1 = `
abandoned account key_name rotation since workspace
applied at digest ignored
claim holder nonce since
current account created disabling hash id name published rotation sink.field sink.mount sink.path verified version workspace
failure at count message next_try reason stage
intent account key_name reason rollback rotation seen sink.field sink.mount sink.path started workspace
last_rotation
leaks
limit_used
moved_to
owner
policy
quarantine
retiring account created disabling hash id name next_try published quarantine reason rotation sink.field sink.mount sink.path state tries until verified version workspace
salt
schema
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
	for line := range strings.Lines(schema1) {
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
	if got := fields(reflect.TypeFor[Entry]()); ledgerSchema != 1 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("schema %d has the fields\n%q\nand schema 1\n%q", ledgerSchema, got, want)
	}
}
