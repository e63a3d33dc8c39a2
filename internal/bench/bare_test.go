package bench

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// The ledger's entries as rekeyd writes them: begun with claim and intent, done with the old key on its way out. What a
// write costs Vault depends on what is written.
var (
	//go:embed testdata/begun.json
	begun json.RawMessage
	//go:embed testdata/done.json
	done json.RawMessage
)

// loop is what rotation looks like without any thought of failure: so many workers, plain HTTP, and the calls of one
// rotation in a row. Its connections are those of rekeyd: as many as it has workers, kept open.
type loop struct {
	t       *testing.T
	w       *world
	client  *http.Client
	workers int
}

func newLoop(t *testing.T, w *world, workers int) *loop {
	return &loop{t, w, &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		MaxIdleConns: 2 * workers, MaxIdleConnsPerHost: workers, MaxConnsPerHost: workers,
	}}, workers}
}

// figure rotates every account once, for a line of the table.
func (l *loop) figure(name string, rotate func(i int), calls string) figure {
	before := cpu()
	return figureOf(name, l.run(rotate), calls, cpuSince(before, "loop", "vault", "elevensim"))
}

// run rotates every account once and returns how long after the start each was published.
func (l *loop) run(rotate func(i int)) []time.Duration {
	took := make([]time.Duration, accounts)
	next := make(chan int)
	start := time.Now()
	var wg sync.WaitGroup
	for range l.workers {
		wg.Go(func() {
			for i := range next {
				rotate(i)
				took[i] = time.Since(start)
			}
		})
	}
	for i := range accounts {
		next <- i
	}
	close(next)
	wg.Wait()
	return took
}

// eight makes the eight calls of a rotation that could be recovered: ledger, record, create, verify, list, record, read
// back, ledger.
func (l *loop) eight(i int) { l.rotate("bare", i) }

// first makes the eleven calls of a first key: whether there are an entry and a record, and what may be done to both, and then
// the eight.
func (l *loop) first(folder string) func(i int) {
	folder = "bare/" + folder
	return func(i int) {
		ledger, record := fmt.Sprint(folder, "/ledger/", i), fmt.Sprint(folder, "/records/", i)
		l.version(ledger)
		l.version(record)
		l.send(http.MethodPost, l.w.vault.Addr+"/v1/sys/capabilities-self", "X-Vault-Token", l.w.token, map[string]any{"paths": []string{ledger, record}}, nil)
		l.rotate(folder, i)
	}
}

func (l *loop) rotate(folder string, i int) {
	ledger, record := fmt.Sprint(folder, "/ledger/", i), fmt.Sprint(folder, "/records/", i)
	keys := l.w.sim.URL + "/v1/service-accounts/" + account(i) + "/api-keys"
	entry := l.versions(ledger)
	l.put(ledger, begun, entry)
	version := l.version(record)
	secret := l.create(keys, i)
	l.send(http.MethodGet, l.w.sim.URL+"/v1/user", "xi-api-key", secret, nil, nil)
	l.send(http.MethodGet, keys, "xi-api-key", l.w.adminKey, nil, nil)
	l.put(record, map[string]any{
		"api_key": secret, "key_id": "0123456789abcdef0123456789abcdef", "key_name": "bare", "policy": fmt.Sprint(i), "service_account_user_id": account(i),
		"rotated_at": time.Now(), "previous_key_id": "0123456789abcdef0123456789abcdef", "previous_valid_until": time.Now(),
	}, version)
	l.version(record)
	l.put(ledger, done, entry+1)
}

// two is the least that rotation can be: create a key and write it down.
func (l *loop) two(i int) {
	secret := l.create(l.w.sim.URL+"/v1/service-accounts/"+account(i)+"/api-keys", i)
	l.send(http.MethodPost, l.data(fmt.Sprint("least/records/", i)), "X-Vault-Token", l.w.token, map[string]any{"data": map[string]any{"api_key": secret}}, nil)
}

func (l *loop) create(keys string, i int) string {
	var made struct {
		Secret string `json:"xi-api-key"`
	}
	l.send(http.MethodPost, keys, "xi-api-key", l.w.adminKey, map[string]any{"name": fmt.Sprint("bare ", i), "permissions": []string{"text_to_speech", "user_read"}}, &made)
	return made.Secret
}

// versions is what the loop would remember of its ledger: it costs no call.
func (l *loop) versions(path string) int {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	at := l.w.ledger[path]
	l.w.ledger[path] = at + 2
	return at
}

func (l *loop) data(path string) string { return l.w.vault.Addr + "/v1/secret/data/" + path }

func (l *loop) version(path string) int {
	var doc struct {
		Data struct{ Metadata struct{ Version int } }
	}
	l.send(http.MethodGet, l.data(path), "X-Vault-Token", l.w.token, nil, &doc)
	return doc.Data.Metadata.Version
}

func (l *loop) put(path string, data any, cas int) {
	l.send(http.MethodPost, l.data(path), "X-Vault-Token", l.w.token, map[string]any{"data": data, "options": map[string]int{"cas": cas}}, nil)
}

func (l *loop) send(method, url, header, credential string, body, answer any) {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body)
	}
	req, err := http.NewRequestWithContext(l.t.Context(), method, url, bytes.NewReader(text))
	if err != nil {
		l.t.Error(err)
		return
	}
	req.Header.Set(header, credential)
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.client.Do(req)
	if err != nil {
		l.t.Error(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if missing := resp.StatusCode == http.StatusNotFound && method == http.MethodGet; err != nil || resp.StatusCode > 299 && !missing {
		l.t.Errorf("%s %s: %d %v", method, url, resp.StatusCode, err)
		return
	}
	if answer != nil {
		_ = json.Unmarshal(got, answer) // what is missing is seen in what follows
	}
}
