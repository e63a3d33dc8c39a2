package elevensim

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"
)

// Faults configures the injected faults; the zero value injects none. Its JSON is the body of PUT /_sim/faults, with
// durations such as "250ms".
type Faults struct {
	Latency          Range     `json:"latency,omitzero"`           // each request waits this long before it is handled
	RateLimit        RateLimit `json:"rate_limit,omitzero"`        // beyond it: 429 rate_limit_exceeded
	ConcurrencyLimit int       `json:"concurrency_limit,omitzero"` // beyond this many at once: 429 concurrent_limit_exceeded
	Rules            []Rule    `json:"rules,omitempty"`            // faults of single requests

	KeyDelay     Duration `json:"key_delay,omitzero"`      // a key created from now on works only after this long: 401 invalid_api_key until then
	KeyDelayCode string   `json:"key_delay_code,omitzero"` // the code until then, instead of invalid_api_key
	DisableLag   Duration `json:"disable_lag,omitzero"`    // a disabled key is accepted for so long after
	ListLag      Duration `json:"list_lag,omitzero"`       // creates and deletes show in listings only after this long; calls by id see them at once
	ChangeLag    Duration `json:"change_lag,omitzero"`     // changes of a key show in listings only after this long
	IDLag        Duration `json:"id_lag,omitzero"`         // calls by id know a key only so long after its create: 404 until then
	KeyLimit     int      `json:"key_limit,omitzero"`      // keys an account may have, disabled ones included: 400 max_api_keys_reached
	AccountLimit int      `json:"account_limit,omitzero"`  // accounts a workspace may have: 400 max_service_accounts_reached
	NameLimit    int      `json:"name_limit,omitzero"`     // characters of a key's name: 422
	NameCut      int      `json:"name_cut,omitzero"`       // characters of a key's name that are kept

	UsagePerRequest int64 `json:"usage_per_request,omitzero"` // credits each accepted request of a service account's key costs; past character_limit: 401 quota_exceeded

	IgnoreAllowedIPs bool     `json:"ignore_allowed_ips,omitzero"` // allowed_ips is accepted, but neither stored nor enforced
	UnenforcedIPs    bool     `json:"unenforced_ips,omitzero"`     // allowed_ips is stored, but not enforced
	NotOffered       []string `json:"not_offered,omitempty"`       // optional fields, or allowed_ips, that the plan does not offer; create and update that set one: 403 feature_not_available, with its name
	NotTaken         []string `json:"not_taken,omitempty"`         // optional fields that create and update accept and drop
	NoOptionalFields bool     `json:"no_optional_fields,omitzero"` // an older API: listings show no platform_limits and no third_party_disable_allowed, and create and update know neither
	NoKeyID          bool     `json:"no_key_id,omitzero"`          // create answers without key_id, as in August 2025
	FullUpdate       bool     `json:"full_update,omitzero"`        // update requires is_enabled, name and permissions together, as in August 2025
	LegacyErrors     bool     `json:"legacy_errors,omitzero"`      // errors carry only detail.status and detail.message
	ExtraFields      bool     `json:"extra_fields,omitzero"`       // answers hold unknown fields and an unknown permission
	Shuffle          bool     `json:"shuffle,omitzero"`            // lists are in random order
	MissingList      string   `json:"missing_list,omitzero"`       // listings lack this field: service-accounts, api-keys or key_id

	// An API that is not as FIDELITY.md assumes.
	Codes             map[string]string `json:"codes,omitempty"`               // refusals with the first code have the second, and neither say why nor name a field
	DisabledCode      string            `json:"disabled_code,omitzero"`        // 401 for a disabled key, instead of invalid_api_key
	Unguarded         []string          `json:"unguarded,omitempty"`           // operations that need no permission
	RefusedNth        int               `json:"refused_nth,omitzero"`          // of the requests with each key of an account, this one is refused: 401 invalid_api_key
	NoManagerKeys     bool              `json:"no_manager_keys,omitzero"`      // a service account's key may not have service_account_write: 403
	NoReenable        bool              `json:"no_reenable,omitzero"`          // a key that was disabled with a reason stays disabled: 403
	IdempotentDelete  bool              `json:"idempotent_delete,omitzero"`    // deleting a deleted key succeeds
	UniqueNames       bool              `json:"unique_names,omitzero"`         // an account's keys have different names: 409
	ListAllNames      bool              `json:"list_all_names,omitzero"`       // listings name every permission of a key that has all
	ListAnyAddress    bool              `json:"list_any_address,omitzero"`     // listings show 0.0.0.0/0 and ::/0 for a key without an allowlist
	ListPlanLimit     int64             `json:"list_plan_limit,omitzero"`      // listings show this concurrency limit for a key that has none
	ListThirdParty    *bool             `json:"list_third_party,omitempty"`    // listings show this where a key has no third_party_disable_allowed
	ConcurrencyCap    int64             `json:"concurrency_cap,omitzero"`      // concurrency limits of a key are cut to this
	RetryAfterInWords string            `json:"retry_after_in_words,omitzero"` // Retry-After of a 429
}

