package secret

import (
	"strings"
	"testing"
)

// TestEveryShapeHasAMark: without one, a secret would not be recognised.
func TestEveryShapeHasAMark(t *testing.T) {
	long := strings.Repeat("aB3", 14)
	for _, value := range []string{
		"sk_aB3aB3", "hvb.aB3aB3", "hvs.aB3aB3", "hvr.aB3aB3", "ghp_" + long, "gho_" + long, "ghs_" + long, "ghu_" + long, "ghr_" + long, "github_pat_" + long,
		"glpat-" + long, "xoxa-" + long, "xoxb-" + long, "xoxp-" + long, "xoxr-" + long, "xoxs-" + long, "npm_" + long, "sk-" + long, "AKIA0123456789ABCDEF",
		"AIza" + long, "eyJ" + long + ".eyJ" + long, "s." + long[:24], "elevenlabs/sk_" + long, "token-hvs." + long, "x -----BEGIN PRIVATE KEY-----",
	} {
		if !valueShape.MatchString(value) || !Shaped(value) {
			t.Errorf("%s is not recognised", value)
		}
	}
	for _, value := range []string{"svcacc_9f8b7c6d5e4a3b2c1d0e", "elevenlabs/sk_admin", "speech_to_speech", "ghost", "s.", ""} {
		if Shaped(value) {
			t.Errorf("%s is taken for a secret", value)
		}
	}
}

// FuzzShaped holds the quick test against the shapes themselves.
func FuzzShaped(f *testing.F) {
	f.Add("elevenlabs/sk_0123456789abcdef")
	f.Fuzz(func(t *testing.T, value string) {
		if got := Shaped(value); got != valueShape.MatchString(value) {
			t.Errorf("%q: %t", value, got)
		}
	})
}
