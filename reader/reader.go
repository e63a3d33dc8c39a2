package reader

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// ErrNoKey is that there is no record, or that its field is missing or empty.
var ErrNoKey = errors.New("the record holds no key")

// ErrDenied is that Vault refused the token (403): it is unknown, has expired, or may not read the record.
var ErrDenied = errors.New("access denied by Vault")

// Options say where the record is. Address and Path are required.
type Options struct {
	// Address is the URL of Vault or OpenBao, or of an agent or proxy that adds a token.
	Address string
	// Token returns a token that may read the record; it is called before each read. nil: none is sent.
	Token func(context.Context) (string, error)
	// Namespace is the namespace of the mount; "" is the root namespace.
	Namespace string
	// Mount is the KV version 2 mount; "" is secret.
	Mount string
	// Path is the record's path below the mount, the policy's sink.path.
	Path string
	// Field is the record's field that holds the secret, the policy's sink.field; "" is api_key.
	Field string
	// Refresh is how old a key may get before the record is read again; 0 or less is 5 minutes.
	Refresh time.Duration
	// Timeout bounds one read; 0 or less is 10 seconds.
	Timeout time.Duration
	// Client sends the reads, for TLS and proxies of one's own; nil is a client like http.DefaultClient. Redirects are not
	// followed with either.
	Client *http.Client
}

// Key is what one read of the record gave.
type Key struct {
	ID        string    // ElevenLabs' id of the key
	RotatedAt time.Time // when it was published; zero if the record does not say
	Version   int       // of the record; it also rises without a new key, when fields of others change or a replica takes over

	// PreviousID is the key before this one, and PreviousValidUntil is until when that works if it does not leak. Empty and
	// zero where there is none.
	PreviousID         string
	PreviousValidUntil time.Time

	secret secret.Secret
}

// Reveal returns the key itself, for the header xi-api-key.
func (k Key) Reveal() string { return k.secret.Reveal() }

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.secret.IsZero() }

func (k Key) same(o Key) bool { return k.ID == o.ID && k.Reveal() == o.Reveal() }

// Reader reads one record. Make it with New.
type Reader struct {
	opt    Options
	url    string
	client http.Client

	mu        sync.Mutex
	key       Key           // the newest; zero before the first
	err       error         // of the last read
	due       time.Time     // when the record is to be read again
	fruitless time.Time     // when a read last failed or gave the key that it was to replace
	pause     time.Duration // after a failed read
	next      *reading      // in flight, or still to begin
	reading   bool          // next is in flight
}

// reading is one read of the record. key and err are set when done is closed.
type reading struct {
	suspect Key // the refused key that it is to replace
	key     Key
	err     error
	done    chan struct{}
}

// New checks the options. It does not call Vault.
func New(o Options) (*Reader, error) {
	o.Mount, o.Path, o.Field = cmp.Or(strings.Trim(o.Mount, "/"), "secret"), strings.Trim(o.Path, "/"), cmp.Or(o.Field, "api_key")
	o.Refresh, o.Timeout = cmp.Or(max(o.Refresh, 0), 5*time.Minute), cmp.Or(max(o.Timeout, 0), 10*time.Second)
	u, err := url.Parse(o.Address)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil:
		return nil, errors.New("making a reader: Address is not an http or https URL without a user name")
	case o.Path == "":
		return nil, errors.New("making a reader: Path is empty")
	}
	r := &Reader{opt: o, url: u.JoinPath("v1", o.Mount, "data", o.Path).String(), next: &reading{done: make(chan struct{})}}
	r.client = *cmp.Or(o.Client, new(http.Client))
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // with the token
	return r, nil
}

// Key returns the key at hand, and has the record read again when that is due. See the package's documentation for when it waits.
// An error means that there is no key at hand.
func (r *Reader) Key(ctx context.Context) (Key, error) {
	r.mu.Lock()
	key, next, err, overdue := r.key, r.next, r.err, time.Since(r.due)
	if overdue >= 0 {
		r.begin(Key{})
	}
	r.mu.Unlock()
	if overdue >= 0 && (key.IsZero() || err == nil && overdue > r.opt.Refresh) {
		if newer, failed := next.wait(ctx); failed == nil || key.IsZero() {
			return newer, failed
		}
	}
	if key.IsZero() {
		return Key{}, err
	}
	return key, nil
}

// Read reads the record now. Callers share a read that begins after they asked.
func (r *Reader) Read(ctx context.Context) (Key, error) { return r.Reread(ctx, Key{}) }

