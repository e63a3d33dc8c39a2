package memkv_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// operation is one request. The token is the root token unless it says otherwise.
type operation struct{ method, path, body string }

// story is run against both, from top to bottom: what it finds depends on what it did.
var story = []operation{
	{"GET", "kv/data/a", ""},
	{"GET", "kv/metadata/a", ""},
	{"LIST", "kv/metadata/", ""},
	{"LIST", "kv/metadata", ""},
	{"DELETE", "kv/data/a", ""},
	{"DELETE", "kv/metadata/a", ""},
	{"PUT", "kv/undelete/a", `{"versions":[1]}`},
	{"PUT", "kv/destroy/a", `{"versions":[1]}`},

	{"PUT", "kv/data/a", `{"options":{"cas":1},"data":{"x":1}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":0},"data":{"x":1,"u":"é<>&\u2028","n":null,"o":{"l":[1,"2",{}]}}}`},
	{"GET", "kv/data/a", ""},
	{"GET", "kv/metadata/a", ""},
	{"PUT", "kv/data/a", `{"options":{"cas":0},"data":{"x":1}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":2},"data":{"x":1}}`},
	{"POST", "kv/data/a", `{"options":{"cas":1},"data":{"x":12345678901234567890.5,"y":9007199254740993}}`},
	{"GET", "kv/data/a", ""},
	{"GET", "kv/data/a?version=1", ""},
	{"GET", "kv/data/a?version=0", ""},
	{"GET", "kv/data/a?version=-1", ""},
	{"GET", "kv/data/a?version=9", ""},

	// Check-and-set as it may be written.
	{"PUT", "kv/data/a", `{"options":{"cas":"2"},"data":{"x":3}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":"x"},"data":{"x":3}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":-1},"data":{"x":3}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":3.5},"data":{"x":3}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":null},"data":{"x":3}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":""},"data":{"x":3}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":true},"data":{"x":3}}`},
	{"PUT", "kv/data/a", `{"options":{},"data":{"x":4}}`},
	{"PUT", "kv/data/a", `{"options":null,"data":{"x":5}}`},
	{"PUT", "kv/data/a", `{"data":{"x":6}}`},

	// Data as it may be written.
	{"PUT", "kv/data/a", `{"options":{"cas":6}}`},
	{"PUT", "kv/data/a", `{}`},
	{"PUT", "kv/data/a", `{"options":{"cas":99},"data":"x"}`},
	{"PUT", "kv/data/a", `{"options":{"cas":99},"data":1}`},
	{"PUT", "kv/data/a", `{"options":{"cas":6},"data":{}}`},
	{"GET", "kv/data/a", ""},
	{"PUT", "kv/data/a", `{"options":{"cas":7},"data":null}`},
	{"GET", "kv/data/a", ""},

	// Deleted, undeleted, destroyed.
	{"DELETE", "kv/data/a", ""},
	{"GET", "kv/data/a", ""},
	{"GET", "kv/metadata/a", ""},
	{"LIST", "kv/metadata", ""},
	{"DELETE", "kv/data/a", ""},
	{"PUT", "kv/data/a", `{"options":{"cas":0},"data":{"x":9}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":7},"data":{"x":9}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":8},"data":{"x":9}}`},
	{"GET", "kv/metadata/a", ""},
	{"PUT", "kv/undelete/a", `{"versions":[8,77]}`},
	{"GET", "kv/data/a?version=8", ""},
	{"GET", "kv/metadata/a", ""},
	{"PUT", "kv/delete/a", `{"versions":[1,8,77]}`},
	{"GET", "kv/data/a?version=1", ""},
	{"GET", "kv/metadata/a", ""},
	{"PUT", "kv/destroy/a", `{"versions":[2,9,77]}`},
	{"GET", "kv/data/a", ""},
	{"GET", "kv/data/a?version=2", ""},
	{"GET", "kv/metadata/a", ""},
	{"PUT", "kv/undelete/a", `{"versions":[9]}`},
	{"PUT", "kv/destroy/a", `{"versions":[8]}`},
	{"GET", "kv/data/a?version=8", ""},
	{"DELETE", "kv/data/a", ""},
	{"GET", "kv/metadata/a", ""},
	{"PUT", "kv/delete/a", `{"versions":[]}`},
	{"PUT", "kv/undelete/a", `{"versions":[]}`},
	{"PUT", "kv/destroy/a", `{}`},
	{"PUT", "kv/data/a", `{"options":{"cas":9},"data":{"x":10}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":10},"data":{"x":11}}`}, // the first version leaves the ten that are kept
	{"GET", "kv/data/a?version=1", ""},
	{"GET", "kv/metadata/a", ""},

	// max_versions and cas_required.
	{"GET", "kv/config", ""},
	{"PUT", "kv/config", `{"max_versions":2}`},
	{"PUT", "kv/data/a", `{"options":{"cas":11},"data":{"x":12}}`},
	{"GET", "kv/metadata/a", ""},
	{"GET", "kv/data/a?version=10", ""},
	{"PUT", "kv/config", `{"max_versions":1,"cas_required":true}`},
	{"PUT", "kv/data/a", `{"data":{"x":13}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":12},"data":{"x":13}}`},
	{"GET", "kv/metadata/a", ""},
	{"GET", "kv/config", ""},
	{"DELETE", "kv/metadata/a", ""},
	{"GET", "kv/data/a", ""},
	{"GET", "kv/metadata/a", ""},
	{"PUT", "kv/data/a", `{"options":{"cas":13},"data":{"x":1}}`},
	{"PUT", "kv/data/a", `{"options":{"cas":0},"data":{"x":1}}`},

	// Names.
	{"PUT", "kv/data/b/c", `{"options":{"cas":0},"data":{}}`},
	{"PUT", "kv/data/b/d/e", `{"options":{"cas":0},"data":{}}`},
	{"PUT", "kv/data/b/d", `{"options":{"cas":0},"data":{}}`},
	{"PUT", "kv/data/odd%20%C3%A6%3F%23%25%2B", `{"options":{"cas":0},"data":{"odd":true}}`},
	{"GET", "kv/data/odd%20%C3%A6%3F%23%25%2B", ""},
	{"LIST", "kv/metadata", ""},
	{"LIST", "kv/metadata/b", ""},
	{"LIST", "kv/metadata/b/", ""},
	{"GET", "kv/metadata/b/d?list=true", ""},
	{"LIST", "kv/metadata/b/c", ""},
	{"GET", "team/kv/data/a", ""},
	{"PUT", "team/kv/data/a", `{"options":{"cas":0},"data":{"in":"team"}}`},
	{"GET", "team/kv/data/a", ""},

	// Mounts, rights, tokens.
	{"GET", "nowhere/data/a", ""},
	{"PUT", "nowhere/data/a", `{"options":{"cas":0},"data":{}}`},
	{"LIST", "nowhere/metadata/a", ""},
	{"GET", "sys/internal/ui/mounts/kv", ""},
	{"GET", "sys/internal/ui/mounts/kv/below", ""},
	{"GET", "sys/internal/ui/mounts/team/kv", ""},
	{"GET", "sys/internal/ui/mounts/nowhere", ""},
	{"PUT", "sys/capabilities-self", `{"paths":["kv/data/a","nowhere/data/a"]}`},
	{"GET", "auth/token/lookup-self", ""},
	{"PUT", "auth/token/renew-self", `{}`},
	{"AS bad GET", "kv/data/a", ""},
	{"AS bad PUT", "kv/data/a", `{"options":{"cas":1},"data":{}}`},
	{"AS bad GET", "auth/token/lookup-self", ""},
	{"AS bad PUT", "sys/capabilities-self", `{"paths":["kv/data/a"]}`},
	{"AS bad GET", "sys/internal/ui/mounts/kv", ""},
	{"AS  GET", "kv/data/a", ""},
	{"AS limited GET", "kv/data/denied", ""},
	{"AS limited PUT", "kv/data/denied", `{"options":{"cas":0},"data":{}}`},
	{"AS limited GET", "auth/token/lookup-self", ""},
	{"AS limited PUT", "auth/token/renew-self", `{}`},
	{"AS limited GET", "auth/token/lookup-self", ""},
}

