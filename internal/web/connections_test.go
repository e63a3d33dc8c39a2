package web

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSilentConnectionsMakeWay opens more connections than there may be, in silence, and asks besides.
func TestSilentConnectionsMakeWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(nil)
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
	if status, _, _ := ask(t, url+"/healthz", ""); status != http.StatusOK {
		t.Errorf("beside silent connections: HTTP %d", status)
	}
	t.Log("answered after", time.Since(begun))
}
