package outbox

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rekeyd/rekeyd/internal/process"
)

// TestAnswersHaveTheirTurn asks for an answer while another one is made.
func TestAnswersHaveTheirTurn(t *testing.T) {
	t.Parallel()
	o, begun, finish := New(1), make(chan struct{}), make(chan struct{})
	h := o.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-finish
		w.Header().Set("X-Made", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "made")
	}))
	try := func() chan *httptest.ResponseRecorder {
		done := make(chan *httptest.ResponseRecorder, 1)
		go func() {
			got := httptest.NewRecorder()
			h.ServeHTTP(got, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			done <- got
		}()
		return done
	}
	first := try()
	<-begun
	second := <-try()
	if second.Code != http.StatusServiceUnavailable || second.Header().Get("Retry-After") == "" {
		t.Errorf("without a turn: HTTP %d %v", second.Code, second.Header())
	}
	close(finish)
	if got := <-first; got.Code != http.StatusTeapot || got.Body.String() != "made" || got.Header().Get("X-Made") != "yes" || got.Header().Get("Content-Length") != "4" {
		t.Errorf("the answer is %d %v %q", got.Code, got.Header(), got.Body)
	}
}

// TestSlowReadersHoldABoundedNumberOfAnswers has 40 readers ask for 4 MiB each and read nothing.
func TestSlowReadersHoldABoundedNumberOfAnswers(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("x"), 4<<20)
	o := New(1)
	s := httptest.NewServer(o.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })))
	t.Cleanup(s.Close)
	held := func() (n, size int) {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.sending), o.bytes
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
		if n, size := held(); size > heldBytes || size != n*len(body) {
			t.Fatalf("after %d readers: %d answers with %d bytes are held", i, n, size)
		}
	}
	process.Eventually(t, process.Patience, func() error {
		if n, _ := held(); n != heldBytes/len(body) {
			return fmt.Errorf("%d answers are held, with place for %d", n, heldBytes/len(body))
		}
		return nil
	})
	process.Eventually(t, process.Patience, func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			return err
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
			t.Error("refused without a time to ask again")
		}
		if got, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || len(got) != len(body) {
			return fmt.Errorf("an honest reader: HTTP %d with %d bytes, %w", resp.StatusCode, len(got), err)
		}
		return nil
	})
	if _, size := held(); size > heldBytes {
		t.Errorf("%d bytes are held", size)
	}
}
