package web

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAnswersAreCompressed(t *testing.T) {
	t.Parallel()
	h := servedOf(t, fleet(t, 1000, time.Now())).handler(true)
	ask := func(method, path, encoding string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		if encoding != "" {
			r.Header.Set("Accept-Encoding", encoding)
		}
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		return answer
	}
	for _, path := range []string{"/", "/calendar", "/policies/tts-speech-0000", "/api/v1/policies", "/api/v1/policies/tts-speech-0000", "/page.css", "/page.js"} {
		plain, small := ask(http.MethodGet, path, ""), ask(http.MethodGet, path, "br, gzip;q=0.5")
		if plain.Header().Get("Content-Encoding") != "" || small.Header().Get("Content-Encoding") != "gzip" || small.Header().Get("Vary") != "Accept-Encoding" ||
			small.Header().Get("Content-Type") != plain.Header().Get("Content-Type") {
			t.Errorf("%s: %v and %v", path, plain.Header(), small.Header())
		}
		size := small.Body.Len()
		z, err := gzip.NewReader(small.Body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil || len(text) < plain.Body.Len()*9/10 || size > plain.Body.Len()/2 {
			t.Errorf("%s: %d bytes, compressed to %d: %v", path, plain.Body.Len(), size, err)
		}
	}
	for _, encoding := range []string{"identity", "br", "gzip;q=0", "*;q=0", ",;", strings.Repeat("a,", 1000)} {
		if got := ask(http.MethodGet, "/", encoding).Header().Get("Content-Encoding"); got != "" {
			t.Errorf("accepting %.20q: %s", encoding, got)
		}
	}
	for _, encoding := range []string{"GZIP", "deflate, *", "gzip; q=1.0"} {
		if got := ask(http.MethodGet, "/", encoding).Header().Get("Content-Encoding"); got != "gzip" {
			t.Errorf("accepting %q: %s", encoding, got)
		}
	}
	if a := ask(http.MethodGet, "/policies/nobody", "gzip"); a.Code != http.StatusNotFound || a.Header().Get("Content-Encoding") != "" || a.Body.String() != noPolicy+"\n" {
		t.Errorf("a refusal: HTTP %d %v %s", a.Code, a.Header(), a.Body)
	}
}
