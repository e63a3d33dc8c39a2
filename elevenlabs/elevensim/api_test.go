package elevensim_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

func fixedClock() time.Time { return time.Unix(1_800_000_000, 0).UTC() }

func TestCreateAndList(t *testing.T) {
	o := options()
	o.Now = fixedClock
	b := newBench(t, o)
	c := b.create(`{"name":"n","permissions":["user_read","models_read"],"character_limit":5,"allowed_ips":["10.0.0.0/8","127.0.0.1","2001:db8::7"],
		"third_party_disable_allowed":true,"tts_concurrency_limit":1,"dubbing_concurrency_limit":2,"music_concurrency_limit":null}`)
	listed := b.list()
	equal(t, "keys", len(listed), 1)
	hash, _ := listed[0]["hashed_xi_api_key"].(string)
	equal(t, "length of the hash", len(hash), 64)
	delete(listed[0], "hashed_xi_api_key")
	equalJSON(t, "listing", listed[0], `{"name":"n","hint":"...`+c.Secret[len(c.Secret)-4:]+`","key_id":"`+c.ID+`","service_account_user_id":"svcacc_a",
		"created_at_unix":1800000000,"is_disabled":false,"permissions":["user_read","models_read"],"disable_reason":null,
		"character_limit":5,"character_count":0,"allowed_ips":["10.0.0.0/8","127.0.0.1/32","2001:db8::7/128"],"third_party_disable_allowed":true,
		"platform_limits":{"concurrency":{"limit":1},"dubbing_concurrency":{"limit":2},"music_concurrency":null}}`)
	var all struct {
		Accounts []struct {
			ID   string           `json:"service_account_user_id"`
			Keys []map[string]any `json:"api-keys"`
		} `json:"service-accounts"`
	}
	r := b.do(http.MethodGet, accounts, adminKey, "")
	r.into(t, &all)
	equal(t, "accounts", len(all.Accounts), 2)
	equal(t, "embedded keys of A", len(all.Accounts[0].Keys), 1)
	equal(t, "embedded keys of B", len(all.Accounts[1].Keys), 0)
	if strings.Contains(string(r.body), c.Secret) {
		t.Error("a listing shows the secret")
	}
	equal(t, "getUser with the new key", b.status(c.Secret, "/v1/user"), 200)
	equal(t, "listModels with the new key", b.status(c.Secret, "/v1/models"), 200)
}

func TestPatch(t *testing.T) {
	const before = `{"allowed_ips":["127.0.0.1/32"],"character_limit":5,"is_disabled":false,"name":"n","permissions":["user_read"],"third_party_disable_allowed":true}`
	change := func(old, now string) string { return strings.Replace(before, old, now, 1) }
	for _, tt := range []struct{ name, body, want string }{
		{"nothing", `{}`, before},
		{"no_update everywhere", `{"is_enabled":"no_update","permissions":"no_update","character_limit":"no_update","allowed_ips":"no_update","third_party_disable_allowed":"no_update"}`, before},
		{"name", `{"name":"m"}`, change(`"name":"n"`, `"name":"m"`)},
		{"name knows no no_update", `{"name":"no_update"}`, change(`"name":"n"`, `"name":"no_update"`)},
		{"permissions", `{"permissions":["models_read"]}`, change(`["user_read"]`, `["models_read"]`)},
		{"no permissions", `{"permissions":[]}`, change(`["user_read"]`, `[]`)},
		{"all permissions", `{"permissions":"all"}`, change(`["user_read"]`, `null`)},
		{"limit", `{"character_limit":9}`, change(`:5`, `:9`)},
		{"clear limit", `{"character_limit":"clear"}`, change(`:5`, `:null`)},
		{"addresses", `{"allowed_ips":["::1"]}`, change(`127.0.0.1/32`, `::1/128`)},
		{"clear addresses", `{"allowed_ips":"clear"}`, change(`["127.0.0.1/32"]`, `null`)},
		{"clear third party", `{"third_party_disable_allowed":"clear"}`, change(`allowed":true`, `allowed":null`)},
		{"disable", `{"is_enabled":false}`, change(`"is_disabled":false`, `"is_disabled":true`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, options())
			c := b.create(`{"name":"n","permissions":["user_read"],"character_limit":5,"allowed_ips":["127.0.0.1"],"third_party_disable_allowed":true}`)
			r := b.do(http.MethodPatch, keysOfA+"/"+c.ID, adminKey, tt.body)
			equal(t, "status", r.status, 200)
			got := map[string]any{}
			for _, field := range []string{"allowed_ips", "character_limit", "is_disabled", "name", "permissions", "third_party_disable_allowed"} {
				got[field] = b.list()[0][field]
			}
			equalJSON(t, "key", got, tt.want)
		})
	}
}

