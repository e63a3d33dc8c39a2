package elevenlabs

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// TestSpellingsAreCut quotes secrets in each way that is cut, at every offset in a longer text.
func TestSpellingsAreCut(t *testing.T) {
	secrets := []string{"sk_0123456789abcdef0123456789abcdef", "abcdef", canary, "hvs.CAES<&>/+~Ij0", "päss-wörd ÿÿÿ>>>???"}
	spell := map[string]func(string) string{
		"as it is":       func(s string) string { return s },
		"hex":            func(s string) string { return hex.EncodeToString([]byte(s)) },
		"HEX":            func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
		"query":          url.QueryEscape,
		"path":           url.PathEscape,
		"query, lower":   func(s string) string { return lowerEscapes(url.QueryEscape(s)) },
		"JSON":           func(s string) string { text, _ := json.Marshal(s); return string(text) },
		"JSON in JSON":   func(s string) string { a, _ := json.Marshal(s); b, _ := json.Marshal(string(a)); return string(b) },
		"JSON of PHP":    func(s string) string { a, _ := json.Marshal(s); return strings.ReplaceAll(string(a), "/", `\/`) },
		"JSON of others": func(s string) string { return `"` + unescapedHTML(s) + `"` },
		"base64":         func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64url":      func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
		"base64, raw":    func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) },
		"a header":       func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+s)) },
		"base64 of JSON": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(`{"key":"` + s + `"}`)) },
	}
	for _, secret := range secrets {
		r := new(Redactor)
		r.Add(NewSecret(secret))
		for how, f := range spell {
			text := "said: " + f(secret) + " it"
			if got := r.Cut(text); !strings.Contains(got, hidden) || len(got) > len("said: Basic [secret] it")+12 {
				t.Errorf("%s: %q became %q", how, text, got)
			}
		}
		for before := range 7 {
			for after := range 4 {
				text := strings.Repeat("x", before) + secret + strings.Repeat("y", after)
				for _, alphabet := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
					code := alphabet.EncodeToString([]byte(text))
					rest := len(strings.ReplaceAll(r.Cut(code), hidden, ""))
					if most := (before*8+5)/6 + 1 + (after*8+5)/6 + 4; rest > most {
						t.Errorf("%d before, %d after: of %q are left %d characters: %q", before, after, code, rest, r.Cut(code))
					}
				}
			}
		}
	}
}

// TestOrdinaryTextIsNotCut: a short secret does not take words with it, in whichever spelling.
func TestOrdinaryTextIsNotCut(t *testing.T) {
	r := new(Redactor)
	for _, s := range []string{"a", "abcde", "admin1", "secret", "sk_abc", "000000"} {
		r.Add(NewSecret(s))
	}
	for _, text := range []string{
		"admin of the workspace", "sk_ab and abcdefgh", "00000 requests", "key_0a1b2c3d4e5f", "YWRtaW4=", "61646d696e", "2026-03-01T00:00:00Z",
		"policy tts-prod: rotated; the key is now 9f8b7c6d5e4a3b2c1d0e", base64.StdEncoding.EncodeToString([]byte("an admin of another place")),
	} {
		if got := r.Cut(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// TestWhatIsNotCut is what SECURITY.md says about it: a remote that means harm finds a spelling.
func TestWhatIsNotCut(t *testing.T) {
	const secret = "sk_0123456789abcdef"
	r := new(Redactor)
	r.Add(NewSecret(secret))
	var spaced, reversed, percent strings.Builder
	for i, c := range secret {
		fmt.Fprintf(&spaced, "%c ", c)
		fmt.Fprintf(&percent, "%%%02x", c)
		reversed.WriteByte(secret[len(secret)-1-i])
	}
	for _, text := range []string{spaced.String(), reversed.String(), percent.String(), strings.ToUpper(secret), secret[:8]} {
		if got := r.Cut(text); got != text {
			t.Errorf("%q became %q: say so in SECURITY.md", text, got)
		}
	}
}
