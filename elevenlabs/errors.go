package elevenlabs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// The sentinels, for errors.Is. An [*Error] is at most one of these, except that ErrConcurrent is also ErrRateLimited. A
// refusal whose body is not the API's own (a proxy's page) is ErrBadAnswer at any status but 429 and 5xx, and proves
// nothing about keys.
var (
	ErrInvalidKey         = errors.New("invalid API key")           // 401 invalid_api_key
	ErrMissingPermissions = errors.New("missing permissions")       // 401 or 403 missing_permissions
	ErrForbidden          = errors.New("forbidden")                 // any other 403
	ErrNotFound           = errors.New("not found")                 // 404
	ErrInvalidRequest     = errors.New("invalid request")           // 400, 422, or refused before it was sent
	ErrSettingRefused     = errors.New("setting refused")           // a 4xx that names an optional setting
	ErrKeyLimit           = errors.New("limit of keys reached")     // a 4xx that names a maximum number of keys
	ErrRateLimited        = errors.New("rate limited")              // 429
	ErrConcurrent         = errors.New("too many at the same time") // 429 concurrent_limit_exceeded
	ErrServer             = errors.New("server error")              // 5xx
	ErrBadAnswer          = errors.New("unusable answer")           // an answer that does not fit the API
	ErrUnreachable        = errors.New("no answer")                 // no connection, or no answer in time
)

const (
	codeInvalidKey         = "invalid_api_key"
	codeMissingPermissions = "missing_permissions"
	codeQuota              = "quota_exceeded"
	codeConcurrent         = "concurrent_limit_exceeded"
	codeValidation         = "validation_error"

	maxText       = 300 // runes of a remote's code and message together
	maxWord       = 64  // runes of its code, type, param, request id
	maxRetryAfter = 24 * time.Hour
)

// Error is the failure of one operation. Nothing in it holds a secret that the Redactor knew, nor the key in use.
type Error struct {
	Operation  string // list, keys, create, update, delete or probe
	Status     int    // HTTP status; 0 when there was no answer
	Code       string // detail.code, else detail.status; validation_error for a list of faults
	Type       string
	Message    string // with Code at most 300 runes
	RequestID  string
	RetryAfter time.Duration // 0 when the answer did not say; at most a day
	Param      string        // the field that was refused
	Err        error         // the cause, unless it is a plain refusal

	legacy string // detail.status
	maybe  bool
}

// Error returns the operation and its result.
func (e *Error) Error() string {
	verbs := map[string]string{opList: "listing service accounts", opKeys: "listing keys", opCreate: "creating a key",
		opUpdate: "updating a key", opDelete: "deleting a key", opProbe: "probing a key"}
	parts := []string{cmp.Or(verbs[e.Operation], "speaking to ElevenLabs")}
	if e.Status != 0 {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Status, e.Code)))
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	text := strings.Join(parts, ": ")
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the sentinels that follow from status and code; those of the cause are found through Unwrap.
func (e *Error) Is(target error) bool {
	switch {
	case e.Status >= 500:
		return target == ErrServer
	case e.Status == http.StatusTooManyRequests:
		return target == ErrRateLimited || (target == ErrConcurrent && e.says(codeConcurrent))
	case e.Status < 400 || e.Err != nil:
		return false
	}
	return target == e.refused()
}

// refused is the sentinel of a 4xx in the API's own words, nil for one that has none.
func (e *Error) refused() error {
	permission := e.says(codeMissingPermissions)
	switch {
	case e.Status == http.StatusUnauthorized && e.says(codeInvalidKey):
		return ErrInvalidKey
	case (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) && permission:
		return ErrMissingPermissions
	case e.Status == http.StatusUnauthorized:
		return nil
	case e.Setting() != "":
		return ErrSettingRefused
	case e.Status == http.StatusForbidden:
		return ErrForbidden
	case e.Status == http.StatusNotFound:
		return ErrNotFound
	case namesKeyLimit(e.Code) || namesKeyLimit(e.legacy) || namesKeyLimit(e.Message):
		return ErrKeyLimit
	case e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity:
		return ErrInvalidRequest
	}
	return nil
}

// Setting returns the optional setting that a refusal names, "" if it names none. Assumption A24: a plan
// that does not offer a setting refuses it with a 4xx that names it; which status and code is not published.
func (e *Error) Setting() string {
	switch {
	case e.Status < 400, e.Status >= 500, e.Err != nil, e.Status == http.StatusUnauthorized, e.Status == http.StatusNotFound, e.Status == http.StatusTooManyRequests:
		return ""
	}
	for _, text := range []string{e.Param, e.Code, e.legacy, e.Message} {
		for _, f := range (Optional{}).Texts() {
			if strings.Contains(text, f[0]) {
				return f[0]
			}
		}
	}
	return ""
}

// says compares with the code and its legacy field, which may differ while the API migrates.
func (e *Error) says(code string) bool { return e.Code == code || e.legacy == code }

var (
	otherLimits = regexp.MustCompile(`\b(character|characters|concurrency|rate|credit|length) limits?\b`)
	keyLimit    = regexp.MustCompile(`\b(max\w*|limit\w*|too many)\b[^.;]*\bkeys\b|\bkeys\b[^.;]*\b(max\w*|limit\w*)\b` +
		`|\bkey (limit|maximum|max)\b|\bmax\w* number of [\w ]*\bkey\b`)
)

