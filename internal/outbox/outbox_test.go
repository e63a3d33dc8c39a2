package outbox

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
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
