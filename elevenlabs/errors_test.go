package elevenlabs

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rekeyd/rekeyd/internal/secret"
)

var sentinels = []error{ErrInvalidKey, ErrMissingPermissions, ErrForbidden, ErrNotFound, ErrInvalidRequest, ErrSettingRefused, ErrKeyLimit,
	ErrRateLimited, ErrConcurrent, ErrServer, ErrBadAnswer, ErrUnreachable}

func matching(err error) []error {
	return slices.DeleteFunc(slices.Clone(sentinels), func(s error) bool { return !errors.Is(err, s) })
}

func TestRefusals(t *testing.T) {
	coded := func(code string) string { return `{"detail":{"code":"` + code + `","message":"m"}}` }
	said := func(message string) string { return `{"detail":{"code":"bad_request","message":"` + message + `"}}` }
	for name, tc := range map[string]struct {
		status int
		body   string
		want   []error
		maybe  bool
	}{
		"wrong key":                {401, coded("invalid_api_key"), []error{ErrInvalidKey}, false},
		"wrong key, legacy":        {401, `{"detail":{"status":"invalid_api_key","message":"m"}}`, []error{ErrInvalidKey}, false},
		"401 missing permission":   {401, coded("missing_permissions"), []error{ErrMissingPermissions}, false},
		"403 missing permission":   {403, coded("missing_permissions"), []error{ErrMissingPermissions}, false},
		"403 legacy permission":    {403, `{"detail":{"status":"missing_permissions"}}`, []error{ErrMissingPermissions}, false},
		"forbidden":                {403, coded("ip_not_allowed"), []error{ErrForbidden}, false},
		"another 401":              {401, coded("unusual_activity"), nil, false},
		"not found":                {404, coded("api_key_not_found"), []error{ErrNotFound}, false},
		"404 that names a limit":   {404, coded("max_api_keys"), []error{ErrNotFound}, false},
		"400":                      {400, coded("bad_request"), []error{ErrInvalidRequest}, false},
		"422 object":               {422, coded("value_error"), []error{ErrInvalidRequest}, false},
		"422 list":                 {422, `{"detail":[{"loc":["body","name"],"msg":"m","type":"t"}]}`, []error{ErrInvalidRequest}, false},
		"422 empty list":           {422, `{"detail":[]}`, []error{ErrBadAnswer}, true},
		"409":                      {409, coded("conflict"), nil, false},
		"key limit by code":        {400, coded("max_api_keys_reached"), []error{ErrKeyLimit}, false},
		"key limit, singular code": {409, coded("api_key_limit_exceeded"), []error{ErrKeyLimit}, false},
		"key limit by status":      {422, `{"detail":{"code":"bad","status":"too_many_api_keys"}}`, []error{ErrKeyLimit}, false},
		"key limit by message":     {400, said("You have reached the maximum number of API keys (10)."), []error{ErrKeyLimit}, false},
		"key limit, keys first":    {402, said("This account has 10 keys, which is the limit."), []error{ErrKeyLimit}, false},
		"key limit in one word":    {400, said("Service account API key limit reached"), []error{ErrKeyLimit}, false},
		"limit of characters":      {422, said("The character_limit of keys is a positive integer"), []error{ErrInvalidRequest}, false},
		"limit of a name":          {422, said("API key name exceeds the maximum length of 64"), []error{ErrInvalidRequest}, false},
		"setting, by param":        {403, `{"detail":{"code":"feature_not_available","message":"Not on your plan.","param":"tts_concurrency_limit"}}`, []error{ErrSettingRefused}, false},
		"setting, by message":      {402, said("dubbing_concurrency_limit is for Enterprise"), []error{ErrSettingRefused}, false},
		"setting, by legacy code":  {400, `{"detail":{"status":"music_concurrency_limit_not_allowed"}}`, []error{ErrSettingRefused}, false},
		"setting, unknown":         {422, `{"detail":[{"loc":["body","third_party_disable_allowed"],"msg":"Extra inputs","type":"extra_forbidden"}]}`, []error{ErrSettingRefused}, false},
		"setting, limits of keys":  {400, said("You cannot limit keys by tts_concurrency_limit; the maximum for keys is set by the plan"), []error{ErrSettingRefused}, false},
		"401 that names a setting": {401, said("tts_concurrency_limit"), nil, false},
		"404 that names a setting": {404, said("tts_concurrency_limit"), []error{ErrNotFound}, false},
		"429 that names a setting": {429, said("tts_concurrency_limit"), []error{ErrRateLimited}, false},
		"500 that names a setting": {500, said("tts_concurrency_limit"), []error{ErrServer}, true},
		"a page with a setting":    {403, `<html>tts_concurrency_limit</html>`, []error{ErrBadAnswer}, true},
		"too many addresses":       {400, said("too many allowed_ips for this key"), []error{ErrInvalidRequest}, false},
		"rate limit":               {429, coded("rate_limit_exceeded"), []error{ErrRateLimited}, false},
		"concurrency limit":        {429, coded("concurrent_limit_exceeded"), []error{ErrRateLimited, ErrConcurrent}, false},
		"legacy concurrency":       {429, `{"detail":{"status":"concurrent_limit_exceeded"}}`, []error{ErrRateLimited, ErrConcurrent}, false},
		"429 that names keys":      {429, coded("max_api_keys"), []error{ErrRateLimited}, false},
		"429 of a proxy":           {429, `<html>`, []error{ErrRateLimited}, true},
		"500":                      {500, coded("internal"), []error{ErrServer}, true},
		"502 of a proxy":           {502, `<html>`, []error{ErrServer}, true},
		"503 empty":                {503, ``, []error{ErrServer}, true},
		"404 of a proxy":           {404, `<html>not found</html>`, []error{ErrBadAnswer}, true},
		"401 of a proxy":           {401, `Unauthorized`, []error{ErrBadAnswer}, true},
		"404 of the framework":     {404, `{"detail":"Not Found"}`, []error{ErrBadAnswer}, true},
		"404 of something else":    {404, `{"errors":["not found"]}`, []error{ErrBadAnswer}, true},
		"404 empty":                {404, ``, []error{ErrBadAnswer}, true},
		"404 truncated":            {404, `{"detail":{"code":"api_key_not`, []error{ErrBadAnswer}, true},
		"404 null detail":          {404, `{"detail":null}`, []error{ErrBadAnswer}, true},
		"404 empty detail":         {404, `{"detail":{}}`, []error{ErrBadAnswer}, true},
		"404 list":                 {404, `[]`, []error{ErrBadAnswer}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, newRemote(t, tc.status, nil, tc.body).URL, nil)
			_, err := c.CreateKey(t.Context(), "a", "n", Settings{})
			if got := matching(err); !slices.Equal(got, tc.want) {
				t.Errorf("%v\nis %v, want %v", err, got, tc.want)
			}
			if MaybeApplied(err) != tc.maybe {
				t.Errorf("maybe applied: %v", !tc.maybe)
			}
			if _, err := c.ServiceAccounts(t.Context()); MaybeApplied(err) || !slices.Equal(matching(err), tc.want) {
				t.Errorf("list: %v", err)
			}
		})
	}
}

