package sinks_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// tokenVault gives out tokens as Vault does, by the clock of the test's bubble. A token's life begins when the request
// arrives; the answer takes a while.
type tokenVault struct {
	ttl, max time.Duration // max 0: a periodic token
	takes    time.Duration

	mu     sync.Mutex
	good   string // the secret id
	made   int
	token  string
	issued time.Time
	expiry time.Time
}

func (s *tokenVault) RoundTrip(r *http.Request) (*http.Response, error) {
	status, answer := s.answer(r)
	<-time.After(s.takes)
	text, err := json.Marshal(answer)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(text))), Request: r}, err
}

func (s *tokenVault) answer(r *http.Request) (status int, answer map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch path := strings.TrimPrefix(r.URL.Path, "/v1/"); {
	case strings.HasSuffix(path, "/login"):
		var given struct {
			SecretID string `json:"secret_id"`
		}
		if err := json.NewDecoder(r.Body).Decode(&given); err != nil || given.SecretID != s.good {
			return http.StatusBadRequest, map[string]any{"errors": []string{"invalid role or secret ID"}}
		}
		s.made++
		s.token, s.issued = fmt.Sprintf("hvs.token-%d", s.made), time.Now()
		return http.StatusOK, s.extend()
	case r.Header.Get("X-Vault-Token") != s.token || !time.Now().Before(s.expiry):
		return http.StatusForbidden, map[string]any{"errors": []string{"2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"}}
	case path == "auth/token/renew-self":
		return http.StatusOK, s.extend()
	case path == "auth/token/lookup-self":
		return http.StatusOK, map[string]any{"data": map[string]any{"ttl": int(time.Until(s.expiry) / time.Second), "expire_time": "then", "renewable": true}}
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		return http.StatusOK, map[string]any{"data": map[string]any{"path": "secret/", "type": "kv", "options": map[string]any{"version": "2"}}}
	}
	return http.StatusOK, map[string]any{"data": map[string]any{"data": map[string]any{}, "metadata": map[string]any{"version": 1}}}
}

func (s *tokenVault) extend() map[string]any {
	s.expiry = time.Now().Add(s.ttl)
	if end := s.issued.Add(s.max); s.max > 0 && end.Before(s.expiry) {
		s.expiry = end
	}
	lease := time.Until(s.expiry).Round(time.Second)
	return map[string]any{"auth": map[string]any{"client_token": s.token, "lease_duration": int(lease / time.Second), "renewable": true}}
}

// A login that is refused for a while costs nothing, as there is time for another before the token ends; a periodic
// token needs none but the first.
func TestVaultLoginsThatFailInTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		vault       *tokenVault
		least, most int // logins
	}{
		"outage":                 {&tokenVault{ttl: 6 * time.Second, max: 12 * time.Second}, 3, 10},
		"periodic":               {&tokenVault{ttl: 4 * time.Second}, 1, 1},
		"periodic, slow answers": {&tokenVault{ttl: 4 * time.Second, takes: 1500 * time.Millisecond}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, id := c.vault, &credential{}
				s.good = "good"
				id.set("good")
				v, err := sinks.NewVault(sinks.VaultOptions{Transport: s, Timeout: 5 * time.Second,
					Login: sinks.AppRoleLogin("approle", "role", func() (secret.Secret, error) { return id.get() })})
				must(t, err)
				read := func() error {
					_, err := v.Read(t.Context(), ledger.Ref{Mount: "secret", Path: "x"}, 0)
					return err
				}
				must(t, read())
				runToken(t, v)
				id.set("broken by a person")
				for begun := time.Now(); time.Since(begun) < time.Minute; <-time.After(200 * time.Millisecond) {
					if id.askedFor() > 1 { // a login has just been refused
						id.set("good")
					}
					if err := read(); err != nil {
						t.Fatalf("after %s: %v", time.Since(begun), err)
					}
				}
				if n := id.askedFor(); n < c.least || n > c.most {
					t.Errorf("%d logins", n)
				}
			})
		})
	}
}

// TestVaultTokenEnding: a token is about to end in the last quarter of the life that nothing has extended, and in its last day.
func TestVaultTokenEnding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		life, most, said time.Duration // said 0: at no time
	}{
		{life: time.Hour},
		{life: time.Minute},
		{life: time.Hour, most: time.Hour, said: 45 * time.Minute},
		{life: 5 * 24 * time.Hour, most: 5 * 24 * time.Hour, said: 4 * 24 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			now := time.Now()
			s := &tokenVault{ttl: c.life, max: c.most, takes: 10 * time.Millisecond, token: "hvs.of-a-file", issued: now, expiry: now.Add(c.life)}
			v, err := sinks.NewVault(sinks.VaultOptions{Token: secret.New(s.token), Transport: s})
			must(t, err)
			if _, ending := v.TokenEnding(now); ending {
				t.Error("an unknown end is near")
			}
			runToken(t, v)
			said := time.Duration(0)
			for time.Since(now) < min(c.life*3, 5*24*time.Hour-time.Minute) && said == 0 {
				<-time.After(c.life / 1000)
				if at, ending := v.TokenEnding(time.Now()); ending {
					said = time.Since(now)
					if c.said == 0 || at.Sub(now.Add(c.life)).Abs() > time.Second {
						t.Errorf("of a life of %s: the end after %s is near after %s", c.life, at.Sub(now), said)
					}
				}
			}
			if (said - c.said).Abs() > c.life/100 {
				t.Errorf("of a life of %s at most %s: the end is near after %s, want %s", c.life, c.most, said, c.said)
			}
		})
	}
}
