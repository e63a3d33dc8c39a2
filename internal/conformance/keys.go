package conformance

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
)

const (
	namePrefix = "rekeyd-conformance."
	maxKeys    = 3 // that exist at a time
)

// ownName is the shape of the names of our keys: run and number, and what makes a name longer. A name that ElevenLabs cut still
// has it.
var ownName = regexp.MustCompile(`^rekeyd-conformance\.[a-z2-7]{10}\.[0-9]{2,3}(\.x*)?$`)

// key is a key of this run, or the attempt to make one.
type key struct {
	id, name string
	secret   secret.Secret
	answered bool      // the create was answered with the id
	sent     time.Time // the create
	made     bool      // the create was answered with success
	refused  bool      // the create was refused
	dropped  bool      // no longer needed
	gone     bool      // deleted, or not made
}

// ours reports whether a listed key was made by this run or an earlier one.
func (s *Session) ours(k elevenlabs.Key) bool {
	return ownName.MatchString(k.Name) || slices.ContainsFunc(s.made, func(m *key) bool { return m.id != "" && m.id == k.ID })
}

// keys lists the account's keys, in a request of its own, and remembers what must not be in the report.
func (s *Session) keys(ctx context.Context) (keys []elevenlabs.Key, err error) {
	err = s.ask(ctx, func(ctx context.Context) error {
		reserved, err := s.api.Reserve(ctx)
		if err == nil {
			keys, err = s.api.Keys(reserved, s.opt.Account)
		}
		return err
	})
	for _, k := range keys {
		s.hide[k.ID] = true
		if len(k.Name) > 5 { // a shorter one is part of ordinary words
			s.hide[k.Name] = true
		}
	}
	return keys, err
}

func (s *Session) living() (n int) {
	for _, k := range s.made {
		if !k.gone {
			n++
		}
	}
	return n
}

// create makes a key, with a name of its own where none is given. What becomes of a create without a clear answer is settled
// before another is sent.
func (s *Session) create(ctx context.Context, name string, settings elevenlabs.Settings) (*key, error) {
	for attempt := 1; ; attempt++ {
		for _, k := range s.made {
			if s.living() >= maxKeys && k.dropped && !k.gone {
				_ = s.drop(ctx, k) // sweep tries again
			}
		}
		if s.living() >= maxKeys {
			return nil, unasked("%d keys wait to be deleted, and there are never more", maxKeys)
		}
		k := &key{name: name, sent: time.Now()}
		if name == "" {
			k.name = s.name()
		}
		s.made = append(s.made, k)
		c, err := s.api.CreateKey(ctx, s.opt.Account, k.name, settings)
		s.opt.Redactor.Add(c.Secret)
		k.id, k.secret, k.answered = c.ID, c.Secret, c.ID != ""
		s.hide[k.name] = true
		if k.id != "" {
			s.hide[k.id] = true
		}
		switch {
		case err == nil:
			k.made = true
			if err := s.find(ctx, k); err != nil {
				return nil, err
			}
			return k, nil
		case !elevenlabs.MaybeApplied(err):
			k.refused, k.gone = true, true
		default:
			if err := s.settle(ctx, k); err != nil {
				return nil, err
			}
		}
		if !passing(err) || attempt == tries || !pause(ctx, attempt) {
			return nil, err
		}
	}
}

// name is that of the next key.
func (s *Session) name() string { return fmt.Sprintf("%s%s.%02d", namePrefix, s.run, len(s.made)) }

// find waits for the id of a key of which only the name is known: create answers without it, or not at all.
func (s *Session) find(ctx context.Context, k *key) error {
	if k.id != "" {
		return nil
	}
	known := map[string]bool{}
	for _, m := range s.made {
		known[m.id] = true
	}
	l := &look{ask: func(ctx context.Context) (bool, error) {
		keys, err := s.api.Keys(ctx, s.opt.Account)
		for _, listed := range keys {
			if listed.Name == k.name && !known[listed.ID] {
				k.id, s.hide[listed.ID] = listed.ID, true
			}
		}
		return k.id != "", err
	}}
	return s.await(ctx, l)
}

