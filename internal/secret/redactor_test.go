package secret

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// TestOrdinaryTextIsNotCut: a short secret does not take words with it, in whichever spelling.
func TestOrdinaryTextIsNotCut(t *testing.T) {
	r := new(Redactor)
	for _, s := range []string{"a", "abcde", "admin1", "secret", "sk_abc", "000000"} {
		r.Add(New(s))
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
	r.Add(New(secret))
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

// TestReplaceHoldsTheNewSecretFirst: when the old secret is taken out, the new one is cut already.
func TestReplaceHoldsTheNewSecretFirst(t *testing.T) {
	r := new(Redactor)
	remove := r.Replace(nil, New("sk_old_0123456789"))
	called := false
	remove = r.Replace(func() {
		called = true
		if got := r.Cut("sk_old_0123456789 sk_new_0123456789"); got != "[secret] [secret]" {
			t.Errorf("%q while one replaces the other", got)
		}
		remove()
	}, New("sk_new_0123456789"))
	if got := r.Cut("sk_old_0123456789 sk_new_0123456789"); !called || got != "sk_old_0123456789 [secret]" {
		t.Errorf("%q afterwards", got)
	}
	remove()
	if got := r.Cut("sk_new_0123456789"); got != "sk_new_0123456789" {
		t.Errorf("%q once both are removed", got)
	}
}

// TestPlainCharacters are written alike everywhere, so that a secret of them needs no further spelling.
func TestPlainCharacters(t *testing.T) {
	for c := range rune(0x200) {
		text := string(c)
		if !isEscaped(c) && (url.QueryEscape(text) != text || url.PathEscape(text) != text || quoted(text) != text) {
			t.Errorf("%q is plain, and written as %s, %s and %s", c, url.QueryEscape(text), url.PathEscape(text), quoted(text))
		}
	}
}
