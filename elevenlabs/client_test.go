package elevenlabs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

const adminKey = "sk_admin_0123456789abcdef"

func admin(context.Context) (secret.Secret, error) { return secret.New(adminKey), nil }

func newClient(t *testing.T, base string, change func(*Options)) *Client {
	t.Helper()
	o := Options{BaseURL: base, Credential: admin}
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if own, ok := c.opt.Transport.(*http.Transport); ok {
		t.Cleanup(own.CloseIdleConnections)
	}
	return c
}

// request is what a server saw.
type request struct {
	method, path, body string
	header             http.Header
}

// remote is a server that answers everything alike and remembers what it was asked.
type remote struct {
	*httptest.Server
	mu   sync.Mutex
	seen []request
}

func newRemote(t *testing.T, status int, header http.Header, body string) *remote {
	t.Helper()
	r := &remote{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.record(req)
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *remote) record(req *http.Request) {
	text, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, request{req.Method, req.URL.EscapedPath(), string(text), req.Header.Clone()})
}

func (r *remote) requests() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]request(nil), r.seen...)
}

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestRequestsOnTheWire(t *testing.T) {
	limited := Settings{Permissions: Permissions{Names: []string{"voices_read", "text_to_speech", "voices_read"}},
		AllowedIPs: prefixes("203.0.113.0/24", "2001:db8::7/128", "10.0.0.1/32", "::ffff:10.0.0.1/128"), CharacterLimit: new(int64(0))}
	open := Settings{Permissions: Permissions{All: true}}
	capped, cleared := open, open
	capped.Optional = Optional{TTSConcurrency: Some(int64(0)), DubbingConcurrency: Some(int64(7)), MusicConcurrency: None[int64](), ThirdPartyDisable: Some(false)}
	cleared.Optional = Optional{TTSConcurrency: None[int64](), DubbingConcurrency: None[int64](), MusicConcurrency: None[int64](), ThirdPartyDisable: None[bool]()}
	for name, tc := range map[string]struct {
		do                 func(context.Context, *Client) error
		answer             string
		method, path, body string
	}{
		"list": {
			do:     func(ctx context.Context, c *Client) error { _, err := c.ServiceAccounts(ctx); return err },
			answer: `{"service-accounts":[]}`, method: "GET", path: "/v1/service-accounts",
		},
		"keys": {
			do:     func(ctx context.Context, c *Client) error { _, err := c.Keys(ctx, "svc%acc?"); return err },
			answer: `{"api-keys":[]}`, method: "GET", path: "/v1/service-accounts/svc%25acc%3F/api-keys",
		},
		"create with everything": {
			do: func(ctx context.Context, c *Client) error {
				_, err := c.CreateKey(ctx, "a", "n", limited)
				return err
			},
			answer: `{"xi-api-key":"sk_new_key","key_id":"k"}`, method: "POST", path: "/v1/service-accounts/a/api-keys",
			body: `{"name":"n","permissions":["text_to_speech","voices_read"],"character_limit":0,` +
				`"allowed_ips":["10.0.0.1/32","203.0.113.0/24","2001:db8::7/128"]}`,
		},
		"create with nothing": {
			do:     func(ctx context.Context, c *Client) error { _, err := c.CreateKey(ctx, "a", "n", open); return err },
			answer: `{"xi-api-key":"sk_new_key"}`, method: "POST", path: "/v1/service-accounts/a/api-keys",
			body: `{"name":"n","permissions":"all"}`,
		},
		"create with optional settings": {
			do: func(ctx context.Context, c *Client) error {
				_, err := c.CreateKey(ctx, "a", "n", capped)
				return err
			},
			answer: `{"xi-api-key":"sk_new_key"}`, method: "POST", path: "/v1/service-accounts/a/api-keys",
			body: `{"name":"n","permissions":"all","tts_concurrency_limit":0,"dubbing_concurrency_limit":7,"third_party_disable_allowed":false}`,
		},
		"create with optional settings cleared": {
			do: func(ctx context.Context, c *Client) error {
				_, err := c.CreateKey(ctx, "a", "n", cleared)
				return err
			},
			answer: `{"xi-api-key":"sk_new_key"}`, method: "POST", path: "/v1/service-accounts/a/api-keys",
			body: `{"name":"n","permissions":"all"}`,
		},
		"patch to optional settings": {
			do: func(ctx context.Context, c *Client) error {
				return c.UpdateKey(ctx, "a", "k", Update{Name: "n", Settings: &capped})
			},
			answer: `{}`, method: "PATCH", path: "/v1/service-accounts/a/api-keys/k",
			body: `{"is_enabled":"no_update","name":"n","permissions":"all","character_limit":"clear","allowed_ips":"clear",` +
				`"tts_concurrency_limit":0,"dubbing_concurrency_limit":7,"music_concurrency_limit":"clear","third_party_disable_allowed":false}`,
		},
		"create without permissions": {
			do: func(ctx context.Context, c *Client) error {
				_, err := c.CreateKey(ctx, "a", "n", Settings{})
				return err
			},
			answer: `{"xi-api-key":"sk_new_key"}`, method: "POST", path: "/v1/service-accounts/a/api-keys",
			body: `{"name":"n","permissions":[]}`,
		},
		"disable": {
			do: func(ctx context.Context, c *Client) error {
				return c.UpdateKey(ctx, "a", "k", Update{Name: "n", Enabled: new(false)})
			},
			answer: `null`, method: "PATCH", path: "/v1/service-accounts/a/api-keys/k",
			body: `{"is_enabled":false,"name":"n","permissions":"no_update"}`,
		},
		"patch to limits": {
			do: func(ctx context.Context, c *Client) error {
				return c.UpdateKey(ctx, "a", "k", Update{Name: "n", Settings: &limited})
			},
			answer: `{}`, method: "PATCH", path: "/v1/service-accounts/a/api-keys/k",
			body: `{"is_enabled":"no_update","name":"n","permissions":["text_to_speech","voices_read"],"character_limit":0,` +
				`"allowed_ips":["10.0.0.1/32","203.0.113.0/24","2001:db8::7/128"]}`,
		},
		"patch to none": {
			do: func(ctx context.Context, c *Client) error {
				return c.UpdateKey(ctx, "a", "k", Update{Name: "n", Settings: &open})
			},
			answer: `{}`, method: "PATCH", path: "/v1/service-accounts/a/api-keys/k",
			body: `{"is_enabled":"no_update","name":"n","permissions":"all","character_limit":"clear","allowed_ips":"clear"}`,
		},
		"delete": {
			do:     func(ctx context.Context, c *Client) error { return c.DeleteKey(ctx, "a", "k&b") },
			answer: `{"status":"ok"}`, method: "DELETE", path: "/v1/service-accounts/a/api-keys/k&b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t, 200, nil, tc.answer)
			if err := tc.do(t.Context(), newClient(t, r.URL+"/", nil)); err != nil {
				t.Fatal(err)
			}
			seen := r.requests()
			if len(seen) != 1 {
				t.Fatalf("%d requests", len(seen))
			}
			got := seen[0]
			if got.method != tc.method || got.path != tc.path || got.body != tc.body {
				t.Errorf("sent %s %s %s\nwant %s %s %s", got.method, got.path, got.body, tc.method, tc.path, tc.body)
			}
			if got.header.Get("xi-api-key") != adminKey || got.header.Get("User-Agent") != "rekeyd" {
				t.Errorf("headers: %v", got.header)
			}
			if wantType := got.body != ""; (got.header.Get("Content-Type") == "application/json") != wantType {
				t.Errorf("content type %q of body %q", got.header.Get("Content-Type"), got.body)
			}
		})
	}
}

