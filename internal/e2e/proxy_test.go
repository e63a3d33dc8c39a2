package e2e

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAProxyThatRepeatsItsPassword answers every CONNECT with 407 and the credential in its status.
func TestAProxyThatRepeatsItsPassword(t *testing.T) {
	t.Parallel()
	const password = "pw-of-a-proxy/1"
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack() //nolint:forcetypeassert // served over HTTP/1.1
		if err != nil {
			t.Error(err)
			return
		}
		encoded := strings.TrimPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
		decoded, _ := base64.StdEncoding.DecodeString(encoded)
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 407 %s is %s\r\n\r\n", encoded, decoded)
		_ = conn.Close()
	}))
	t.Cleanup(proxy.Close)
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	host := proxy.Listener.Addr().(*net.TCPAddr).String() //nolint:forcetypeassert // it listens on TCP
	d := w.start(map[string]string{
		"REKEYD_SINK": "file", "VAULT_ADDR": "", "VAULT_TOKEN": "", "ELEVENLABS_BASE_URL": "",
		"HTTPS_PROXY": "http://rekeyd:" + strings.ReplaceAll(password, "/", "%2F") + "@" + host,
	})
	d.Find(&d.Stderr, `"listing workspace failed".*(\[secret\]=* is )`)
	d.end()
	said := d.Stderr.String()
	for _, hidden := range []string{password, "pw-of-a-proxy", base64.RawStdEncoding.EncodeToString([]byte("rekeyd:" + password))} {
		if strings.Contains(said, hidden) {
			t.Errorf("the proxy's credential is logged:\n%s", said)
		}
	}
}

// TestAProxyThatCannotBeUsed is refused, and not quoted.
func TestAProxyThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	for _, proxy := range []string{"http://user:pass%word@proxy:3128", "ftp://user:pass%20word@proxy:21", "http://", "http://proxy:port-of-secret"} {
		for _, name := range []string{"HTTPS_PROXY", "http_proxy", "VAULT_PROXY_ADDR"} {
			status, _, stderr := w.command(w.environment(map[string]string{name: proxy}), "check")
			if status != 2 || !strings.Contains(stderr, name+" cannot be used") || strings.Contains(stderr, "pass") || strings.Contains(stderr, "secret") {
				t.Errorf("%s=%s: exit status %d: %s", name, proxy, status, stderr)
			}
		}
	}
	for _, proxy := range []string{"http://user:password@proxy:3128", "proxy:3128", "proxy", "socks5://[::1]:1080"} {
		if status, _, stderr := w.command(w.environment(map[string]string{"HTTPS_PROXY": proxy}), "check"); status != 0 {
			t.Errorf("HTTPS_PROXY=%s: exit status %d: %s", proxy, status, stderr)
		}
	}
}
