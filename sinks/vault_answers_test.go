package sinks_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// wrappingVault answers the requests of an unwrapping as the test says: with a status, or 0 for no answer.
type wrappingVault struct {
	mu             sync.Mutex
	path           string         // where the wrapped answer comes from
	wrapped        map[string]any // what it holds
	lookup, unwrap int            // their statuses
	calls          int            // of both
}

func (s *wrappingVault) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status, answer := http.StatusOK, map[string]any{"data": map[string]any{"data": map[string]any{}, "metadata": map[string]any{"version": 1}}}
	switch path := strings.TrimPrefix(r.URL.Path, "/v1/"); {
	case path == "sys/wrapping/lookup":
		s.calls++
		status, answer = s.lookup, map[string]any{"data": map[string]any{"creation_path": s.path}}
	case path == "sys/wrapping/unwrap":
		s.calls++
		status, answer = s.unwrap, map[string]any{"data": s.wrapped}
	case strings.HasSuffix(path, "/login"):
		answer = map[string]any{"auth": map[string]any{"client_token": "hvs.token", "lease_duration": 3600, "renewable": true}}
	}
	if status == 0 {
		return nil, errors.New("the connection was cut")
	}
	if status != http.StatusOK {
		answer = map[string]any{"errors": []string{"no"}}
	}
	text, err := json.Marshal(answer)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(text))), Request: r}, err
}

func (s *wrappingVault) set(change func(*wrappingVault)) (calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	return s.calls
}

// TestVaultUnwrapsOnce: a wrapping token that is of no use any more is an alarm and is not tried again; another token is.
func TestVaultUnwrapsOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*wrappingVault)
		says   string // "": it works
	}{
		"good":               {func(*wrappingVault) {}, ""},
		"unknown":            {func(s *wrappingVault) { s.lookup = http.StatusBadRequest }, "another process may have unwrapped it"},
		"forbidden":          {func(s *wrappingVault) { s.lookup = http.StatusForbidden }, "another process may have unwrapped it"},
		"used meanwhile":     {func(s *wrappingVault) { s.unwrap = http.StatusBadRequest }, "another process may have unwrapped it"},
		"of another mount":   {func(s *wrappingVault) { s.path = "auth/other/role/rekeyd/secret-id" }, "was created outside"},
		"of a longer mount":  {func(s *wrappingVault) { s.path = "auth/approle2/role/rekeyd/secret-id" }, "was created outside"},
		"of another path":    {func(s *wrappingVault) { s.path = "auth/approle/role/rekeyd" }, "was created outside"},
		"without secret id":  {func(s *wrappingVault) { s.wrapped = map[string]any{"other": "x"} }, "does not contain a secret id"},
		"an odd secret id":   {func(s *wrappingVault) { s.wrapped = map[string]any{"secret_id": 7} }, "does not contain a secret id"},
		"an empty secret id": {func(s *wrappingVault) { s.wrapped = map[string]any{"secret_id": ""} }, "does not contain a secret id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &wrappingVault{path: "auth/approle/role/rekeyd/secret-id", wrapped: map[string]any{"secret_id": "id"}, lookup: http.StatusOK, unwrap: http.StatusOK}
				c.change(s)
				read, token := openWrapped(t, s)
				err := read()
				if c.says == "" {
					must(t, err)
					return
				}
				calls := s.set(func(*wrappingVault) {})
				for range 2 {
					if e := asError(t, err); e.Reason != ledger.FailureSinkWrapping || !e.Outage || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "security incident") || strings.Contains(err.Error(), "was lost") {
						t.Errorf("reading: %v", err)
					}
					<-time.After(time.Hour)
					err = read()
				}
				again := s.set(func(s *wrappingVault) {
					s.path, s.wrapped, s.lookup, s.unwrap = "auth/approle/role/rekeyd/secret-id", map[string]any{"secret_id": "id"}, http.StatusOK, http.StatusOK
				})
				if again != calls {
					t.Errorf("%d calls for one wrapping token, then %d", calls, again)
				}
				token.set("hvs.another")
				<-time.After(time.Hour)
				must(t, read())
			})
		})
	}
}

// TestVaultUnwrapsAfterAnOutage: a failure that says nothing of the token is no alarm, and a lost answer is told in one that
// comes later.
func TestVaultUnwrapsAfterAnOutage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		broken func(*wrappingVault)
		lost   bool
	}{
		"lookup":              {func(s *wrappingVault) { s.lookup = http.StatusInternalServerError }, false},
		"unwrap":              {func(s *wrappingVault) { s.unwrap = http.StatusInternalServerError }, true},
		"unwrap, no answer":   {func(s *wrappingVault) { s.unwrap = 0 }, true},
		"unwrap, rate limits": {func(s *wrappingVault) { s.unwrap = http.StatusTooManyRequests }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, used := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					s := &wrappingVault{path: "auth/approle/role/rekeyd/secret-id", wrapped: map[string]any{"secret_id": "id"}, lookup: http.StatusOK, unwrap: http.StatusOK}
					c.broken(s)
					read, _ := openWrapped(t, s)
					if err := read(); err == nil || strings.Contains(err.Error(), "security incident") {
						t.Errorf("in an outage: %v", err)
					}
					s.set(func(s *wrappingVault) {
						if s.lookup, s.unwrap = http.StatusOK, http.StatusOK; used {
							s.unwrap = http.StatusBadRequest
						}
					})
					<-time.After(time.Hour)
					err := read()
					if !used {
						must(t, err)
					} else if !strings.Contains(err.Error(), "security incident") || strings.Contains(err.Error(), "an earlier attempt of this process was lost") != c.lost {
						t.Errorf("after the outage: %v", err)
					}
				})
			}
		})
	}
}

