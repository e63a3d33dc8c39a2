package web

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func TestWrongAdminTokensAreThrottled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.build(nil).handler(true)
	try := func(from, token string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/-/reload", nil)
		r.RemoteAddr = from
		r.Header.Set("Authorization", "Bearer "+token)
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		if (got.Code == http.StatusTooManyRequests) != (got.Header().Get("Retry-After") != "") {
			t.Errorf("HTTP %d with Retry-After %q", got.Code, got.Header().Get("Retry-After"))
		}
		return got.Code
	}
	for i := range failuresAtOnce {
		if got := try(fmt.Sprintf("[2001:db8::%x]:1", i), "wrong"); got != http.StatusUnauthorized {
			t.Errorf("try %d: HTTP %d", i, got)
		}
	}
	for from, want := range map[string]int{
		"[2001:db8::ffff]:1": http.StatusTooManyRequests, "[2001:db8:0:1::1]:1": http.StatusOK, "192.0.2.1:1": http.StatusOK,
	} {
		if got := try(from, adminToken); got != want {
			t.Errorf("the right token from %s: HTTP %d, want %d", from, got, want)
		}
	}
	limited := newThrottle()
	for i := range 3 * maxClients {
		judged, ok := limited.begin(t.Context(), fmt.Sprint(i))
		if !ok {
			t.Fatalf("address %d may not try", i)
		}
		judged(true)
	}
	if n := len(limited.clients); n != maxClients {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestWrongPasswordsAreThrottled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "web.yml")
	w.Write(file, "basic_auth_users: {ops: '"+string(hash)+"'}\n")
	url, _ := w.run(w.build(map[string]string{"REKEYD_WEB_CONFIG_FILE": file}))
	try := func(credential string) int {
		if credential != "" {
			credential = "Basic " + base64.StdEncoding.EncodeToString([]byte(credential))
		}
		status, _, _ := ask(t, url+"/metrics", credential)
		return status
	}
	eventually(t, "served", func() bool { return try("") != 0 })
	for range 3 * failuresAtOnce {
		if got := try(""); got != http.StatusUnauthorized {
			t.Errorf("without a password: HTTP %d", got)
		}
	}
	if got := try("ops:pass"); got != http.StatusOK {
		t.Errorf("with the password: HTTP %d", got)
	}
	for i := range failuresAtOnce {
		if got := try(fmt.Sprint("ops:", i)); got != http.StatusUnauthorized {
			t.Errorf("wrong password %d: HTTP %d", i, got)
		}
	}
	for credential, want := range map[string]int{"ops:pass": http.StatusTooManyRequests, "ops:other": http.StatusTooManyRequests, "": http.StatusUnauthorized} {
		if got := try(credential); got != want {
			t.Errorf("after too many, with %q: HTTP %d", credential, got)
		}
	}
}

// certificate writes one that is its own authority and good for servers and clients.
func (w *world) certificate() (tls.Certificate, *x509.CertPool) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	w.Write(filepath.Join(w.Dir, "cert.pem"), string(text))
	w.Write(filepath.Join(w.Dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, pool
}

func TestClientCertificatesAndBasicAuthBesideTheAdminToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	own, pool := w.certificate()
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "web.yml")
	w.Write(file, "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: RequireAndVerifyClientCert, client_ca_file: cert.pem}\n"+
		"basic_auth_users: {ops: '"+string(hash)+"'}\n")
	url, _ := w.run(w.build(map[string]string{"REKEYD_WEB_CONFIG_FILE": file}))
	url = strings.Replace(url, "http:", "https:", 1)
	call := func(certificates []tls.Certificate, password string, header http.Header) (int, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "example.com", Certificates: certificates, MinVersion: tls.VersionTLS12}}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+"/-/reload", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		if password != "" {
			r.SetBasicAuth("ops", password)
		}
		resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(r)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	token := func() http.Header { return http.Header{adminHeader: {adminToken}} }
	eventually(t, "served with both", func() bool {
		status, err := call([]tls.Certificate{own}, "pass", token())
		return err == nil && status == http.StatusOK
	})
	if status, err := call(nil, "pass", token()); err == nil {
		t.Errorf("without a client certificate: HTTP %d", status)
	}
	for _, c := range []struct {
		name, password string
		header         http.Header
	}{
		{"no password", "", token()},
		{"another password", "past", token()},
		{"bearer in place of the password", "", http.Header{"Authorization": {"Bearer " + adminToken}}},
		{"no token", "pass", http.Header{}},
		{"another token", "pass", http.Header{adminHeader: {adminToken + "x"}}},
	} {
		if status, err := call([]tls.Certificate{own}, c.password, c.header); err != nil || status != http.StatusUnauthorized {
			t.Errorf("%s: HTTP %d %v", c.name, status, err)
		}
	}
}

// What is slow or huge is cut off, and does not keep others waiting.
func TestSlowAndHugeRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url, _ := w.run(w.build(nil))
	eventually(t, "served", func() bool {
		status, _, _ := ask(t, url+"/healthz", "")
		return status == http.StatusOK
	})
	dial := func(text string) net.Conn {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, text) // cut off is as good as answered
		return c
	}
	slow := make([]net.Conn, 100)
	for i := range slow {
		slow[i] = dial("GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	}
	if status, _, _ := ask(t, url+"/healthz", ""); status != http.StatusOK {
		t.Errorf("beside slow requests: HTTP %d", status)
	}
	huge := dial("GET / HTTP/1.1\r\nHost: localhost\r\nX-Huge: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n")
	if got, _ := io.ReadAll(huge); !bytes.HasPrefix(got, []byte("HTTP/1.1 431 ")) {
		t.Errorf("a huge header: %.80q", got)
	}
	body := dial("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1000000000\r\nAuthorization: Bearer wrong\r\n\r\n" + strings.Repeat("x", maxRequest))
	if got, _ := io.ReadAll(body); !bytes.HasPrefix(got, []byte("HTTP/1.1 401 ")) {
		t.Errorf("a huge body: %.80q", got)
	}
	for _, c := range slow {
		if _, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatalf("a slow request is still listened to: %v", err)
		}
	}
}