func TestRefusedBodies(t *testing.T) {
	b := newBench(t, options())
	c := b.create(`{"name":"n","permissions":"all"}`)
	one := keysOfA + "/" + c.ID
	for _, tt := range []struct{ method, path, body, want string }{
		{"POST", keysOfA, `{"permissions":"all"}`, `missing body.name`},
		{"POST", keysOfA, `{}`, `missing body.name, missing body.permissions`},
		{"POST", keysOfA, `{"name":1,"permissions":"all"}`, `string_type body.name`},
		{"POST", keysOfA, `{"name":null,"permissions":"all"}`, `string_type body.name`},
		{"POST", keysOfA, `{"name":"","permissions":"all"}`, `string_too_short body.name`},
		{"POST", keysOfA, `{"name":"n","permissions":null}`, `list_type body.permissions`},
		{"POST", keysOfA, `{"name":"n","permissions":"some"}`, `list_type body.permissions`},
		{"POST", keysOfA, `{"name":"n","permissions":["fly"]}`, `enum body.permissions`},
		{"POST", keysOfA, `{"name":"n","permissions":[null]}`, `string_type body.permissions`},
		{"POST", keysOfA, `{"name":"n","permissions":"all","character_limit":1.5}`, `integer_type body.character_limit`},
		{"POST", keysOfA, `{"name":"n","permissions":"all","character_limit":"clear"}`, `integer_type body.character_limit`},
		{"POST", keysOfA, `{"name":"n","permissions":"all","character_limit":-1}`, `greater_than_equal body.character_limit`},
		{"POST", keysOfA, `{"name":"n","permissions":"all","allowed_ips":"10.0.0.1"}`, `list_type body.allowed_ips`},
		{"POST", keysOfA, `{"name":"n","permissions":"all","allowed_ips":[]}`, `too_short body.allowed_ips`},
		{"POST", keysOfA, `{"name":"n","permissions":"all","is_enabled":true}`, `extra_forbidden body.is_enabled`},
		{"POST", keysOfA, `{"name":"n","permissions":"all","Name":"x"}`, `extra_forbidden body.Name`},
		{"POST", keysOfA, `[1]`, `dict_type body`},
		{"POST", keysOfA, `null`, `dict_type body`},
		{"POST", keysOfA, `{"name"`, `json_invalid body`},
		{"POST", keysOfA, ``, `missing body`},
		{"POST", accounts, `{"nome":"x"}`, `missing body.name, extra_forbidden body.nome`},
		{"PATCH", one, `{"name":null}`, `string_type body.name`},
		{"PATCH", one, `{"is_enabled":"clear"}`, `bool_type body.is_enabled`},
		{"PATCH", one, `{"is_enabled":1}`, `bool_type body.is_enabled`},
		{"PATCH", one, `{"character_limit":null}`, `integer_type body.character_limit`},
		{"PATCH", one, `{"permissions":"clear"}`, `list_type body.permissions`},
		{"PATCH", one, `{"hint":"x"}`, `extra_forbidden body.hint`},
		{"POST", "/v1/workspaces/api-keys/disable", ``, `missing query.api_key_name`},
		{"POST", "/v1/workspaces/api-keys/disable?api_key_name=other", ``, `literal_error query.api_key_name`},
	} {
		r := b.do(tt.method, tt.path, adminKey, tt.body)
		var e struct {
			Detail []struct {
				Loc       []string
				Msg, Type string
			}
		}
		r.into(t, &e)
		var got []string
		for _, d := range e.Detail {
			got = append(got, d.Type+" "+strings.Join(d.Loc, "."))
		}
		equal(t, tt.method+" "+tt.body, strings.Join(got, ", "), tt.want)
		equal(t, tt.body, r.status, 422)
	}
	equal(t, "keys after all that", len(b.list()), 1)
}