func openWrapped(t *testing.T, s *wrappingVault) (read func() error, token *credential) {
	t.Helper()
	config := vaultapi.DefaultConfig()
	config.Address = "http://vault.invalid"
	token = &credential{value: "hvs.wrapping"}
	v, err := sinks.NewVault(sinks.VaultOptions{Config: config, Transport: s, Login: sinks.WrappedAppRoleLogin("approle", "role", token.get, new(secret.Redactor), func() {})})
	must(t, err)
	return func() error {
		_, err := v.Read(t.Context(), ledger.Ref{Mount: "secret", Path: "x"}, 0)
		return err
	}, token
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestVaultCallsAreObserved: with the status of the answer, whose date is kept.
func TestVaultCallsAreObserved(t *testing.T) {
	t.Parallel()
	date := time.Date(2026, 5, 5, 1, 0, 0, 0, time.UTC)
	var status int
	config := vaultapi.DefaultConfig()
	config.Address = "http://vault.invalid"
	var seen []string
	v, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.token"),
		Observe: func(_, code string, _ time.Duration) { seen = append(seen, code) },
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if status == 0 {
				return nil, errors.New("the connection was cut")
			}
			return &http.Response{StatusCode: status, Header: http.Header{"Date": {date.Format(http.TimeFormat)}}, Body: io.NopCloser(strings.NewReader(`{"data":{"data":{},"metadata":{"version":1}}}`)), Request: r}, nil
		})})
	must(t, err)
	for _, c := range []struct {
		status int
		code   string
	}{{http.StatusOK, "200"}, {http.StatusForbidden, "403"}, {0, "error"}} {
		status, seen = c.status, nil
		_, err := v.Read(t.Context(), ledger.Ref{Mount: "secret", Path: "x"}, 0)
		if len(seen) == 0 || seen[0] != c.code || (err == nil) != (c.status == http.StatusOK) {
			t.Errorf("status %d is observed as %q: %v", c.status, seen, err)
		}
		if at, came := v.Clock(); !at.Equal(date) || time.Since(came) > time.Minute {
			t.Errorf("status %d: Vault's clock is %s, read at %s", c.status, at, came)
		}
	}
}

// TestVaultMountsAreJudged by their type and version, and each once.
func TestVaultMountsAreJudged(t *testing.T) {
	t.Parallel()
	config := vaultapi.DefaultConfig()
	config.Address = "http://vault.invalid"
	for _, c := range []struct{ kind, version, path, says string }{
		{"kv", "2", "secret/", ""},
		{"kv", "1", "secret/", "KV engine of version 1"},
		{"kv", "", "secret/", "KV engine of version 1"},
		{"generic", "", "secret/", "KV engine of version 1"},
		{"pki", "2", "secret/", `of type "pki"`},
		{"kv", "2", "sec/", "there is no mount secret, but sec/"},
	} {
		asked := map[string]int{}
		v, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.token"), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			path := strings.TrimPrefix(r.URL.Path, "/v1/")
			asked[path]++
			answer := map[string]any{"data": map[string]any{"secret/data/a": []string{"root"}, "secret/data/b": []string{"create", "read", "update"}}}
			if strings.HasPrefix(path, "sys/internal/ui/mounts/") {
				answer = map[string]any{"data": map[string]any{"path": c.path, "type": c.kind, "options": map[string]any{"version": c.version}}}
			}
			text, err := json.Marshal(answer)
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(text))), Request: r}, err
		})})
		must(t, err)
		a, b := ledger.Ref{Mount: "secret", Path: "a"}, ledger.Ref{Mount: "secret", Path: "b"}
		for range 2 {
			err = v.Check(t.Context(), a, b, a)
		}
		if c.says == "" {
			must(t, err)
			if len(asked) != 2 || asked["sys/capabilities-self"] != 1 || asked["sys/internal/ui/mounts/secret"] != 1 {
				t.Errorf("asked %v", asked)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestVaultAnswersOfOthers: a success whose body is not in Vault's envelope is none.
func TestVaultAnswersOfOthers(t *testing.T) {
	t.Parallel()
	config := vaultapi.DefaultConfig()
	config.Address = "http://vault.invalid"
	const data = `"data":{"data":{"a":"b"},"metadata":{"version":1}}`
	for body, says := range map[string]string{
		`{` + data + `}`: "", " {" + data + `,"errors":null} `: "",
		`{` + data: "not the JSON of Vault's API", `[{` + data + `}]`: "not the JSON of Vault's API", `"data"`: "not the JSON of Vault's API",
		`{"errors":"no",` + data + `}`: "not the JSON of Vault's API", `<html>`: "not the JSON of Vault's API",
		`{"other":{` + data + `}}`: "not that of Vault's KV version 2 engine", `{"data":[{` + data + `}]}`: "not that of Vault's KV version 2 engine",
		`{"data":{"data":{"a":"b"},"metadata":{"version":"1"}}}`: "not that of Vault's KV version 2 engine",
		`{"data":{"data":["a"],"metadata":{"version":1}}}`:       "version 1 is not a JSON object",
	} {
		v, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.token"), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			text := body
			if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
				text = `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`
			}
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
		})})
		must(t, err)
		doc, err := v.Read(t.Context(), ledger.Ref{Mount: "secret", Path: "x"}, 0)
		if says == "" && (err != nil || string(doc.JSON) != `{"a":"b"}` || doc.Version != 1) || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %s, %v", body, doc.JSON, err)
		}
	}
}
