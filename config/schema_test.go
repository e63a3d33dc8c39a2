package config

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaPath = "../deploy/policies.schema.json"

func TestSchemaIsUpToDate(t *testing.T) {
	want, err := policySchema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaPath, want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("deploy/policies.schema.json differs from what the fields say; run go test ./config -run Schema -update")
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := policySchema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policies.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("policies.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// complete is a policy file that uses every field.
const complete = `{
	"workspaces": [
		{"name": "default", "api_key": {"env": "ELEVENLABS_API_KEY"}},
		{"name": "eu", "base_url": "https://api.eu.residency.elevenlabs.io", "api_key": {"file": "/run/secrets/eu"}},
		{"name": "us", "api_key": {"vault": {"mount": "secret", "path": "elevenlabs/admin", "field": "api_key"}}}
	],
	"defaults": {"timezone": "UTC", "overlap": "24h", "schedule": "@weekly", "permissions": "all", "splay": 0, "labels": {"team": "voice", "stage": "prod"}, "profile": "test"},
	"profiles": {"prod": {"max_age": "200h", "labels": {"tier": "a"}}, "test": {"overlap": "1h"}},
	"policies": [
		{"name": "a", "profile": "", "service_account": "svcacc_a", "sink": {"path": "a"}},
		{
			"name": "tts-prod", "workspace": "eu", "service_account": "svcacc_9f8b7c6d5e4a3b2c1d0e", "schedule": "0 3 * * 1",
			"timezone": "Europe/Oslo", "splay": "10m", "window": "4h", "group": "tts", "max_age": "1h30m",
			"permissions": ["text_to_speech", "voices_read"], "allowed_ips": ["203.0.113.0/24", "2001:db8::7"],
			"character_limit": 100000, "tts_concurrency_limit": 0, "dubbing_concurrency_limit": "none", "music_concurrency_limit": 10,
			"third_party_disable_allowed": false, "overlap": "24h", "quarantine": "24h", "wait_until_idle": "0s", "verify": "off",
			"on_drift": "report", "mode": "manual", "adopt": "", "labels": {"team": "speech", "_x9": ""}, "sink": {"mount": "kv/team", "path": "elevenlabs/tts-prod", "field": "api_key"}
		}
	]
}`

// mutant changes one random place of a JSON value.
func mutant(r *rand.Rand, v any) any {
	switch x := v.(type) {
	case map[string]any:
		return mutantObject(r, x)
	case []any:
		return mutantList(r, x)
	}
	return odd(r)
}

func mutantObject(r *rand.Rand, x map[string]any) any {
	names := []string{"name", "policies", "workspaces", "defaults", "schedule", "permissions", "overlap", "api_key", "env", "file", "vault", "path", "mount", "sink", "labels", "team", "profiles", "profile", "prod", "__team", "unknown"}
	if len(x) == 0 || r.IntN(8) == 0 {
		x[names[r.IntN(len(names))]] = odd(r)
		return x
	}
	if r.IntN(20) == 0 {
		return odd(r)
	}
	keys := make([]string, 0, len(x))
	for k := range x {
		keys = append(keys, k)
	}
	k := leastOf(keys, r.IntN(len(keys)))
	if r.IntN(6) == 0 {
		delete(x, k)
	} else {
		x[k] = mutant(r, x[k])
	}
	return x
}

func mutantList(r *rand.Rand, x []any) any {
	switch i := r.IntN(10); {
	case i == 0:
		return odd(r)
	case i == 1:
		return []any{}
	case i == 2 || len(x) == 0:
		return append(x, odd(r))
	}
	i := r.IntN(len(x))
	x[i] = mutant(r, x[i])
	return x
}

// odd returns a value that fits somewhere and not elsewhere.
func odd(r *rand.Rand) any {
	pool := []any{
		nil, true, false, 0, 1, -1, 1.5, 100000, 1000000000000, 1000000000001, "", "a", "A", "a b", "all", "auto", "off", "on", "rotate",
		"manual", "0", "1h", "1d", "-1h", "1h30m", "1.5h", ".5h", "1.h", "+1h", "24", "1us", "1µs", "h", "1hh", "a/b", "/a", "a/", "a//b",
		"..", "a/../b", "...", ".a", "./a", "a\nb", "a\n", "é", "ELEVENLABS_X", "ELEVENLABS_", "HOME", "0 3 * * 1", "@daily", "null", "true",
		"2026-11-23", "1e3", "a\u2028b", "a\u202eb", "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", "~", "0x10", "<<", "*a", "&a", "!a", "none", 1000000001, "abcdefghijklmnopqrstuvwxyz-0123456789", "http://127.0.0.1",
		[]any{}, []any{"all"}, []any{"a", 1}, []any{[]any{}}, []any{nil}, []any{"text_to_speech"}, map[string]any{},
		map[string]any{"path": "a"}, map[string]any{"name": "a"}, map[string]any{"env": "ELEVENLABS_X"}, map[string]any{"labels": map[string]any{"a": "b"}}, map[string]any{"prod": map[string]any{"schedule": "@daily"}}, map[string]any{"prod": map[string]any{}},
		map[string]any{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7, "h": 8, "i": 9},
		map[string]any{"a": "", "b": "", "c": "", "d": "", "e": "", "f": "", "g": "", "h": "", "i": ""}, map[string]any{"9a": "a"}, map[string]any{"_": "a"}, map[string]any{"vault": map[string]any{"path": "x"}},
	}
	return clone(pool[r.IntN(len(pool))])
}

// leastOf returns the nth of keys in order, so that a seed decides all.
func leastOf(keys []string, n int) string {
	for i := range keys {
		for j := i + 1; j < len(keys); j++ {
			if keys[j] < keys[i] {
				keys[i], keys[j] = keys[j], keys[i]
			}
		}
	}
	return keys[n]
}

func clone(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	var out any
	if json.Unmarshal(text, &out) != nil {
		return nil
	}
	return out
}

// TestSchemaAgreesWithDecoder holds the schema against the decoder's first pass in both directions: what one accepts,
// the other accepts.
func TestSchemaAgreesWithDecoder(t *testing.T) {
	schema, grammar := compileSchema(t), newGrammar()
	r := rand.New(rand.NewPCG(1, 2))
	var base any
	if err := json.Unmarshal([]byte(complete), &base); err != nil {
		t.Fatal(err)
	}
	accepted, refused := 0, 0
	for range 6_000 / share {
		doc := clone(base)
		for range r.IntN(4) {
			doc = mutant(r, doc)
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		bySchema := schema.Validate(value)
		byDecoder := structure(grammar, text)
		if (bySchema == nil) != (len(byDecoder) == 0) {
			t.Fatalf("they disagree on\n%s\nschema: %v\ndecoder: %v", text, bySchema, byDecoder)
		}
		if bySchema == nil {
			accepted++
		} else {
			refused++
		}
	}
	if accepted < 1000/share || refused < 1000/share {
		t.Errorf("the corpus is lopsided: %d accepted, %d refused", accepted, refused)
	}
}

// structure is the decoder's first pass alone.
func structure(g grammar, text []byte) Faults {
	root, fault := parse("p.yaml", text)
	if fault != nil {
		return Faults{*fault}
	}
	r := &report{file: "p.yaml"}
	decode(r, g, root)
	return r.faults
}

func TestSchemaAcceptsEveryField(t *testing.T) {
	var doc any
	if err := json.Unmarshal([]byte(complete), &doc); err != nil {
		t.Fatal(err)
	}
	if err := compileSchema(t).Validate(doc); err != nil {
		t.Error(err)
	}
	if faults := structure(newGrammar(), []byte(complete)); len(faults) > 0 {
		t.Error(faults)
	}
}
