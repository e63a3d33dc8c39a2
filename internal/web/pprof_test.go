package web

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// TestWhoMayHaveProfiles: without REKEYD_PPROF nobody, and else a client on this host, one with a password or one with the
// admin token.
func TestWhoMayHaveProfiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "web.yml")
	w.Write(file, "basic_auth_users: {ops: '"+string(hash)+"'}\n")
	on := map[string]string{"REKEYD_PPROF": "true"}
	for name, c := range map[string]struct {
		change map[string]string
		local  bool
		token  string
		want   int
	}{
		"off by default":            {nil, true, adminToken, http.StatusNotFound},
		"on loopback":               {on, true, "", http.StatusOK},
		"elsewhere, no token":       {on, false, "", http.StatusUnauthorized},
		"elsewhere, a wrong token":  {on, false, "wrong", http.StatusUnauthorized},
		"elsewhere, with the token": {on, false, adminToken, http.StatusOK},
		"elsewhere, and no token exists": {map[string]string{"REKEYD_PPROF": "true", "REKEYD_ADMIN_TOKEN": ""}, false, adminToken,
			http.StatusForbidden},
		"the status page for all gives none": {map[string]string{"REKEYD_PPROF": "true", "REKEYD_ADMIN_TOKEN": "", "REKEYD_STATUS_PAGE": "on"}, false, "",
			http.StatusForbidden},
		"behind the toolkit's password": {map[string]string{"REKEYD_PPROF": "true", "REKEYD_ADMIN_TOKEN": "", "REKEYD_WEB_CONFIG_FILE": file}, false, "",
			http.StatusOK},
	} {
		h := w.build(c.change).handler(c.local)
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=2", "/debug/pprof/profile?seconds=1"} {
			if got := profile(h, path, c.token); got.Code != c.want || strings.Contains(got.Body.String(), adminKey) {
				t.Errorf("%s: %s: HTTP %d, want %d", name, path, got.Code, c.want)
			}
		}
	}
	url, _ := w.run(w.build(map[string]string{"REKEYD_PPROF": "true", "REKEYD_WEB_CONFIG_FILE": file}))
	up(t, url)
	if status, _, _ := ask(t, url+"/debug/pprof/goroutine", ""); status != http.StatusUnauthorized {
		t.Errorf("on loopback that demands a password, without one: HTTP %d", status)
	}
}

func profile(h http.Handler, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil) //nolint:noctx // ends by itself
	r.Header.Set("Authorization", "Bearer "+token)
	got := httptest.NewRecorder()
	h.ServeHTTP(got, r)
	return got
}

// TestProfilesAreBounded: in time, and one at a time.
func TestProfilesAreBounded(t *testing.T) {
	t.Parallel()
	h := newWorld(t).build(map[string]string{"REKEYD_PPROF": "true"}).handler(true)
	for _, seconds := range []string{"31", "0", "-1", "NaN", "1e9", "x"} {
		if got := profile(h, "/debug/pprof/trace?seconds="+seconds, ""); got.Code != http.StatusBadRequest {
			t.Errorf("of %s seconds: HTTP %d", seconds, got.Code)
		}
	}
	if got := profile(h, "/debug/pprof/cmdline", ""); got.Code != http.StatusNotFound {
		t.Errorf("the command line: HTTP %d", got.Code)
	}
	long := make(chan int)
	go func() {
		status := http.StatusServiceUnavailable
		for status == http.StatusServiceUnavailable { // a request below was sooner
			status = profile(h, "/debug/pprof/trace?seconds=2", "").Code
		}
		long <- status
	}()
	refused := false
	eventually(t, "another is refused meanwhile", func() bool {
		got := profile(h, "/debug/pprof/goroutine", "")
		refused = refused || got.Code == http.StatusServiceUnavailable && got.Header().Get("Retry-After") != ""
		return refused
	})
	if status := <-long; status != http.StatusOK {
		t.Errorf("the first one: HTTP %d", status)
	}
	if got := profile(h, "/debug/pprof/goroutine", ""); got.Code != http.StatusOK {
		t.Errorf("after it: HTTP %d", got.Code)
	}
}