// await waits for something that a listing has to show.
func (s *Session) await(ctx context.Context, l *look) error {
	err := s.watch(ctx, l)
	switch {
	case err != nil || l.seen:
		return err
	case l.last != nil:
		return l.last
	}
	return errNotListed
}

var errNotListed = errors.New("no listing shows the new key")

// settle ends a create of which it is not known whether it made a key: one that appears is deleted.
func (s *Session) settle(ctx context.Context, k *key) error {
	switch err := s.find(ctx, k); {
	case errors.Is(err, errNotListed):
		k.gone = true // sweep looks again
		return nil
	case err != nil:
		return err
	}
	return s.drop(ctx, k)
}

// drop deletes a key. That it is unknown to a call by id is believed when a listing agrees.
func (s *Session) drop(ctx context.Context, k *key) error {
	k.dropped = true
	err := s.remove(ctx, k.id)
	if err != nil && !errors.Is(err, elevenlabs.ErrNotFound) {
		return err
	}
	if s.deleted[k.id] {
		k.gone = true
		return nil
	}
	l := s.listing(k, absent)
	if err := s.watch(ctx, l); err != nil {
		return err
	}
	k.gone = l.seen
	return nil
}

func (s *Session) remove(ctx context.Context, id string) error {
	err := s.ask(ctx, func(ctx context.Context) error { return s.api.DeleteKey(ctx, s.opt.Account, id) })
	if err == nil {
		s.deleted[id] = true
	}
	return err
}

// listing waits until the account's listing shows a key as wanted; nil is a key that it does not show.
func (s *Session) listing(k *key, wanted func(*elevenlabs.Key) bool) *look {
	return &look{ask: func(ctx context.Context) (bool, error) {
		keys, err := s.api.Keys(ctx, s.opt.Account)
		return err == nil && wanted(find(keys, k.id)), err
	}}
}

func find(keys []elevenlabs.Key, id string) *elevenlabs.Key {
	if i := slices.IndexFunc(keys, func(k elevenlabs.Key) bool { return k.ID == id }); i >= 0 {
		return &keys[i]
	}
	return nil
}

// listed waits for a key in the account's listing.
func (s *Session) listed(ctx context.Context, k *key) (shown elevenlabs.Key, err error) {
	l := s.listing(k, func(listed *elevenlabs.Key) bool {
		if listed != nil {
			shown = *listed
		}
		return listed != nil
	})
	err = s.await(ctx, l)
	return shown, err
}

// works waits until a key is accepted.
func (s *Session) works(k *key) *look {
	return &look{ask: func(ctx context.Context) (bool, error) {
		_, err := s.api.ProbePath(ctx, k.secret, pathUser)
		return err == nil, err
	}}
}

// usable waits until a key works. Once one did not, no other is waited for.
func (s *Session) usable(ctx context.Context, k *key) error {
	l := s.works(k)
	if !s.slow {
		if err := s.watch(ctx, l); err != nil || l.seen {
			return err
		}
	}
	s.slow = true
	return unasked("a new key did not work within %s", s.opt.Patience)
}

// sweep deletes every key of ours, and returns when none is listed and none can appear any more.
func (s *Session) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cleanup())
	defer cancel()
	for attempt := 1; ; attempt++ {
		keys, err := s.keys(ctx)
		if refused(err) {
			return err
		}
		left := err != nil || s.unsure()
		for _, k := range keys {
			if s.ours(k) && !s.deleted[k.ID] { // a listing may still show one that is deleted
				left = true
				_ = s.remove(ctx, k.ID) // the next listing tells
			}
		}
		for _, k := range s.made {
			if k.made && k.id != "" && !k.gone && !s.deleted[k.id] && find(keys, k.id) == nil {
				left = true
				_ = s.drop(ctx, k) // a listing may not show it yet
			}
		}
		if !left {
			return nil
		}
		if !pause(ctx, attempt) {
			return ctx.Err()
		}
	}
}

// unsure reports whether a key may exist that is not listed yet: it was not seen since its create, or its delete was not answered
// with success.
func (s *Session) unsure() bool {
	return slices.ContainsFunc(s.made, func(k *key) bool {
		return !s.deleted[k.id] && !k.refused && (time.Since(k.sent) < s.opt.Patience || k.made && k.id == "")
	})
}
