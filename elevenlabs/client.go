// Package elevenlabs is a client of the part of the ElevenLabs HTTP API that key rotation touches: service accounts
// and their API keys. It does not retry or follow redirects, bounds every answer, and reports of each failed
// write whether it may have been applied (see [MaybeApplied]).
package elevenlabs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

const (
	defaultTimeout  = 15 * time.Second
	defaultMaxConns = 16

	listLimit   = 16 << 20 // bytes, after decompression
	answerLimit = 1 << 20
	valueLimit  = 1 << 18 // values per answer: a value of two bytes may take 200 once decoded
)

// The operations, as [Options.Observe] and [Error.Operation] name them.
const (
	opList   = "list"
	opKeys   = "keys"
	opCreate = "create"
	opUpdate = "update"
	opDelete = "delete"
	opProbe  = "probe"
)

// Options configures a client of one workspace.
type Options struct {
	// BaseURL is http or https, a host, and perhaps a path. The caller decides which origins may receive the
	// credential.
	BaseURL string
	// Credential returns the admin key. It is called before every request, so that a key replaced in its file takes
	// effect; it should cache a key that is costly to read.
	Credential func(context.Context) (secret.Secret, error)
	// Reread, if set, reads the admin key from its source. It is called when the key in use is refused.
	Reread func(context.Context) (secret.Secret, error)
	// Transport sends the requests; nil is HTTP/1.1 with up to MaxConns connections that stay open. It must not
	// retry. One that does not report to net/http/httptrace makes every failed write count as possibly applied,
	// unless its error is that of a dial (net.OpError).
	Transport http.RoundTripper
	// Timeout bounds one request with its answer, but not the wait for the rate budget; 0 is 15 seconds.
	Timeout time.Duration
	// Rate is how many requests per second all users of the client may send together, and the burst after a quiet
	// time; 0 is no limit.
	Rate float64
	// MaxConns is how many connections the default transport opens; 0 is 16.
	MaxConns int
	// UserAgent is the header of that name; empty is rekeyd.
	UserAgent string
	// Observe, if set, receives every attempted request: its operation (list, keys, create, update, delete, probe),
	// the HTTP status or "error" without one, and its duration without the wait for the budget.
	Observe func(operation, code string, d time.Duration)
	// Redactor cuts further secrets out of the remote's messages; the key in use is always cut out.
	Redactor *secret.Redactor
}

// Client calls the API for one workspace. It is safe for concurrent use. Its methods return errors of type [*Error].
type Client struct {
	base   string
	opt    Options
	budget *budget
	share  *sharing
	clock  *atomic.Pointer[reading]
}

// New returns a client, or an error that names the invalid option.
func New(o Options) (*Client, error) {
	base, err := parseBase(o.BaseURL)
	switch {
	case err != nil:
		return nil, err
	case o.Credential == nil:
		return nil, errors.New("elevenlabs client: no source of the admin key")
	case !(o.Rate >= 0) || math.IsInf(o.Rate, 1):
		return nil, fmt.Errorf("elevenlabs client: a rate of %v requests a second", o.Rate)
	case o.Timeout < 0 || o.MaxConns < 0:
		return nil, fmt.Errorf("elevenlabs client: negative timeout %v or number of connections %d", o.Timeout, o.MaxConns)
	}
	o.Timeout, o.MaxConns, o.UserAgent = cmp.Or(o.Timeout, defaultTimeout), cmp.Or(o.MaxConns, defaultMaxConns), cmp.Or(o.UserAgent, "rekeyd")
	o.Redactor = cmp.Or(o.Redactor, new(secret.Redactor))
	if o.Transport == nil {
		o.Transport = NewTransport(o.MaxConns)
	}
	return &Client{base: base, opt: o, budget: newBudget(o.Rate, o.MaxConns), share: new(sharing), clock: new(atomic.Pointer[reading])}, nil
}

