package hostile

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	wide = 15 << 20 // bytes of an answer that is not too long
	many = 120_000  // values of one that has not too many
)

// manners are ways to answer, whatever is said.
func manners(elsewhere string) []handler {
	list := []handler{
		{name: "drip", serve: drip},
		{name: "silence", serve: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{name: "header flood", serve: func(w http.ResponseWriter, _ *http.Request) {
			for i := range 12 << 10 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1<<10))
			}
		}},
		{name: "many hints", serve: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.WriteHeader(http.StatusEarlyHints)
			}
		}},
		{name: "aborted body", serve: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"xi-api-key":`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
	}
	for _, status := range []int{200, 307, 404} {
		at := func(name string, serve http.HandlerFunc) handler {
			return handler{name: fmt.Sprintf("%s, %d", name, status), fine: name == "echo", serve: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", elsewhere)
				serve(w, r)
			}}
		}
		list = append(list, at("echo", echoed(status)), at("bomb", bomb(status)), at("endless", endless(status)))
	}
	return list
}

// texts are answers of which only the body does harm.
func texts() []handler {
	list := []handler{
		{name: "pages", serve: body(http.StatusOK, "text/html", "<html>")},
		{name: "no content", serve: body(http.StatusNoContent, "", ""), fine: true},
		{name: "deep JSON", serve: body(http.StatusOK, "application/json", `{"service-accounts":`+strings.Repeat("[", wide))},
		{name: "huge numbers", serve: body(http.StatusOK, "application/json", `{"service-accounts":[{"service_account_user_id":"a","api-keys":1e999}],
			"data":{"keys":1e999,"ttl":1e999,"metadata":{"version":1e999}},"auth":{"client_token":"t","lease_duration":1e999}}`), fine: true},
	}
	for name, items := range map[string][3]string{
		"numbers for accounts": {`{"service-accounts":[`, `0,`, `0]}`},
		"accounts":             {`{"service-accounts":[`, `{"service_account_user_id":"a","api-keys":[]},`, `0]}`},
		"keys":                 {`{"service-accounts":[{"service_account_user_id":"a","api-keys":[`, `{"key_id":"a"},`, `{"key_id":"a"}]}]}`},
		"permissions":          {`{"service-accounts":[{"service_account_user_id":"a","api-keys":[{"key_id":"a","permissions":[`, `"",`, `""]}]}]}`},
		"fields":               {`{"data":{"metadata":{"version":1},"data":{"a":[`, `0,`, `0]}}}`},
		"errors":               {`{"errors":[`, `"",`, `""]}`},
	} {
		for _, n := range []int{many, wide / len(items[1])} {
			text := items[0] + strings.Repeat(items[1], n) + items[2]
			list = append(list, handler{name: fmt.Sprintf("%d %s", n, name), serve: body(http.StatusOK, "application/json", text), fine: true})
		}
	}
	return list
}

func body(status int, contentType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// echoed answers with what the request carried, in the words of each API.
func echoed(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		said := echo(r)
		w.Header().Set("Request-Id", strings.Join(strings.Fields(said), " "))
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"detail": map[string]any{"code": said, "message": said, "type": said, "param": said, "request_id": said}, "errors": []string{said, said},
		})
	}
}

func endless(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		spaces := bytes.Repeat([]byte(" "), 1<<20)
		for range 1 << 12 {
			if _, err := w.Write(spaces); err != nil {
				return
			}
		}
	}
}

// bomb is 4 GiB of spaces in 4 MiB.
func bomb(status int) http.HandlerFunc {
	var member bytes.Buffer
	z := gzip.NewWriter(&member)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 1<<20))
	_ = z.Close()
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(status)
		for range 1 << 12 {
			if _, err := w.Write(member.Bytes()); err != nil {
				return
			}
		}
	}
}

func drip(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for r.Context().Err() == nil {
		_, _ = io.WriteString(w, " ")
		_ = http.NewResponseController(w).Flush()
		<-tick.C
	}
}

// raw are answers that are no HTTP, or break off.
func raw() []handler {
	var list []handler
	for name, text := range map[string]string{
		"reset": "", "half a header": "HTTP/1.1 200 OK\r\nContent-", "half a body": "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
		"another protocol": "SSH-2.0-%s\r\n\r\n", "HTTP/2 unasked": "\x00\x00\x00\x04\x00\x00\x00\x00\x00 %s",
		"echoed status": "HTTP/1.1 %s\r\n\r\n", "echoed header": "HTTP/1.1 200 OK\r\n%s\r\n\r\n", "echoed length": "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
		"echoed encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n", "echoed chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
		"long status":        "HTTP/1.1 200" + strings.Repeat("x", 10<<10) + "\r\n\r\n",
		"echoed location":    "HTTP/1.1 302 Found\r\nLocation: ://%s\r\n\r\n",
		"header without end": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 12<<20),
	} {
		list = append(list, handler{name: name, serve: func(w http.ResponseWriter, r *http.Request) {
			said := strings.Join(strings.Fields(echo(r)), " ")
			conn, _, err := w.(http.Hijacker).Hijack() //nolint:forcetypeassert // this is served over HTTP/1.1 only
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(conn, strings.ReplaceAll(text, "%s", said))
			if text == "" {
				_ = conn.(*net.TCPConn).SetLinger(0) //nolint:forcetypeassert // served over TCP
			}
			_ = conn.Close()
		}})
	}
	return list
}

// certificate is for a host, signed by no authority.
func certificate(host string, until time.Time) []tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-24 * time.Hour), NotAfter: until, DNSNames: []string{host}}
	if ip := net.ParseIP(host); ip != nil {
		c.DNSNames, c.IPAddresses = nil, []net.IP{ip}
	}
	text, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return []tls.Certificate{{Certificate: [][]byte{text}, PrivateKey: key}}
}
