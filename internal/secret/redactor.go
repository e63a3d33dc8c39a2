package secret

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// shortest is the least length in bytes of a secret that is cut out: a shorter one occurs in ordinary words.
const shortest = 6

// Redactor cuts the process's secrets out of text from other programs. The zero value holds none, and a nil Redactor can
// hold none. It is safe for concurrent use, and printing it shows no secret.
type Redactor struct {
	mu   sync.RWMutex
	held map[[sha256.Size]byte]*held // by the hash of the secret
}

// held is one secret, with each spelling that a remote might quote once a text is searched for them: each request adds its key, and
// few have a text to cut. The spellings are Secrets because fmt prints unexported fields.
type held struct {
	forms func() []Secret
	users int
}

// Add holds a secret until remove is called; further calls of remove do nothing. A secret added several times is held
// until each is removed.
func (r *Redactor) Add(s Secret) (remove func()) {
	value := s.Reveal()
	if r == nil || len(value) < shortest {
		return func() {}
	}
	id := sha256.Sum256([]byte(value))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = map[[sha256.Size]byte]*held{}
	}
	if r.held[id] == nil {
		r.held[id] = &held{forms: sync.OnceValue(func() []Secret { return spellings(value) })}
	}
	r.held[id].users++
	return sync.OnceFunc(func() { r.drop(id) })
}

// Replace is Add, and then calls the remove of the secret that s replaces, unless it is nil. The text of either is cut meanwhile (TestReplaceHoldsTheNewSecretFirst).
func (r *Redactor) Replace(removeOld func(), s Secret) (remove func()) {
	remove = r.Add(s)
	if removeOld != nil {
		removeOld()
	}
	return remove
}

func (r *Redactor) drop(id [sha256.Size]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[id].users--
	if r.held[id].users == 0 {
		delete(r.held, id)
	}
}

// spellings returns the secret as it is, URL-escaped, as in JSON and in JSON within JSON, in hex, and in base64 at any
// offset in a longer text.
func spellings(value string) []Secret {
	inHex := hex.EncodeToString([]byte(value))
	forms := []string{value, inHex, strings.ToUpper(inHex)}
	if strings.ContainsFunc(value, isEscaped) {
		inJSON := quoted(value)
		forms = append(forms, inJSON, quoted(inJSON), strings.ReplaceAll(inJSON, "/", `\/`), UnescapedHTML(value),
			url.QueryEscape(value), url.PathEscape(value), LowerEscapes(url.QueryEscape(value)), LowerEscapes(url.PathEscape(value)))
	}
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		forms = append(forms, alphabet.EncodeToString([]byte(value)))
		for before := range 3 {
			// The neighbouring text shares the first and the last character with the secret.
			text := alphabet.EncodeToString([]byte("\x00\x00\x00"[:before] + value))
			forms = append(forms, text[(before*8+5)/6:(before+len(value))*8/6])
		}
	}
	slices.Sort(forms)
	var secrets []Secret
	for _, form := range slices.Compact(forms) {
		secrets = append(secrets, New(form))
	}
	return secrets
}

// isEscaped reports whether JSON or URLs may write the character in another way.
func isEscaped(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-'
}

func quoted(value string) string {
	text, _ := json.Marshal(value) // a string can be encoded
	return string(text[1 : len(text)-1])
}

// UnescapedHTML is as JSON of other encoders, which leave <, > and & as they are.
func UnescapedHTML(value string) string {
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(quoted(value))
}

var escape = regexp.MustCompile(`%[0-9A-F]{2}`)

// LowerEscapes writes percent escapes in lower case.
func LowerEscapes(text string) string { return escape.ReplaceAllStringFunc(text, strings.ToLower) }

// span is the part of a text from start to before end.
type span struct{ start, end int }

// Cut replaces every held secret in text by "[secret]", secrets that overlap as one.
func (r *Redactor) Cut(text string) string {
	if r == nil || len(text) < shortest {
		return text
	}
	var found []span
	r.mu.RLock()
	for _, h := range r.held {
		for _, form := range h.forms() {
			found = appendSpans(found, text, form.Reveal())
		}
	}
	r.mu.RUnlock()
	if found == nil {
		return text
	}
	slices.SortFunc(found, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var b strings.Builder
	end := 0
	for _, f := range found {
		if f.start >= end {
			b.WriteString(text[end:f.start])
			b.WriteString(Placeholder)
		}
		end = max(end, f.end)
	}
	b.WriteString(text[end:])
	return b.String()
}

func appendSpans(found []span, text, form string) []span {
	for from := 0; ; {
		i := strings.Index(text[from:], form)
		if i < 0 {
			return found
		}
		found = append(found, span{from + i, from + i + len(form)})
		from += i + 1
	}
}

// Clean makes a remote's text fit to report: one line of printable characters, without secrets, at most limit runes.
// It cuts secrets out after removing unprintable characters, which could hide one, and before truncating, which could halve
// one. It also cuts out text that only looks like a secret, such as that of a key just created, quoted in a refusal.
func (r *Redactor) Clean(text string, limit int) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) || unicode.IsSpace(c) {
			return c
		}
		return -1
	}, text)
	text = r.Cut(strings.Join(strings.Fields(text), " "))
	runes := []rune(HideShapes(text))
	if len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return string(runes)
}
