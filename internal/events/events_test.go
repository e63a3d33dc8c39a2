package events

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

const signingSecret = "secret of the events"

// receiver keeps what it is sent, and answers as it is told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	heads  []http.Header
	counts map[string]int
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter)) (*receiver, *Sender) {
	t.Helper()
	r := &receiver{counts: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.bodies, r.heads = append(r.bodies, string(body)), append(r.heads, req.Header)
		n := len(r.bodies)
		r.mu.Unlock()
		answer(n, w)
	}))
	t.Cleanup(r.Close)
	return r, New(Options{
		URL: r.URL + "/hook", Secret: func() (secret.Secret, error) { return secret.New(signingSecret + "\n"), nil },
		Owner: func() string { return "owner123" }, Logger: slog.New(slog.DiscardHandler),
		Count: func(result string) { r.mu.Lock(); defer r.mu.Unlock(); r.counts[result]++ },
	})
}

func ok(int, http.ResponseWriter) {}

func TestAnEventIsASignedCloudEvent(t *testing.T) {
	r, s := newReceiver(t, ok)
	at := time.Date(2026, 3, 3, 12, 0, 0, 0, time.FixedZone("", 3600))
	s.Send(rotator.Event{Type: rotator.EventRotated, At: at, Policy: "tts-prod", KeyID: "new", KeyName: "rekeyd.o.tts-prod.r", PreviousKeyID: "old", PreviousValidUntil: at.Add(time.Hour), Reason: ledger.TriggerSchedule,
		Evidence: []rotator.Evidence{rotator.EvidenceVerified, rotator.EvidenceProbed}})
	s.Send(rotator.Event{Type: rotator.EventLostDeleted, Policy: "tts-prod"}) // no state of a policy
	s.Flush(t.Context())
	if len(r.bodies) != 1 {
		t.Fatalf("%d requests: %q", len(r.bodies), r.bodies)
	}
	var e map[string]any
	if err := json.Unmarshal([]byte(r.bodies[0]), &e); err != nil {
		t.Fatal(err)
	}
	if id, _ := e["id"].(string); len(id) < 20 {
		t.Errorf("id is %v", e["id"])
	}
	delete(e, "id")
	got, _ := json.Marshal(e)
	want := `{"data":{"evidence":["verified","probed"],"key_id":"new","key_name":"rekeyd.o.tts-prod.r","policy":"tts-prod","previous_key_id":"old","previous_valid_until":"2026-03-03T13:00:00+01:00","reason":"schedule"},` +
		`"datacontenttype":"application/json","source":"/rekeyd/owner123","specversion":"1.0","subject":"tts-prod","time":"2026-03-03T11:00:00Z","type":"rekeyd.rotated"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	head := r.heads[0]
	if !strings.HasPrefix(head.Get("Content-Type"), "application/cloudevents+json") {
		t.Errorf("Content-Type is %q", head.Get("Content-Type"))
	}
	stamp, sum, _ := strings.Cut(strings.TrimPrefix(head.Get("Rekeyd-Signature"), "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte(signingSecret)) // without the final newline
	_, _ = fmt.Fprintf(mac, "%s.%s", stamp, r.bodies[0])
	if sum != hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("the signature %q is not that of the body", head.Get("Rekeyd-Signature"))
	}
	if r.counts[Delivered] != 1 {
		t.Errorf("counted %v", r.counts)
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed, with the signature") }))
	t.Cleanup(elsewhere.Close)
	for name, c := range map[string]struct {
		answer   func(n int, w http.ResponseWriter)
		requests int
		result   string
	}{
		"500":            {func(_ int, w http.ResponseWriter) { w.WriteHeader(500) }, 3, Failed},
		"500, then well": {func(n int, w http.ResponseWriter) { w.WriteHeader([]int{500, 204}[n-1]) }, 2, Delivered},
		"429, then well": {func(n int, w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader([]int{429, 200}[n-1])
		}, 2, Delivered},
		"refused for good": {func(_ int, w http.ResponseWriter) { w.WriteHeader(403) }, 1, Failed},
		"redirect": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(307)
		}, 1, Failed},
		"cut": {func(_ int, w http.ResponseWriter) {
			if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_ = c.Close()
			}
		}, 3, Failed},
		"an answer without end": {func(_ int, w http.ResponseWriter) { _, _ = io.Copy(w, io.LimitReader(endless{}, 1<<26)) }, 1, Delivered},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, s := newReceiver(t, c.answer)
			s.Send(rotator.Event{Type: rotator.EventFailed, Policy: "a"})
			s.Flush(t.Context())
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.bodies) != c.requests || r.counts[c.result] != 1 {
				t.Errorf("%d requests, counted %v", len(r.bodies), r.counts)
			}
			if at, why := s.Lost(); at.IsZero() != (c.result == Delivered) || at.IsZero() != (why == "") {
				t.Errorf("lost at %s, since %q", at, why)
			}
			for _, body := range r.bodies[1:] {
				if body != r.bodies[0] {
					t.Errorf("another try sent something else: %s", body)
				}
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A receiver that hangs costs nothing but events: they wait, in order, and those that find the queue full are counted.
func TestAReceiverThatHangs(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	r, s := newReceiver(t, func(n int, _ http.ResponseWriter) {
		if n == 1 {
			close(arrived)
			<-release
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	begun := time.Now()
	for i := range queued + 100 {
		s.Send(rotator.Event{Type: rotator.EventRotated, Policy: fmt.Sprint(i)})
	}
	if took := time.Since(begun); took > oneTry/2 {
		t.Errorf("sending took %s", took)
	}
	r.mu.Lock()
	if n := r.counts[Dropped]; n < 99 || n > 100 {
		t.Errorf("%d were dropped", n)
	}
	r.mu.Unlock()
	if _, why := s.Lost(); why != "the queue is full" {
		t.Errorf("lost, since %q", why)
	}
	<-arrived
	stop() // while the first hangs
	<-done
	close(release)
	s.Flush(t.Context())
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.counts[Delivered]; n < queued {
		t.Errorf("%d were delivered after all", n)
	}
	for i, body := range r.bodies[1:] { // the first was cut off, and sent again
		if want := fmt.Sprintf(`"subject":"%d"`, i); !strings.Contains(body, want) {
			t.Fatalf("event %d is %s", i, body)
		}
	}
}

func TestAFlushIsBounded(t *testing.T) {
	release := make(chan struct{})
	_, s := newReceiver(t, func(int, http.ResponseWriter) { <-release })
	t.Cleanup(func() { close(release) })
	for range 10 {
		s.Send(rotator.Event{Type: rotator.EventRotated, Policy: "a"})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	s.Flush(ctx)
	if took := time.Since(begun); took > oneTry {
		t.Errorf("it took %s", took)
	}
}

// TestThePageHasEveryType holds docs/events.md against the code.
func TestThePageHasEveryType(t *testing.T) {
	page, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range Types() {
		if !strings.Contains(string(page), "| `rekeyd."+string(e)+"` |") {
			t.Errorf("docs/events.md does not explain rekeyd.%s", e)
		}
	}
	if n := strings.Count(string(page), "| `rekeyd."); n != len(Types()) {
		t.Errorf("docs/events.md explains %d types of %d", n, len(Types()))
	}
}
