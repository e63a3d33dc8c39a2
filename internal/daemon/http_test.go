package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

func TestStatusPageIsServedWhereItIsAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	auth, plain := filepath.Join(w.dir, "auth.yml"), filepath.Join(w.dir, "plain.yml")
	w.write(auth, "basic_auth_users: {ops: '"+string(hash)+"'}\n")
	w.write(plain, "http_server_config: {http2: false}\n")
	certified := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{}}}
	for _, c := range []struct {
		name, mode, file string
		local            bool
		tls              *tls.ConnectionState
		status           int
	}{
		{"loopback", "auto", "", true, nil, http.StatusOK},
		{"open to the network", "auto", "", false, nil, http.StatusForbidden},
		{"basic auth", "auto", auth, false, nil, http.StatusOK},
		{"web config without authentication", "auto", plain, false, nil, http.StatusForbidden},
		{"TLS without client certificates", "auto", plain, false, &tls.ConnectionState{}, http.StatusForbidden},
		{"client certificate", "auto", plain, false, certified, http.StatusOK},
		{"on", "on", "", false, nil, http.StatusOK},
		{"off", "off", "", true, nil, http.StatusForbidden},
	} {
		d := w.build(map[string]string{"REKEYD_STATUS_PAGE": c.mode, "REKEYD_WEB_CONFIG_FILE": c.file}, nil)
		h := d.handler(c.local)
		for _, path := range []string{"/", "/page.json", "/api/v1/policies"} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
			r.TLS = c.tls
			got := httptest.NewRecorder()
			h.ServeHTTP(got, r)
			if got.Code != c.status {
				t.Errorf("%s: GET %s: HTTP %d, want %d", c.name, path, got.Code, c.status)
			}
			if got.Code == http.StatusForbidden && !strings.Contains(got.Body.String(), "REKEYD_STATUS_PAGE") {
				t.Errorf("%s: no word on how to enable it: %s", c.name, got.Body)
			}
		}
	}
	url, _ := w.run(w.build(map[string]string{"REKEYD_WEB_CONFIG_FILE": auth}, nil))
	eventually(t, "served", func() bool { status, _, _ := ask(t, http.MethodGet, url+"/metrics", ""); return status != 0 })
	for credential, want := range map[string]int{"": http.StatusUnauthorized, "ops:pass": http.StatusOK} {
		status, _, _ := ask(t, http.MethodGet, url+"/", "Basic "+base64.StdEncoding.EncodeToString([]byte(credential)))
		if status != want {
			t.Errorf("basic auth with %q: HTTP %d, want %d", credential, status, want)
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, _, err := w.sim.AddKey("svcacc_a", elevensim.KeySpec{Name: "<script>alert(1)</script>"}); err != nil {
		t.Fatal(err)
	}
	url, _ := w.run(w.build(nil, nil))
	eventually(t, "a key", func() bool {
		_, body, _ := ask(t, http.MethodGet, url+"/", "")
		return strings.Contains(body, "in order") && !strings.Contains(body, "Not ready")
	})
	_, body, header := ask(t, http.MethodGet, url+"/", "")
	csp := header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
			t.Errorf("the policy %q lacks %s or allows more", csp, want)
		}
	}
	if inline := regexp.MustCompile(`<style|<script>|\son\w+="|\sstyle="|(src|href)="(https?:)?//`).FindString(body); inline != "" {
		t.Errorf("inline or foreign: %s", inline)
	}
	_, body, header = ask(t, http.MethodGet, url+"/api/v1/policies", "")
	var view View
	if err := json.Unmarshal([]byte(body), &view); err != nil || header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %s", err, body)
	}
	p := view.Policies[0]
	if p.Name != "tts-prod" || p.State != "ok" || p.Key == nil || p.Keys.Current != 1 || p.Keys.Foreign != 1 || p.NextRotation.IsZero() {
		t.Errorf("the policy is %s", body)
	}
	_, metrics, _ := ask(t, http.MethodGet, url+"/metrics", "")
	for _, k := range w.sim.State()[0].Keys {
		if strings.Contains(body+metrics, k.Secret) {
			t.Error("a secret is shown")
		}
	}
	for _, path := range []string{"/favicon.ico", "/metrics/x"} {
		if status, _, _ := ask(t, http.MethodGet, url+path, ""); status != http.StatusNotFound {
			t.Errorf("GET %s: HTTP %d", path, status)
		}
	}
}

func TestHealthIsThatOfTheLoopAndNotOfRemotes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(nil, nil)
	const limit = time.Minute + 15*time.Second + 5*100*time.Millisecond
	failing := func() bool { return d.rotator.Snapshot().Workspaces[0].Err != nil }
	tried := func() time.Time { return d.rotator.Snapshot().Workspaces[0].LastTry }
	if err := d.alive(time.Now().Add(time.Hour)); err != nil {
		t.Errorf("before the first listing: %v", err)
	}
	url, stop := w.run(d)
	eventually(t, "a listing", func() bool { return !tried().IsZero() })
	if status, body, _ := ask(t, http.MethodGet, url+"/healthz", ""); status != http.StatusOK || body != "ok\n" {
		t.Errorf("HTTP %d %s", status, body)
	}
	if err := w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an outage of ElevenLabs", failing)
	if status, _, _ := ask(t, http.MethodGet, url+"/healthz", ""); status != http.StatusOK {
		t.Errorf("HTTP %d in an outage, which no restart would end", status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !failing() {
		t.Fatal("the outage is over")
	}
	if err := d.alive(tried().Add(limit)); err != nil {
		t.Errorf("in the outage: %v", err)
	}
	if d.alive(tried().Add(limit+time.Second)) == nil {
		t.Error("a loop that stands still hides behind an outage")
	}
}

func TestReadinessSaysWhyNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(map[string]string{"REKEYD_SINK": "vault", "VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "hvs.a-token-of-a-test"}, nil)
	url, _ := w.run(d)
	var body string
	eventually(t, "not ready", func() bool {
		var status int
		status, body, _ = ask(t, http.MethodGet, url+"/readyz", "")
		return status == http.StatusServiceUnavailable
	})
	if strings.Count(body, "\n") != 1 || !strings.Contains(body, "check VAULT_ADDR") {
		t.Errorf("the reason is %q", body)
	}
	if err := askVault(t.Context(), d.vault); err == nil {
		t.Error("a Vault that does not answer is ready")
	}
}