func TestOtherRefusals(t *testing.T) {
	b := newBench(t, options())
	_, foreign, err := b.AddKey("svcacc_a", elevensim.KeySpec{Name: "f", Permissions: []string{"user_read"}})
	if err != nil {
		t.Fatal(err)
	}
	_, manager, err := b.AddKey("svcacc_a", elevensim.KeySpec{Name: "m", Permissions: []string{"service_account_write"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, method, path, key, body string
		status                        int
		code                          string
	}{
		{"no key", "GET", accounts, "", "", 401, "needs_authorization"},
		{"unknown key", "GET", accounts, "sk_x", "", 401, "invalid_api_key"},
		{"a plain key manages", "GET", accounts, foreign, "", 401, "missing_permissions"},
		{"a key with the permission manages", "GET", accounts, manager, "", 200, ""},
		{"no models_read", "GET", "/v1/models", foreign, "", 401, "missing_permissions"},
		{"no user_read", "GET", "/v1/user", manager, "", 401, "missing_permissions"},
		{"unknown account", "GET", accounts + "/nobody/api-keys", adminKey, "", 404, "service_account_not_found"},
		{"create in an unknown account", "POST", accounts + "/nobody/api-keys", adminKey, `{"name":"n","permissions":"all"}`, 404, "service_account_not_found"},
		{"unknown key id", "DELETE", keysOfA + "/nothing", adminKey, "", 404, "api_key_not_found"},
		{"patch of an unknown key id", "PATCH", keysOfA + "/nothing", adminKey, `{}`, 404, "api_key_not_found"},
		{"admin key by id", "DELETE", keysOfA + "/admin", adminKey, "", 404, "api_key_not_found"},
		{"bad address", "POST", keysOfA, adminKey, `{"name":"n","permissions":"all","allowed_ips":["10.0.0"]}`, 400, "invalid_ip_address"},
		{"host bits", "POST", keysOfA, adminKey, `{"name":"n","permissions":"all","allowed_ips":["10.0.0.1/8"]}`, 400, "invalid_ip_address"},
		{"other path", "GET", "/v1/voices", adminKey, "", 404, "not_found"},
		{"trailing slash", "GET", accounts + "/", adminKey, "", 404, "not_found"},
		{"method", "PUT", accounts, adminKey, "", 405, "method_not_allowed"},
		{"too large", "POST", keysOfA, adminKey, strings.Repeat(" ", 1<<20+1), 413, "request_too_large"},
	} {
		r := b.do(tt.method, tt.path, tt.key, tt.body)
		equal(t, tt.name, r.status, tt.status)
		if tt.code != "" {
			equal(t, tt.name, r.code(t), tt.code)
		}
	}
	equal(t, "Allow", b.do("PUT", accounts, adminKey, "").header.Get("Allow"), "GET, POST")
	r := b.client
	q := request(t, "POST", keysOfA, adminKey, `{"name":"n","permissions":"all"}`)
	q.Header.Set("Content-Type", "text/plain")
	resp, err := r.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	equal(t, "JSON that does not say so", resp.StatusCode, 422)
}

func TestAdminPermissionsCanBeFew(t *testing.T) {
	o := options()
	o.AdminPermissions = []string{"user_read"}
	b := newBench(t, o)
	equal(t, "listing", b.do("GET", accounts, adminKey, "").code(t), "missing_permissions")
	equal(t, "getUser", b.status(adminKey, "/v1/user"), 200)
}

func TestKeyLife(t *testing.T) {
	b := newBench(t, options())
	c := b.create(`{"name":"n","permissions":"all"}`)
	one := keysOfA + "/" + c.ID
	steps := []struct {
		name   string
		act    func()
		status int
		reason any
	}{
		{"disabled by a person", func() { b.do("PATCH", one, adminKey, `{"is_enabled":false}`) }, 401, nil},
		{"enabled", func() { b.do("PATCH", one, adminKey, `{"is_enabled":true}`) }, 200, nil},
		{"disables itself", func() { b.do("POST", disable, c.Secret, "") }, 401, "self_disabled"},
		{"disabled keeps its reason", func() { b.do("PATCH", one, adminKey, `{"is_enabled":false}`) }, 401, "self_disabled"},
		{"enabled again", func() { _ = b.EnableKey(c.ID) }, 200, nil},
		{"disabled by the provider", func() { _ = b.DisableKey(c.ID, "exposed_publicly") }, 401, "exposed_publicly"},
		{"patched while disabled", func() { b.do("PATCH", one, adminKey, `{"name":"m"}`) }, 401, "exposed_publicly"},
	}
	for _, s := range steps {
		s.act()
		equal(t, s.name, b.status(c.Secret, "/v1/user"), s.status)
		equal(t, s.name, b.list()[0]["disable_reason"], s.reason)
	}
	equal(t, "delete", b.do("DELETE", one, adminKey, "").status, 200)
	equal(t, "delete again", b.do("DELETE", one, adminKey, "").status, 404)
	equal(t, "listed", len(b.list()), 0)
	k, ok := b.KeyBySecret(c.Secret)
	equal(t, "a deleted key is remembered", ok && k.Deleted() && k.ID == c.ID, true)
	equal(t, "… and shown in the state", len(b.State()[0].Keys), 1)
}

func TestSelfDisableCanBeForbidden(t *testing.T) {
	b := newBench(t, options())
	c := b.create(`{"name":"n","permissions":["user_read"],"third_party_disable_allowed":false}`)
	equal(t, "self-disable", b.do("POST", disable, c.Secret, "").status, 403)
	equal(t, "still works", b.status(c.Secret, "/v1/user"), 200)
}

func TestAllowlist(t *testing.T) {
	for _, tt := range []struct {
		client string
		status int
	}{{"10.1.2.3", 200}, {"192.0.2.1", 403}, {"2001:db8::7", 200}, {"2001:db8::8", 403}} {
		o := options()
		o.ClientIP = func(*http.Request) netip.Addr { return netip.MustParseAddr(tt.client) }
		b := newBench(t, o)
		c := b.create(`{"name":"n","permissions":"all","allowed_ips":["10.0.0.0/8","2001:db8::7"]}`)
		equal(t, tt.client, b.status(c.Secret, "/v1/user"), tt.status)
	}
	b := newBench(t, options()) // in process everyone comes from 127.0.0.1
	equal(t, "loopback", b.status(b.create(`{"name":"n","permissions":"all","allowed_ips":["127.0.0.1"]}`).Secret, "/v1/user"), 200)
}

func TestCreateServiceAccount(t *testing.T) {
	b := newBench(t, options())
	var a struct {
		ID string `json:"service-account-user-id"`
	}
	b.do("POST", accounts, adminKey, `{"name":"new","default_sharing_groups":null}`).into(t, &a)
	equal(t, "its keys", b.status(adminKey, accounts+"/"+a.ID+"/api-keys"), 200)
	equal(t, "its name", b.State()[2].Name, "new")
}
