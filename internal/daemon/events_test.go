package daemon

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/events"
)

// TestEveryStateChangeIsTold causes each kind of event at the simulator, and looks for secrets in all of them.
func TestEveryStateChangeIsTold(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var bodies []string
	seen := map[string]int{}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var e struct{ Type string }
		_ = json.Unmarshal(body, &e)
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, string(body))
		seen[e.Type]++
	}))
	t.Cleanup(receiver.Close)
	count := func(event string) int { mu.Lock(); defer mu.Unlock(); return seen["rekeyd."+event] }
	told := func(event string, n int) {
		t.Helper()
		eventually(t, event, func() bool { return count(event) >= n })
	}

	w := newWorld(t)
	const eventsSecret = "secret-of-the-events"
	url, stop := w.run(w.build(map[string]string{"REKEYD_EVENTS_URL": receiver.URL, "REKEYD_EVENTS_SECRET": eventsSecret}, nil))
	told("rotated", 1)
	w.Must(w.Sim.DisableKey(w.current(), "exposed_publicly"))
	told("key_disabled", 1)
	told("rotated", 2)

	body := `{"name":"` + w.key(w.current()).Name + `","permissions":["user_read"]}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, w.URL+"/v1/service-accounts/svcacc_a/api-keys/"+w.current(), bytes.NewReader([]byte(body)))
	w.Must(err)
	req.Header.Set("xi-api-key", adminKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client().Do(req)
	w.Must(err)
	_ = resp.Body.Close()
	told("drifted", 1)

	rotate := func() {
		t.Helper()
		if status, answer := ask(t, http.MethodPost, url+"/api/v1/policies/tts-prod/rotate", "Bearer "+adminToken); status != http.StatusAccepted {
			t.Fatalf("HTTP %d: %s", status, answer)
		}
	}
	w.Must(w.Sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Status: 403, Code: "forbidden", Operation: "createAPIKey", Count: 1}}}))
	rotate()
	told("failed", 1)
	rotate()
	told("rotated", 3)
	w.Must(w.Sim.DisableKey(w.current(), ""))
	told("error", 1)
	w.Write(w.PolicyFile, strings.Replace(policies("tts-prod"), "permissions: all", "permissions: all, overlap: 1s", 1))
	if status, answer := ask(t, http.MethodPost, url+"/-/reload", "Bearer "+adminToken); status != http.StatusOK {
		t.Fatalf("HTTP %d: %s", status, answer)
	}
	rotate()
	told("rotated", 4)
	rotate()
	told("rotated", 5)
	told("retired", 1)
	if err := stop(); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, a := range events.Types() {
		if seen["rekeyd."+string(a)] == 0 {
			t.Errorf("nobody was told of %s", a)
		}
	}
	all := strings.Join(bodies, "\n") + w.Log.String()
	for _, secret := range append(w.secrets(), adminKey, adminToken, eventsSecret) {
		if strings.Contains(all, secret) {
			t.Error("an event or the log has a secret")
		}
	}
}

// current is the key that is published.
func (w *world) current() string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.Dir, "data", "secret", "app", "tts-prod.json"))
	w.Must(err)
	var record struct {
		KeyID string `json:"key_id"`
	}
	w.Must(json.Unmarshal(text, &record))
	return record.KeyID
}

func (w *world) key(id string) (found elevensim.Key) {
	for _, a := range w.Sim.State() {
		for _, k := range a.Keys {
			if k.ID == id {
				found = k
			}
		}
	}
	return found
}

func (w *world) secrets() (all []string) {
	for _, a := range w.Sim.State() {
		for _, k := range a.Keys {
			all = append(all, k.Secret)
		}
	}
	return all
}