// namesKeyLimit reports whether a code or a message speaks of a maximum or limit of keys. Assumption A20: the real words
// are not published. Limits of other things, of which a key has several, do not count.
func namesKeyLimit(text string) bool {
	text = strings.NewReplacer("_", " ", "-", " ").Replace(strings.ToLower(text))
	return keyLimit.MatchString(otherLimits.ReplaceAllString(text, " "))
}

// MaybeApplied reports whether a failed write may have been applied. It is false for reads, for requests that were not
// sent, and for a refusal in the API's own words.
func (e *Error) MaybeApplied() bool { return e.maybe }

// MaybeApplied is [Error.MaybeApplied] of the first *Error in err's tree, false without one.
func MaybeApplied(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.MaybeApplied()
}

// fault is a cause whose text may come from the remote; it prints the cleaned text only.
type fault struct {
	kind, cause error
	text        string
}

func (f *fault) Error() string { return f.kind.Error() + ": " + f.text }

func (f *fault) Unwrap() []error { return []error{f.kind, f.cause} }

// refuse is the error of a request that is not sent.
func refuse(operation, why string) *Error {
	return &Error{Operation: operation, Err: fmt.Errorf("%w: %s", ErrInvalidRequest, why)}
}

// refusal reads an unsuccessful answer.
func refusal(operation string, status int, header http.Header, body []byte, r *secret.Redactor) *Error {
	e := &Error{Operation: operation, Status: status, RetryAfter: retryAfter(header), RequestID: requestID(header, r)}
	proper := e.readDetail(body, r)
	e.maybe = !proper || status < 400 || status >= 500
	switch {
	case status == http.StatusTooManyRequests || status >= 500:
	case status < 400:
		e.Err = fmt.Errorf("%w: neither success nor refusal, and redirects are not followed", ErrBadAnswer)
	case !proper:
		e.Err = fmt.Errorf("%w: a refusal that is not the API's own", ErrBadAnswer)
	}
	return e
}

// readDetail fills e from the detail of a body, an object or a list, and reports whether it is the API's. It skips fields
// of the wrong type if there are others.
func (e *Error) readDetail(body []byte, r *secret.Redactor) bool {
	var answer struct {
		Detail json.RawMessage `json:"detail"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Detail) == 0 {
		return false
	}
	var d detail
	switch answer.Detail[0] {
	case '{':
		_ = json.Unmarshal(answer.Detail, &d) // valid JSON: only fields of other types can fail
	case '[':
		d = validationDetail(answer.Detail)
	}
	e.legacy = r.Clean(d.Status, maxWord)
	e.Code = cmp.Or(r.Clean(d.Code, maxWord), e.legacy)
	e.Message = r.Clean(d.Message, maxText-utf8.RuneCountInString(e.Code))
	e.Type, e.Param = r.Clean(d.Type, maxWord), r.Clean(d.Param, maxWord)
	if d.RequestID != "" {
		e.RequestID = r.Clean(d.RequestID, maxWord)
	}
	return e.Code != "" || e.Message != ""
}

type detail struct {
	Type      string `json:"type"`
	Code      string `json:"code"`
	Status    string `json:"status"`
	Message   string `json:"message"`
	RequestID string `json:"request_id"`
	Param     string `json:"param"`
}

// validationDetail reads the error list of request validation; an empty list does not count.
func validationDetail(list []byte) detail {
	var faults []struct {
		Loc  []any  `json:"loc"`
		Msg  string `json:"msg"`
		Type string `json:"type"`
	}
	_ = json.Unmarshal(list, &faults)
	var d detail
	var texts []string
	for i, f := range faults {
		var at []string
		for _, step := range f.Loc {
			at = append(at, fmt.Sprint(step))
		}
		where := strings.Join(at, ".")
		if i == 0 {
			d = detail{Code: codeValidation, Type: f.Type, Param: where}
		}
		texts = append(texts, where+": "+f.Msg)
	}
	d.Message = strings.Join(texts, "; ")
	return d
}

func requestID(header http.Header, r *secret.Redactor) string {
	return r.Clean(cmp.Or(header.Get("request-id"), header.Get("x-request-id")), maxWord)
}

// retryAfter reads seconds or a date (assumption A14); a date is compared with the remote's own clock if the answer has it.
func retryAfter(header http.Header) time.Duration {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(seconds) {
		seconds = min(max(seconds, 0), maxRetryAfter.Seconds())
		return time.Duration(seconds * float64(time.Second))
	}
	date, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}

// MayChange reports whether a path that a new key is refused may answer 2xx in a moment. Status 0 is no answer.
func MayChange(status int) bool {
	return status >= 500 || slices.Contains([]int{0, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests}, status)
}

// RefusesAddress reports whether ElevenLabs refuses the address that a request came from. Assumption A13: by a 403 that speaks of
// the IP.
func RefusesAddress(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusForbidden {
		return false
	}
	words := strings.FieldsFunc(strings.ToLower(e.Code+" "+e.Message), func(r rune) bool { return r < 'a' || r > 'z' })
	return slices.Contains(words, "ip")
}
