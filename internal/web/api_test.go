package web

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

func post(t *testing.T, url, authorization, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	resp, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestRotateIsAskedForOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Write(w.PolicyFile, strings.Replace(policies("tts-prod", "dubbing"), "{name: dubbing,", "{name: dubbing, mode: paused,", 1))
	d := w.build(nil)
	url, _ := w.run(d)
	current := func() string {
		if c := d.rotator.Snapshot().Policies[1].Current; c != nil {
			return c.ID
		}
		return ""
	}
	eventually(t, "a first key", func() bool { return current() != "" })
	first := current()
	const bearer = "Bearer " + adminToken
	path := url + "/api/v1/policies/tts-prod/rotate"
	for _, c := range []struct {
		name, url, authorization, body string
		status                         int
	}{
		{"no token", path, "", "", http.StatusUnauthorized},
		{"another token", path, bearer + "x", "", http.StatusUnauthorized},
		{"basic", path, "Basic " + adminToken, "", http.StatusUnauthorized},
		{"no policy", url + "/api/v1/policies/tts/rotate", bearer, "", http.StatusNotFound},
		{"paused", url + "/api/v1/policies/dubbing/rotate", bearer, "", http.StatusConflict},
		{"no JSON", path, bearer, "now", http.StatusBadRequest},
		{"an unknown field", path, bearer, `{"revoke": true}`, http.StatusBadRequest},
		{"two objects", path, bearer, `{}{}`, http.StatusBadRequest},
		{"a secret", path, bearer, `{"reason": "leaked: sk_0123456789abcdef0123456789abcdef"}`, http.StatusBadRequest},
		{"too long", path, bearer, `{"reason": "` + strings.Repeat("x", maxRequest) + `"}`, http.StatusRequestEntityTooLarge},
		{"too long after the object", path, bearer, "{}" + strings.Repeat(" ", maxRequest), http.StatusRequestEntityTooLarge},
	} {
		if status, body := post(t, c.url, c.authorization, c.body); status != c.status || strings.Count(body, "\n") != 1 || strings.Contains(body, "sk_0") {
			t.Errorf("%s: HTTP %d %s", c.name, status, body)
		}
	}
	if current() != first {
		t.Error("a refused call rotated")
	}
	status, body := post(t, path, "bearer "+adminToken, `{"revoke_now": true, "reason": "a drill"}`) // the scheme has no case
	var answer rotateAnswer
	if err := json.Unmarshal([]byte(body), &answer); status != http.StatusAccepted || err != nil || answer != (rotateAnswer{"tts-prod", "requested", first, true}) {
		t.Errorf("HTTP %d %s", status, body)
	}
	eventually(t, "another key, and the first one disabled", func() bool {
		s := d.rotator.Snapshot().Policies[1]
		return s.Current.ID != first && len(s.Retiring) == 1 && s.Retiring[0].State == ledger.InQuarantine
	})
	if w.Log.Count("sk_0123456789abcdef") != 0 {
		t.Error("a secret that was given as the reason is in the log")
	}
	if w.Log.Count(`"reason":"a drill"`) != 1 {
		t.Error("the person's reason is not in the log")
	}
}

func TestWithoutAnAdminTokenNothingCanBeAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url, _ := w.run(w.build(map[string]string{"REKEYD_ADMIN_TOKEN": ""}))
	for _, path := range []string{"/api/v1/policies/tts-prod/rotate", "/-/reload"} {
		if status, _ := post(t, url+path, "Bearer ", ""); status != http.StatusNotFound {
			t.Errorf("POST %s: HTTP %d", path, status)
		}
	}
}
