package elevenlabs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// BenchmarkCut is a log line in a process that holds the secrets of many rotations in flight.
func BenchmarkCut(b *testing.B) {
	line := `{"time":"2026-03-01T00:00:00Z","level":"INFO","msg":"rotated","policy":"tts-prod","key_id":"key_0a1b2c3d","err":"` + strings.Repeat("refused by the plan ", 10) + `"}`
	for _, n := range []int{1, 20, 200} {
		b.Run(fmt.Sprintf("%d secrets", n), func(b *testing.B) {
			r := new(secret.Redactor)
			for i := range n {
				r.Add(secret.New(fmt.Sprintf("sk_%048x", i*0x9e3779b97f4a7c)))
			}
			for b.Loop() {
				if r.Cut(line) != line {
					b.Fatal("cut")
				}
			}
		})
	}
}
