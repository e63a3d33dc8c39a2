// Package events reports changes of keys to other programs: CloudEvents 1.0 in JSON, signed, over HTTP. It does not delay
// rotation: events wait in a bounded queue, each is tried a few times, and undeliverable events are counted and dropped.
package events

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

const (
	queued     = 1024 // most events that wait
	tries      = 3    // per event
	oneTry     = 5 * time.Second
	firstPause = time.Second // between attempts, doubling
	longPause  = 10 * time.Second
	maxAnswer  = 4 << 10 // bytes read of an answer, so that the connection can be reused
	maxText    = 300     // runes of an error's text
)

// The results passed to Options.Count.
const (
	Delivered = "delivered"
	Failed    = "failed"  // given up after the last try
	Dropped   = "dropped" // the queue was full
)

// Results is every result, for series that must exist before the first event.
func Results() []string { return []string{Delivered, Failed, Dropped} }

// Options configures a Sender.
type Options struct {
	URL    string                        // http or https
	Secret func() (secret.Secret, error) // of the signature; called for each event
	// Owner returns this installation's id; "" while it is not known yet.
	Owner  func() string
	Count  func(result string)
	Logger *slog.Logger
}

// Sender sends events one after another. Make it with New.
type Sender struct {
	opt    Options
	client *http.Client
	queue  chan rotator.Event
	hidden secret.Redactor // holds the URL's path, which may be a secret
	last   string          // error of the last delivery; "" if it succeeded
	cut    *rotator.Event  // event whose delivery the end of Run interrupted

	mu      sync.Mutex
	lostAt  time.Time // the last event that was given up
	lostWhy string
}

// New makes a Sender, which sends nothing until Run or Flush.
func New(o Options) *Sender {
	s := &Sender{opt: o, queue: make(chan rotator.Event, queued), client: &http.Client{
		Timeout:       oneTry,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: oneTry, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if u, err := url.Parse(o.URL); err == nil {
		for _, part := range strings.FieldsFunc(u.RequestURI(), func(c rune) bool { return strings.ContainsRune("/?&=", c) }) {
			s.hidden.Add(secret.New(part))
		}
	}
	return s
}

// Types is every type of event that is sent, in the order of docs/events.md.
func Types() []rotator.EventType {
	return []rotator.EventType{rotator.EventRotated, rotator.EventFailed, rotator.EventKeyDisabled, rotator.EventRetired, rotator.EventDrifted, rotator.EventError}
}

// Send queues an event. It never blocks.
func (s *Sender) Send(e rotator.Event) {
	switch e.Type {
	case rotator.EventLostDeleted, rotator.EventRetireError:
		return // for metrics
	}
	select {
	case s.queue <- e:
	default:
		s.lose(Dropped, "the queue is full")
	}
}

// Run delivers events until ctx ends; Flush delivers the rest.
func (s *Sender) Run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case e := <-s.queue:
			s.deliver(ctx, e)
		}
	}
}

// Flush delivers the queued events until ctx ends. It must not run concurrently with Run.
func (s *Sender) Flush(ctx context.Context) {
	if e := s.cut; e != nil {
		s.cut = nil
		s.deliver(ctx, *e)
	}
	for {
		select {
		case e := <-s.queue:
			s.deliver(ctx, e)
		default:
			return
		}
	}
}

func (s *Sender) deliver(ctx context.Context, e rotator.Event) {
	err := s.send(ctx, e)
	if err == nil {
		s.opt.Count(Delivered)
		s.last = ""
		return
	}
	if ctx.Err() != nil && s.cut == nil {
		s.cut = &e
		return
	}
	s.lose(Failed, err.Error())
	if s.last != err.Error() {
		s.last = err.Error()
		s.opt.Logger.Warn("event not delivered", "type", typeOf(e), "policy", e.Policy, "err", err)
	}
}

// lose notes an event that nobody will get.
func (s *Sender) lose(result, why string) {
	s.opt.Count(result)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lostAt, s.lostWhy = time.Now(), why
}

// Lost returns when an event was last given up, and why; the zero time if none was.
func (s *Sender) Lost() (at time.Time, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lostAt, s.lostWhy
}

func (s *Sender) send(ctx context.Context, e rotator.Event) error {
	body, err := json.Marshal(s.event(e))
	if err != nil {
		return fmt.Errorf("encoding an event: %w", err)
	}
	pause := firstPause
	for try := 1; ; try++ {
		again, after, err := s.try(ctx, body)
		if err == nil || !again || try == tries {
			return err
		}
		over, cancel := context.WithTimeout(ctx, min(max(pause, after), longPause))
		<-over.Done()
		cancel()
		if ctx.Err() != nil {
			return err
		}
		pause *= 2
	}
}

// try sends once. again reports whether another attempt may help, no sooner than after.
func (s *Sender) try(ctx context.Context, body []byte) (again bool, after time.Duration, err error) {
	value, err := s.opt.Secret()
	if err != nil {
		return true, 0, fmt.Errorf("signing an event: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opt.URL, bytes.NewReader(body))
	if err != nil {
		return false, 0, errors.New("sending an event: REKEYD_EVENTS_URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	signature := Sign(value, time.Now(), body)
	defer s.hidden.Add(secret.New(signature))()
	req.Header.Set("Rekeyd-Signature", signature)
	resp, err := s.client.Do(req)
	if err != nil {
		return true, 0, fmt.Errorf("sending an event: %s", s.hidden.Clean(bare(err).Error(), maxText))
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return false, 0, nil
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	again = resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout
	return again, time.Duration(min(max(seconds, 0), 60)) * time.Second, fmt.Errorf("sending an event: the receiver answers %d", resp.StatusCode)
}

// bare leaves out the URL, whose path may be a secret.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Sign returns the value of the header Rekeyd-Signature: HMAC-SHA256 over the time in Unix seconds, a dot and the body.
// The key is the secret's bytes without a final newline.
func Sign(secret secret.Secret, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, []byte(strings.TrimSuffix(secret.Reveal(), "\n")))
	_, _ = fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

// cloudEvent is CloudEvents 1.0 in its JSON format.
type cloudEvent struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject"` // the policy
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        data      `json:"data"`
}

type data struct {
	Policy             string             `json:"policy"`
	KeyID              string             `json:"key_id,omitempty"`
	KeyName            string             `json:"key_name,omitempty"`
	PreviousKeyID      string             `json:"previous_key_id,omitempty"`
	PreviousValidUntil time.Time          `json:"previous_valid_until,omitzero"`
	Reason             string             `json:"reason,omitempty"`
	Evidence           []rotator.Evidence `json:"evidence,omitempty"`
}

func typeOf(e rotator.Event) string { return "rekeyd." + string(e.Type) }

func (s *Sender) event(e rotator.Event) cloudEvent {
	return cloudEvent{
		SpecVersion: "1.0", ID: rand.Text(), Source: "/rekeyd/" + s.opt.Owner(), Type: typeOf(e), Subject: e.Policy, Time: e.At.UTC(),
		ContentType: "application/json",
		Data: data{Policy: e.Policy, KeyID: e.KeyID, KeyName: e.KeyName, PreviousKeyID: e.PreviousKeyID, PreviousValidUntil: e.PreviousValidUntil,
			Reason: plan.Word(e.Reason), Evidence: e.Evidence},
	}
}
