package model_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/model"
)

type m = map[string]any

// story is a policy with a key that is current, as a replica "a" left it.
type story struct {
	t *testing.T
	c *model.Checker
	e m
}

const first, second = "rekeyd.o.p.1", "rekeyd.o.p.2"

func newStory(t *testing.T) *story {
	c, err := model.New()
	if err != nil {
		t.Fatal(err)
	}
	s := &story{t, c, m{"policy": "p"}}
	s.rotate("k1", first)
	return s
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

// write changes the entry; nil takes a field out.
func (s *story) write(writer string, change m) error {
	maps.Copy(s.e, change)
	maps.DeleteFunc(s.e, func(_ string, v any) bool { return v == nil })
	_, err := s.c.Entry("p", writer, s.e)
	return err
}

func claim(holder string, nonce int) m { return m{"holder": holder, "nonce": nonce} }

func (s *story) begin(name string) {
	s.must(s.write("a", m{"claim": claim("a", 1), "intent": m{"key_name": name}}))
}

func (s *story) make(id, name string) { s.must(s.c.Call("create", model.Key{ID: id, Name: name})) }

func (s *story) publish(id string) error {
	_, err := s.c.Record(m{"key_id": "?"}, m{"key_id": id})
	return err
}

func (s *story) commit(writer, id, name string) error {
	var retiring []any
	if old, ok := s.e["current"].(m); ok {
		retiring = append(retiring, m{"id": old["id"], "name": old["name"], "state": "overlap"})
	}
	return s.write(writer, m{"claim": nil, "intent": nil, "current": m{"id": id, "name": name, "hash": "x"}, "retiring": retiring})
}

func (s *story) rotate(id, name string) {
	s.begin(name)
	s.make(id, name)
	s.must(s.publish(id))
	s.must(s.commit("a", id, name))
}

func (s *story) note(kind, state string) error {
	return s.write("a", m{"claim": claim("a", 1), "retiring": []any{m{"id": "k1", "name": first, "state": state, "calls": []any{m{"kind": kind, "id": kind}}}}})
}

// TestATraceThatTheModelAllows is a rotation, a retirement and a rotation that is abandoned after a takeover, with a create
// and a delete that come late.
func TestATraceThatTheModelAllows(t *testing.T) {
	s := newStory(t)
	s.rotate("k2", second)
	s.must(s.note("disable", "overlap"))
	s.must(s.c.Call("disable", model.Key{ID: "k1", Name: first, Disabled: true}))
	s.must(s.write("a", m{"claim": nil, "retiring": []any{m{"id": "k1", "name": first, "state": "quarantine"}}}))
	s.must(s.note("delete", "quarantine"))
	s.must(s.c.Call("delete", model.Key{ID: "k1", Name: first, Deleted: true}))
	s.must(s.write("a", m{"claim": nil, "retiring": nil}))
	s.begin("rekeyd.o.p.3")
	s.must(s.write("b", m{"claim": claim("b", 2)}))
	_, err := s.c.Record(m{"key_id": "k2"}, m{"key_id": "k2"})
	s.must(err)
	s.must(s.write("b", m{"claim": nil, "intent": nil, "abandoned": []any{m{"key_name": "rekeyd.o.p.3"}}}))
	s.make("k3", "rekeyd.o.p.3")
	s.must(s.c.Call("delete", model.Key{ID: "k3", Name: "rekeyd.o.p.3", Deleted: true}))
}

// TestTracesThatTheModelRefuses makes one mistake in each.
func TestTracesThatTheModelRefuses(t *testing.T) {
	for event, mistake := range map[string]func(*story) error{
		"create without an intent": func(s *story) error { return s.c.Call("create", model.Key{ID: "k2", Name: second}) },
		"publish of a key that was abandoned": func(s *story) error {
			s.begin(second)
			s.make("k2", second)
			s.must(s.write("a", m{"claim": nil, "intent": nil, "abandoned": []any{m{"key_name": second}}}))
			return s.publish("k2")
		},
		"commit of a key that was never published": func(s *story) error {
			s.begin(second)
			s.make("k2", second)
			return s.commit("a", "k2", second)
		},
		"commit under another's claim": func(s *story) error {
			s.begin(second)
			s.make("k2", second)
			s.must(s.publish("k2"))
			return s.commit("b", "k2", second)
		},
		"commit that forgets the old key (leave)": func(s *story) error {
			s.begin(second)
			s.make("k2", second)
			s.must(s.publish("k2"))
			return s.write("a", m{"claim": nil, "intent": nil, "current": m{"id": "k2", "name": second, "hash": "x"}})
		},
		"withdraw although the key was made": func(s *story) error {
			s.begin(second)
			s.make("k2", second)
			return s.write("a", m{"claim": nil, "intent": nil})
		},
		"disable without a note": func(s *story) error {
			s.rotate("k2", second)
			return s.c.Call("disable", model.Key{ID: "k1", Name: first, Disabled: true})
		},
		"enable under the note of a disable": func(s *story) error {
			s.rotate("k2", second)
			s.must(s.note("disable", "overlap"))
			return s.c.Call("enable", model.Key{ID: "k1", Name: first})
		},
		"delete of the current key": func(s *story) error { return s.c.Call("delete", model.Key{ID: "k1", Name: first, Deleted: true}) },
		"noteDisable about the current key": func(s *story) error {
			return s.write("a", m{"claim": claim("a", 1), "current": m{"id": "k1", "name": first, "hash": "x", "calls": []any{m{"kind": "disable", "id": "c"}}}})
		},
		"follow to a key that is being deleted": func(s *story) error {
			s.rotate("k2", second)
			s.must(s.note("delete", "overlap"))
			s.must(s.write("a", m{"claim": nil}))
			return s.write("a", m{"current": m{"id": "k1", "name": first}, "retiring": []any{m{"id": "k2", "name": second, "state": "overlap"}}})
		},
		"fence with another content": func(s *story) error {
			_, err := s.c.Record(m{"key_id": "k1", "note": "x"}, m{"key_id": "k1"})
			return err
		},
		"adopt of a key that is another policy's": func(s *story) error {
			s.c.See(model.Key{ID: "f", Name: "foreign"})
			s.c.Reserve("f", "q")
			return s.write("a", m{"current": m{"id": "f", "name": "foreign"}, "retiring": []any{m{"id": "k1", "name": first, "state": "overlap"}}})
		},
		"disown of the current key": func(s *story) error {
			return s.write("a", m{"abandoned": []any{m{"key_name": first, "key_id": "k1"}}})
		},
	} {
		t.Run(event, func(t *testing.T) {
			err := mistake(newStory(t))
			name, _, _ := strings.Cut(event, " ")
			if _, in, found := strings.Cut(event, "("); found {
				name = strings.TrimSuffix(in, ")")
			}
			if err == nil || !strings.Contains(err.Error(), name+" needs") {
				t.Errorf("refused with %v", err)
			}
		})
	}
}

// TestTheModelTakesEachEvent holds the table against the models: each event is one of theirs, but for those that the table
// says no model has.
func TestTheModelTakesEachEvent(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	taken := map[string]bool{}
	for _, m := range regexp.MustCompile(`MAY\((\w+)\)`).FindAllStringSubmatch(read("rekeyd.pml")+read("adoption.pml"), -1) {
		taken[m[1]] = true
	}
	delete(taken, "event") // the macro itself
	_, beyond, _ := strings.Cut(read("events.pml"), "no model has these")
	for _, e := range slices.Sorted(maps.Keys(model.Conditions())) {
		if none := strings.Contains(beyond, "MAY_"+e+" "); taken[e] == none {
			t.Errorf("%s: taken by a model: %v, said to be in none: %v", e, taken[e], none)
		}
		delete(taken, e)
	}
	for e := range taken {
		t.Errorf("%s is not in the table", e)
	}
}