func TestCredentialIsReadForEveryRequest(t *testing.T) {
	r := newRemote(t, 200, nil, `{"service-accounts":[]}`)
	n := 0
	c := newClient(t, r.URL, func(o *Options) {
		o.Credential = func(context.Context) (secret.Secret, error) {
			n++
			switch n {
			case 1:
				return secret.New("sk_first"), nil
			case 2:
				return secret.New("sk_second"), nil
			case 3:
				return secret.New("sk_with\nnewline"), nil
			case 4:
				return secret.Secret{}, nil
			}
			return secret.Secret{}, errors.New("no such file")
		}
	})
	for i := range 5 {
		_, err := c.ServiceAccounts(t.Context())
		if (err == nil) != (i < 2) {
			t.Errorf("request %d: %v", i, err)
		}
		if i >= 2 && (MaybeApplied(err) || errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "newline")) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	seen := r.requests()
	if len(seen) != 2 || seen[0].header.Get("xi-api-key") != "sk_first" || seen[1].header.Get("xi-api-key") != "sk_second" {
		t.Errorf("sent %v", seen)
	}
}

func TestRefusedBeforeSending(t *testing.T) {
	r := newRemote(t, 200, nil, `{"api-keys":[],"xi-api-key":"sk_new_key"}`)
	c := newClient(t, r.URL, nil)
	ctx := t.Context()
	for _, id := range []string{"", ".", "..", "a/b", "../../x", "a..b", `a\b`, "a\nb", "ключ"} {
		_, keysErr := c.Keys(ctx, id)
		_, createErr := c.CreateKey(ctx, id, "n", Settings{})
		for _, err := range []error{keysErr, createErr, c.DeleteKey(ctx, id, "k"), c.DeleteKey(ctx, "a", id),
			c.UpdateKey(ctx, "a", id, Update{Name: "n", Enabled: new(true)})} {
			if !errors.Is(err, ErrInvalidRequest) || MaybeApplied(err) {
				t.Errorf("id %q: %v", id, err)
			}
		}
	}
	for name, u := range map[string]Update{
		"no name":       {Enabled: new(true)},
		"nothing":       {Name: "n"},
		"both at once":  {Name: "n", Enabled: new(true), Settings: &Settings{}},
		"nothing named": {},
	} {
		if err := c.UpdateKey(ctx, "a", "k", u); !errors.Is(err, ErrInvalidRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if life, err := c.Probe(ctx, secret.Secret{}); life != Inconclusive || err == nil {
		t.Errorf("probing nothing: %v %v", life, err)
	}
	if n := len(r.requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestNewRefusesBadOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"scheme":         {BaseURL: "ftp://127.0.0.1"},
		"no host":        {BaseURL: "https://"},
		"only a port":    {BaseURL: "https://:443"},
		"opaque":         {BaseURL: "http:127.0.0.1"},
		"relative":       {BaseURL: "api.example.com"},
		"empty":          {},
		"user info":      {BaseURL: "https://user:hunter2hunter2@127.0.0.1"},
		"bad escape":     {BaseURL: "https://user:hunter2hunter2%zz@127.0.0.1"},
		"query":          {BaseURL: "https://127.0.0.1/?a=b"},
		"empty query":    {BaseURL: "https://127.0.0.1?"},
		"fragment":       {BaseURL: "https://127.0.0.1/#x"},
		"empty fragment": {BaseURL: "https://127.0.0.1#"},
		"rate":           {BaseURL: "https://127.0.0.1", Rate: -1},
		"timeout":        {BaseURL: "https://127.0.0.1", Timeout: -1},
		"connections":    {BaseURL: "https://127.0.0.1", MaxConns: -1},
	} {
		o.Credential = admin
		if _, err := New(o); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{BaseURL: "https://127.0.0.1"}); err == nil {
		t.Error("no credential: accepted")
	}
}

const listing = `{"service-accounts":[
 {"service_account_user_id":"svc_a","name":"A","created_at_unix":1,"default_sharing_groups":[],"api-keys":[
  {"name":"n1","hint":"…abc","key_id":"k1","service_account_user_id":"svc_a","hashed_xi_api_key":"h","created_at_unix":1700000000,
   "is_disabled":true,"disable_reason":"exposed_publicly","character_limit":5,"character_count":7,"platform_limits":{"x":null},
   "permissions":["text_to_speech","from_the_future"],"allowed_ips":["203.0.113.9","10.1.2.3/8","2001:db8::7","::ffff:192.0.2.1"]},
  {"name":"n2","hint":"","key_id":"k2","permissions":null,"allowed_ips":null,"character_limit":null,"character_count":null,
   "created_at_unix":null,"disable_reason":null}]},
 {"service_account_user_id":"svc_b","name":"B","api-keys":[]}],"next":{"a":[1]}}`

func TestServiceAccounts(t *testing.T) {
	got, err := newClient(t, newRemote(t, 200, nil, listing).URL, nil).ServiceAccounts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []ServiceAccount{{ID: "svc_a", Name: "A", Keys: []Key{
		{ID: "k1", Name: "n1", Hint: "…abc", ServiceAccount: "svc_a", CreatedAt: time.Unix(1700000000, 0).UTC(), Disabled: true,
			DisableReason: "exposed_publicly", CharacterCount: 7, Settings: Settings{CharacterLimit: new(int64(5)),
				Permissions: Permissions{Names: []string{"text_to_speech", "from_the_future"}},
				AllowedIPs:  prefixes("203.0.113.9/32", "10.0.0.0/8", "2001:db8::7/128", "192.0.2.1/32")}},
		{ID: "k2", Name: "n2", ServiceAccount: "svc_a", Settings: Settings{Permissions: Permissions{All: true}}},
	}}, {ID: "svc_b", Name: "B", Keys: []Key{}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestListingsThatCannotBeBelieved(t *testing.T) {
	key := func(fields string) string { return `{"api-keys":[{` + fields + `}]}` }
	for name, body := range map[string]string{
		"empty body": ``, "null": `null`, "empty object": `{}`, "list": `[]`, "HTML": `<html></html>`,
		"null list": `{"api-keys":null}`, "underscores": `{"api_keys":[]}`, "truncated": `{"api-keys":[`,
		"trailing garbage": `{"api-keys":[]}{`, "object for list": `{"api-keys":{}}`,
		"null key": `{"api-keys":[null]}`, "no id": key(`"name":"n"`), "empty id": key(`"key_id":""`), "null id": key(`"key_id":null`),
		"another account": key(`"key_id":"k","service_account_user_id":"svc_b"`),
		"bad address":     key(`"key_id":"k","allowed_ips":["10.0.0.1","somewhere"]`),
		"zone":            key(`"key_id":"k","allowed_ips":["fe80::1%eth0"]`),
		"not an address":  key(`"key_id":"k","allowed_ips":[7]`),
		"permissions":     key(`"key_id":"k","permissions":{"a":1}`),
		"permission":      key(`"key_id":"k","permissions":[1]`),
		"huge number":     key(`"key_id":"k","character_limit":1e999`),
		"long number":     key(`"key_id":"k","character_count":` + strings.Repeat("9", 5000)),
		"deep":            `{"api-keys":` + strings.Repeat("[", 100000),
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, newRemote(t, 200, nil, body).URL, nil)
			if keys, err := c.Keys(t.Context(), "svc_a"); !errors.Is(err, ErrBadAnswer) || keys != nil || MaybeApplied(err) || len([]rune(err.Error())) > 400 {
				t.Errorf("keys: %v, %v", keys, err)
			}
			body := strings.Replace(body, "api-keys", "service-accounts", 1)
			c = newClient(t, newRemote(t, 200, nil, body).URL, nil)
			if accounts, err := c.ServiceAccounts(t.Context()); !errors.Is(err, ErrBadAnswer) || accounts != nil {
				t.Errorf("accounts: %v, %v", accounts, err)
			}
		})
	}
	for name, body := range map[string]string{
		"account without id":   `{"service-accounts":[{"name":"n","api-keys":[]}]}`,
		"account without keys": `{"service-accounts":[{"service_account_user_id":"svc_a"}]}`,
		"account, null keys":   `{"service-accounts":[{"service_account_user_id":"svc_a","api-keys":null}]}`,
		"key without id":       `{"service-accounts":[{"service_account_user_id":"svc_a","api-keys":[{}]}]}`,
	} {
		if list, err := decodeAccounts([]byte(body), new(accountList)); err == nil {
			t.Errorf("%s: %v", name, list)
		}
	}
}

func TestCreatedKey(t *testing.T) {
	for name, tc := range map[string]struct {
		body       string
		id, secret string
		bad        bool
	}{
		"both":        {body: `{"xi-api-key":"sk_new_key","key_id":"k","more":1}`, id: "k", secret: "sk_new_key"},
		"no id":       {body: `{"xi-api-key":"sk_new_key"}`, secret: "sk_new_key"},
		"null id":     {body: `{"xi-api-key":"sk_new_key","key_id":null}`, secret: "sk_new_key"},
		"no secret":   {body: `{"key_id":"k"}`, id: "k", bad: true},
		"null secret": {body: `{"xi-api-key":null,"key_id":"k"}`, id: "k", bad: true},
		"two lines":   {body: `{"xi-api-key":"sk_new_key\nX=1","key_id":"k"}`, id: "k", bad: true},
		"underscores": {body: `{"xi_api_key":"sk_new_key","key_id":"k"}`, id: "k", bad: true},
		"truncated":   {body: `{"xi-api-key":"sk_new_k`, bad: true},
		"empty":       {body: ``, bad: true},
		"HTML":        {body: `<html>`, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t, 200, nil, tc.body)
			key, err := newClient(t, r.URL, nil).CreateKey(t.Context(), "a", "n", Settings{})
			if key.ID != tc.id || key.Secret.Reveal() != tc.secret {
				t.Errorf("got id %q, secret %q", key.ID, key.Secret.Reveal())
			}
			if errors.Is(err, ErrBadAnswer) != tc.bad || MaybeApplied(err) != tc.bad || (err != nil) != tc.bad {
				t.Errorf("error %v", err)
			}
			if len(r.requests()) != 1 {
				t.Errorf("sent %d times", len(r.requests()))
			}
		})
	}
}

