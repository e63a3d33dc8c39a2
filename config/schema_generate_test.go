package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"time"
)

// policySchema returns the JSON Schema of the policy file, which is deploy/policies.schema.json. It covers the decoder's first
// pass; relations between fields, the second pass, are beyond it.
func policySchema() ([]byte, error) {
	g := newGrammar()
	root := g.object(reflect.TypeFor[document](), field{})
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "rekeyd policy file"
	var needs []any
	for _, f := range g[reflect.TypeFor[policy]()] {
		if f.requiredUnlessDefault {
			needs = append(needs, givenSomewhere(f.name))
		}
	}
	root["allOf"] = needs
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(root)
	return out.Bytes(), err
}

// node is one schema.
type node = map[string]any

// givenSomewhere requires a field in defaults or in every policy; what a profile gives is beyond a schema.
func givenSomewhere(name string) node {
	has := node{"anyOf": []node{{"required": []string{name}}, {"required": []string{"profile"}}}}
	return node{"anyOf": []node{
		{"required": []string{"defaults"}, "properties": node{"defaults": has}},
		{"properties": node{"policies": node{"items": has}}},
	}}
}

func (g grammar) object(t reflect.Type, f field) node {
	properties, required := node{}, []string{}
	for _, m := range g[t] {
		properties[m.name] = g.value(m)
		if m.need {
			required = append(required, m.name)
		}
	}
	out := node{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
	if f.one {
		out["minProperties"], out["maxProperties"] = 1, 1
	}
	return out
}

func (g grammar) value(f field) node {
	out := g.kind(f)
	out["description"] = f.doc
	if f.fallback != "" {
		out["default"] = f.fallback
	}
	return out
}

func (g grammar) kind(f field) node {
	switch f.typ {
	case reflect.TypeFor[at[string]]():
		return textSchema(f)
	case reflect.TypeFor[at[time.Duration]]():
		return node{"anyOf": []node{{"type": "string", "pattern": durationPattern}, {"const": 0}}, "examples": []string{f.example}}
	case reflect.TypeFor[at[int64]]():
		return node{"type": "integer", "minimum": f.min, "maximum": f.max}
	case reflect.TypeFor[at[limit]]():
		return node{"anyOf": []node{{"type": "integer", "minimum": f.min, "maximum": f.max}, {"const": f.word}}, "examples": []any{f.word}}
	case reflect.TypeFor[at[bool]]():
		return node{"type": "boolean"}
	case reflect.TypeFor[at[labels]]():
		return node{"type": "object", "minProperties": 1, "maxProperties": maxLabels, "propertyNames": node{"pattern": f.names.String()},
			"additionalProperties": node{"type": "string", "pattern": f.pattern.String(), "maxLength": f.most}}
	case reflect.TypeFor[at[[]at[string]]]():
		return textsSchema(f)
	}
	if f.typ.Kind() == reflect.Map {
		return node{"type": "object", "minProperties": 1, "maxProperties": maxEntries, "propertyNames": node{"pattern": f.names.String()},
			"additionalProperties": g.object(f.typ.Elem().Elem(), field{})}
	}
	if f.typ.Kind() == reflect.Slice {
		return node{"type": "array", "minItems": 1, "maxItems": maxEntries, "items": g.object(f.typ.Elem(), field{})}
	}
	return g.object(f.typ, f)
}

func textSchema(f field) node {
	out := node{"type": "string"}
	if f.words != nil {
		out["enum"] = f.words
	} else {
		out["pattern"], out["examples"] = f.pattern.String(), []string{f.example}
	}
	if f.taken != nil {
		out["not"] = node{"enum": f.taken}
	}
	return out
}

func textsSchema(f field) node {
	item := node{"type": "string", "pattern": f.pattern.String()}
	if f.word == "" {
		return node{"type": "array", "minItems": 1, "items": item}
	}
	item["not"] = node{"const": f.word}
	return node{"anyOf": []node{{"const": f.word}, {"type": "array", "minItems": 1, "items": item}}}
}
