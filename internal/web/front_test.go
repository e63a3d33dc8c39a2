package web

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// from sends one request with a Host and headers from an address of this host and returns the status; 0: no answer.
func from(t *testing.T, address, method, url, host string, header http.Header) int {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 20 * time.Second}
	c := http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.Header = host, header
	resp, err := c.Do(r)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestLoopbackAnswersToLoopbackNamesOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url, _ := w.run(w.build(nil))
	up(t, url)
	for _, path := range []string{"/", "/page.js", "/page.css", "/api/v1/policies", "/metrics", "/healthz", "/nowhere"} {
		for _, host := range []string{"evil.example", "evil.example:9466", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1", "0.0.0.0", "[::]:80", "localhost:80:80", "127.1"} {
			if got := from(t, "127.0.0.1", http.MethodGet, url+path, host, nil); got != http.StatusMisdirectedRequest {
				t.Errorf("GET %s of %s: HTTP %d", path, host, got)
			}
		}
		for _, host := range []string{"localhost", "LocalHost:9466", "127.0.0.1", "127.9.8.7:1", "[::1]", "[::1]:9466"} {
			if got := from(t, "127.0.0.1", http.MethodGet, url+path, host, nil); got != http.StatusOK && path != "/nowhere" {
				t.Errorf("GET %s of %s: HTTP %d", path, host, got)
			}
		}
	}
	if got := from(t, "127.0.0.1", http.MethodPost, url+"/-/reload", "evil.example", http.Header{"Authorization": {"Bearer " + adminToken}}); got != http.StatusMisdirectedRequest {
		t.Errorf("a reload of evil.example: HTTP %d", got)
	}
	open := front(false, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	answer := httptest.NewRecorder()
	open.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://rekeyd.example/metrics", nil))
	if answer.Code != http.StatusOK {
		t.Errorf("a listener on the network refuses its name: HTTP %d", answer.Code)
	}
}

// TestPagesOfOtherOriginsAreRefusedUncounted sends what a browser sends for a foreign page, with wrong credentials, more
// often than is allowed.
func TestPagesOfOtherOriginsAreRefusedUncounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "web.yml")
	w.Write(file, "basic_auth_users: {ops: '"+string(hash)+"'}\n")
	basic := func(password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("ops:"+password))
	}
	for _, webConfig := range []string{"", file} {
		url, _ := w.run(w.build(map[string]string{"REKEYD_WEB_CONFIG_FILE": webConfig, "REKEYD_FILE_DIR": t.TempDir()}))
		up(t, url)
		for range 3 * failuresAtOnce {
			for _, c := range []struct {
				method string
				header http.Header
			}{
				{http.MethodPost, http.Header{"Sec-Fetch-Site": {"cross-site"}}},
				{http.MethodPost, http.Header{"Sec-Fetch-Site": {"same-site"}, "Origin": {"http://127.0.0.1:1"}}},
				{http.MethodPost, http.Header{"Origin": {"https://evil.example"}}},
				{http.MethodPost, http.Header{"Origin": {"null"}}},
				{http.MethodGet, http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"image"}}},
				{http.MethodGet, http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"iframe"}}},
			} {
				c.header.Set("Authorization", basic("wrong"))
				c.header.Set(adminHeader, "wrong")
				if got := from(t, "127.0.0.1", c.method, url+"/-/reload", "", c.header); got != http.StatusForbidden {
					t.Errorf("%s with %v: HTTP %d", c.method, c.header, got)
				}
			}
		}
		own := http.Header{"Authorization": {basic("pass")}, adminHeader: {adminToken}, "Sec-Fetch-Site": {"same-origin"}, "Origin": {url}}
		if got := from(t, "127.0.0.1", http.MethodPost, url+"/-/reload", "", own); got != http.StatusOK {
			t.Errorf("the page's own request, after those: HTTP %d", got)
		}
		link := http.Header{"Authorization": {basic("pass")}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
		if got := from(t, "127.0.0.1", http.MethodGet, url+"/", "", link); got != http.StatusOK {
			t.Errorf("a link on another page: HTTP %d", got)
		}
	}
}

// TestParallelGuessesCountBeforeTheyAreJudged guesses 200 times at once, from one address.
func TestParallelGuessesCountBeforeTheyAreJudged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.DefaultCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "web.yml")
	w.Write(file, "basic_auth_users: {ops: '"+string(hash)+"'}\n")
	protected, _ := w.run(w.build(map[string]string{"REKEYD_WEB_CONFIG_FILE": file}))
	open, _ := w.run(w.build(map[string]string{"REKEYD_FILE_DIR": t.TempDir()}))
	up(t, protected)
	up(t, open)
	basic := func(password string) http.Header {
		return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("ops:"+password))}}
	}
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	for _, c := range []struct {
		method, url string
		guess       func(string) http.Header
		right       string
	}{
		{http.MethodGet, protected + "/metrics", basic, "pass"},
		{http.MethodPost, open + "/-/reload", bearer, adminToken},
	} {
		var (
			mu      sync.Mutex
			answers = map[int]int{}
			guesses sync.WaitGroup
		)
		for i := range 200 {
			guesses.Go(func() {
				status := from(t, "127.0.0.1", c.method, c.url, "", c.guess(fmt.Sprint("wrong", i)))
				mu.Lock()
				defer mu.Unlock()
				answers[status]++
			})
		}
		guesses.Wait()
		// One more is allowed every ten seconds, which a busy machine may take.
		if judged := answers[http.StatusUnauthorized]; judged < failuresAtOnce || judged > failuresAtOnce+6 || judged+answers[http.StatusTooManyRequests] != 200 {
			t.Errorf("%s: the guesses were answered %v", c.url, answers)
		}
		if got := from(t, "127.0.0.2", c.method, c.url, "", c.guess(c.right)); got != http.StatusOK {
			t.Errorf("%s: another address, with the right one: HTTP %d", c.url, got)
		}
	}
}
