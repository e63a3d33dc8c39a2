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

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		text := many(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := load(b, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
