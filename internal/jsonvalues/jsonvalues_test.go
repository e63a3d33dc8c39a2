package jsonvalues

import (
	"bytes"
	"encoding/json"
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
		`{"a":1,"b":{"a":2,"c":[3,{"d":4}]}}`:         {`1`, `{"a":2,"c":[3,{"d":4}]}`},
		" { \"b\" : \"}\\\",:\\\\\" ,\n\"a\":[ ]\t} ": {`[ ]`, `"}\",:\\"`},
		`{"a":null,"a":7,"b\"":1}`:                    {`7`, ``},
		`{"c":{"a":1},"d":"b"}`:                       {``, ``},
		`[{"a":1},"a",2]`:                             {``, ``},
		`"{\"a\":1}"`:                                 {``, ``},
		`null`:                                        {``, ``},
		`{}`:                                          {``, ``},
	} {
		if got := Members([]byte(text), "a", "b"); string(got[0]) != want[0] || string(got[1]) != want[1] || (got[0] == nil) != (want[0] == "") {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// FuzzMembers holds the members against those of a decoder.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":{"c":[",}"]}}`, ` [ {"a":{}} ] `, `{"\"":"\\","a":true,"a":{}}`, `{"a"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Members([]byte(text), "a", "b", "data")
		if !json.Valid([]byte(text)) {
			return // it must only end
		}
		var want map[string]json.RawMessage
		_ = json.Unmarshal([]byte(text), &want) // what is no object has none
		for i, name := range []string{"a", "b", "data"} {
			if !bytes.Equal(got[i], want[name]) && !strings.Contains(text, `\u00`) { // a name that is written in another way is another
				t.Errorf("%s: %s is %s, want %s", text, name, got[i], want[name])
			}
		}
	})
}

// FuzzExceed holds the count against that of a decoder.
func FuzzExceed(f *testing.F) {
	for _, seed := range []string{`[1,"a,b",{"c\"":[",",2]}]`, `{"a":{},"b":[]}`, `"\u002c,"`, ` [ [ ] , {"]":[1,2]} , "\"," ] `, `[]`} {
		f.Add(seed, 1)
	}
	f.Fuzz(func(t *testing.T, text string, most int) {
		var v any
		if most < 0 || json.Unmarshal([]byte(text), &v) != nil {
			_ = Exceed([]byte(text), most) // it must only end
			return
		}
		if list, isList := v.([]any); isList {
			whole := []json.RawMessage{}
			if err := json.Unmarshal([]byte(text), &whole); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, element := range Parts([]byte(text)) {
				if n >= len(list) || string(element) != string(whole[n]) {
					t.Fatalf("%s: element %d is %s", text, n, element)
				}
				n++
			}
			if n != len(list) {
				t.Errorf("%s: %d elements", text, n)
			}
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