func TestProbe(t *testing.T) {
	detail := func(code string) string { return `{"detail":{"code":"` + code + `","message":"m"}}` }
	for name, tc := range map[string]struct {
		status int
		body   string
		life   ProbeResult
	}{
		"accepted":              {200, `{"user_id":"u"}`, Valid},
		"accepted by a portal":  {200, `<html>`, Inconclusive},
		"missing permission":    {401, detail("missing_permissions"), Valid},
		"without credits":       {401, detail("quota_exceeded"), Valid},
		"401 for another cause": {401, detail("api_key_not_ready"), Inconclusive},
		"legacy permission":     {401, `{"detail":{"status":"missing_permissions","message":"m"}}`, Valid},
		"forbidden":             {403, detail("ip_not_allowed"), Valid},
		"dead":                  {401, detail("invalid_api_key"), Invalid},
		"legacy dead":           {401, `{"detail":{"status":"invalid_api_key"}}`, Invalid},
		"dead by one of two":    {401, `{"detail":{"code":"unauthorized","status":"invalid_api_key"}}`, Invalid},
		"403 invalid key":       {403, detail("invalid_api_key"), Inconclusive},
		"401 without code":      {401, `{"detail":{"message":"Invalid API key"}}`, Inconclusive},
		"401 with a string":     {401, `{"detail":"Unauthorized"}`, Inconclusive},
		"401 without detail":    {401, `{"error":"x"}`, Inconclusive},
		"403 of a proxy":        {403, `<html>denied</html>`, Inconclusive},
		"redirect to a login":   {302, ``, Inconclusive},
		"not found":             {404, detail("not_found"), Inconclusive},
		"rate limit":            {429, detail("rate_limit_exceeded"), Inconclusive},
		"server error":          {500, detail("invalid_api_key"), Inconclusive},
		"bad gateway":           {502, `<html>`, Inconclusive},
		"validation is no life": {422, `{"detail":[{"loc":["a"],"msg":"m","type":"t"}]}`, Inconclusive},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t, tc.status, nil, tc.body)
			life, err := newClient(t, r.URL, nil).Probe(t.Context(), secret.New("sk_probed_key"))
			if life != tc.life || (err == nil) != (tc.life != Inconclusive) || MaybeApplied(err) {
				t.Errorf("life %v, error %v", life, err)
			}
			seen := r.requests()
			if len(seen) != 1 || seen[0].path != "/v1/user" || seen[0].header.Get("xi-api-key") != "sk_probed_key" {
				t.Errorf("sent %v", seen)
			}
		})
	}
	if life, err := newClient(t, closedPort(t), nil).Probe(t.Context(), secret.New("sk_probed_key")); life != Inconclusive || !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody there: %v %v", life, err)
	}
}

