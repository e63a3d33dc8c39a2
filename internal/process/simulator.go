package process

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// Simulator is a process of cmd/elevensim.
type Simulator struct {
	URL string

	t *testing.T
}

// StartSimulator starts the simulator with service accounts: ID=NAME, or an id that is the name too.
func (p Programs) StartSimulator(t *testing.T, adminKey string, seed uint64, accounts ...string) *Simulator {
	t.Helper()
	args := []string{"--listen", "127.0.0.1:0", "--seed", fmt.Sprint(seed)}
	for _, a := range accounts {
		if !strings.Contains(a, "=") {
			a += "=" + a
		}
		args = append(args, "--account", a)
	}
	s := Start(t, []string{"ELEVENSIM_ADMIN_KEY=" + adminKey}, p.Simulator, args...)
	return &Simulator{s.Find(&s.Stdout, `(http://127\.0\.0\.1:\d+)`), t}
}

// Ask does one call below /_sim/ and decodes the answer.
func (s *Simulator) Ask(method, path string, body, answer any) {
	s.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	status, got := Request(s.t, method, s.URL+"/_sim/"+path, "", string(text))
	if status != http.StatusOK {
		s.t.Fatalf("%s %s: HTTP %d: %s", method, path, status, got)
	}
	if err := json.Unmarshal([]byte(got), answer); err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// AddKey makes a key as a person would.
func (s *Simulator) AddKey(account, name string) (id, secret string) {
	s.t.Helper()
	var key struct{ ID, Secret string }
	s.Ask(http.MethodPost, "accounts/"+account+"/keys", elevensim.KeySpec{Name: name}, &key)
	return key.ID, key.Secret
}

// SetFaults replaces all faults.
func (s *Simulator) SetFaults(f elevensim.Faults) {
	s.t.Helper()
	s.Ask(http.MethodPut, "faults", f, &struct{}{})
}

// History returns the requests that the simulator remembers.
func (s *Simulator) History() []elevensim.Request {
	s.t.Helper()
	var all []elevensim.Request
	s.Ask(http.MethodGet, "history", nil, &all)
	return all
}

// Keys returns every key that there ever was.
func (s *Simulator) Keys() []elevensim.Key {
	s.t.Helper()
	var state []elevensim.AccountState
	s.Ask(http.MethodGet, "state", nil, &state)
	var keys []elevensim.Key
	for _, a := range state {
		keys = append(keys, a.Keys...)
	}
	return keys
}

// Request sends one request; credential is a whole header line, and body JSON. Without an answer the status is 0.
func Request(t *testing.T, method, url, credential, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body)) //nolint:noctx // loopback, and the client has a timeout
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if name, value, ok := strings.Cut(credential, ": "); ok {
		req.Header.Set(name, value)
	}
	client := http.Client{Timeout: Patience}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}