func TestErrorFields(t *testing.T) {
	for name, tc := range map[string]struct {
		header http.Header
		body   string
		want   Error
		text   string
	}{
		"object": {nil, `{"detail":{"type":"t","code":"c","status":"s","message":"m","request_id":"r","param":"p","new":1}}`,
			Error{Code: "c", Type: "t", Message: "m", RequestID: "r", Param: "p"}, "creating a key: HTTP 422 c: m (request r)"},
		"legacy": {nil, `{"detail":{"status":"s","message":"m"}}`, Error{Code: "s", Message: "m"}, "creating a key: HTTP 422 s: m"},
		"list": {nil, `{"detail":[{"loc":["body","ips",0],"msg":"bad","type":"t1","input":"i"},{"loc":["body"],"msg":"worse","type":"t2"}]}`,
			Error{Code: "validation_error", Type: "t1", Message: "body.ips.0: bad; body: worse", Param: "body.ips.0"},
			"creating a key: HTTP 422 validation_error: body.ips.0: bad; body: worse"},
		"wrong types": {nil, `{"detail":{"code":7,"status":"s","message":{"a":1},"param":["x"]}}`, Error{Code: "s"}, "creating a key: HTTP 422 s"},
		"header":      {http.Header{"Request-Id": {"h"}, "X-Request-Id": {"x"}}, `{"detail":{"code":"c"}}`, Error{Code: "c", RequestID: "h"}, "creating a key: HTTP 422 c (request h)"},
		"x-header":    {http.Header{"X-Request-Id": {"x"}}, `{"detail":{"code":"c"}}`, Error{Code: "c", RequestID: "x"}, "creating a key: HTTP 422 c (request x)"},
		"proxy": {http.Header{"X-Request-Id": {"x"}}, `<html>`, Error{RequestID: "x"},
			"creating a key: HTTP 422: unusable answer: a refusal that is not the API's own (request x)"},
		"retry later": {http.Header{"Retry-After": {"9"}}, `{"detail":{"code":"c"}}`, Error{Code: "c", RetryAfter: 9 * time.Second}, "creating a key: HTTP 422 c"},
	} {
		e := refusal(opCreate, 422, tc.header, []byte(tc.body), nil)
		if e.Error() != tc.text {
			t.Errorf("%s: says %q\nwant %q", name, e, tc.text)
		}
		got := Error{Code: e.Code, Type: e.Type, Message: e.Message, RequestID: e.RequestID, Param: e.Param, RetryAfter: e.RetryAfter}
		if got != tc.want || e.Operation != "create" || e.Status != 422 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestErrorTextIsCleaned(t *testing.T) {
	r := new(secret.Redactor)
	defer r.Add(secret.New("sk_held_by_us"))()
	long := strings.Repeat("é", 290)
	for _, message := range []string{
		`sk_held_by_us`, `a sk_held_by\u0000_us b`, `sk_held\u200b_by_us`, long + `sk_held_by_us`, `\u001b[31mred\u0007\r\nnext`,
		"\xff\xfe sk_held_by_us", "made sk_held0123456789abcdef", strings.Repeat("x", 100000),
	} {
		for _, body := range []string{
			`{"detail":{"code":"` + message + `","status":"` + message + `","type":"` + message + `","message":"` + message + `","param":"` + message + `","request_id":"` + message + `"}}`,
			`{"detail":[{"loc":["` + message + `"],"msg":"` + message + `","type":"` + message + `"}]}`,
		} {
			checkError(t, refusal(opCreate, 400, http.Header{"Request-Id": {"r sk_held_by_us"}}, []byte(body), r), "sk_held")
		}
	}
}

// checkError holds what is true of every error, whatever the remote said.
func checkError(t *testing.T, e *Error, secret string) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %s %s %s %s", e, e, e.Code, e.Type, e.Param, e.RequestID)
	if secret != "" && strings.Contains(text, secret) {
		t.Errorf("a secret in %.400q", text)
	}
	if n := utf8.RuneCountInString(e.Code) + utf8.RuneCountInString(e.Message); n > 300 {
		t.Errorf("%d runes of code and message", n)
	}
	if strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
		t.Errorf("unprintable: %.400q", text)
	}
	if e.RetryAfter < 0 || e.RetryAfter > 24*time.Hour {
		t.Errorf("retry after %v", e.RetryAfter)
	}
}

