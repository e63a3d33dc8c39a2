package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"
)

// loop is what rotation looks like without any thought of failure: so many workers, plain HTTP, and the calls of one
// rotation in a row. Its connections are those of rekeyd: as many as it has workers, kept open.
type loop struct {
	t           *testing.T
	w           *world
	client      *http.Client
	begun, done json.RawMessage // the ledger's entries that it writes
}

func newLoop(t *testing.T, w *world) *loop {
	return &loop{t: t, w: w, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		MaxIdleConns: 2 * concurrency, MaxIdleConnsPerHost: concurrency, MaxConnsPerHost: concurrency,
	}}}
}

// learn takes the entries that rekeyd wrote at its last rotation, with claim and intent, and with the old key on its way out: what
// a write costs Vault depends on what is written.
func (l *loop) learn() {
	l.t.Helper()
	client, entry := l.w.vault.Client(l.t).KVv2("secret"), path.Join("rekeyd", l.w.folder, "policies/p-0")
	doc, err := client.Get(l.t.Context(), entry)
	for ; err == nil; doc, err = client.GetVersion(l.t.Context(), entry, doc.VersionMetadata.Version-1) {
		text, err := json.Marshal(doc.Data)
		if err != nil {
			l.t.Fatal(err)
		}
		if doc.Data["intent"] != nil {
			l.begun = text
			return
		}
		l.done = text
	}
	l.t.Fatalf("no version of %s has an intent: %v", entry, err)
}

// figure rotates every account once, for a line of the table, and then deletes the keys: an account with many is listed more slowly.
func (l *loop) figure(name string, rotate func(i int), calls string) figure {
	before := cpu()
	took := l.run(rotate)
	f := figureOf(name, took, calls, cpuSince(before, "loop", "vault", "elevensim"))
	l.run(l.clean)
	return f
}

// clean deletes the keys that the loop has made for an account.
func (l *loop) clean(i int) {
	var list struct {
		Keys []struct {
			ID   string `json:"key_id"`
			Name string
		} `json:"api-keys"`
	}
	l.send(http.MethodGet, l.keys(i), "xi-api-key", l.w.adminKey, nil, &list)
	for _, k := range list.Keys {
		if strings.HasPrefix(k.Name, keyName) {
			l.send(http.MethodDelete, l.keys(i)+"/"+k.ID, "xi-api-key", l.w.adminKey, nil, nil)
		}
	}
}

// run rotates every account once and returns how long after the start each was published.
func (l *loop) run(rotate func(i int)) []time.Duration {
	took := make([]time.Duration, accounts)
	next := make(chan int)
	start := time.Now()
	var wg sync.WaitGroup
	for range concurrency {
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
	entry := l.versions(ledger)
	l.put(ledger, l.begun, entry)
	version := l.version(record)
	secret := l.create(i)
	l.send(http.MethodGet, l.w.sim.URL+"/v1/user", "xi-api-key", secret, nil, nil)
	l.send(http.MethodGet, l.keys(i), "xi-api-key", l.w.adminKey, nil, nil)
	l.put(record, map[string]any{
		"api_key": secret, "key_id": "0123456789abcdef0123456789abcdef", "key_name": "bare", "policy": fmt.Sprint(i), "service_account_user_id": account(i),
		"rotated_at": time.Now(), "previous_key_id": "0123456789abcdef0123456789abcdef", "previous_valid_until": time.Now(),
	}, version)
	l.version(record)
	l.put(ledger, l.done, entry+1)
}

// two is the least that rotation can be: create a key and write it down.
func (l *loop) two(i int) {
	secret := l.create(i)
	l.send(http.MethodPost, l.data(fmt.Sprint("least/records/", i)), "X-Vault-Token", l.w.token, map[string]any{"data": map[string]any{"api_key": secret}}, nil)
}

// keyName begins the names of the loop's keys.
const keyName = "bare "

func (l *loop) keys(i int) string {
	return l.w.sim.URL + "/v1/service-accounts/" + account(i) + "/api-keys"
}

func (l *loop) create(i int) string {
	var made struct {
		Secret string `json:"xi-api-key"`
	}
	l.send(http.MethodPost, l.keys(i), "xi-api-key", l.w.adminKey, map[string]any{"name": fmt.Sprint(keyName, i), "permissions": []string{"text_to_speech", "user_read"}}, &made)
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