// parseBase checks a base URL. It does not quote a URL that cannot be parsed, which may hold a password.
func parseBase(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New("elevenlabs client: the base URL cannot be parsed")
	case u.User != nil || u.RawQuery != "" || strings.ContainsAny(text, "?#"):
		return "", errors.New("elevenlabs client: the base URL has user info, a query or a fragment")
	case (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return "", fmt.Errorf("elevenlabs client: the base URL %q is not http or https with a host", text)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// NewTransport returns the transport that a client has by default, for one that watches it.
//
// It uses HTTP/1.1 on purpose: a broken connection leaves the result of one create unknown, not of all in
// flight. net/http keeps only two idle connections per host by default, so concurrent rotations would reconnect all the
// time.
func NewTransport(conns int) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConns:           conns,
		MaxIdleConnsPerHost:    conns,
		MaxConnsPerHost:        conns,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		Protocols:              &protocols,
	}
}

func (c *Client) accounts(ctx context.Context, operation string, key secret.Secret) ([]ServiceAccount, error) {
	l, err := read(ctx, c, call{operation: operation, method: http.MethodGet, path: "/v1/service-accounts", key: key, limit: listLimit},
		func(body []byte) (*accountList, error) {
			return decodeAccounts(body, cmp.Or(c.share.listed.Load(), new(accountList)))
		})
	if err != nil {
		return nil, err
	}
	c.share.listed.Store(l)
	return l.accounts, nil
}

func (c *Client) keys(ctx context.Context, account string) ([]Key, error) {
	return read(ctx, c, call{operation: opKeys, method: http.MethodGet, account: account, limit: listLimit},
		func(body []byte) ([]Key, error) { return decodeKeys(account, body) })
}

// read makes a call and returns what its answer holds.
func read[T any](ctx context.Context, c *Client, q call, decode func([]byte) (T, error)) (answer T, err error) {
	q.decode = func(body []byte) (err error) {
		answer, err = decode(body)
		return err
	}
	err = c.do(ctx, q)
	return answer, err
}

// CreateKey creates a key. It is sent at most once, not counting a refusal of the admin key. If MaybeApplied(err) holds,
// only a listing tells whether the key exists; the CreatedKey then has the ID if the answer had one.
func (c *Client) CreateKey(ctx context.Context, account, name string, s Settings) (CreatedKey, error) {
	return read(ctx, c, call{operation: opCreate, method: http.MethodPost, account: account, body: createBody(name, s), limit: answerLimit}, decodeCreated)
}

// Update is a change of a key: either Enabled or Settings.
type Update struct {
	Name     string    // the key's current name, which the API requires in every update
	Enabled  *bool     // leaves the settings as they are
	Settings *Settings // replaces all of them, and neither enables nor disables the key
}

// UpdateKey changes a key. It is idempotent.
func (c *Client) UpdateKey(ctx context.Context, account, id string, u Update) error {
	if u.Name == "" || (u.Enabled == nil) == (u.Settings == nil) {
		return refuse(opUpdate, "an update needs the present name and either the state or the settings")
	}
	return c.do(ctx, call{operation: opUpdate, method: http.MethodPatch, account: account, id: &id, body: updateBody(u),
		limit: answerLimit, decode: decodeAny})
}

// DeleteKey deletes a key for good. ErrNotFound means that it was already gone: assumptions A08 and A17.
func (c *Client) DeleteKey(ctx context.Context, account, id string) error {
	return c.do(ctx, call{operation: opDelete, method: http.MethodDelete, account: account, id: &id, limit: answerLimit, decode: decodeAny})
}

// Probe makes one request with the given key. The error is nil for Valid and Invalid; for Inconclusive it is the reason.
func (c *Client) Probe(ctx context.Context, secret secret.Secret) (ProbeResult, error) {
	if secret.IsZero() { // assumption A02: the answer would be that of a key that works
		return Inconclusive, refuse(opProbe, "there is no key to probe")
	}
	return lifeOf(c.do(ctx, call{operation: opProbe, method: http.MethodGet, path: "/v1/user", key: secret,
		limit: answerLimit, decode: decodeAny}))
}

