package elevensim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxBody    = 1 << 20 // bytes of a request
	invalidKey = "invalid_api_key"
)

// manage is the permission that every management call needs.
const manage = "service_account_write"

// operation is an operation of openapi.yaml.
type operation struct {
	name       string // its operationId
	method     string
	pattern    []string // path segments; "{account}" and "{key}" match any
	permission string   // required of the key; "": none
	handle     func(*Server, *call, *Key) (any, *refusal)
}

func operations() []operation {
	path := func(p string) []string { return strings.Split(p, "/") }
	accounts := path("/v1/service-accounts")
	keys := path("/v1/service-accounts/{account}/api-keys")
	one := path("/v1/service-accounts/{account}/api-keys/{key}")
	return []operation{
		{"listServiceAccounts", http.MethodGet, accounts, manage, (*Server).listServiceAccounts},
		{"createServiceAccount", http.MethodPost, accounts, manage, (*Server).createServiceAccount},
		{"listAPIKeys", http.MethodGet, keys, manage, (*Server).listAPIKeys},
		{"createAPIKey", http.MethodPost, keys, manage, (*Server).createAPIKey},
		{"updateAPIKey", http.MethodPatch, one, manage, (*Server).updateAPIKey},
		{"deleteAPIKey", http.MethodDelete, one, manage, (*Server).deleteAPIKey},
		{"disableOwnAPIKey", http.MethodPost, path("/v1/workspaces/api-keys/disable"), "", (*Server).disableOwnAPIKey},
		{"getUser", http.MethodGet, path("/v1/user"), "user_read", (*Server).getUser},
		{"getVoice", http.MethodGet, path("/v1/voices/{voice}"), "voices_read", (*Server).getVoice},
		{"listModels", http.MethodGet, path("/v1/models"), "models_read", (*Server).listModels},
	}
}

// call is one request on its way through the server.
type call struct {
	op      operation
	record  Request
	refused *refusal // decided before the credential is checked
	secret  string
	ip      netip.Addr
	query   url.Values
	json    bool // Content-Type says JSON
	body    []byte
}

func (s *Server) newCall(w http.ResponseWriter, r *http.Request) *call {
	c := &call{
		record: Request{Method: r.Method, Path: r.URL.Path},
		secret: r.Header.Get("xi-api-key"),
		ip:     s.clientIP(r),
		query:  r.URL.Query(),
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	c.json = err == nil && mediaType == "application/json"
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		panic(http.ErrAbortHandler) // the client left during the request
	}
	c.body, c.record.Body = body, rawJSON(body)
	c.refused = s.route(c, r.URL.EscapedPath())
	if tooLarge != nil {
		c.refused = &refusal{status: http.StatusRequestEntityTooLarge, kind: "validation_error", code: "request_too_large",
			message: fmt.Sprintf("The request body exceeds %d bytes.", maxBody)}
	}
	return c
}

// route finds the operation, and the account and key that the path names.
func (s *Server) route(c *call, path string) *refusal {
	segments := strings.Split(path, "/")
	var allowed []string
	for _, op := range s.operations {
		account, key, ok := match(op.pattern, segments)
		if !ok {
			continue
		}
		if op.method == c.record.Method {
			c.op, c.record.Operation, c.record.Account, c.record.KeyID = op, op.name, account, key
			return nil
		}
		allowed = append(allowed, op.method)
	}
	if allowed != nil {
		return &refusal{status: http.StatusMethodNotAllowed, kind: "validation_error", code: "method_not_allowed",
			message: "Method Not Allowed", allow: strings.Join(allowed, ", ")}
	}
	return notFound("not_found", "Not Found")
}

func match(pattern, segments []string) (account, key string, ok bool) {
	if len(pattern) != len(segments) {
		return "", "", false
	}
	for i, want := range pattern {
		got, err := url.PathUnescape(segments[i])
		switch {
		case err != nil || got == "" && want != "":
			return "", "", false
		case want == "{account}":
			account = got
		case want == "{key}":
			key = got
		case want == "{voice}": // getVoice reads it from the path
		case want != got:
			return "", "", false
		}
	}
	return account, key, true
}

