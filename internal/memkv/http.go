package memkv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const maxRequest = 32 << 20 // bytes, Vault's default

// Refusal is an error answer of Vault, from Before or from the server itself.
type Refusal struct {
	Status int
	Errors []string
}

func (r *Refusal) Error() string { return fmt.Sprintf("memkv: %d %q", r.Status, r.Errors) }

func refuse(status int, errs ...string) *Refusal {
	return &Refusal{status, append([]string{}, errs...)}
}

// request is one call, taken apart.
type request struct {
	method  string // GET PUT DELETE LIST
	path    string // without /v1/
	version string
	body    []byte
	token   string
	node    int    // that is asked; 0 is the active one
	since   string // the index that the answer must have reached
	forward string // what to do where it has not
}

// answer is what a handler makes: a body with Vault's envelope around it, or none for 204.
type answer struct {
	status int
	kind   string // mount_type
	data   any
	auth   any
	top    map[string]any // further members of the envelope
	plain  any            // the whole body, of the few answers without an envelope
}

// RoundTrip implements http.RoundTripper.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	q, err := take(r)
	if err != nil {
		return nil, err
	}
	before, after := s.hooks()
	var refusal *Refusal
	if before != nil {
		if err := before(r); err != nil && !errors.As(err, &refusal) {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	status, body, index := 0, []byte(nil), ""
	if refusal != nil {
		status, body, err = wire(refusal.Status, map[string]any{"errors": refusal.Errors})
	} else {
		q.node = s.nodeOf(r)
		status, body, index, err = s.serve(q)
	}
	if err != nil {
		return nil, err
	}
	resp := respond(r, status, body)
	if index != "" {
		resp.Header.Set("X-Vault-Index", index)
	}
	if after != nil {
		if err := after(r, resp); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return resp, nil
}

func respond(r *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header:        http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "Date": {time.Now().UTC().Format(http.TimeFormat)}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
}

func take(r *http.Request) (request, error) {
	q := request{method: r.Method, token: r.Header.Get("X-Vault-Token"), version: r.URL.Query().Get("version"),
		since: r.Header.Get("X-Vault-Index"), forward: r.Header.Get("X-Vault-Inconsistent")}
	var ok bool
	if q.path, ok = strings.CutPrefix(r.URL.Path, "/v1/"); !ok {
		return q, fmt.Errorf("memkv: %s is no path of Vault's API", r.URL.Path)
	}
	switch {
	case q.method == http.MethodPost:
		q.method = http.MethodPut
	case q.method == http.MethodGet && r.URL.Query().Get("list") == "true":
		q.method = "LIST"
	}
	if q.method == "LIST" && !strings.HasSuffix(q.path, "/") {
		q.path += "/"
	}
	if r.Body == nil {
		return q, nil
	}
	defer func() { _ = r.Body.Close() }()
	var err error
	q.body, err = io.ReadAll(r.Body)
	return q, err
}

// serve carries the request out, and gives the answer as it goes over the wire, with the index of what it wrote.
func (s *Server) serve(q request) (status int, body []byte, index string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.index
	status, body, err = s.answer(q)
	if s.indexed && s.index > before {
		index = strconv.Itoa(s.index)
	}
	return status, body, index, err
}

func (s *Server) answer(q request) (int, []byte, error) {
	s.serial++
	a, err := s.handleAt(q)
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		return wire(refusal.Status, map[string]any{"errors": refusal.Errors})
	case err != nil:
		return 0, nil, err
	case a.status == http.StatusNoContent:
		return a.status, nil, nil
	case a.plain != nil:
		return wire(a.status, a.plain)
	}
	envelope := map[string]any{
		"request_id": fmt.Sprintf("00000000-0000-0000-0000-%012d", s.serial), "lease_id": "", "renewable": false,
		"lease_duration": 0, "data": a.data, "wrap_info": nil, "warnings": nil, "auth": a.auth, "mount_type": a.kind,
	}
	maps.Copy(envelope, a.top)
	return wire(a.status, envelope)
}

func wire(status int, body any) (int, []byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, fmt.Errorf("memkv: encoding an answer: %w", err)
	}
	return status, append(text, '\n'), nil
}

func (s *Server) handle(q request) (answer, error) {
	if s.sealed {
		return answer{}, refuse(http.StatusServiceUnavailable, "Vault is sealed")
	}
	if len(q.body) > maxRequest {
		return answer{}, refuse(http.StatusRequestEntityTooLarge, "http: request body too large")
	}
	if err := s.token.check(q.token); err != nil {
		return answer{}, err
	}
	if s.Deny != nil && s.Deny(q.path) {
		return answer{}, refuse(http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	}
	switch {
	case q.path == "sys/capabilities-self" && q.method == http.MethodPut:
		return s.capabilities(q)
	case q.path == "auth/token/lookup-self" && q.method == http.MethodGet:
		return s.token.lookup(), nil
	case q.path == "auth/token/renew-self" && q.method == http.MethodPut:
		return s.token.renew()
	case (q.path == "sys/health" || q.path == "sys/leader") && q.method == http.MethodGet:
		return s.serveNode(q), nil
	}
	if path, ok := strings.CutPrefix(q.path, "sys/internal/ui/mounts/"); ok && q.method == http.MethodGet {
		return s.uiMount(path)
	}
	m, name, rest := s.route(q.path)
	if m == nil {
		return answer{}, refuse(http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", q.path))
	}
	a, err := s.handleKV(q, m, name, rest)
	if err == nil && q.method != http.MethodGet && q.method != "LIST" {
		_, path, _ := strings.Cut(rest, "/")
		s.changed(name + "/" + path)
	}
	return a, err
}

func (s *Server) capabilities(q request) (answer, error) {
	var body struct {
		Paths []string `json:"paths"`
	}
	if err := json.Unmarshal(q.body, &body); err != nil || len(body.Paths) == 0 {
		return answer{}, unspoken(q)
	}
	data := map[string]any{}
	for _, p := range body.Paths {
		data[p] = []string{"root"}
		if s.Deny != nil && s.Deny(p) {
			data[p] = []string{"deny"}
		}
	}
	return answer{status: http.StatusOK, kind: "system", data: data, top: data}, nil
}

func (s *Server) uiMount(path string) (answer, error) {
	m, name, _ := s.route(path + "/")
	if m == nil {
		return answer{}, refuse(http.StatusForbidden,
			fmt.Sprintf("preflight capability check returned 403, please ensure client's policies grant access to path %q", path+"/"))
	}
	return answer{status: http.StatusOK, data: map[string]any{
		"accessor": "kv_" + name, "description": "", "deprecation_status": "supported", "external_entropy_access": false,
		"config": map[string]any{"default_lease_ttl": 2764800, "force_no_cache": false, "max_lease_ttl": 2764800},
		"local":  false, "options": map[string]any{"version": "2"}, "path": name + "/", "plugin_version": "",
		"running_plugin_version": "memkv", "running_sha256": "", "seal_wrap": false, "type": "kv", "uuid": name,
	}}, nil
}

func unspoken(q request) error {
	return fmt.Errorf("memkv: %s %s %s is not spoken here", q.method, q.path, strconv.Quote(string(q.body[:min(len(q.body), 80)])))
}

// stamp is a time as Vault writes it: empty for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
