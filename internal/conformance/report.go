package conformance

import (
	"cmp"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Verdict is what became of an assumption.
type Verdict string

// The verdicts.
const (
	Holds    Verdict = "holds"
	Differs  Verdict = "differs"
	NotAsked Verdict = "not_asked" // could not be asked
)

// Finding is the result of one check.
type Finding struct {
	ID         string  `json:"id"`
	Assumption string  `json:"assumption"`
	Verdict    Verdict `json:"verdict"`
	Seen       string  `json:"seen"` // or why it could not be asked
}

// Measure is how long something took, in several tries.
type Measure struct {
	What    string    `json:"what"`
	AtLeast []float64 `json:"at_least_seconds"` // when the last request was sent that did not see it; 0: none
	AtMost  []float64 `json:"at_most_seconds"`  // when the first was sent that did
	Longer  int       `json:"longer"`           // tries that took longer than the patience
}

// Header is a header about rates and limits.
type Header struct {
	Answers int    `json:"answers"` // that had it
	Last    string `json:"last"`
}

// Report is the result of a run. It has no secret, and no id but where they were asked for.
type Report struct {
	Format   int               `json:"format"` // of this document: 1
	Version  string            `json:"rekeyd"`
	At       time.Time         `json:"at"`
	Host     string            `json:"host"` // the vendor's, or other
	Patience float64           `json:"patience_seconds"`
	Checks   []Finding         `json:"checks"`
	Measures []Measure         `json:"measures"`
	Headers  map[string]Header `json:"headers"`
	Requests int               `json:"requests"`

	BaseURL string   `json:"base_url,omitempty"` // these only where ids are shown
	Account string   `json:"service_account,omitempty"`
	Keys    []string `json:"keys,omitempty"`
}

func (s *Session) report(started time.Time, found []Finding) Report {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	r := Report{Format: 1, Version: s.opt.Version, At: started.UTC().Truncate(time.Minute), Host: host(s.base), Patience: s.opt.Patience.Seconds(), Checks: found,
		Measures: s.measures(), Headers: s.meter.headers, Requests: s.meter.requests}
	if s.opt.ShowIDs {
		r.BaseURL, r.Account = s.base, s.opt.Account
		for _, k := range s.made {
			r.Keys = append(r.Keys, cmp.Or(k.id, "none")+" "+k.name)
		}
	}
	return r
}

// Count returns how many checks have a verdict.
func (r Report) Count(v Verdict) (n int) {
	for _, f := range r.Checks {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// meter is a transport that notes what the headers say about rates and limits.
type meter struct {
	next http.RoundTripper

	mu         sync.Mutex
	requests   int
	headers    map[string]Header
	retryAfter []string // of each 429, "" where it had none
}

var (
	limitHeader = regexp.MustCompile(`rate-?limit|concurrent|^retry-after$`)
	plainValue  = regexp.MustCompile(`^[0-9][0-9.,;=wq ]{0,63}$`) // no id
)

// RoundTrip sends a request.
func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := m.next.RoundTrip(req)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests++
	if err != nil {
		return resp, err
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		m.retryAfter = append(m.retryAfter, resp.Header.Get("Retry-After"))
	}
	for name, values := range resp.Header {
		if name = strings.ToLower(name); limitHeader.MatchString(name) {
			h := Header{m.headers[name].Answers + 1, "(a text)"}
			if plainValue.MatchString(values[0]) {
				h.Last = values[0]
			}
			m.headers[name] = h
		}
	}
	return resp, nil
}

// longestPause is how long the client pauses at most.
const longestPause = time.Minute

// waits reads a Retry-After.
func waits(text string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(seconds * float64(time.Second)), true
	}
	date, err := http.ParseTime(text)
	return date.Sub(now), err == nil
}
