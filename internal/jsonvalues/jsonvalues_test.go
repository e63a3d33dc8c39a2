package jsonvalues

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestExceed(t *testing.T) {
	for text, want := range map[string]bool{
		`[0,0,0]`:                            false,
		`[0,0,0,0]`:                          true,
		`["` + strings.Repeat(",", 9) + `"]`: false,
		`["\",,,,\\",0,0,0]`:                 true,
		`["\",,,,\\",0,0]`:                   false,
		`{"a":",,,,","b":[1,2,3]}`:           true,
		`",,,`:                               false,
		`,,,\`:                               true,
		`"\`:                                 false,
	} {
		if got := Exceed([]byte(text), 2); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestMembers(t *testing.T) {
	for text, want := range map[string][]string{
		`{"a":1,"b":{"a":2,"c":[3,{"d":4}]}}`:         {`"a"`, `1`, `"b"`, `{"a":2,"c":[3,{"d":4}]}`},
		" { \"a\" : \"}\\\",:\\\\\" ,\n\"b\":[ ]\t} ": {`"a"`, `"}\",:\\"`, `"b"`, `[ ]`},
		`{"a":null}`:       {`"a"`, `null`},
		`{}`:               nil,
		`[{"a":1},"b:",2]`: nil,
		`"{\"a\":1}"`:      nil,
		`null`:             nil,
	} {
		var got []string
		for name, value := range Members([]byte(text)) {
			got = append(got, string(name), string(value))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for range Members([]byte(`{"a":1,"b":2}`)) {
		break
	}
}

// FuzzMembers holds the members against those of a decoder.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":{"c":[",}"]}}`, ` [ {"a":{}} ] `, `{"\"":"\\","a":true,"a":{}}`, `{"a"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := map[string]json.RawMessage{}
		for name, value := range Members([]byte(text)) {
			var key string
			if err := json.Unmarshal(name, &key); err == nil || json.Valid([]byte(text)) {
				got[key] = value
			}
		}
		if !json.Valid([]byte(text)) {
			return // it must only end
		}
		want := map[string]json.RawMessage{}
		_ = json.Unmarshal([]byte(text), &want) // what is no object has none
		if !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	})
}

// FuzzExceed holds the count against that of a decoder.
func FuzzExceed(f *testing.F) {
	for _, seed := range []string{`[1,"a,b",{"c\"":[",",2]}]`, `{"a":{},"b":[]}`, `"\u002c,"`} {
		f.Add(seed, 1)
	}
	f.Fuzz(func(t *testing.T, text string, most int) {
		var v any
		if most < 0 || json.Unmarshal([]byte(text), &v) != nil {
			_ = Exceed([]byte(text), most) // it must only end
			return
		}
		if d := json.NewDecoder(strings.NewReader(text)); Exceed([]byte(text), most) != (separators(t, d) > most) {
			t.Errorf("%s: more than %d: %v", text, most, Exceed([]byte(text), most))
		}
	})
}

// separators counts the commas between the elements of a valid text.
func separators(t *testing.T, d *json.Decoder) int {
	t.Helper()
	token, err := d.Token()
	if err != nil {
		t.Fatal(err)
	}
	delim, nested := token.(json.Delim)
	if !nested {
		return 0
	}
	n, elements := 0, 0
	for ; d.More(); elements++ {
		if delim == '{' {
			if _, err := d.Token(); err != nil {
				t.Fatal(err)
			}
		}
		n += separators(t, d)
	}
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	return n + max(elements-1, 0)
}
