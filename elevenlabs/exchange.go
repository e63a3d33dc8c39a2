package elevenlabs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rekeyd/rekeyd/internal/jsonvalues"
	"github.com/rekeyd/rekeyd/internal/secret"
)

// call is one request: what differs between operations.
type call struct {
	operation    string
	method, path string
	account      string        // without a path: whose keys it is about
	id           *string       // and of which key
	key          secret.Secret // zero: the admin key
	body         any           // nil: none
	limit        int64         // of an answer with success, in bytes after decompression
	decode       func([]byte) error
	status       *int // set: receives the status, and the body of a success is not read
}

func (q call) writes() bool { return q.method != http.MethodGet }

// answer is the result of a request. Status 0 is no answer; err is then set. Otherwise err is why the body is incomplete.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	err     error
	written bool // the request may have reached the remote
}

// do sends one request and judges the answer. If the admin key is refused, so that the request did nothing, and its source
// now holds another key, do sends the request once more.
func (c *Client) do(ctx context.Context, q call) (err error) {
	defer Cancel(ctx)
	if q.path == "" {
		if q.path, err = q.keyPath(); err != nil {
			return err
		}
	}
	slot, err := c.budget.ready(ctx)
	if slot != nil {
		defer slot.release()
	}
	if err != nil {
		return &Error{Operation: q.operation, Err: fmt.Errorf("waiting for the rate budget: %w", err)}
	}
	key, err := c.send(ctx, q)
	if q.key.IsZero() && errors.Is(err, ErrInvalidKey) {
		if q.key = c.replaced(ctx, key); !q.key.IsZero() {
			_, err = c.send(ctx, q)
		}
	}
	return err
}

// listBodies has buffers for the bodies of listings, which are the largest and hold no secret. What is decoded has no part of them.
var listBodies = sync.Pool{New: func() any { return new(bytes.Buffer) }} //nolint:gochecknoglobals // of all clients, each of which lists once a minute

// send sends one request and judges the answer. It returns the key that was used.
func (c *Client) send(ctx context.Context, q call) (secret.Secret, error) {
	key, err := c.credential(ctx, q)
	if err != nil {
		return secret.Secret{}, &Error{Operation: q.operation, Err: err}
	}
	defer c.opt.Redactor.Add(key)()
	body := new(bytes.Buffer)
	if q.limit == listLimit {
		body = listBodies.Get().(*bytes.Buffer)
		defer listBodies.Put(body)
	}
	started := time.Now()
	a := c.exchange(ctx, q, key, body)
	c.observe(q.operation, a.status, time.Since(started))
	e := c.judge(ctx, q, a)
	c.budget.learn(e, started)
	if e == nil {
		return key, nil // not a nil *Error, which is a non-nil error
	}
	return key, e
}

// replaced returns the admin key that has replaced the refused one; zero: none.
func (c *Client) replaced(ctx context.Context, refused secret.Secret) secret.Secret {
	key, err := c.opt.Credential(ctx)
	if err == nil && key.Reveal() == refused.Reveal() && c.opt.Reread != nil {
		key, err = c.opt.Reread(ctx)
	}
	if err != nil || key.Reveal() == refused.Reveal() {
		return secret.Secret{}
	}
	return key
}

func (c *Client) credential(ctx context.Context, q call) (secret.Secret, error) {
	key := q.key
	if key.IsZero() {
		var err error
		if key, err = c.opt.Credential(ctx); err != nil {
			return secret.Secret{}, fmt.Errorf("reading the admin key: %w", err)
		}
	}
	if key.IsZero() || !printable(key.Reveal()) {
		return secret.Secret{}, errors.New("the key is empty or has characters that no header can carry")
	}
	return key, nil
}

// reading is a time on the remote's clock, and when it came by the monotonic clock of this process.
type reading struct{ date, seen time.Time }

// Clock returns the Date of the last answer and when it came; zero without one.
func (c *Client) Clock() (date, seen time.Time) {
	if r := c.clock.Load(); r != nil {
		return r.date, r.seen
	}
	return time.Time{}, time.Time{}
}

type countKey struct{}

// WithCount counts every request sent under the context.
func WithCount(ctx context.Context, n *atomic.Int64) context.Context {
	return context.WithValue(ctx, countKey{}, n)
}

