package elevenlabs

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/secret"
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
		"query, lower":   func(s string) string { return secret.LowerEscapes(url.QueryEscape(s)) },
		"JSON":           func(s string) string { text, _ := json.Marshal(s); return string(text) },
		"JSON in JSON":   func(s string) string { a, _ := json.Marshal(s); b, _ := json.Marshal(string(a)); return string(b) },
		"JSON of PHP":    func(s string) string { a, _ := json.Marshal(s); return strings.ReplaceAll(string(a), "/", `\/`) },
		"JSON of others": func(s string) string { return `"` + secret.UnescapedHTML(s) + `"` },
		"base64":         func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64url":      func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
		"base64, raw":    func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) },
		"a header":       func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+s)) },
		"base64 of JSON": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(`{"key":"` + s + `"}`)) },
	}
	for _, value := range secrets {
		r := new(secret.Redactor)
		r.Add(secret.New(value))
		for how, f := range spell {
			text := "said: " + f(value) + " it"
			if got := r.Cut(text); !strings.Contains(got, secret.Placeholder) || len(got) > len("said: Basic [secret] it")+12 {
				t.Errorf("%s: %q became %q", how, text, got)
			}
		}
		for before := range 7 {
			for after := range 4 {
				text := strings.Repeat("x", before) + value + strings.Repeat("y", after)
				for _, alphabet := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
					code := alphabet.EncodeToString([]byte(text))
					rest := len(strings.ReplaceAll(r.Cut(code), secret.Placeholder, ""))
					if most := (before*8+5)/6 + 1 + (after*8+5)/6 + 4; rest > most {
						t.Errorf("%d before, %d after: of %q are left %d characters: %q", before, after, code, rest, r.Cut(code))
					}
				}
			}
		}
	}
}
