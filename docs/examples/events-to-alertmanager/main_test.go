package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/events"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// TestTheAdapter lets rekeyd's own sender speak to it. TestNotifications has a real Alertmanager.
func TestTheAdapter(t *testing.T) {
	for _, kind := range events.Types() {
		if severity("rekeyd."+string(kind)) == "" {
			t.Errorf("%s has no severity", kind)
		}
	}
	for name, c := range map[string]struct {
		secret string
		answer int // of the Alertmanager
		posts  int
		result string
	}{
		"taken":          {"right", http.StatusOK, 1, events.Delivered},
		"another secret": {"wrong", http.StatusOK, 0, events.Failed},
		"a sick one":     {"right", http.StatusInternalServerError, 3, events.Failed},
		"a picky one":    {"right", http.StatusBadRequest, 3, events.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			posts, results := 0, map[string]int{}
			var got []alert
			alertmanager := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				posts++
				if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.URL.Path != "/api/v2/alerts" {
					t.Errorf("%s: %v", r.URL, err)
				}
				w.WriteHeader(c.answer)
			}))
			defer alertmanager.Close()
			server := httptest.NewServer(handler([]byte("right"), alertmanager.URL))
			defer server.Close()
			s := events.New(events.Options{
				URL: server.URL, Secret: func() (secret.Secret, error) { return secret.New(c.secret), nil },
				Owner: func() string { return "owner" }, Logger: slog.New(slog.DiscardHandler), Count: func(r string) { results[r]++ },
			})
			at := time.Date(2026, 3, 3, 11, 0, 0, 0, time.UTC)
			s.Send(rotator.Event{Type: rotator.EventKeyDisabled, Policy: "tts-prod", KeyID: "key", Reason: ledger.TriggerExposed, At: at})
			s.Flush(t.Context())
			if posts != c.posts || results[c.result] != 1 {
				t.Errorf("%d posts, %v", posts, results)
			}
			if posts > 0 && (len(got) != 1 || got[0].Labels["severity"] != "critical" || got[0].Labels["policy"] != "tts-prod" || got[0].Labels["reason"] != "exposed_publicly" ||
				got[0].Labels["installation"] != "/rekeyd/owner" || !got[0].StartsAt.Equal(at) || !got[0].EndsAt.Equal(at.Add(time.Hour))) {
				t.Errorf("the alert is %+v", got)
			}
		})
	}
	if err := verify([]byte("right"), events.Sign(secret.New("right"), time.Now().Add(-time.Hour), nil), nil, time.Now()); err == nil {
		t.Error("an event of an hour ago was taken")
	}
}
