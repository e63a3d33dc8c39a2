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
