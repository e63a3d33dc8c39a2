package daemon

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/outbox"
)

// TestSlowReadersHoldABoundedNumberOfAnswers has 40 readers ask for 4 MiB each and read nothing.
func TestSlowReadersHoldABoundedNumberOfAnswers(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("x"), 4<<20)
	o := outbox.New(1)
	s := httptest.NewServer(o.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })))
	t.Cleanup(s.Close)
	held := func() (n, size int) {
		o.Mu.Lock()
		defer o.Mu.Unlock()
		return len(o.Sending), o.Bytes
	}
	for i := range 40 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil { //nolint:forcetypeassert // dialled as TCP
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if n, size := held(); size > outbox.HeldBytes || size != n*len(body) {
			t.Fatalf("after %d readers: %d answers with %d bytes are held", i, n, size)
		}
	}
	eventually(t, "as many answers as there is place for", func() bool { n, _ := held(); return n == outbox.HeldBytes/len(body) })
	eventually(t, "an honest reader's answer", func() bool {
		status, got, header := ask(t, http.MethodGet, s.URL, "")
		if status == http.StatusServiceUnavailable && header.Get("Retry-After") == "" {
			t.Error("refused without a time to ask again")
		}
		return status == http.StatusOK && len(got) == len(body)
	})
	if _, size := held(); size > outbox.HeldBytes {
		t.Errorf("%d bytes are held", size)
	}
}

// TestSilentConnectionsMakeWay opens more connections than there may be, in silence, and asks besides.
func TestSilentConnectionsMakeWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(nil, nil)
	url, _ := w.run(d)
	up(t, url)
	for i := range 2 * maxConnections {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if i%2 == 0 { // these have been served, and are idle
			if _, err := io.WriteString(c, "GET /page.css HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	begun := time.Now()
	if status, _, _ := ask(t, http.MethodGet, url+"/healthz", ""); status != http.StatusOK {
		t.Errorf("beside silent connections: HTTP %d", status)
	}
	t.Log("answered after", time.Since(begun))
}
