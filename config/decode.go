package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// maxEntries bounds a list, and so the cost of a file of empty entries. It is maxItems in the JSON Schema.
const maxEntries = 50_000

// decoder fills the structs of fields.go from YAML nodes and reports every fault.
type decoder struct {
	*report
	grammar grammar
	// inherited are the fields that defaults give, well formed or not: a policy may omit them. They are collected
	// first, since defaults may follow the policies. With a profile, what is missing is known to the second pass.
	inherited map[string]bool
}

// decode is the first pass: structure only. It returns nil if aliases keep the file from being read at all.
func decode(r *report, g grammar, root *yaml.Node) *document {
	root, ok := unfold(r, root)
	if !ok {
		return nil
	}
	d := &decoder{report: r, grammar: g, inherited: keysOf(root, "defaults")}
	doc := &document{root: root}
	d.object(root, reflect.ValueOf(doc).Elem(), field{example: "{policies: [{name: …}]}"}, "the policy file", "")
	return doc
}

// plain refuses tags. Aliases are already replaced by what they stand for. The parts of what are joined for a fault only.
func (d *decoder) plain(n *yaml.Node, what ...string) bool {
	if n.Style&yaml.TaggedStyle != 0 {
		d.fault(n, "%s has the tag %s, which the policy file does not have; remove it, and put text in quotes", strings.Join(what, ""), n.Tag)
		return false
	}
	return true
}

// value decodes n into v, which f describes; where names the enclosing object, as in `policy "a": `.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f field, where string) {
	what := where + f.name
	if !d.plain(n, what) {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *at[string]:
		scalar(p, d.text, n, f, what)
	case *at[time.Duration]:
		scalar(p, d.duration, n, f, what)
	case *at[int64]:
		scalar(p, d.number, n, f, what)
	case *at[limit]:
		scalar(p, d.limit, n, f, what)
	case *at[bool]:
		scalar(p, d.boolean, n, f, what)
	case *at[labels]:
		scalar(p, d.labels, n, f, what)
	case *at[[]at[string]]:
		*p = at[[]at[string]]{d.texts(n, f, what), n}
	case *profiles:
		*p = d.profiles(n, f, what)
	default:
		if v.Kind() == reflect.Slice {
			d.objects(n, v, f, what)
		} else {
			d.object(n, v, f, what, what+".")
		}
	}
}

func scalar[T any](into *at[T], decode func(*yaml.Node, field, string) (T, bool), n *yaml.Node, f field, what string) {
	if v, ok := decode(n, f, what); ok {
		*into = at[T]{v, n}
	}
}

// object decodes a mapping. who is its name in messages, inner the prefix of its fields' names.
func (d *decoder) object(n *yaml.Node, v reflect.Value, f field, who, inner string) {
	if !d.plain(n, who) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.misfit(n, f, who, "a mapping")
		return
	}
	if o, ok := v.Addr().Interface().(interface {
		put(n *yaml.Node, who string)
	}); ok {
		o.put(n, who)
	}
	fields := d.grammar[v.Type()]
	seen := d.members(n, v, f, who, inner)
	for _, m := range fields {
		required := m.need || m.requiredUnlessDefault && v.Type() == reflect.TypeFor[policy]() && !d.inherited[m.name] && !d.inherited["profile"] && seen["profile"] == nil
		if required && seen[m.name] == nil {
			d.fault(n, "%s%s is missing; add %s: %s", inner, m.name, m.name, m.sample())
		}
	}
	if f.one && len(seen) != 1 {
		d.fault(n, "%s holds %d of %s; give exactly one, such as %s", who, len(seen), list(fieldNames(fields)), f.example)
	}
}

// members decodes the fields of a mapping and returns the known ones.
func (d *decoder) members(n *yaml.Node, v reflect.Value, f field, who, inner string) map[string]*yaml.Node {
	fields := d.grammar[v.Type()]
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		switch {
		case !d.plain(key, who, ": the name of a field"):
		case key.Kind != yaml.ScalarNode:
			d.fault(key, "%s has %s as the name of a field; known are %s", who, describe(key, false), list(fieldNames(fields)))
		case at < 0:
			d.unknown(key, f, who, fieldNames(fields))
		case seen[key.Value] != nil:
			d.fault(key, "%s%s is given twice, first on line %d; remove one", inner, key.Value, seen[key.Value].Line)
		default:
			seen[key.Value] = key
			d.value(n.Content[i+1], v.FieldByIndex(fields[at].index), fields[at], inner)
		}
	}
	return seen
}

