// Package conformance asks ElevenLabs whether it is as elevensim's FIDELITY.md assumes, with throwaway keys in one service
// account: a check for each assumption, and how long changes take.
//
// It touches no key but its own, which their names tell: rekeyd-conformance.RUN.NUMBER. A key is noted before its create is
// sent, so that whatever becomes of the answer, or of this process, the key is found and deleted, by this run or the next.
package conformance

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
)

// Options configures a run.
type Options struct {
	BaseURL  string
	Account  string // the service account in which the keys are made
	AdminKey func(context.Context) (secret.Secret, error)
	// Transport sends the requests; nil is that of the elevenlabs package. It must not retry.
	Transport http.RoundTripper
	Timeout   time.Duration // of one request
	Rate      float64       // requests per second
	// Patience is how long a change may take: rekeyd's verify timeout.
	Patience time.Duration
	Version  string           // of rekeyd
	Redactor *secret.Redactor // nil: a new one
	// ShowIDs puts ids, and what ElevenLabs said in its own words, into the report; never a secret.
	ShowIDs bool
	// Progress, if set, is told which check begins.
	Progress func(c Check, number, of int)
}

// Session is a run that may begin. It is used by one goroutine.
type Session struct {
	opt     Options
	base    string
	api     *elevenlabs.Client
	meter   *meter
	run     string // in the names of its keys
	made    []*key
	earlier int               // keys that an earlier run left
	hide    map[string]bool   // ids and names that the report must not have
	deleted map[string]bool   // ids whose delete succeeded
	slow    bool              // a new key did not work within the patience
	cache   map[string]result // keys that several checks look at
	lived   []*life           // of the keys that were measured
}

// Open makes the calls that change nothing: it lists the account's keys, and counts those that an earlier run left.
func Open(ctx context.Context, o Options) (*Session, error) {
	if o.Redactor == nil {
		o.Redactor = new(secret.Redactor)
	}
	if o.Transport == nil {
		o.Transport = elevenlabs.NewTransport(2)
	}
	s := &Session{opt: o, base: strings.TrimRight(o.BaseURL, "/"), meter: &meter{next: o.Transport, headers: map[string]Header{}},
		run: strings.ToLower(rand.Text()[:10]), hide: map[string]bool{o.Account: true},
		deleted: map[string]bool{}, cache: map[string]result{}}
	var err error
	if s.api, err = s.client(s.meter, o.AdminKey, o.Rate); err != nil {
		return nil, err
	}
	if admin, err := s.api.AdminKey(ctx, false); err == nil {
		s.opt.Redactor.Add(admin)
	}
	keys, err := s.keys(ctx)
	if errors.Is(err, elevenlabs.ErrUnreachable) {
		return nil, fmt.Errorf("listing the keys of the service account: %s", s.redacted(err.Error())) // what is wrong with the network
	}
	if err != nil {
		return nil, fmt.Errorf("listing the keys of the service account: %s", s.said(err))
	}
	for _, k := range keys {
		if s.ours(k) {
			s.earlier++
		}
	}
	return s, nil
}

// client returns a client of the workspace with a key, which may be one of ours.
func (s *Session) client(transport http.RoundTripper, key func(context.Context) (secret.Secret, error), rate float64) (*elevenlabs.Client, error) {
	return elevenlabs.New(elevenlabs.Options{BaseURL: s.base, Credential: key, Transport: transport, Timeout: s.opt.Timeout,
		Rate: rate, UserAgent: "rekeyd/" + s.opt.Version, Redactor: s.opt.Redactor})
}

// Earlier is how many keys an earlier run left, which Run deletes first.
func (s *Session) Earlier() int { return s.earlier }

// cleanup bounds the time for deleting what is left when a run ends, by itself or because its context did.
func (s *Session) cleanup() time.Duration { return 2*s.opt.Patience + time.Minute }

// ErrLeft is that a key of ours may be left in the account.
var ErrLeft = errors.New("keys may be left in the service account: run rekeyd conformance there again, which deletes them, or delete those named " + namePrefix + "…")

// Run asks. What it made is deleted when it returns, also when ctx has ended, unless the error is [ErrLeft]. The report is
// usable whatever the error is.
func (s *Session) Run(ctx context.Context) (Report, error) {
	started := time.Now()
	var found []Finding
	err := s.sweep(ctx)
	if err != nil {
		err = fmt.Errorf("deleting what an earlier run left: %s", s.said(err))
	}
	for i, c := range checks {
		if s.opt.Progress != nil && err == nil && ctx.Err() == nil {
			s.opt.Progress(c.Check, i+1, len(checks))
		}
		found = append(found, s.finding(ctx, c, err))
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("asking ElevenLabs: interrupted: %w", context.Cause(ctx))
	} else if plain := s.cache[keyPlain].err; plain != nil {
		err = errors.Join(err, fmt.Errorf("making a throwaway key: %s", s.said(plain)))
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cleanup())
	defer cancel()
	if s.sweep(last) != nil {
		err = errors.Join(err, ErrLeft)
	}
	return s.report(started, found), err
}

// finding makes a check, unless the run was interrupted or could not begin.
func (s *Session) finding(ctx context.Context, c check, err error) Finding {
	f := Finding{ID: c.ID, Assumption: c.Assumption, Verdict: Holds}
	seen, d := "", differs("")
	if err = cmp.Or(ctx.Err(), err); err == nil {
		seen, err = c.ask(ctx, s)
	}
	switch {
	case errors.As(err, &d):
		f.Verdict, f.Seen = Differs, string(d)
	case err != nil:
		f.Verdict, f.Seen = NotAsked, s.said(err)
	default:
		f.Seen = seen
	}
	f.Seen = s.redacted(f.Seen)
	return f
}