// Range is a span of durations, drawn from uniformly.
type Range struct {
	Min Duration `json:"min"`
	Max Duration `json:"max"`
}

// RateLimit is a token bucket for the whole workspace.
type RateLimit struct {
	PerSecond  float64 `json:"per_second"` // 0: no limit
	Burst      int     `json:"burst"`
	RetryAfter bool    `json:"retry_after,omitzero"` // say in Retry-After when the next token comes, in whole seconds
}

// Duration is a time.Duration that JSON shows as text.
type Duration time.Duration

// MarshalText writes a duration as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration as time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Kind is what a rule does to a request. After means that the change is applied first.
type Kind string

// The kinds of rules.
const (
	Status500      Kind = "500"
	Status500After Kind = "500_after"
	BadGateway     Kind = "502_html"   // a proxy's page
	CutBefore      Kind = "cut_before" // the connection ends without an answer
	CutAfter       Kind = "cut_after"
	Truncate       Kind = "truncate"  // applied; half of the answer, then the connection ends
	Malformed      Kind = "malformed" // applied; the answer is complete, but no JSON
	Status         Kind = "status"    // Rule.Status, Code, Message, RetryAfter
	Hang           Kind = "hang"      // no answer until the client gives up
	Delay          Kind = "delay"     // Rule.Duration; other rules may join it
)

// Rule injects one kind of fault into matching requests. The first matching rule wins, except that delays add up.
type Rule struct {
	Kind        Kind    `json:"kind"`
	Operation   string  `json:"operation,omitzero"`   // an operationId; "": any
	Account     string  `json:"account,omitzero"`     // a service_account_user_id in the path; "": any
	Nth         int     `json:"nth,omitzero"`         // the first matching request to hit, from 1; without count, only that request
	Count       int     `json:"count,omitzero"`       // hit at most this many; 0: no limit
	Probability float64 `json:"probability,omitzero"` // of hitting each one; 0: always

	After      bool     `json:"after,omitzero"`       // for 502_html, status, hang and delay: after the change was applied
	Duration   Duration `json:"duration,omitzero"`    // of delay
	Status     int      `json:"status,omitzero"`      // of status
	Code       string   `json:"code,omitzero"`        // of status
	Message    string   `json:"message,omitzero"`     // of status
	RetryAfter int      `json:"retry_after,omitzero"` // of status: seconds; 0: no header
}

func (r *Rule) late() bool {
	return r.After || slices.Contains([]Kind{Status500After, CutAfter, Truncate, Malformed}, r.Kind)
}