// unknown reports a field that does not exist. In a sensitive object the message omits its name too.
func (d *decoder) unknown(key *yaml.Node, f field, who string, known []string) {
	switch {
	case d.full():
	case f.sensitive:
		d.fault(key, "%s has a field that is not one of %s; write one such as %s", who, list(known), f.sample())
	default:
		d.fault(key, "%s has no field %s; %s", who, quote(key.Value), Suggestion(key.Value, known))
	}
}

// fieldNames returns the fields' names, in order.
func fieldNames(fields []field) []string {
	return namesOf(fields, func(f field) string { return f.name })
}

// objects decodes a list of mappings.
func (d *decoder) objects(n *yaml.Node, v reflect.Value, f field, what string) {
	if n.Kind != yaml.SequenceNode {
		d.misfit(n, f, what, "a list")
		return
	}
	if len(n.Content) == 0 {
		d.fault(n, "%s is an empty list; write one such as %s", what, f.sample())
	}
	if len(n.Content) > maxEntries {
		d.fault(n, "%s has %d entries, more than %d; split the policy file between several instances of rekeyd", what, len(n.Content), maxEntries)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, entry := range n.Content {
		who := fmt.Sprintf("%s number %d", f.each, i+1)
		if name := nameOf(entry); name != "" {
			who = f.each + " " + quote(name)
		}
		d.object(entry, v.Index(i), field{example: "{name: …}"}, who, who+": ")
	}
}

// profiles decodes a mapping of names and profiles.
func (d *decoder) profiles(n *yaml.Node, f field, what string) profiles {
	switch {
	case n.Kind != yaml.MappingNode:
		d.misfit(n, f, what, "a mapping")
		return nil
	case len(n.Content) == 0:
		d.fault(n, "%s is an empty mapping; write one such as %s, or remove the field", what, f.example)
	case len(n.Content)/2 > maxEntries:
		d.fault(n, "%s has %d entries, more than %d; split the policy file between several instances of rekeyd", what, len(n.Content)/2, maxEntries)
		return nil
	}
	out := make(profiles, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := d.key(n.Content[i], f, what)
		if !ok {
			continue
		}
		if first := out[name]; first != nil {
			d.fault(n.Content[i], "%s.%s is given twice; remove one", what, name)
			continue
		}
		out[name] = new(profile)
		who := f.each + " " + quote(name)
		d.object(n.Content[i+1], reflect.ValueOf(out[name]).Elem(), field{example: "{timezone: UTC}"}, who, who+": ")
	}
	return out
}

// key decodes a name that the user chooses: of a label or a profile.
func (d *decoder) key(n *yaml.Node, f field, what string) (name string, ok bool) {
	switch {
	case !d.plain(n, what, ": a name in it"):
	case n.Kind != yaml.ScalarNode || !f.names.MatchString(n.Value):
		d.fault(n, "%s has %s as the name of a %s; write %s, such as %s", what, describe(n, false), f.each, f.nameRule, f.nameExample)
	case elevenlabs.LooksSecret(n.Value):
		d.fault(n, "%s has a name that looks like a secret, which no policy file may hold; write one such as %s, and replace that secret if others could read it here", what, f.nameExample)
	default:
		return n.Value, true
	}
	return "", false
}

// member returns the mapping's value under name, or nil.
func member(n *yaml.Node, name string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// nameOf returns the name field of a mapping, for faults found before the mapping is decoded.
func nameOf(n *yaml.Node) string {
	if name := member(n, "name"); name != nil && name.Kind == yaml.ScalarNode {
		return name.Value
	}
	return ""
}

// keysOf returns the names of the fields of the mapping under name.
func keysOf(n *yaml.Node, name string) map[string]bool {
	keys := map[string]bool{}
	if inner := member(n, name); inner != nil && inner.Kind == yaml.MappingNode {
		for i := 0; i < len(inner.Content); i += 2 {
			keys[inner.Content[i].Value] = true
		}
	}
	return keys
}
