package reader_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/reader"
)

// world is a real Vault with a record, and a simulated ElevenLabs that knows its key.
type world struct {
	t     *testing.T
	vault *vaulttest.Server
	kv    *vaultapi.KVv2
	sim   *elevensim.Server
	url   string // of ElevenLabs
	token string // may read the record only
	reads atomic.Int64
}

const (
	account = "svcacc_a"
	path    = "elevenlabs/tts-prod"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, vault: vaulttest.Start(t), sim: newSimulator()}
	w.kv = w.vault.Client(t).KVv2("secret")
	w.token = w.vault.Token(t, `path "secret/data/`+path+`" { capabilities = ["read"] }`)
	server := httptest.NewServer(echo{w.sim})
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func newSimulator() *elevensim.Server {
	return elevensim.New(elevensim.Options{Seed: 1, Accounts: []elevensim.Account{{ID: account, Name: "A"}}})
}

// echo answers a POST whose key the simulator accepts with the request's body, and leaves the rest to the simulator.
type echo struct{ sim *elevensim.Server }

func (e echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		e.sim.ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	ask := httptest.NewRequest(http.MethodGet, "/v1/user", nil)
	ask.Header, ask.RemoteAddr = r.Header.Clone(), r.RemoteAddr
	said := httptest.NewRecorder()
	e.sim.ServeHTTP(said, ask)
	w.WriteHeader(said.Code)
	if said.Code != http.StatusOK {
		body = said.Body.Bytes()
	}
	_, _ = w.Write(body)
}

// reader returns one whose reads are counted.
func (w *world) reader(change ...func(*reader.Options)) *reader.Reader {
	w.t.Helper()
	o := reader.Options{
		Address: w.vault.Addr, Token: func(context.Context) (string, error) { return w.token, nil }, Path: path,
		Client: &http.Client{Transport: counting{&w.reads, new(http.Transport)}},
	}
	for _, f := range change {
		f(&o)
	}
	r, err := reader.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

type counting struct {
	n    *atomic.Int64
	base http.RoundTripper
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.base.RoundTrip(r)
}

// rotate publishes a new key and disables the one before it, as after a leak.
func (w *world) rotate() (id, secret string) {
	w.t.Helper()
	before, _ := w.kv.Get(w.t.Context(), path)
	id, secret, err := w.sim.AddKey(account, elevensim.KeySpec{Name: "key", Permissions: []string{"user_read"}})
	if err != nil {
		w.t.Fatal(err)
	}
	data := map[string]any{"api_key": secret, "key_id": id, "rotated_at": "2026-03-01T12:00:00Z"}
	if before != nil {
		data["previous_key_id"], data["previous_valid_until"] = before.Data["key_id"], "2026-03-02T12:00:00Z"
	}
	w.put(data)
	if before != nil {
		if err := w.sim.DisableKey(before.Data["key_id"].(string), ""); err != nil {
			w.t.Fatal(err)
		}
	}
	return id, secret
}

func (w *world) put(data map[string]any) {
	w.t.Helper()
	if _, err := w.kv.Put(w.t.Context(), path, data); err != nil {
		w.t.Fatal(err)
	}
}

func key(t *testing.T, r *reader.Reader) reader.Key {
	t.Helper()
	k, err := r.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func do(t *testing.T, client *http.Client, method, url string, body io.Reader) (status int, said string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func utc(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

// once hides that a body can be read again.
func once(text string) io.Reader { return io.MultiReader(strings.NewReader(text)) }