func TestObserve(t *testing.T) {
	var seen []string
	observe := func(o *Options) {
		o.Observe = func(operation, code string, d time.Duration) {
			if d <= 0 {
				t.Errorf("%s took %v", operation, d)
			}
			seen = append(seen, operation+" "+code)
		}
	}
	c := newClient(t, newRemote(t, 404, nil, `{"detail":{"code":"not_found"}}`).URL, observe)
	ctx := t.Context()
	_, _ = c.ServiceAccounts(ctx)
	_, _ = c.Keys(ctx, "a")
	_, _ = c.CreateKey(ctx, "a", "n", Settings{})
	_ = c.UpdateKey(ctx, "a", "k", Update{Name: "n", Enabled: new(true)})
	_ = c.DeleteKey(ctx, "a", "k")
	_, _ = c.Probe(ctx, secret.New("sk_probed_key"))
	_, _ = newClient(t, closedPort(t), observe).ServiceAccounts(ctx)
	if got, want := strings.Join(seen, ", "), "list 404, keys 404, create 404, update 404, delete 404, probe 404, list error"; got != want {
		t.Errorf("observed %s\nwant     %s", got, want)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.WriteString(z, `{"service-accounts":[`)
	zeros := bytes.Repeat([]byte(" "), 1<<20)
	for range 64 {
		_, _ = z.Write(zeros)
	}
	_, _ = io.WriteString(z, `]}`)
	_ = z.Close()
	endless := func(w http.ResponseWriter, status int) {
		w.WriteHeader(status)
		for {
			if _, err := w.Write(zeros); err != nil {
				return
			}
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"gzip bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		},
		"endless":         func(w http.ResponseWriter, _ *http.Request) { endless(w, 200) },
		"endless refusal": func(w http.ResponseWriter, _ *http.Request) { endless(w, 404) },
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(handler)
			defer s.Close()
			c := newClient(t, s.URL, nil)
			if _, err := c.ServiceAccounts(t.Context()); !errors.Is(err, ErrBadAnswer) {
				t.Errorf("list: %v", err)
			}
			if _, err := c.CreateKey(t.Context(), "a", "n", Settings{}); !errors.Is(err, ErrBadAnswer) || !MaybeApplied(err) {
				t.Errorf("create: %v", err)
			}
		})
	}
}

func TestCompressedListing(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, listing)
		_ = z.Close()
	}))
	defer s.Close()
	if accounts, err := newClient(t, s.URL, nil).ServiceAccounts(t.Context()); err != nil || len(accounts) != 2 {
		t.Errorf("%v, %v", accounts, err)
	}
}
