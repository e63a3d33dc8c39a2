package elevensim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

const (
	adminKey = "sk_admin"
	host     = "https://api.elevenlabs.io"
	accounts = "/v1/service-accounts"
	keysOfA  = accounts + "/svcacc_a/api-keys"
	disable  = "/v1/workspaces/api-keys/disable?api_key_name=self"
)

func options() elevensim.Options {
	return elevensim.Options{AdminKey: adminKey, Seed: 7, Accounts: []elevensim.Account{{"svcacc_a", "A"}, {"svcacc_b", "B"}}}
}

// bench is a simulator with a client that speaks to it in process.
type bench struct {
	*elevensim.Server
	t      testing.TB
	client *http.Client
}

// newBench checks every request and answer against openapi.yaml.
func newBench(t testing.TB, o elevensim.Options) *bench {
	b := newUncheckedBench(t, o)
	b.client.Transport = newContract(t, b.client.Transport)
	return b
}

// newUncheckedBench is for faults that break the contract.
func newUncheckedBench(t testing.TB, o elevensim.Options) *bench {
	s := elevensim.New(o)
	return &bench{s, t, &http.Client{Transport: elevensim.Transport(s)}}
}

func (b *bench) set(f elevensim.Faults) {
	b.t.Helper()
	if err := b.SetFaults(f); err != nil {
		b.t.Fatal(err)
	}
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("answer %d %s: %v", r.status, r.body, err)
	}
}

// code is detail.code of an error.
func (r reply) code(t testing.TB) string {
	t.Helper()
	var e struct{ Detail struct{ Code string } }
	r.into(t, &e)
	return e.Detail.Code
}

func request(t testing.TB, method, path, key, body string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = bytes.NewReader([]byte(body))
	}
	r, err := http.NewRequestWithContext(context.Background(), method, host+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("xi-api-key", key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (b *bench) try(method, path, key, body string) (reply, error) {
	b.t.Helper()
	resp, err := b.client.Do(request(b.t, method, path, key, body))
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, text}, err
}

func (b *bench) do(method, path, key, body string) reply {
	b.t.Helper()
	r, err := b.try(method, path, key, body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

type created struct {
	Secret string `json:"xi-api-key"`
	ID     string `json:"key_id"`
}

func (b *bench) create(body string) created {
	b.t.Helper()
	r := b.do(http.MethodPost, keysOfA, adminKey, body)
	if r.status != http.StatusOK {
		b.t.Fatalf("create: %d %s", r.status, r.body)
	}
	var c created
	r.into(b.t, &c)
	return c
}

// list returns the keys of svcacc_a as the API shows them.
func (b *bench) list() []map[string]any {
	b.t.Helper()
	var l struct {
		Keys []map[string]any `json:"api-keys"`
	}
	b.do(http.MethodGet, keysOfA, adminKey, "").into(b.t, &l)
	return l.Keys
}

func (b *bench) status(key, path string) int {
	b.t.Helper()
	return b.do(http.MethodGet, path, key, "").status
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// equalJSON compares what two values marshal to.
func equalJSON(t testing.TB, what string, got any, want string) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := sorted(t, text), sorted(t, []byte(want)); a != b {
		t.Errorf("%s:\n got %s\nwant %s", what, a, b)
	}
}

// sorted returns JSON with its fields in order.
func sorted(t testing.TB, text []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// contract is a transport that holds both sides to openapi.yaml: an answer must match it, and a request that does
// not must be refused.
type contract struct {
	t      testing.TB
	next   http.RoundTripper
	router routers.Router
}

func newContract(t testing.TB, next http.RoundTripper) *contract {
	t.Helper()
	data, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		t.Fatal(err)
	}
	router, err := legacy.NewRouter(doc, openapi3.IsOpenAPI31OrLater())
	if err != nil {
		t.Fatal(err)
	}
	return &contract{t, next, router}
}

func (c *contract) RoundTrip(r *http.Request) (*http.Response, error) {
	sent, passed := r.Clone(r.Context()), r.Clone(r.Context())
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		_ = r.Body.Close()
		sent.Body, passed.Body = io.NopCloser(bytes.NewReader(body)), io.NopCloser(bytes.NewReader(body))
	}
	resp, err := c.next.RoundTrip(passed)
	if err != nil {
		return nil, err
	}
	badRequest, badAnswer := c.check(sent, resp)
	if badRequest != nil && resp.StatusCode < 400 {
		c.t.Errorf("%s %s was answered %d, but the contract forbids it: %v", r.Method, r.URL, resp.StatusCode, badRequest)
	}
	if badAnswer != nil {
		c.t.Errorf("%s %s: the answer breaks the contract: %v", r.Method, r.URL, badAnswer)
	}
	return resp, nil
}

// check leaves the answer's body readable.
func (c *contract) check(r *http.Request, resp *http.Response) (badRequest, badAnswer error) {
	route, params, err := c.router.FindRoute(r)
	if err != nil {
		return err, nil
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	badRequest = openapi3filter.ValidateRequest(r.Context(), in)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return badRequest, err
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header}
	badAnswer = openapi3filter.ValidateResponse(r.Context(), out.SetBodyBytes(body))
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return badRequest, badAnswer
}
