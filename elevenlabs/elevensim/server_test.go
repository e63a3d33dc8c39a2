package elevensim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

func overHTTP(t *testing.T) (*elevensim.Server, *http.Client, string) {
	t.Helper()
	s := elevensim.New(options())
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server.Client(), server.URL
}

func TestDeterminism(t *testing.T) {
	script := func(seed uint64, f elevensim.Faults) string {
		o := options()
		o.Seed = seed
		b := newUncheckedBench(t, o)
		b.set(f)
		one := b.create(plainKey)
		b.list()
		two := b.create(plainKey)
		return fmt.Sprint(one, two)
	}
	first := script(1, elevensim.Faults{})
	equal(t, "the same seed", script(1, elevensim.Faults{}), first)
	equal(t, "faults do not change ids", script(1, elevensim.Faults{Shuffle: true}), first)
	if script(2, elevensim.Faults{}) == first {
		t.Error("two seeds, one result")
	}
}

func TestHistory(t *testing.T) {
	b := newBench(t, options())
	c := b.create(plainKey)
	b.do("PATCH", keysOfA+"/"+c.ID, adminKey, `{"is_enabled":`)
	b.status(c.Secret, "/v1/user")
	b.status("sk_unknown", "/v1/user")
	b.status("", "/v1/voices")
	b.do("POST", disable, c.Secret, "")
	b.status(c.Secret, "/v1/user")
	var got []string
	for _, r := range b.History() {
		got = append(got, fmt.Sprintf("%d %s %s %s|%s|%s|%s %d %t %s", r.Seq, r.Operation, r.Method, r.Path, r.Account, r.KeyID, r.Body, r.Status, r.Applied, r.CredentialKind))
	}
	want := []string{
		"1 createAPIKey POST " + keysOfA + "|svcacc_a|ID|" + plainKey + " 200 true admin",
		"2 updateAPIKey PATCH " + keysOfA + `/ID|svcacc_a|ID|"{\"is_enabled\":" 422 false admin`,
		"3 getUser GET /v1/user||| 200 true ID",
		"4 getUser GET /v1/user||| 401 false unknown",
		"5  GET /v1/voices||| 404 false none",
		"6 disableOwnAPIKey POST /v1/workspaces/api-keys/disable|svcacc_a|ID| 200 true ID",
		"7 getUser GET /v1/user||| 401 false ID",
	}
	equal(t, "history", strings.Join(got, "\n"), strings.ReplaceAll(strings.Join(want, "\n"), "ID", c.ID))
	text, err := json.Marshal(b.History())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), c.Secret) || strings.Contains(string(text), adminKey) {
		t.Error("the history holds a credential")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	o := options()
	o.HistoryLimit = 3
	b := newBench(t, o)
	for range 5 {
		b.status(adminKey, accounts)
	}
	var seqs []uint64
	for _, r := range b.History() {
		seqs = append(seqs, r.Seq)
	}
	equalJSON(t, "remembered", seqs, "[3,4,5]")
	b.Reset()
	equal(t, "after a reset", len(b.History()), 0)
	b.status(adminKey, accounts)
	equal(t, "numbering goes on", b.last().Seq, 6)
}

func TestOnChange(t *testing.T) {
	b := newBench(t, options())
	var got []string
	b.OnChange(func(c elevensim.Change) { got = append(got, fmt.Sprintf("%s by %s: %s", c.Kind, c.By, c.Key.Name)) })
	c := b.create(plainKey)
	one := keysOfA + "/" + c.ID
	b.do("PATCH", one, adminKey, `{"is_enabled":false,"name":"m"}`)
	b.do("PATCH", one, adminKey, `{"is_enabled":"no_update"}`)
	b.do("PATCH", one, adminKey, `{"is_enabled":true}`)
	b.do("PATCH", one, adminKey, `{"is_enabled":true}`)
	b.do("POST", disable, c.Secret, "")
	b.do("DELETE", one, adminKey, "")
	id, _, err := b.AddKey("svcacc_b", elevensim.KeySpec{Name: "f"})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{b.DisableKey(id, "trial_ended"), b.EnableKey(id), b.RemoveAccount("svcacc_b")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"create by admin: n", "patch by admin: m", "disable by admin: m", "enable by admin: m", "disable by " + c.ID + ": m", "delete by admin: m",
		"create by management: f", "disable by management: f", "enable by management: f", "delete by management: f",
	}
	equal(t, "changes", strings.Join(got, "\n"), strings.Join(want, "\n"))
}

func TestMethodsRefuseWhatIsNotThere(t *testing.T) {
	s := elevensim.New(options())
	_, _, noAccount := s.AddKey("nobody", elevensim.KeySpec{})
	_, _, badIP := s.AddKey("svcacc_a", elevensim.KeySpec{AllowedIPs: []string{"x"}})
	id, _, err := s.AddKey("svcacc_a", elevensim.KeySpec{ID: "of-a-backup", Secret: "sk_of_a_backup"})
	if k, ok := s.KeyBySecret("sk_of_a_backup"); err != nil || !ok || k.ID != id || id != "of-a-backup" {
		t.Errorf("a key that was given its id and secret has others: %v (%v)", k, err)
	}
	_, _, twice := s.AddKey("svcacc_a", elevensim.KeySpec{ID: id})
	errs := []error{noAccount, badIP, twice, s.DisableKey("x", ""), s.EnableKey("x"), s.DeleteKey("x"), s.AddUsage("x", 1),
		s.RemoveAccount("nobody"), s.AddAccount(elevensim.Account{ID: "svcacc_a"})}
	if i := slices.Index(errs, nil); i >= 0 {
		t.Errorf("call %d succeeded", i+1)
	}
	if _, ok := s.KeyBySecret("x"); ok {
		t.Error("found a key that is not there")
	}
}

