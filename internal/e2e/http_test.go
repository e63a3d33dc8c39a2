package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

// dial opens a connection to the daemon with a small buffer and sends text.
func (r *rekeyd) dial(ctx context.Context, text string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		return nil, err
	}
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10) //nolint:forcetypeassert // dialled as TCP; a larger buffer is a weaker test
	_, err = io.WriteString(c, text)
	return c, err
}

// memory is the most that the process had resident, in MiB.
func (r *rekeyd) memory() int {
	r.w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.ID()))
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if err != nil || found == nil {
		r.w.t.Fatalf("%v: %s", err, status)
	}
	kib, err := strconv.Atoi(string(found[1]))
	if err != nil {
		r.w.t.Fatal(err)
	}
	return kib >> 10
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	d := w.start(map[string]string{"REKEYD_SINK": "file", "VAULT_ADDR": "", "VAULT_TOKEN": ""})
	before := d.memory()
	for i := range 3000 {
		text := ""
		if i%3 == 0 {
			text = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
		}
		c, err := d.dial(t.Context(), text)
		if c == nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	if status, _ := d.get("/healthz"); status != http.StatusOK {
		t.Errorf("beside 3,000 connections: HTTP %d", status)
	}
	if fds, err := strconv.Atoi(d.metric("process_open_fds")); err != nil || fds > 400 {
		t.Errorf("%v; %d files are open", err, fds)
	}
	if grown := d.memory() - before; grown > 40 {
		t.Errorf("3,000 connections cost %d MiB", grown)
	}
	d.end()
}

// TestSlowReadersOfMetrics has 20 readers ask for the metrics of 3,000 policies, 7 MiB, and read nothing.
func TestSlowReadersOfMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	var text strings.Builder
	text.WriteString("policies:\n")
	for i := range 3000 {
		fmt.Fprintf(&text, "  - {name: p-%d, service_account: %s, schedule: '@daily', permissions: all, mode: paused, sink: {path: app/p-%d}}\n", i, account, i)
	}
	if err := os.WriteFile(w.policyFile, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	d := w.start(map[string]string{"REKEYD_SINK": "file", "VAULT_ADDR": "", "VAULT_TOKEN": "", "REKEYD_LOG_LEVEL": "info", "REKEYD_RECONCILE_INTERVAL": "1m"})
	d.metric("rekeyd_policies")
	before := d.memory()
	for range 20 {
		c, err := d.dial(t.Context(), "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	process.Eventually(t, process.Patience, func() error {
		if status, body := d.get("/metrics"); status != http.StatusOK || !strings.Contains(body, `rekeyd_policy_state{policy="p-2999"`) {
			return fmt.Errorf("beside slow readers: HTTP %d with %d bytes", status, len(body))
		}
		return nil
	})
	if grown := d.memory() - before; grown > 200 { // answers of 20 readers at once took 300 and more; the heap of a busy machine is collected late
		t.Errorf("20 slow readers cost %d MiB", grown)
	}
	d.end()
}

// TestRotationsGoOnWithFewDescriptors takes every connection that the daemon gives away, over and over.
func TestRotationsGoOnWithFewDescriptors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 5s")
	d := w.run(w.environment(nil), "prlimit", "--nofile=64:64")
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for range 100 {
		clients.Go(func() {
			for ctx.Err() == nil {
				c, err := d.dial(ctx, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
				if err == nil {
					stop := context.AfterFunc(ctx, func() { _ = c.Close() })
					_, _ = io.Copy(io.Discard, c) // until the daemon hangs up
					stop()
				}
				if c != nil {
					_ = c.Close()
				}
			}
		})
	}
	w.settled("")
	for range 3 {
		before, _ := w.record()
		w.settled(fmt.Sprint(before["key_id"]))
	}
	cancel()
	clients.Wait()
	if said := d.Stderr.String(); strings.Contains(said, "too many open files") {
		t.Errorf("descriptors ran out:\n%s", said)
	}
	d.end()
}

// TestThePageOnLoopback asks the binary as a page would whose name DNS points at loopback, and as one that posts here.
func TestThePageOnLoopback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	d := w.start(map[string]string{"REKEYD_SINK": "file", "VAULT_ADDR": "", "VAULT_TOKEN": ""})
	try := func(method, path, token string, change func(*http.Request)) int {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), process.Patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, d.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		change(r)
		resp, err := new(http.Client).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		w.heard(string(body))
		return resp.StatusCode
	}
	for _, path := range []string{"/", "/metrics", "/healthz", "/api/v1/policies"} {
		if got := try(http.MethodGet, path, "", func(r *http.Request) { r.Host = "evil.example:9466" }); got != http.StatusMisdirectedRequest {
			t.Errorf("GET %s of another name: HTTP %d", path, got)
		}
	}
	for range 20 {
		if got := try(http.MethodPost, "/-/reload", "wrong", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }); got != http.StatusForbidden {
			t.Errorf("a POST of another origin: HTTP %d", got)
		}
	}
	if got := try(http.MethodPost, "/-/reload", w.adminToken, func(*http.Request) {}); got != http.StatusOK {
		t.Errorf("the admin token is locked out: HTTP %d", got)
	}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(d.url, "http://"))
	for _, address := range []string{"127.0.0.1:" + port, "localhost:" + port} {
		status, out, stderr := w.command(w.environment(map[string]string{"REKEYD_LISTEN_ADDR": address}), "health")
		if status != 0 {
			t.Errorf("rekeyd health at %s: %d %s %s", address, status, out, stderr)
		}
	}
	d.end()
}

// TestPasswordGuessesAtOnce guesses 200 passwords at the same time.
func TestPasswordGuessesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	file := w.policyFile + ".web"
	const hash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy" // of a password that nobody uses
	if err := os.WriteFile(file, []byte("basic_auth_users: {ops: '"+hash+"'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := w.start(map[string]string{"REKEYD_SINK": "file", "VAULT_ADDR": "", "VAULT_TOKEN": "", "REKEYD_WEB_CONFIG_FILE": file})
	process.Eventually(t, process.Patience, func() error {
		if status, body := d.get("/metrics"); status != http.StatusUnauthorized {
			return fmt.Errorf("without a password: HTTP %d %s", status, body)
		}
		return nil
	})
	var (
		mu      sync.Mutex
		answers = map[int]int{}
		guesses sync.WaitGroup
	)
	begun := time.Now()
	for i := range 200 {
		guesses.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/metrics", nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.SetBasicAuth("ops", fmt.Sprint("wrong", i))
			resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			answers[resp.StatusCode]++
		})
	}
	guesses.Wait()
	most := 5 + 1 + int(time.Since(begun)/(10*time.Second)) // one more is allowed every ten seconds
	if judged := answers[http.StatusUnauthorized]; judged > most || judged+answers[http.StatusTooManyRequests] != 200 {
		t.Errorf("200 guesses at once were answered %v", answers)
	}
}
