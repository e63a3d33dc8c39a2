package elevenlabs

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// TestProbePath: a redirect is not followed, a success is not read, and only a path of the origin is asked for.
func TestProbePath(t *testing.T) {
	t.Parallel()
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("xi-api-key"))
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/endless":
			w.WriteHeader(http.StatusPartialContent)
			for range 1 << 12 { // far more than a client may read of an answer
				if _, err := io.WriteString(w, strings.Repeat("x", 4<<10)); err != nil {
					return
				}
			}
		case "/gone":
			http.Error(w, `{"detail": {"code": "voice_not_found"}}`, http.StatusNotFound)
		}
	}))
	defer srv.Close()
	c, err := New(Options{BaseURL: srv.URL, Credential: func(context.Context) (secret.Secret, error) { return secret.New("sk_admin_of_the_test"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	key := secret.New("sk_new_key_of_the_test")
	for path, want := range map[string]int{"/endless?page=1": 206, "/moved": 302, "/gone": 404} {
		status, err := c.ProbePath(t.Context(), key, path)
		if status != want || (err == nil) != (want < 300) {
			t.Errorf("%s: %d, %v", path, status, err)
		}
	}
	for _, path := range []string{"", "v1/models", "/a b", "/\n"} {
		if status, err := c.ProbePath(t.Context(), key, path); status != 0 || err == nil {
			t.Errorf("%q: %d, %v", path, status, err)
		}
	}
	srv.Close()
	if status, err := c.ProbePath(t.Context(), key, "/gone"); status != 0 || err == nil {
		t.Errorf("without a server: %d, %v", status, err)
	}
	if len(asked) != 3 || strings.Contains(strings.Join(asked, " "), "elsewhere") || strings.Contains(strings.Join(asked, " "), "admin") {
		t.Errorf("asked: %q", asked)
	}
}