// The state that callers get is theirs.
func TestStateIsACopy(t *testing.T) {
	s := elevensim.New(options())
	id, secret, err := s.AddKey("svcacc_a", elevensim.KeySpec{Permissions: []string{"user_read"}})
	if err != nil {
		t.Fatal(err)
	}
	s.State()[0].Keys[0].Permissions[0] = "changed"
	k, _ := s.KeyBySecret(secret)
	equal(t, "permission", k.Permissions[0], "user_read")
	equal(t, "id", k.ID, id)
}

func TestAdminKeyCanBeDisabled(t *testing.T) {
	b := newBench(t, options())
	if err := b.DisableKey(elevensim.AdminID, ""); err != nil {
		t.Fatal(err)
	}
	equal(t, "disabled", b.do("GET", accounts, adminKey, "").code(t), "invalid_api_key")
	if err := b.EnableKey(elevensim.AdminID); err != nil {
		t.Fatal(err)
	}
	equal(t, "enabled", b.status(adminKey, accounts), 200)
}

func TestManagement(t *testing.T) {
	b := newBench(t, options())
	manage := b.Manage()
	call := func(method, path, body string, status int) string {
		t.Helper()
		w := httptest.NewRecorder()
		manage.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/_sim/"+path, strings.NewReader(body)))
		equal(t, method+" "+path+" "+body, w.Code, status)
		return w.Body.String()
	}
	call("POST", "accounts", `{"id":"svcacc_c","name":"C"}`, 200)
	var key struct{ ID, Secret string }
	if err := json.Unmarshal([]byte(call("POST", "accounts/svcacc_c/keys", `{"name":"f","permissions":["user_read"],"allowed_ips":["127.0.0.1"],"character_limit":3}`, 200)), &key); err != nil {
		t.Fatal(err)
	}
	equal(t, "the key works", b.status(key.Secret, "/v1/user"), 200)
	call("POST", "keys/"+key.ID+"/usage", `{"credits":3}`, 200)
	call("POST", "keys/"+key.ID+"/disable", `{"reason":"exposed_publicly"}`, 200)
	var state []elevensim.AccountState
	if err := json.Unmarshal([]byte(call("GET", "state", "", 200)), &state); err != nil {
		t.Fatal(err)
	}
	k := state[2].Keys[0]
	equal(t, "state", fmt.Sprintf("%s %t %d %d %t %s %s", k.Name, k.Secret == key.Secret, k.CharacterCount, *k.CharacterLimit, k.Disabled, k.DisableReason, k.AllowedIPs),
		"f true 3 3 true exposed_publicly [127.0.0.1/32]")
	call("POST", "keys/"+key.ID+"/enable", "", 200)
	call("DELETE", "keys/"+key.ID, "", 200)
	call("DELETE", "keys/"+key.ID, "", 400)
	call("DELETE", "accounts/svcacc_c", "", 200)
	equal(t, "accounts", len(b.State()), 2)

	const faults = `{"latency":{"min":"1ms","max":"2ms"},"rules":[{"kind":"delay","duration":"1.5s","nth":2}],"key_delay":"3s","shuffle":true}`
	call("PUT", "faults", faults, 200)
	equalJSON(t, "faults", json.RawMessage(call("GET", "faults", "", 200)), faults)
	call("PUT", "faults", `{"latncy":{}}`, 400)
	call("PUT", "faults", `{"rules":[{"kind":"x"}]}`, 400)
	call("PUT", "faults", `{"key_delay":3}`, 400)
	equalJSON(t, "faults after refused ones", b.Faults(), faults)
	call("PUT", "faults", `{}`, 200)
	equalJSON(t, "no faults", b.Faults(), `{}`)
	equal(t, "history", strings.Contains(call("GET", "history", "", 200), `"operation":"getUser"`), true)
	call("POST", "reset", "", 200)
	equalJSON(t, "history after a reset", json.RawMessage(call("GET", "history", "", 200)), `[]`)
	call("GET", "nothing", "", 404)
}

// Every method at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	b := newBench(t, options())
	b.set(elevensim.Faults{Shuffle: true, UsagePerRequest: 1})
	b.OnChange(func(elevensim.Change) {})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id, secret, err := b.AddKey("svcacc_a", elevensim.KeySpec{Name: fmt.Sprint(i)})
			if err != nil {
				t.Error(err)
				return
			}
			for _, r := range []*http.Request{
				request(t, "GET", accounts, adminKey, ""), request(t, "POST", keysOfA, adminKey, plainKey), request(t, "GET", "/v1/user", secret, ""),
				request(t, "PATCH", keysOfA+"/"+id, adminKey, `{"permissions":["user_read"]}`), request(t, "DELETE", keysOfA+"/"+id, adminKey, ""),
			} {
				resp, err := b.client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
				equal(t, r.Method+" "+r.URL.Path, resp.StatusCode, 200)
			}
			b.State()
			b.History()
		})
	}
	wg.Wait()
	equal(t, "requests", len(b.History()), 40)
	equal(t, "keys left", b.living(), 8)
}
