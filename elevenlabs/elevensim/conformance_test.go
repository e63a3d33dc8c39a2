package elevensim_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// The validator must be one that would notice.
func TestContractNotices(t *testing.T) {
	c := newContract(t, nil)
	const key = `"name":"n","hint":"h","key_id":"k","service_account_user_id":"a","hashed_xi_api_key":"x"`
	answers := []struct {
		status int
		body   string
		fine   bool
	}{
		{200, `{"api-keys":[]}`, true},
		{200, `{"api-keys":[{` + key + `,"permissions":null,"character_limit":null,"disable_reason":null}]}`, true},
		{200, `{}`, false},
		{200, `{"api_keys":[]}`, false},
		{200, `{"api-keys":[{"name":"n"}]}`, false},
		{200, `{"api-keys":[{` + key + `,"character_limit":"1"}]}`, false},
		{200, `{"api-keys":[{` + key + `,"permissions":["fly"]}]}`, false},
		{200, `{"api-keys":[{` + key + `,"disable_reason":"bored"}]}`, false},
		{401, `{"detail":{"message":"m"}}`, true},
		{422, `{"detail":[{"loc":["body"],"msg":"m","type":"t"}]}`, true},
		{401, `{"detail":"text"}`, false},
		{401, `{"detail":{"code":"c"}}`, false},
	}
	for _, a := range answers {
		resp := &http.Response{StatusCode: a.status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(a.body))}
		if _, err := c.check(request(t, http.MethodGet, keysOfA, adminKey, ""), resp); (err == nil) != a.fine {
			t.Errorf("answer %d %s: %v", a.status, a.body, err)
		}
	}
	requests := map[string]bool{
		`{"name":"n","permissions":"all"}`:                            true,
		`{"name":"n","permissions":["user_read"],"allowed_ips":null}`: true,
		`{"name":"n","permissions":"some"}`:                           false, // const
		`{"name":"n"}`:                                                false,
		`{"name":"n","permissions":"all","character_limit":"clear"}`:  false,
		`{"name":1,"permissions":"all"}`:                              false,
	}
	for body, fine := range requests {
		resp := &http.Response{StatusCode: 401, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"detail":{"message":"m"}}`))}
		if err, _ := c.check(request(t, http.MethodPost, keysOfA, adminKey, body), resp); (err == nil) != fine {
			t.Errorf("request %s: %v", body, err)
		}
	}
}

// Every permission of the contract, and no other, can be given.
func TestPermissionsAreTheContracts(t *testing.T) {
	b := newBench(t, options())
	data, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		t.Fatal(err)
	}
	names := doc.Components.Schemas["Permission"].Value.Enum
	if len(names) < 50 {
		t.Fatalf("only %d permissions in the contract", len(names))
	}
	body, err := json.Marshal(map[string]any{"name": "n", "permissions": names})
	if err != nil {
		t.Fatal(err)
	}
	b.create(string(body))
	equal(t, "permissions stored", len(b.State()[0].Keys[0].Permissions), len(names))
}