// differs is what was seen where an assumption does not hold. It is an error so that a check ends there; any other error means
// that the assumption could not be asked about.
type differs string

func (d differs) Error() string { return string(d) }

func differ(format string, args ...any) error { return differs(fmt.Sprintf(format, args...)) }

// unasked is why something could not be asked, in words of our own.
func unasked(format string, args ...any) error { return fmt.Errorf(format, args...) } //nolint:err113 // read by people only

const tries = 8

// ask repeats a read, or a write that may be repeated, while the answer says nothing about the API.
func (s *Session) ask(ctx context.Context, call func(context.Context) error) error {
	for attempt := 1; ; attempt++ {
		err := call(ctx)
		if !passing(err) || attempt == tries || !pause(ctx, attempt) {
			return err
		}
	}
}

// passing reports whether an answer may be another one in a moment.
func passing(err error) bool {
	return errors.Is(err, elevenlabs.ErrRateLimited) || errors.Is(err, elevenlabs.ErrServer) || errors.Is(err, elevenlabs.ErrUnreachable) || errors.Is(err, elevenlabs.ErrBadAnswer)
}

// refused reports whether ElevenLabs declined, so that asking again is of no use.
func refused(err error) bool {
	e, ok := errors.AsType[*elevenlabs.Error](err)
	return ok && e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests
}

// plainly reports whether it declined in its own words; a proxy may say anything.
func plainly(err error) bool { return refused(err) && !errors.Is(err, elevenlabs.ErrBadAnswer) }

// pause waits longer each time, up to a second. It reports whether the context goes on.
func pause(ctx context.Context, attempt int) bool {
	over, cancel := context.WithTimeout(ctx, min(time.Duration(attempt)*100*time.Millisecond, time.Second))
	defer cancel()
	<-over.Done()
	return ctx.Err() == nil
}

// look is something that is waited for.
type look struct {
	ask   func(context.Context) (bool, error) // makes one request
	seen  bool
	not   time.Duration // since the wait began, when the last request was sent that did not see it
	after time.Duration // … and the one that did
	last  error         // of the last request
}

// watch repeats each look until it sees what it waits for, or the patience is over.
func (s *Session) watch(ctx context.Context, looks ...*look) error {
	from := time.Now()
	for attempt := 1; ; attempt++ {
		open := false
		for _, l := range looks {
			if l.seen {
				continue
			}
			reserved, err := s.api.Reserve(ctx)
			if err != nil {
				return err
			}
			sent := time.Since(from)
			if l.seen, l.last = l.ask(reserved); l.seen {
				l.after = sent
			} else {
				l.not = sent
			}
			open = open || !l.seen
		}
		if !open || time.Since(from) > s.opt.Patience {
			return ctx.Err()
		}
		if !pause(ctx, attempt) {
			return ctx.Err()
		}
	}
}

// get asks for a path with a key. It returns the status, 0 without an answer, and the refusal.
func (s *Session) get(ctx context.Context, k secret.Secret, path string) (status int, err error) {
	err = s.ask(ctx, func(ctx context.Context) (err error) {
		status, err = s.api.ProbePath(ctx, k, path)
		return err
	})
	return status, err
}

// send makes a request that the client cannot: change makes it of a GET with the key.
func (s *Session) send(ctx context.Context, k secret.Secret, path string, change func(*http.Request)) error {
	c, err := s.client(changing{s.meter, change}, s.opt.AdminKey, 0)
	if err != nil {
		return err
	}
	return s.ask(ctx, func(ctx context.Context) error {
		reserved, err := s.api.Reserve(ctx)
		if err != nil {
			return err
		}
		defer elevenlabs.Cancel(reserved)
		_, err = c.ProbePath(ctx, k, path)
		return err
	})
}

// changing is a transport that changes the requests.
type changing struct {
	next   http.RoundTripper
	change func(*http.Request)
}

// RoundTrip sends a request.
func (c changing) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	c.change(req)
	return c.next.RoundTrip(req)
}

// said is an answer in words that may be published: status and code, but not the message, unless ids are shown.
func (s *Session) said(err error) string {
	e := (*elevenlabs.Error)(nil)
	switch {
	case err == nil:
		return "success"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case !errors.As(err, &e):
		return err.Error()
	case e.Status == 0 && errors.Is(err, elevenlabs.ErrUnreachable) && !s.opt.ShowIDs:
		return "no answer"
	case e.Status == 0: // the request was not sent, or there was no answer
		return s.redacted(err.Error())
	}
	text := fmt.Sprintf("HTTP %d", e.Status)
	if e.Code != "" {
		text += " " + word(e.Code)
	}
	if errors.Is(err, elevenlabs.ErrBadAnswer) {
		text += ", an answer that is not the API's"
	}
	if s.opt.ShowIDs && e.Message != "" {
		text += " (" + e.Message + ")"
	}
	return s.redacted(text)
}

// word is a word of ElevenLabs' if it is one: ids have digits.
func word(text string) string {
	if len(text) > 64 || strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }) {
		return "(a code that is not shown)"
	}
	return text
}

// redacted cuts secrets out, and ids unless they are shown.
func (s *Session) redacted(text string) string {
	text = s.opt.Redactor.Cut(text)
	if s.opt.ShowIDs {
		return text
	}
	for id := range s.hide {
		text = strings.ReplaceAll(text, id, "…")
	}
	return text
}

// OtherHost stands for a host that is not the vendor's.
const OtherHost = "other"

// host is that of the base URL if it is the vendor's.
func host(base string) string {
	u, err := url.Parse(base)
	if err != nil || u.Hostname() != "elevenlabs.io" && !strings.HasSuffix(u.Hostname(), ".elevenlabs.io") {
		return OtherHost
	}
	return u.Hostname()
}
