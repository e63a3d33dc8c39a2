package hostiletest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

const answerWithin = 15 * time.Second // the listener's own time-outs are shorter

// tryRequests sends every request to one daemon, on a connection of its own.
func tryRequests(t *testing.T, binaries process.Programs) row {
	r := row{family: "requests"}
	const key, token = "sk_admin_of_a_hostile_run", "admin-token-of-a-hostile-run"
	sim := binaries.StartSimulator(t, key, 1, "svcacc_a")
	dir := t.TempDir()
	file := filepath.Join(dir, "policies.yaml")
	if err := os.WriteFile(file, []byte(servedPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	d := process.Start(t, []string{
		"HOME=" + dir, "REKEYD_POLICY_FILE=" + file, "REKEYD_SINK=file", "REKEYD_FILE_DIR=" + filepath.Join(dir, "data"), "REKEYD_LOG_LEVEL=debug",
		"REKEYD_LISTEN_ADDR=127.0.0.1:0", "REKEYD_ADMIN_TOKEN=" + token, "ELEVENLABS_API_KEY=" + key, "ELEVENLABS_BASE_URL=" + sim.URL,
	}, binaries.Rekeyd, "run")
	address := d.Find(&d.Stderr, `"msg":"started".*"address":"([^"]+)"`)
	inputs := requestInputs(token)
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		v := send(t, address, inputs[name])
		for _, secret := range []string{canary, key, token} {
			if strings.Contains(v.wrong, secret) {
				t.Errorf("%s: a secret is in the answer", name)
			}
		}
		if v.panicked = d.Exited() || strings.Contains(d.Stderr.String(), "goroutine "); v.panicked {
			v.wrong = d.Stderr.String()
		}
		r.count(t, name, v)
		if d.Exited() {
			t.Fatal("the daemon has ended")
		}
	}
	for _, secret := range []string{canary, key, token} {
		if strings.Contains(d.Stderr.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
	if status, body := process.Request(t, http.MethodGet, "http://"+address+"/healthz", "", ""); status != http.StatusOK {
		t.Errorf("afterwards: HTTP %d %s", status, body)
	}
	if status := d.Stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	return r
}

// send sends one request as it is. An answer without success is a refusal; it must be short.
func send(t *testing.T, address, text string) verdict {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), answerWithin)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return verdict{wrong: err.Error()}
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(begun.Add(answerWithin)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, text) // the daemon may hang up before the end
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	took := time.Since(begun)
	if err != nil {
		if took >= answerWithin {
			return verdict{wrong: "no end of the connection in time", took: took}
		}
		return verdict{took: took} // it hung up, which is a refusal
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body) // what came of it is looked at
	v := verdict{accepted: resp.StatusCode < http.StatusBadRequest, took: time.Since(begun)}
	if strings.Contains(string(body), canary) {
		v.wrong = "the canary is in the answer"
	}
	if !v.accepted && len(body) > longest {
		v.wrong = fmt.Sprintf("a refusal of %d bytes", len(body))
	}
	return v
}

// requestInputs are whole requests by their names.
func requestInputs(token string) map[string]string {
	all := map[string]string{}
	add := func(name, method, target, header, body string) {
		all[name] = fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s", method, target, header, len(body), body)
	}
	paths := []string{
		"/", "/policies/tts-prod", "/api/v1/policies", "/metrics", "/healthz", "/readyz", "/page.js", "/-/reload", "/api/v1/policies/tts-prod/rotate", "/nowhere",
		"/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "//evil.example/", "/\\evil", "/%00", "/%zz", "/;/", "/?q=%ff%fe", "/?" + strings.Repeat("q=x&", 3000),
		"/?page=-1", "/?page=99999999999999999999", "/?q=" + strings.Repeat("%41", 2000), "/?state=%3Cscript%3E", "/metrics?name[]=" + strings.Repeat("x", 5000),
		"/api/v1/policies/" + strings.Repeat("a", 8000) + "/rotate", "/api/v1/policies/%2e%2e/rotate", "/api/v1/policies/%0d%0aX:y/rotate", "*", "http://evil.example/", "/" + strings.Repeat("a/", 4000),
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "G\x00T", "get", strings.Repeat("M", 3000)} {
		for _, path := range paths {
			add(fmt.Sprintf("%.20q %.60q", method, path), method, path, "", "")
		}
	}
	bearer := "Authorization: Bearer " + token + "\r\n"
	for name, body := range bodies() {
		add("body: "+name, "POST", "/api/v1/policies/tts-prod/rotate", bearer, body)
		add("body of a reload: "+name, "POST", "/-/reload", bearer, body)
		add("body without a token: "+name, "POST", "/api/v1/policies/tts-prod/rotate", "", body)
	}
	for i, header := range []string{
		"Authorization: Bearer " + canary + "\r\n", "Authorization: Basic " + canary + "\r\n", "Authorization: " + strings.Repeat("B", 9000) + "\r\n",
		"Rekeyd-Admin-Token: " + canary + "\r\n", "Rekeyd-Admin-Token: \x80\xff\r\n", "Cookie: " + canary + "\r\n", "Host: evil.example\r\n", "X: " + strings.Repeat("x", 40<<10) + "\r\n",
		strings.Repeat("X: y\r\n", 5000), "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked, chunked\r\n", "Content-Length: 5\r\n", "Content-Length: -1\r\n",
		"Content-Length: 99999999999999999999\r\n", "Expect: 100-continue\r\n", "Expect: x\r\n", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\n",
		"Upgrade: websocket\r\n", "Accept-Encoding: gzip;q=0.00001, *\r\n", "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited\r\n",
		"Accept: " + strings.Repeat("a/b,", 3000) + "\r\n", "Range: bytes=0-0," + strings.Repeat("1-2,", 3000) + "\r\n", "If-None-Match: *\r\n", "Origin: https://evil.example\r\n",
		"Origin: null\r\n", "Origin: %zz\r\n", "Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: \x01\r\n", "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: localhost\r\n",
		" folded: x\r\n", "no colon\r\n", ": empty\r\n", "A\x00B: c\r\n", "A: \x00\r\n", "A: b\rC: d\r\n", "A: b\nC: d\r\n",
	} {
		for _, path := range []string{"GET /", "GET /metrics", "GET /api/v1/policies", "POST /-/reload", "POST /api/v1/policies/tts-prod/rotate"} {
			method, target, _ := strings.Cut(path, " ")
			add(fmt.Sprintf("header %d of %s", i, path), method, target, header, "")
		}
	}
	for _, host := range []string{"", "evil.example", "localhost.", "localhost@evil.example", "[::1", "127.0.0.1:", "127.0.0.1:99999999", "\x80", "a b", strings.Repeat("a", 9000), "[fe80::1%25lo]", "0177.0.0.1"} {
		for _, path := range []string{"/", "/metrics", "/healthz"} {
			all[fmt.Sprintf("Host %.30q of %s", host, path)] = "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"
		}
	}
	maps.Copy(all, map[string]string{
		"nothing but a line": "\r\n\r\n", "no HTTP": "SSH-2.0-x\r\n\r\n", "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"HTTP/0.9": "GET /\r\n\r\n", "HTTP/1.0": "GET / HTTP/1.0\r\n\r\n", "HTTP/9.9": "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", "a header without end": "GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
		"a body without end": "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx", "zeros": strings.Repeat("\x00", 100<<10),
		"chunks":         "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + bearer + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
		"many requests":  strings.Repeat("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200) + "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
		"a smuggled one": "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
	})
	return all
}

// bodies are those of the calls that change something.
func bodies() map[string]string {
	all := map[string]string{
		"none": "", "null": "null", "a list": "[]", "a number": "1e999", "a text": `"` + canary + `"`, "not JSON": canary, "half": `{"reason":"`, "two": `{}{}`, "deep": strings.Repeat(`{"reason":`, 10_000),
		"deep lists": strings.Repeat("[", 60_000), "an unknown field": `{"` + canary + `":1}`, "the wrong type": `{"revoke_now":"` + canary + `"}`, "a number for words": `{"reason":1}`, "twice": `{"revoke_now":true,"revoke_now":false}`,
		"other case": `{"REVOKE_NOW":false}`, "null fields": `{"revoke_now":null,"reason":null}`, "long": `{"reason":"` + strings.Repeat("x", 60_000) + `"}`, "too long": `{"reason":"` + strings.Repeat("x", 70_000) + `"}`,
		"controls": `{"reason":"\u001b[31m\u0000\n\r\u202e"}`, "not UTF-8": "{\"reason\":\"\xff\xfe\"}", "surrogates": `{"reason":"\ud800"}`, "a BOM": "\ufeff{}", "white space": strings.Repeat(" ", 65_000), "HTML": `{"reason":"<script>alert(1)</script>"}`,
	}
	return all
}