func (f *Faults) check(ops []operation) error {
	var errs []error
	if !slices.Contains([]string{"", "service-accounts", "api-keys", "key_id"}, f.MissingList) {
		errs = append(errs, fmt.Errorf("missing_list %q: not service-accounts, api-keys or key_id", f.MissingList))
	}
	for _, field := range slices.Concat(f.NotOffered, f.NotTaken) {
		if !slices.Contains(optionalFields(), field) && field != fieldIPs {
			errs = append(errs, fmt.Errorf("not_offered or not_taken %q: not one of %q", field, optionalFields()))
		}
	}
	for _, name := range f.Unguarded {
		if !slices.ContainsFunc(ops, func(op operation) bool { return op.name == name }) {
			errs = append(errs, fmt.Errorf("unguarded: the operation %q is not in openapi.yaml", name))
		}
	}
	if f.Latency.Max < f.Latency.Min || min(f.Latency.Min, f.KeyDelay, f.DisableLag, f.ListLag, f.ChangeLag, f.IDLag) < 0 {
		errs = append(errs, errors.New("durations must not be negative, nor latency.max less than latency.min"))
	}
	if f.RateLimit.PerSecond < 0 || f.RateLimit.PerSecond > 0 && f.RateLimit.Burst < 1 {
		errs = append(errs, errors.New("rate_limit: per_second must not be negative and burst at least 1"))
	}
	for i, r := range f.Rules {
		if err := r.check(ops); err != nil {
			errs = append(errs, fmt.Errorf("rule %d: %w", i+1, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Rule) check(ops []operation) error {
	kinds := []Kind{Status500, Status500After, BadGateway, CutBefore, CutAfter, Truncate, Malformed, Status, Hang, Delay}
	known := func(op operation) bool { return op.name == r.Operation }
	switch {
	case !slices.Contains(kinds, r.Kind):
		return fmt.Errorf("kind %q: not one of %q", r.Kind, kinds)
	case r.Operation != "" && !slices.ContainsFunc(ops, known):
		return fmt.Errorf("operation %q is not in openapi.yaml", r.Operation)
	case r.Probability < 0 || r.Probability > 1 || r.Nth < 0 || r.Count < 0 || r.Duration < 0:
		return errors.New("probability must be 0 to 1; nth, count and duration must not be negative")
	case r.Kind == Status && (r.Status < 200 || r.Status > 599):
		return fmt.Errorf("status %d: not 200 to 599", r.Status)
	case r.Kind == Delay && r.Duration == 0:
		return errors.New("a delay needs a duration")
	}
	return nil
}

// faultState is Faults with its counters.
type faultState struct {
	Faults
	rules    []ruleState
	tokens   float64
	tokensAt time.Time
}

type ruleState struct{ seen, hit int }

// SetFaults replaces all faults and resets their counters.
func (s *Server) SetFaults(f Faults) error {
	if err := f.check(s.operations); err != nil {
		return fmt.Errorf("setting faults: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = s.freshFaults(f.clone())
	return nil
}

func (s *Server) freshFaults(f Faults) faultState {
	return faultState{f, make([]ruleState, len(f.Rules)), float64(f.RateLimit.Burst), s.now()}
}

// Faults returns the current faults.
func (s *Server) Faults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults.clone()
}

func (f Faults) clone() Faults {
	f.Rules, f.NotOffered, f.NotTaken = slices.Clone(f.Rules), slices.Clone(f.NotOffered), slices.Clone(f.NotTaken)
	f.Codes, f.Unguarded = maps.Clone(f.Codes), slices.Clone(f.Unguarded)
	return f
}

// plan is what happens to one request.
type plan struct {
	rule          *Rule    // the fault, unless a delay
	limited       *refusal // a 429, instead of a rule
	fault         string   // for the history
	before, after time.Duration
	gone          bool // the client left before anything was applied
}

func (p plan) applies() bool {
	return !p.gone && p.limited == nil && (p.rule == nil || p.rule.late())
}

// arrive decides what happens to a call, and counts it as in flight unless a limit turns it away.
func (s *Server) arrive(c *call) plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	c.record.Seq = s.requests
	c.record.CredentialKind = s.credentialKind(c.secret)
	f := &s.faults
	p := plan{before: time.Duration(f.Latency.Min)}
	if span := int64(f.Latency.Max - f.Latency.Min); span > 0 {
		p.before += time.Duration(s.dice.Int64N(span + 1))
	}
	switch p.limited = s.takeToken(); {
	case p.limited != nil:
	case f.ConcurrencyLimit > 0 && s.inFlight >= f.ConcurrencyLimit:
		p.limited = tooMany("concurrent_limit_exceeded", "Too many concurrent requests.")
	default:
		s.inFlight++
		s.follow(c, &p)
	}
	if p.limited != nil {
		p.fault = p.limited.code
	}
	return p
}

func (s *Server) leave(p plan) {
	if p.limited != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
}

func tooMany(code, message string) *refusal {
	return &refusal{status: http.StatusTooManyRequests, kind: "rate_limit_error", code: code, message: message}
}

func (s *Server) takeToken() *refusal {
	f, limit := &s.faults, s.faults.RateLimit
	if limit.PerSecond == 0 {
		return nil
	}
	now := s.now()
	f.tokens = min(float64(limit.Burst), f.tokens+now.Sub(f.tokensAt).Seconds()*limit.PerSecond)
	f.tokensAt = now
	if f.tokens >= 1 {
		f.tokens--
		return nil
	}
	r := tooMany("rate_limit_exceeded", "Too many requests.")
	if limit.RetryAfter {
		r.retryAfter = int(math.Ceil((1 - f.tokens) / limit.PerSecond))
	}
	r.retryAfterInWords = f.RetryAfterInWords
	return r
}

// follow applies the rules in order, up to the first fault that is not a delay; delays add up.
func (s *Server) follow(c *call, p *plan) {
	for i := range s.faults.Rules {
		r := &s.faults.Rules[i]
		if !s.hits(r, &s.faults.rules[i], c) {
			continue
		}
		p.fault = string(r.Kind)
		switch {
		case r.Kind == Delay && r.After:
			p.after += time.Duration(r.Duration)
			continue
		case r.Kind == Delay:
			p.before += time.Duration(r.Duration)
			continue
		case r.Kind == Hang && r.After:
			p.after = forever
		case r.Kind == Hang:
			p.before = forever
		}
		p.rule = r
		return
	}
}

func (s *Server) hits(r *Rule, state *ruleState, c *call) bool {
	if r.Operation != "" && r.Operation != c.record.Operation || r.Account != "" && r.Account != c.record.Account {
		return false
	}
	state.seen++
	count := r.Count
	if r.Nth > 0 && count == 0 {
		count = 1
	}
	if state.seen < r.Nth || count > 0 && state.hit >= count {
		return false
	}
	if r.Probability > 0 && s.dice.Float64() >= r.Probability {
		return false
	}
	state.hit++
	return true
}

// disturb applies the planned fault to the server's answer.
func (s *Server) disturb(a answer, p plan) answer {
	switch {
	case p.gone:
		return answer{cut: true}
	case p.limited != nil:
		return s.answer(nil, p.limited)
	case p.rule == nil:
		return a
	}
	switch r := p.rule; r.Kind {
	case Status500, Status500After:
		return s.answer(nil, &refusal{status: http.StatusInternalServerError, kind: "api_error", code: "internal_server_error",
			message: "Something went wrong."})
	case BadGateway:
		return answer{status: http.StatusBadGateway, header: http.Header{"Content-Type": {"text/html"}},
			raw: []byte("<html><body><h1>502 Bad Gateway</h1></body></html>\n")}
	case Status:
		return s.answer(nil, &refusal{status: r.Status, kind: "api_error", code: r.Code, message: r.Message, retryAfter: r.RetryAfter})
	case CutBefore, CutAfter:
		return answer{cut: true}
	case Truncate:
		a.truncate = true
	case Malformed:
		a.malform = true
	}
	return a
}
