package web

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
	auth, plain := filepath.Join(w.Dir, "auth.yml"), filepath.Join(w.Dir, "plain.yml")
	w.Write(auth, "basic_auth_users: {ops: '"+string(hash)+"'}\n")
	w.Write(plain, "http_server_config: {http2: false}\n")
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
		d := w.build(map[string]string{"REKEYD_STATUS_PAGE": c.mode, "REKEYD_WEB_CONFIG_FILE": c.file})
		h := d.handler(c.local)
		for _, path := range []string{"/", "/policies/tts-prod", "/api/v1/policies"} {
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
	url, _ := w.run(w.build(map[string]string{"REKEYD_WEB_CONFIG_FILE": auth}))
	eventually(t, "served", func() bool { status, _, _ := ask(t, url+"/metrics", ""); return status != 0 })
	for credential, want := range map[string]int{"": http.StatusUnauthorized, "ops:pass": http.StatusOK} {
		status, _, _ := ask(t, url+"/", "Basic "+base64.StdEncoding.EncodeToString([]byte(credential)))
		if status != want {
			t.Errorf("basic auth with %q: HTTP %d, want %d", credential, status, want)
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, _, err := w.Sim.AddKey("svcacc_a", elevensim.KeySpec{Name: "<script>alert(1)</script>"}); err != nil {
		t.Fatal(err)
	}
	url, _ := w.run(w.build(nil))
	eventually(t, "a key", func() bool {
		_, body, _ := ask(t, url+"/", "")
		return strings.Contains(body, `class="state ok"`) && !strings.Contains(body, "Not ready")
	})
	_, body, header := ask(t, url+"/", "")
	csp := header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
			t.Errorf("the policy %q lacks %s or allows more", csp, want)
		}
	}
	if inline := regexp.MustCompile(`<style|<script>|\son\w+="|\sstyle="|(src|href)="(https?:)?//`).FindString(body); inline != "" {
		t.Errorf("inline or foreign: %s", inline)
	}
	_, body, header = ask(t, url+"/api/v1/policies", "")
	var view View
	if err := json.Unmarshal([]byte(body), &view); err != nil || header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %s", err, body)
	}
	p := view.Policies[0]
	if p.Name != "tts-prod" || p.State != "ok" || p.Key == nil || p.Keys.Current != 1 || p.Keys.Foreign != 1 || p.NextRotation.IsZero() {
		t.Errorf("the policy is %s", body)
	}
	_, metrics, _ := ask(t, url+"/metrics", "")
	for _, k := range w.Sim.State()[0].Keys {
		if strings.Contains(body+metrics, k.Secret) {
			t.Error("a secret is shown")
		}
	}
	for _, path := range []string{"/favicon.ico", "/metrics/x"} {
		if status, _, _ := ask(t, url+path, ""); status != http.StatusNotFound {
			t.Errorf("GET %s: HTTP %d", path, status)
		}
	}
}

// Page, JSON and metric say which keys ElevenLabs may not disable, and only which.
func TestAKeyThatElevenLabsMayNotDisableIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Write(w.PolicyFile, strings.Replace(strings.Replace(policies("guarded", "unguarded", "unknown"),
		"{name: unguarded,", "{name: unguarded, third_party_disable_allowed: false,", 1), "{name: guarded,", "{name: guarded, third_party_disable_allowed: true,", 1))
	url, _ := w.run(w.build(nil))
	var metrics string
	eventually(t, "both keys", func() bool {
		_, metrics, _ = ask(t, url+"/metrics", "")
		return strings.Contains(metrics, `rekeyd_third_party_disable_allowed{policy="unguarded"} 0`) && strings.Contains(metrics, `rekeyd_third_party_disable_allowed{policy="guarded"} 1`) &&
			strings.Contains(metrics, `rekeyd_keys{policy="unknown",state="current"} 1`)
	})
	if strings.Contains(metrics, `rekeyd_third_party_disable_allowed{policy="unknown"}`) {
		t.Error("the metric claims to know what no listing says")
	}
	_, body, _ := ask(t, url+"/api/v1/policies", "")
	var view View
	if err := json.Unmarshal([]byte(body), &view); err != nil || len(view.Policies) != 3 {
		t.Fatalf("%v: %s", err, body)
	}
	allowed := func(i int) *bool { return view.Policies[i].Key.ThirdPartyDisable }
	if g, u := allowed(0), allowed(1); g == nil || !*g || u == nil || *u || allowed(2) != nil {
		t.Errorf("the JSON says %s", body)
	}
	_, page, _ := ask(t, url+"/", "")
	if n := strings.Count(page, "when it leaks, nor may its holder"); n != 1 || !strings.Contains(page, "ElevenLabs may not disable key "+view.Policies[1].Key.ID) {
		t.Errorf("the page says it of %d keys", n)
	}
}