// ProbeAdmin lists the service accounts with the given key. Valid is a key that may manage them from this host; a key
// that works but may not is Inconclusive, with the refusal. Assumption A05: who may list may manage.
func (c *Client) ProbeAdmin(ctx context.Context, secret secret.Secret) (ProbeResult, error) {
	if secret.IsZero() {
		return Inconclusive, refuse(opProbe, "there is no key to probe")
	}
	_, err := c.accounts(ctx, opProbe, secret)
	switch {
	case err == nil:
		return Valid, nil
	case errors.Is(err, ErrInvalidKey):
		return Invalid, nil
	}
	return Inconclusive, err
}

// ProbePath makes one GET of a path, such as /v1/voices/ID, with the given key. It returns the status of the answer, 0 without
// one; the error is nil for a 2xx alone. A body of 2xx is not read, and a redirect not followed.
func (c *Client) ProbePath(ctx context.Context, secret secret.Secret, path string) (status int, err error) {
	if secret.IsZero() || !strings.HasPrefix(path, "/") || !printable(path) {
		return 0, refuse(opProbe, "there is no key to probe with, or no path to probe")
	}
	err = c.do(ctx, call{operation: opProbe, method: http.MethodGet, path: path, key: secret, limit: answerLimit, status: &status})
	return status, err
}

// AdminKey returns the key that the next call will use; fresh reads it again from its source, if Reread is set.
func (c *Client) AdminKey(ctx context.Context, fresh bool) (secret.Secret, error) {
	get := c.opt.Credential
	if fresh && c.opt.Reread != nil {
		get = c.opt.Reread
	}
	key, err := get(ctx)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("reading the admin key: %w", err)
	}
	return key, nil
}

// lifeOf decides whether a key works. Assumptions: a key without the permission (A04), or without credits (A22), is refused with
// 401 and a code of its own, or with 403, and only an unknown, deleted or disabled one with 401 invalid_api_key (A03). A 401 with
// any other code proves nothing: a key that does not work yet must not be published.
func lifeOf(err error) (ProbeResult, error) {
	var e *Error
	switch {
	case err == nil:
		return Valid, nil
	case errors.Is(err, ErrInvalidKey):
		return Invalid, nil
	case !errors.As(err, &e) || (e.Status != http.StatusUnauthorized && e.Status != http.StatusForbidden):
		return Inconclusive, err
	case e.Code == "" || e.says(codeInvalidKey) || errors.Is(err, ErrBadAnswer):
		return Inconclusive, err
	case e.Status == http.StatusUnauthorized && !e.says(codeMissingPermissions) && !e.says(codeQuota):
		return Inconclusive, err
	}
	return Valid, nil
}

// keyPath is the path of an account's keys, or of one key.
func (q call) keyPath() (string, error) {
	if !validID(q.account) {
		return "", refuse(q.operation, fmt.Sprintf("%.80q cannot be the id of a service account", q.account))
	}
	path := "/v1/service-accounts/" + url.PathEscape(q.account) + "/api-keys"
	if q.id == nil {
		return path, nil
	}
	if !validID(*q.id) {
		return "", refuse(q.operation, fmt.Sprintf("%.80q cannot be the id of a key", *q.id))
	}
	return path + "/" + url.PathEscape(*q.id), nil
}

// validID refuses an id that a proxy might turn into another path even when escaped: deleting a key must not delete
// anything else.
func validID(id string) bool {
	return id != "" && id != "." && !strings.Contains(id, "..") && !strings.ContainsAny(id, `/\`) && printable(id)
}

// printable reports whether s is ASCII without spaces and control characters.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// decodeAny accepts any JSON: an HTML page with status 200 is not the API's answer.
func decodeAny(body []byte) error {
	if !json.Valid(body) {
		return errors.New("not JSON")
	}
	return nil
}
