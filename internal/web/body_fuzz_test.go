package web

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRequestBodies sends bodies to the calls that change something, with the admin token.
func FuzzRequestBodies(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"revoke_now":true,"reason":"a drill"}`, `{"reason":1}`, `[`, `{"a":{}}`, "null", "\xff", strings.Repeat("[", 20_000)} {
		f.Add([]byte(seed))
	}
	w := newWorld(f)
	d := w.build(map[string]string{"REKEYD_LOG_LEVEL": "error"})
	h := front(true, http.MaxBytesHandler(d.handler(true), maxRequest))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/api/v1/policies/tts-prod/rotate", bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+adminToken)
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		said := got.Body.String()
		switch got.Code {
		case http.StatusAccepted, http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge:
		default:
			t.Errorf("HTTP %d: %s", got.Code, said)
		}
		if strings.Count(said, "\n") > 1 || !utf8.ValidString(said) || len(said) > 2*maxRequest {
			t.Errorf("HTTP %d with %d bytes: %.300q", got.Code, len(said), said)
		}
	})
}

// FuzzLeakedBodies sends bodies as a scanner would. Every answer is one of a few, so that none repeats what it was sent.
func FuzzLeakedBodies(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"secret":"sk_of_others"}`, `{"secret":"sk_of_others","rotate":true}`, `{"secret":"` + adminKey + `"}`, `{"secret":" ` + adminKey + `\n","rotate":true}`,
		`{"secret":1}`, `{"secret":"a b"}`, `{"secret":"\ud800"}`, `{"sk_of_others":1}`, `{"secret":"a","secret":"b"}`, `{"SECRET":"a"}`, "[", "null", "\xff", strings.Repeat("[", 20_000),
	} {
		f.Add([]byte(seed))
	}
	w := newWorld(f)
	d := w.build(nil)
	h := front(true, http.MaxBytesHandler(d.handler(true), maxRequest))
	answers := map[string]bool{
		`{"known":true,"policy":"","state":"admin","workspace":"default","works":"yes"}`:                                    true,
		`The body must be one JSON object like {"secret": "what was found", "rotate": false}, with no other field.`:         true,
		"The body is longer than 65536 bytes.":                                                                              true,
		"The body cannot be used: the secret is empty.":                                                                     true,
		"The body cannot be used: the secret is longer than 1024 bytes, which no key is; give one secret and nothing else.": true,
		"The body cannot be used: the secret has white space in it; give one secret and nothing else.":                      true,
		"The secret was not found, but not every ledger entry has been read; ask again later, or use rekeyd leaked.":        true,
		"The secret is known, but no rotation was begun: no policy rotates the admin key of workspace default: make another in ElevenLabs, put it where the workspace's api_key says, then delete this one in ElevenLabs.": true,
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/api/v1/leaked", bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+adminToken)
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		if said := got.Body.String(); !answers[strings.TrimSuffix(said, "\n")] {
			t.Errorf("HTTP %d: %.300q", got.Code, said)
		}
	})
}
