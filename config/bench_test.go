package config

import (
	"fmt"
	"strings"
	"testing"
)

// many returns a policy file with n policies that use most fields.
func many(n int) string {
	var b strings.Builder
	b.WriteString("defaults: {timezone: Europe/Oslo, overlap: 12h}\npolicies:\n")
	for i := range n {
		fmt.Fprintf(&b, `- name: policy-%d
  service_account: svcacc_%d
  schedule: "%d %d * * 1"
  splay: 10m
  max_age: 200h
  permissions: [text_to_speech, voices_read]
  allowed_ips: [203.0.113.0/24, 2001:db8::7]
  character_limit: 100000
  sink: {path: elevenlabs/policy-%d}
`, i, i, i%60, i/60%24, i)
	}
	return b.String()
}

// alike returns a policy file with n policies that have most from defaults.
func alike(n int) string {
	var b strings.Builder
	b.WriteString("defaults: {schedule: \"0 0 1 1 *\", permissions: [text_to_speech, user_read]}\npolicies:\n")
	for i := range n {
		fmt.Fprintf(&b, "- {name: policy-%[1]d, service_account: svcacc_%[1]d, sink: {path: elevenlabs/policy-%[1]d}}\n", i)
	}
	return b.String()
}

func BenchmarkLoad(b *testing.B) {
	for name, text := range map[string]string{"1000": many(1_000), "10000": many(10_000), "10000 alike": alike(10_000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := load(b, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Nothing else starts before the policies are loaded.
func TestLoadingAllocatesNoMoreThanItDid(t *testing.T) {
	const policies, most = 1000, 75 // a policy, with a quarter more than was measured
	text := alike(policies)
	got := testing.AllocsPerRun(3, func() {
		if _, err := load(t, text); err != nil {
			t.Fatal(err)
		}
	}) / policies
	if got > most {
		t.Errorf("%.1f allocations a policy, at most %d are expected", got, most)
	}
}
