package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestAnchors: a file with anchors, aliases and merge keys is the file that it unfolds to.
func TestAnchors(t *testing.T) {
	const folded = `
profiles:
  base: &base {schedule: "@daily", permissions: &speech [text_to_speech], overlap: 2h}
  prod: &prod {<<: *base, overlap: &long 6h, window: 3h}
defaults: {<<: [*prod, *base], quarantine: *long}
policies:
- &first {name: a, service_account: &account s, sink: &sink {mount: kv, path: a}, labels: &labels {team: voice}}
- {<<: *first, name: b, sink: {<<: *sink, path: b}}
- <<: [{overlap: 1h}, *base, *prod]
  name: c
  service_account: *account
  labels: {<<: *labels, stage: prod}
  sink: {path: c}
  permissions: [voices_read, flows]
  allowed_ips: [&ip 203.0.113.7, *ip]
`
	const plain = `
profiles:
  base: {schedule: "@daily", permissions: [text_to_speech], overlap: 2h}
  prod: {schedule: "@daily", permissions: [text_to_speech], overlap: 6h, window: 3h}
defaults: {schedule: "@daily", permissions: [text_to_speech], overlap: 6h, window: 3h, quarantine: 6h}
policies:
- {name: a, service_account: s, sink: {mount: kv, path: a}, labels: {team: voice}}
- {name: b, service_account: s, sink: {mount: kv, path: b}, labels: {team: voice}}
- {name: c, service_account: s, sink: {path: c}, labels: {team: voice, stage: prod}, overlap: 1h, schedule: "@daily", permissions: [voices_read, flows], window: 3h, allowed_ips: [203.0.113.7]}
`
	got, err := load(t, folded)
	if err != nil {
		t.Fatal(err)
	}
	want, err := load(t, plain)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Policies, want.Policies) {
		t.Errorf("got  %+v\nwant %+v", got.Policies, want.Policies)
	}
}

// TestTheBoundOfAliases: what 200,000 nodes are, and that a plain file is not bound by it.
func TestTheBoundOfAliases(t *testing.T) {
	list := func(aliases, entries int) string {
		return "defaults: {permissions: &a [" + strings.TrimSuffix(strings.Repeat("flows, ", entries), ", ") + "]}\npolicies:\n" +
			strings.Repeat("- {<<: {permissions: *a}}\n", aliases)
	}
	_, err := load(t, list(200, 999)) // 200 times a list and its 999 entries
	if err == nil || strings.Contains(err.Error(), "200000") {
		t.Errorf("200,000 nodes: %.200v", err)
	}
	_, err = load(t, list(201, 999))
	if want := "REKEYD_POLICIES:203:22: aliases up to *a unfold to more than 200000 nodes; use defaults or profiles, or split the policy file"; err == nil || err.Error() != want {
		t.Errorf("201,000 nodes: %.200v", err)
	}
	if c, err := load(t, many(10_000/share)); err != nil || len(c.Policies) != 10_000/share {
		t.Errorf("a plain file of 10,000 policies: %.200v", err)
	}
}

// TestBombsAreRefusedAtOnce: neither time nor memory is spent on what a file would unfold to.
func TestBombsAreRefusedAtOnce(t *testing.T) {
	doubling := "defaults: {group: [&a0 [x, x]"
	merging := "profiles:\n  p0: &m0 {a: 1, b: 2}\n"
	for i := 1; i < 100; i++ {
		doubling += fmt.Sprintf(", &a%d [*a%d, *a%[2]d]", i, i-1)
		merging += fmt.Sprintf("  p%d: &m%[1]d {<<: [*m%d, *m%[2]d], c%[1]d: 1}\n", i, i-1)
	}
	var chain strings.Builder
	chain.WriteString("policies:\n- &a0 [x]\n")
	for i := 1; i < 100_000; i++ {
		fmt.Fprintf(&chain, "- &a%d [*a%d]\n", i, i-1)
	}
	for name, text := range map[string]string{"doubling": doubling + "]}\npolicies: []\n", "merging": merging + "policies: []\n", "a chain": chain.String(), "itself": "policies: &a [*a]", "itself in a merge": "policies:\n- &a {<<: [*a]}"} {
		begun := time.Now()
		_, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), "200000 nodes") && !strings.Contains(err.Error(), "inside its own anchor") {
			t.Errorf("%s: %.300v", name, err)
		}
		if took := time.Since(begun); took > 20*time.Second { // exponential work would not end
			t.Errorf("%s took %v", name, took)
		}
	}
}
