package sinks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/jsonvalues"
)

const (
	maxAnswer = 8 << 20 // bytes; Vault's storage accepts entries of 1 MiB by default
	maxLogin  = 1 << 20
	plausible = 64 << 10 // content length that is trusted for allocation
	maxValues = 1 << 18  // per answer: a value of two bytes may take 50 once decoded
)

// answer is the result of one call. fault is set if no complete answer came back.
type answer struct {
	status int
	data   json.RawMessage // the data member of Vault's envelope: a part of the body
	auth   json.RawMessage
	errs   []string
	index  string // of the state after the call, where the server says
	fault  error
}

func (a answer) ok() bool { return a.fault == nil && a.status >= 200 && a.status < 300 }

// says reports whether one of Vault's messages contains the words.
func (a answer) says(words string) bool {
	return slices.ContainsFunc(a.errs, func(e string) bool { return strings.Contains(e, words) })
}

func (v *Vault) get(ctx context.Context, operation, path string, query map[string][]string) answer {
	return v.getWith(ctx, v.client, operation, path, query)
}

func (v *Vault) getWith(ctx context.Context, c *vaultapi.Client, operation, path string, query map[string][]string) answer {
	return v.exchange(ctx, operation, func(ctx context.Context) (*vaultapi.Response, error) {
		return c.Logical().ReadRawWithDataWithContext(ctx, path, query)
	})
}

func (v *Vault) put(ctx context.Context, operation, path string, body []byte) answer {
	return v.exchange(ctx, operation, func(ctx context.Context) (*vaultapi.Response, error) {
		return v.client.Logical().WriteRawWithContext(ctx, path, body)
	})
}

// unsent is a fault before the request was sent.
type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }

// exchange makes one call, within the timeout, and reads its answer.
func (v *Vault) exchange(ctx context.Context, operation string, send func(context.Context) (*vaultapi.Response, error)) answer {
	if err := ctx.Err(); err != nil {
		return answer{fault: unsent{err}}
	}
	if err := v.ensureToken(ctx); err != nil {
		return answer{fault: unsent{err}}
	}
	ctx, cancel := context.WithTimeout(ctx, v.opt.Timeout)
	defer cancel()
	start := time.Now()
	resp, err := send(ctx)
	a := readAnswer(resp, err)
	if resp != nil && resp.Response != nil {
		v.readClock(resp.Header.Get("Date"))
		a.index = resp.Header.Get("X-Vault-Index")
	}
	code := "error"
	if a.status != 0 && a.fault == nil {
		code = strconv.Itoa(a.status)
	}
	v.opt.Observe(operation, code, time.Since(start))
	if a.says("invalid token") {
		v.token.noticeRefusal()
	}
	return a
}

// readClock records the Date of an answer.
func (v *Vault) readClock(text string) {
	if date, err := http.ParseTime(text); err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.date, v.seen = date, time.Now()
	}
}

// Clock returns the Date of Vault's last answer and when it came; zero before the first.
func (v *Vault) Clock() (date, seen time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.date, v.seen
}

func readAnswer(resp *vaultapi.Response, err error) answer {
	if resp == nil || resp.Response == nil {
		return answer{fault: err}
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{status: resp.StatusCode}
	switch {
	// A TLS listener answers plain HTTP in HTTP/1.0, which Vault itself does not use, and may cut the answer short.
	case a.status == http.StatusBadRequest && resp.ProtoMajor == 1 && resp.ProtoMinor == 0:
		a.fault = errPlainHTTP
	case err != nil && !errors.As(err, new(*vaultapi.ResponseError)):
		a.fault = err
	default:
		a.fault = a.read(resp.Response)
	}
	return a
}

// read reads the body and takes it apart. It scans it once: most are documents that have not changed since they were last read.
func (a *answer) read(resp *http.Response) error {
	var b bytes.Buffer
	b.Grow(int(min(max(resp.ContentLength, 0), plausible)) + bytes.MinRead) // one allocation if the length is known
	_, err := b.ReadFrom(resp.Body)
	body := b.Bytes()
	if err == nil && jsonvalues.Exceed(body, maxValues) {
		err = fmt.Errorf("it holds more than %d values", maxValues)
	}
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	member := jsonvalues.Members(body, "data", "auth", "errors")
	var errs []string
	valid := json.Valid(body) && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) && (member[2] == nil || json.Unmarshal(member[2], &errs) == nil)
	switch {
	case valid:
		a.data, a.auth, a.errs = member[0], member[1], errs
	case a.ok() && len(body) > 0:
		return errors.New("the answer is not the JSON of Vault's API")
	}
	if a.status == http.StatusNotFound && a.errs == nil && a.data == nil {
		return errNotVault
	}
	return nil
}

// errNotVault is a 404 that Vault did not give: its own have data or a list of errors, if only an empty one.
var errNotVault = errors.New("not Vault")

// notVault tells such an answer from what the library makes of it.
func notVault(err error) error {
	if said, ok := errors.AsType[*vaultapi.ResponseError](err); ok && said.StatusCode == http.StatusNotFound && (said.RawError || len(said.Errors) == 0) ||
		errors.As(err, new(*json.SyntaxError)) || errors.As(err, new(*json.UnmarshalTypeError)) {
		return errNotVault
	}
	return err
}

var errPlainHTTP = errors.New("the server speaks TLS, but the request used plain HTTP")

// decode reads a member of an answer.
func decode(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		return errors.New("the answer lacks its data")
	}
	return json.Unmarshal(raw, into)
}

// redirected reports whether the status is a redirect, which a request with a token does not follow.
func redirected(status int) bool {
	return status >= 300 && status < 400 && status != http.StatusNotModified
}