func TestRetryAfter(t *testing.T) {
	const date = "Sun, 06 Nov 1994 08:49:37 GMT"
	for name, tc := range map[string]struct {
		text, date string
		want       time.Duration
	}{
		"absent": {}, "seconds": {text: " 120 ", want: 2 * time.Minute}, "fraction": {text: "1.5", want: 1500 * time.Millisecond},
		"negative": {text: "-5"}, "huge": {text: "1e300", want: 24 * time.Hour}, "infinite": {text: "Inf", want: 24 * time.Hour},
		"no number": {text: "NaN"}, "word": {text: "soon"}, "past date": {text: date},
		"date by the remote's clock": {text: "Sun, 06 Nov 1994 08:50:07 GMT", date: date, want: 30 * time.Second},
		"far date":                   {text: "Sun, 06 Nov 2094 08:50:07 GMT", date: date, want: 24 * time.Hour},
	} {
		if got := retryAfter(http.Header{"Retry-After": {tc.text}, "Date": {tc.date}}); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func FuzzError(f *testing.F) {
	f.Add(401, "", `{"detail":{"code":"invalid_api_key","status":"invalid_api_key","message":"m","request_id":"r"}}`)
	f.Add(422, "5", `{"detail":[{"loc":["body","name",0],"msg":"too long","type":"value_error"}]}`)
	f.Add(429, "Sun, 06 Nov 2094 08:49:37 GMT", `{"detail":{"status":"concurrent_limit_exceeded","message":7}}`)
	f.Add(404, "1e400", `{"detail":"Not Found"}`)
	f.Add(502, "", "<html>\x00sk_held_by_us</html>")
	f.Fuzz(func(t *testing.T, status int, after, body string) {
		r := new(secret.Redactor)
		defer r.Add(secret.New("sk_held_by_us"))()
		e := refusal(opCreate, status, http.Header{"Retry-After": {after}, "Request-Id": {body}}, []byte(body), r)
		checkError(t, e, "sk_held_by_us")
		if n := len(matching(e)); n > 1 && (n != 2 || !errors.Is(e, ErrConcurrent)) {
			t.Errorf("%v is %v", e, matching(e))
		}
		if errors.Is(e, ErrBadAnswer) && !e.MaybeApplied() {
			t.Errorf("%v is unusable but says that nothing happened", e)
		}
		if life, err := lifeOf(e); life == Invalid && (status != 401 || !strings.Contains(body, "detail")) || (life == Inconclusive) == (err == nil) {
			t.Errorf("%v proves %v", e, life)
		}
	})
}

func FuzzListing(f *testing.F) {
	f.Add(listing)
	f.Add(strings.ReplaceAll(listing, "service-accounts", "api-keys"))
	f.Add(`{"api-keys":[{"key_id":"k","allowed_ips":["::ffff:10.0.0.1/8","0.0.0.0/0"],"created_at_unix":-1}]}`)
	f.Add(`{"api-keys":[{"key_id":"k"}],"api-keys":[{"key_id":"j","permissions":[]}],"xi-api-key":"sk_new_key"}`)
	f.Add(`{"service-accounts":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		keys, err := decodeKeys("svc_a", []byte(body))
		if (err == nil) != (keys != nil) {
			t.Errorf("%v with %v", keys, err)
		}
		list, err := decodeAccounts([]byte(body), new(accountList))
		if (err == nil) != (list != nil) {
			t.Fatalf("%v with %v", list, err)
		}
		if err != nil {
			list = new(accountList)
		} else if again, err := decodeAccounts([]byte(body), &accountList{sums: list.sums, accounts: list.accounts}); err != nil || !reflect.DeepEqual(again, list) {
			t.Errorf("account by account %v, %v", again, err)
		}
		for _, a := range list.accounts {
			if a.ID == "" {
				t.Error("an account without id")
			}
			keys = append(keys, a.Keys...)
		}
		for _, k := range keys {
			if k.ID == "" || k.ServiceAccount == "" || k.Settings.Diff(k.Settings) != nil || k.CreatedAt.Year() > 9999 {
				t.Errorf("key %+v", k)
			}
			for _, p := range k.Settings.AllowedIPs {
				if p != p.Masked() || !p.IsValid() {
					t.Errorf("prefix %v", p)
				}
			}
		}
		if key, err := decodeCreated([]byte(body)); (err == nil) == key.Secret.IsZero() {
			t.Errorf("created %+v with %v", key, err)
		}
	})
}