// exchange sends the request and reads the answer into the buffer, both within the timeout.
func (c *Client) exchange(ctx context.Context, q call, key secret.Secret, into *bytes.Buffer) answer {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Timeout)
	defer cancel()
	var sent evidence
	req, err := c.request(sent.follow(ctx), q, key)
	if err != nil {
		return answer{err: err}
	}
	if n, counted := ctx.Value(countKey{}).(*atomic.Int64); counted {
		n.Add(1)
	}
	// An http.Client would follow redirects and send the credential along.
	resp, err := c.opt.Transport.RoundTrip(req)
	if err != nil {
		return answer{err: err, written: sent.possible(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.clock.Store(&reading{date, time.Now()})
	}
	if q.status != nil {
		*q.status = resp.StatusCode
		if success(resp.StatusCode) {
			return answer{status: resp.StatusCode, header: resp.Header, written: true}
		}
	}
	limit := q.limit
	if !success(resp.StatusCode) {
		limit = answerLimit
	}
	err = readBody(into, resp, limit)
	return answer{status: resp.StatusCode, header: resp.Header, body: into.Bytes(), err: err, written: true}
}

// readBody reads a body of at most limit bytes, with one allocation if its length is known and plausible.
func readBody(b *bytes.Buffer, resp *http.Response, limit int64) error {
	const plausible = 1 << 20
	b.Reset()
	b.Grow(int(min(max(resp.ContentLength, 0), limit, plausible)) + bytes.MinRead)
	_, err := b.ReadFrom(io.LimitReader(resp.Body, limit+1))
	if int64(b.Len()) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	} else if jsonvalues.Exceed(b.Bytes(), valueLimit) {
		err = fmt.Errorf("more than %d values", valueLimit)
	}
	return err
}

func (c *Client) request(ctx context.Context, q call, key secret.Secret) (*http.Request, error) {
	var body io.Reader
	if q.body != nil {
		text, err := json.Marshal(q.body)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, c.base+q.path, body)
	if err != nil {
		return nil, fmt.Errorf("building the request: %w", err)
	}
	req.GetBody = nil // without it a transport cannot send the body a second time
	req.Header.Set("xi-api-key", key.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.opt.UserAgent)
	if q.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// evidence collects what the transport reports about a request, to decide whether it may have been sent.
type evidence struct{ asked, got atomic.Bool }

func (v *evidence) follow(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { v.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { v.got.Store(true) },
	})
}

// possible reports whether the request may have been sent although it failed with err. A connection counts as sent:
// the transport writes in the background, even after it gives up. A transport that reports nothing counts as sent, except
// for a dial error.
func (v *evidence) possible(err error) bool {
	var op *net.OpError
	dial := errors.As(err, &op) && op.Op == "dial"
	return v.got.Load() || (!v.asked.Load() && !dial)
}

// judge turns an answer into an error, or nil.
func (c *Client) judge(ctx context.Context, q call, a answer) *Error {
	var e *Error
	switch {
	case a.status == 0 || (a.err != nil && success(a.status) && timedOut(a.err)):
		e = &Error{Operation: q.operation, Err: c.noAnswer(ctx, a.err), maybe: a.written}
	case !success(a.status):
		e = refusal(q.operation, a.status, a.header, a.body, c.opt.Redactor)
	default:
		if a.err == nil && q.decode != nil {
			a.err = q.decode(a.body)
		}
		if a.err == nil {
			return nil
		}
		e = &Error{Operation: q.operation, Status: a.status, RequestID: requestID(a.header, c.opt.Redactor), maybe: true,
			Err: &fault{kind: ErrBadAnswer, cause: a.err, text: c.opt.Redactor.Clean(a.err.Error(), maxText)}}
	}
	e.maybe = e.maybe && q.writes()
	return e
}

func success(status int) bool { return status >= 200 && status < 300 }

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// noAnswer is ErrUnreachable, unless the caller gave up.
func (c *Client) noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text := c.opt.Redactor.Clean(err.Error(), maxText)
	if timedOut(err) {
		text = "nothing within " + c.opt.Timeout.String()
	}
	return &fault{kind: ErrUnreachable, cause: err, text: text}
}

func (c *Client) observe(operation string, status int, d time.Duration) {
	if c.opt.Observe == nil {
		return
	}
	code := "error"
	if status != 0 {
		code = strconv.Itoa(status)
	}
	c.opt.Observe(operation, code, d)
}
