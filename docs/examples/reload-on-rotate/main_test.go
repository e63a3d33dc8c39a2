package main

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/events"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
)

// TestTheExample lets rekeyd's own sender speak to it.
func TestTheExample(t *testing.T) {
	for name, c := range map[string]struct {
		secret  string
		event   rotator.EventType
		failing bool
		reloads int
		result  string
	}{
		"rotated":         {"right", rotator.EventRotated, false, 1, events.Delivered},
		"something else":  {"right", rotator.EventRetired, false, 0, events.Delivered},
		"another secret":  {"wrong", rotator.EventRotated, false, 0, events.Failed},
		"a broken reload": {"right", rotator.EventRotated, true, 3, events.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reloads, results := 0, map[string]int{}
			server := httptest.NewServer(handler([]byte("right"), func() error {
				reloads++
				if c.failing {
					return errors.New("broken")
				}
				return nil
			}))
			defer server.Close()
			s := events.New(events.Options{
				URL: server.URL, Secret: func() (secret.Secret, error) { return secret.New(c.secret), nil },
				Owner: func() string { return "owner" }, Logger: slog.New(slog.DiscardHandler), Count: func(r string) { results[r]++ },
			})
			s.Send(rotator.Event{Type: c.event, Policy: "tts-prod"})
			s.Flush(t.Context())
			if reloads != c.reloads || results[c.result] != 1 {
				t.Errorf("%d reloads, %v", reloads, results)
			}
		})
	}
	if err := verify([]byte("right"), events.Sign(secret.New("right"), time.Now().Add(-time.Hour), nil), nil, time.Now()); err == nil {
		t.Error("an event of an hour ago was taken")
	}
}