// authenticate finds the key of the credential and checks its permission. The lock is held.
func (s *Server) authenticate(c *call) (*Key, *refusal) {
	k := s.bySecret[c.secret]
	switch {
	case c.secret == "":
		return nil, unauthorized("needs_authorization", "No xi-api-key header received, please provide one.")
	case k == nil || k.Deleted():
		return nil, unauthorized(invalidKey, "Invalid API key")
	case k.Disabled && s.now().Sub(k.DisabledAt) >= time.Duration(s.faults.DisableLag):
		return nil, unauthorized(cmp.Or(s.faults.DisabledCode, invalidKey), "Invalid API key")
	case s.now().Before(k.UsableAt):
		return nil, unauthorized(cmp.Or(s.faults.KeyDelayCode, invalidKey), "Invalid API key")
	case !k.admits(c.ip) && !s.faults.IgnoreAllowedIPs && !s.faults.UnenforcedIPs:
		return nil, forbidden("ip_not_allowed", "This API key may not be used from your IP address.")
	case !k.may(c.op.permission) && !slices.Contains(s.faults.Unguarded, c.op.name):
		return nil, unauthorized("missing_permissions", fmt.Sprintf(
			"The API key you used is missing the permission %s to execute this operation.", c.op.permission))
	}
	if k.used++; k.used == s.faults.RefusedNth && k.Account != "" {
		return nil, unauthorized(invalidKey, "Invalid API key")
	}
	return k, s.charge(k)
}

// charge counts the cost of a request, if Faults.UsagePerRequest is set. The admin key has no limit.
func (s *Server) charge(k *Key) *refusal {
	cost := s.faults.UsagePerRequest
	if cost > 0 && k.CharacterLimit != nil && k.CharacterCount+cost > *k.CharacterLimit {
		return unauthorized("quota_exceeded", "This request exceeds the quota of the API key.")
	}
	k.CharacterCount += cost
	return nil
}

// credentialKind names the key of a request, without its secret.
func (s *Server) credentialKind(secret string) string {
	if secret == "" {
		return "none"
	}
	if k := s.bySecret[secret]; k != nil {
		return k.ID
	}
	return "unknown"
}

// refusal is an answer other than 2xx.
type refusal struct {
	status     int
	kind       string // detail.type
	code       string
	message    string
	param      string
	fields     []fieldError // of a 422 from request validation: the whole answer
	allow      string
	retryAfter int // seconds; 0: no header

	retryAfterInWords string // instead of seconds
}

func unauthorized(code, message string) *refusal {
	return &refusal{status: http.StatusUnauthorized, kind: "authentication_error", code: code, message: message}
}

func forbidden(code, message string) *refusal {
	return &refusal{status: http.StatusForbidden, kind: "authorization_error", code: code, message: message}
}

func notFound(code, message string) *refusal {
	return &refusal{status: http.StatusNotFound, kind: "not_found", code: code, message: message}
}

func badRequest(code, message, param string) *refusal {
	return &refusal{status: http.StatusBadRequest, kind: "validation_error", code: code, message: message, param: param}
}

// answer is the response on the wire.
type answer struct {
	status   int
	header   http.Header
	value    any    // marshalled outside the lock
	raw      []byte // instead of value
	cut      bool   // no answer at all
	truncate bool   // half of it, then a cut
	malform  bool
}

// answer builds the server's response without faults. The lock is held.
func (s *Server) answer(value any, refused *refusal) answer {
	h := http.Header{"Content-Type": {"application/json"}}
	if refused == nil {
		return answer{status: http.StatusOK, header: h, value: value}
	}
	if refused.allow != "" {
		h.Set("Allow", refused.allow)
	}
	if refused.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(refused.retryAfter))
	}
	if refused.retryAfterInWords != "" {
		h.Set("Retry-After", refused.retryAfterInWords)
	}
	if other, changed := s.faults.Codes[refused.code]; changed && refused.fields == nil {
		r := *refused
		r.code, r.message, r.param = other, "Refused.", ""
		refused = &r
	}
	return answer{status: refused.status, header: h, value: s.errorBody(refused)}
}

func (a answer) send(w http.ResponseWriter) {
	body := a.raw
	if body == nil {
		var err error
		if body, err = json.Marshal(a.value); err != nil {
			panic(http.ErrAbortHandler) // cannot happen: wire types always marshal
		}
	}
	if a.malform {
		body = slices.Concat([]byte("<"), body)
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	if a.truncate {
		body = body[:len(body)/2]
	}
	_, _ = w.Write(body) // an error means that the client has gone
	if a.truncate {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}
