package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

func noEnv(string) string { return "" }

func adminInEnv(name string) string {
	if name == adminKeyVariable {
		return "sk_admin"
	}
	return ""
}

// start runs the command until the test ends and returns its address and what stops it.
func start(t *testing.T, args ...string) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, append([]string{"--listen", "127.0.0.1:0"}, args...), adminInEnv, stdout, io.Discard)
		_ = stdout.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("no line with the address: %v", err)
	}
	url = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(line)
	if url == "" {
		t.Fatalf("no address in %q", line)
	}
	return url, func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(2 * shutdownTimeout):
			return errors.New("did not stop")
		}
	}
}

func client() *http.Client { return &http.Client{Timeout: time.Minute} }

func send(t *testing.T, method, url, key, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("xi-api-key", key)
	resp, err := client().Do(r)
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

func TestRun(t *testing.T) {
	url, stop := start(t, "--account", "svcacc_a=A b", "--account", "svcacc_c=C=D", "--seed", "3")
	status, body := send(t, "GET", url+"/v1/service-accounts", "sk_admin", "")
	if status != 200 || !strings.Contains(body, `"name":"A b"`) || !strings.Contains(body, `"name":"C=D"`) {
		t.Errorf("accounts: %d %s", status, body)
	}
	status, body = send(t, "GET", url+"/_sim/history", "", "")
	if status != 200 || !strings.Contains(body, "listServiceAccounts") || strings.Contains(body, "sk_admin") {
		t.Errorf("history: %d %s", status, body)
	}
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

// A request that hangs does not keep the process from stopping.
func TestStopWhileARequestHangs(t *testing.T) {
	url, stop := start(t)
	const faults = `{"concurrency_limit":1,"rules":[{"kind":"hang","operation":"getUser"}]}`
	if status, body := send(t, "PUT", url+"/_sim/faults", "", faults); status != 200 {
		t.Fatalf("faults: %d %s", status, body)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/user", nil)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		for { // while the other one's request takes the only place, this one is refused
			resp, err := client().Do(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			if err != nil || resp.StatusCode != http.StatusTooManyRequests {
				answered <- err
				return
			}
		}
	}()
	deadline := time.Now().Add(10 * time.Second)
	for status := 0; status != http.StatusTooManyRequests; status, _ = send(t, "GET", url+"/v1/models", "sk_admin", "") {
		if time.Now().After(deadline) {
			t.Fatal("the request never hung")
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the request that should hang was answered")
	}
}

func TestManagementNeedsLoopback(t *testing.T) {
	s := elevensim.New(elevensim.Options{AdminKey: "sk_admin"})
	for local, want := range map[bool]int{true: 200, false: 403} {
		w := httptest.NewRecorder()
		handler(s, local).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/_sim/state", nil))
		if w.Code != want || !local && !strings.Contains(w.Body.String(), "loopback") {
			t.Errorf("loopback %t: %d %s", local, w.Code, w.Body)
		}
	}
	for address, want := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:80": false} {
		if isLoopback(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))) != want {
			t.Errorf("isLoopback(%s) is not %t", address, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		env  func(string) string
		want string
	}{
		{nil, noEnv, adminKeyVariable},
		{[]string{"--account", "svcacc_a"}, adminInEnv, "ID=NAME"},
		{[]string{"--account", "a=A", "--account", "a=B"}, adminInEnv, "already"},
		{[]string{"--sed", "1"}, adminInEnv, "sed"},
		{[]string{"serve"}, adminInEnv, `"serve"`},
	} {
		var stderr bytes.Buffer
		err := run(t.Context(), tt.args, tt.env, io.Discard, &stderr)
		if !errors.Is(err, errUsage) || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%q: error %v, stderr %s", tt.args, err, &stderr)
		}
	}
	if err := run(t.Context(), []string{"-h"}, noEnv, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
	err := run(t.Context(), []string{"--listen", "127.0.0.1:x"}, adminInEnv, io.Discard, io.Discard)
	if err == nil || errors.Is(err, errUsage) {
		t.Errorf("a bad address: %v", err)
	}
}