func TestAgainstVault(t *testing.T) {
	server := vaulttest.Start(t)
	server.EnableKV(t, "kv", 2, nil)
	server.EnableKV(t, "team/kv", 2, nil)
	limited := server.Token(t, `
		path "kv/data/a" { capabilities = ["read"] }
		path "auth/token/lookup-self" { capabilities = ["read"] }
		path "auth/token/renew-self" { capabilities = ["update"] }`, func(r *vaultapi.TokenCreateRequest) { r.TTL = "1h" })
	mem := memkv.New("root", "kv", "team/kv")
	mem.Deny = func(path string) bool { return path == "kv/data/denied" }

	realTokens := map[string]string{"": server.RootToken, "bad": "hvs.bad", "limited": limited}
	memTokens := map[string]string{"": "root", "bad": "hvs.bad", "limited": "root"}
	for i, op := range story {
		if strings.HasPrefix(op.method, "AS limited") && memTokens["ended"] == "" {
			memTokens["ended"] = "-" // from here on it is not a root token
			mem.SetTTL(time.Hour)
		}
		wantStatus, want := send(t, new(http.Transport), server.Addr, realTokens, op)
		gotStatus, got := send(t, mem, "http://memkv", memTokens, op)
		if gotStatus != wantStatus || !reflect.DeepEqual(got, want) {
			t.Errorf("%d. %s %s %s\n memkv %d %s\n Vault %d %s", i, op.method, op.path, op.body, gotStatus, text(got), wantStatus, text(want))
		}
	}
}

func send(t *testing.T, transport http.RoundTripper, base string, tokens map[string]string, op operation) (int, any) {
	t.Helper()
	method, token := op.method, tokens[""]
	if rest, ok := strings.CutPrefix(method, "AS "); ok {
		var who string
		who, method, _ = strings.Cut(rest, " ")
		token = tokens[who]
		if who == "" {
			token = ""
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, base+"/v1/"+op.path, strings.NewReader(op.body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", op.method, op.path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return resp.StatusCode, nil
	}
	var parsed any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&parsed); err != nil {
		t.Fatalf("%s %s: %v in %s", op.method, op.path, err, body)
	}
	return resp.StatusCode, normal(parsed)
}

// varying are the values that no two servers share; that there is one, or none, must still be the same.
var varying = map[string]bool{
	"request_id": true, "accessor": true, "uuid": true, "client_id": true, "created_time": true, "updated_time": true,
	"deletion_time": true, "creation_time": true, "issue_time": true, "expire_time": true, "last_renewal": true,
	"last_renewal_time": true, "id": true, "client_token": true, "running_plugin_version": true, "ttl": true,
}

// names differ because a test's policies and mounts are named at random.
var names = map[string]bool{"policies": true, "token_policies": true}

func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, in := range v {
			switch {
			case varying[k] && in != nil && in != "" && in != json.Number("0"):
				v[k] = "varies"
			case names[k]:
				list, _ := in.([]any)
				v[k] = len(list)
			default:
				v[k] = normal(in)
			}
		}
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
	}
	return v
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