// Reread returns another key than the one that ElevenLabs refused: the key at hand if that is another, else what the record holds
// now. It returns the refused key if the record still holds it. Within a second of that, or of a failed read, it does not read.
func (r *Reader) Reread(ctx context.Context, refused Key) (Key, error) {
	for again := false; ; again = true {
		r.mu.Lock()
		held, joined := r.key, r.reading
		if !refused.IsZero() && !held.IsZero() && (!held.same(refused) || time.Since(r.fruitless) < time.Second) {
			r.mu.Unlock()
			return held, nil
		}
		next := r.begin(refused)
		r.mu.Unlock()
		key, err := next.wait(ctx)
		if !joined || again || ctx.Err() != nil { // an earlier one may have seen the record before this call
			return key, err
		}
	}
}

// Watch yields the key at hand, then each new one, and the error of each failed read, until ctx ends. It reads the record every
// Refresh, also where Key is not called. A new version of the record with the same key is not yielded.
func (r *Reader) Watch(ctx context.Context) iter.Seq2[Key, error] {
	return func(yield func(Key, error) bool) {
		for shown := (Key{}); ctx.Err() == nil; {
			r.mu.Lock()
			key, next, wait := r.key, r.next, time.Until(r.due)
			if wait <= 0 {
				r.begin(Key{})
				wait = r.opt.Timeout
			}
			r.mu.Unlock()
			if !key.same(shown) && !yield(key, nil) {
				return
			}
			shown = key
			select {
			case <-ctx.Done():
			case <-next.done:
				if next.err != nil && !yield(Key{}, next.err) {
					return
				}
			case <-time.After(wait):
			}
		}
	}
}

// begin starts the next read unless it is in flight, and returns it. r.mu is held.
func (r *Reader) begin(suspect Key) *reading {
	next := r.next
	if !r.reading {
		r.reading, next.suspect = true, suspect
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), r.opt.Timeout) // of no caller: others wait too
			defer cancel()
			next.key, next.err = r.fetch(ctx)
			r.end(next)
		}()
	}
	return next
}

func (r *Reader) end(c *reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := r.opt.Refresh
	if c.err == nil {
		r.key, r.pause = c.key, 0
	} else {
		c.err = fmt.Errorf("reading %s/%s: %w", r.opt.Mount, r.opt.Path, c.err)
		r.pause = min(max(2*r.pause, time.Second), 30*time.Second, wait)
		wait = r.pause
	}
	if c.err != nil || c.key.same(c.suspect) {
		r.fruitless = time.Now()
	}
	r.due = time.Now().Add(wait - rand.N(wait/5+1)) //nolint:gosec // only spreads the reads of many programs
	r.err, r.reading, r.next = c.err, false, &reading{done: make(chan struct{})}
	close(c.done)
}

func (c *reading) wait(ctx context.Context) (Key, error) {
	select {
	case <-c.done:
		return c.key, c.err
	case <-ctx.Done():
		return Key{}, fmt.Errorf("waiting for the key: %w", ctx.Err())
	}
}

// fetch reads the record from Vault.
func (r *Reader) fetch(ctx context.Context) (Key, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return Key{}, err
	}
	req.Header.Set("X-Vault-Request", "true") // an agent may insist on it
	if r.opt.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", r.opt.Namespace)
	}
	var redactor secret.Redactor
	if r.opt.Token != nil {
		token, err := r.opt.Token(ctx)
		if err != nil {
			return Key{}, fmt.Errorf("obtaining a token: %w", err)
		}
		redactor.Add(secret.New(token))
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return Key{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	var said answer
	fault := json.NewDecoder(io.LimitReader(resp.Body, 4<<20)).Decode(&said) // Vault's storage accepts entries of 1 MiB by default
	why := redactor.Clean(strings.Join(said.Errors, "; "), 300)
	if fault != nil {
		why = "reading the answer: " + fault.Error()
	}
	key := said.key(r.opt.Field)
	switch {
	case resp.StatusCode == http.StatusForbidden:
		return Key{}, fmt.Errorf("%w: %s", ErrDenied, why)
	case why != "" || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound:
		return Key{}, fmt.Errorf("HTTP %d: %s", resp.StatusCode, why)
	case key.IsZero():
		return Key{}, ErrNoKey
	}
	return key, nil
}

// answer is what Vault says to a read of a KV version 2 record.
type answer struct {
	Errors []string
	Data   struct {
		Data     map[string]any
		Metadata struct{ Version int }
	}
}

func (a answer) key(field string) Key {
	text := func(field string) string { s, _ := a.Data.Data[field].(string); return s }
	at := func(field string) time.Time { t, _ := time.Parse(time.RFC3339, text(field)); return t } // zero where it is absent
	return Key{
		ID: text("key_id"), RotatedAt: at("rotated_at"), Version: a.Data.Metadata.Version,
		PreviousID: text("previous_key_id"), PreviousValidUntil: at("previous_valid_until"), secret: secret.New(text(field)),
	}
}
