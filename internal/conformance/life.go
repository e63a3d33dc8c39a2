package conformance

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

const lives = 3 // keys whose life is measured, one after the other

// rest waits until a handful of requests may be sent without a wait, so that times are not those of the rate budget.
func (s *Session) rest(ctx context.Context) {
	if s.opt.Rate > 0 {
		const requests = 5
		ctx, cancel := context.WithTimeout(ctx, time.Duration(requests/s.opt.Rate*float64(time.Second)))
		defer cancel()
		<-ctx.Done()
	}
}

// life is what was seen of a key from its create to after its delete. A look is nil where it did not come to it.
type life struct {
	key                  *key
	byID                 error // of a call by id right after the create; errNoID: the create did not say it
	works                *look
	early                error // an answer before it worked, other than that it is unknown
	relapse              error // of two more requests once it worked
	listed, listedAll    *look // in the account's listing, in the workspace's
	refused, shown       *look // once it was disabled
	disabled, deleted    error // what it was answered then
	unlisted, vanished   *look // from the account's listing, from the workspace's
	secondDelete, ending error // ending is why it was not followed further
}

var errNoID = errors.New("a create is not answered with an id")

// lives measures keys, once in a run.
func (s *Session) lives(ctx context.Context) ([]*life, error) {
	for len(s.lived) < lives {
		s.rest(ctx)
		k, err := s.create(ctx, "", plainSettings())
		switch {
		case err != nil && len(s.lived) == 0:
			return nil, err
		case err != nil:
			return s.lived, ctx.Err()
		}
		l := &life{key: k}
		s.lived = append(s.lived, l)
		l.ending = s.follow(ctx, l)
		if !k.gone {
			_ = s.drop(ctx, k) // create and sweep try again
		}
	}
	return s.lived, ctx.Err()
}

func (s *Session) follow(ctx context.Context, l *life) error {
	k := l.key
	l.works, l.listed, l.listedAll = s.works(k), s.listing(k, there), s.everywhere(k, there)
	ask := l.works.ask
	l.works.ask = func(ctx context.Context) (bool, error) {
		ok, err := ask(ctx)
		if plainly(err) && !errors.Is(err, elevenlabs.ErrInvalidKey) {
			l.early = err
		}
		return ok, err
	}
	l.byID = errNoID
	if k.answered {
		l.byID = s.enable(ctx, k, true)
	}
	if err := s.watch(ctx, l.works, l.listed, l.listedAll); err != nil {
		return err
	}
	for range 2 {
		if _, err := s.get(ctx, k.secret, pathUser); l.works.seen && refused(err) {
			l.relapse = err
		}
	}
	s.rest(ctx)
	if err := s.enable(ctx, k, false); err != nil {
		return err
	}
	l.refused = &look{ask: func(ctx context.Context) (bool, error) {
		_, err := s.api.ProbePath(ctx, k.secret, pathUser)
		return plainly(err), err
	}}
	looks := []*look{l.refused}
	if l.listed.seen {
		l.shown = s.listing(k, func(listed *elevenlabs.Key) bool { return listed != nil && listed.Disabled })
		looks = append(looks, l.shown)
	}
	if !l.works.seen {
		l.refused, looks = nil, looks[1:]
	}
	if err := s.watch(ctx, looks...); err != nil {
		return err
	}
	if l.refused != nil && l.refused.seen {
		l.disabled = l.refused.last
	}
	return s.bury(ctx, l)
}

// bury deletes the key, and looks at what is left of it.
func (s *Session) bury(ctx context.Context, l *life) error {
	k := l.key
	s.rest(ctx)
	if err := s.remove(ctx, k.id); err != nil && !errors.Is(err, elevenlabs.ErrNotFound) {
		return err
	}
	if s.deleted[k.id] {
		k.gone = true
		l.secondDelete = answered(s.remove(ctx, k.id))
	}
	if l.refused != nil && l.refused.seen {
		_, err := s.get(ctx, k.secret, pathUser)
		l.deleted = answered(err)
	}
	var looks []*look
	if l.listed.seen {
		l.unlisted = s.listing(k, absent)
		looks = append(looks, l.unlisted)
	}
	if l.listedAll.seen {
		l.vanished = s.everywhere(k, absent)
		looks = append(looks, l.vanished)
	}
	return s.watch(ctx, looks...)
}

// errSuccess is an answer that is not a refusal, where one was expected.
var errSuccess = errors.New("success")

func answered(err error) error {
	if err == nil {
		return errSuccess
	}
	return err
}

func there(k *elevenlabs.Key) bool  { return k != nil }
func absent(k *elevenlabs.Key) bool { return k == nil }

// everywhere is listing, of the whole workspace.
func (s *Session) everywhere(k *key, wanted func(*elevenlabs.Key) bool) *look {
	return &look{ask: func(ctx context.Context) (bool, error) {
		accounts, err := s.api.ServiceAccounts(ctx)
		for _, a := range accounts {
			if a.ID == s.opt.Account {
				return err == nil && wanted(find(a.Keys, k.id)), err
			}
		}
		return false, err
	}}
}

// enable enables or disables a key.
func (s *Session) enable(ctx context.Context, k *key, on bool) error {
	return s.ask(ctx, func(ctx context.Context) error {
		return s.api.UpdateKey(ctx, s.opt.Account, k.id, elevenlabs.Update{Name: k.name, Enabled: &on})
	})
}

// measures are what the lives took.
func (s *Session) measures() []Measure {
	m := []Measure{
		{What: "until a new key works"}, {What: "until a disabled key is refused"}, {What: "until listings show a new key"},
		{What: "until the listing shows that a key is disabled"}, {What: "until listings no longer show a deleted key"},
	}
	for _, l := range s.lived {
		m[0].add(l.works)
		m[1].add(l.refused)
		m[2].add(l.listed, l.listedAll)
		m[3].add(l.shown)
		m[4].add(l.unlisted, l.vanished)
	}
	return m
}

// add counts the slowest look of a try, unless there is none.
func (m *Measure) add(looks ...*look) {
	slowest := &look{}
	for _, l := range looks {
		if l == nil {
			return
		}
		if !l.seen {
			m.Longer++
			return
		}
		if l.after > slowest.after {
			slowest = l
		}
	}
	const digits = 100
	round := func(d time.Duration) float64 { return math.Round(d.Seconds()*digits) / digits }
	m.AtLeast, m.AtMost = append(m.AtLeast, round(slowest.not)), append(m.AtMost, round(slowest.after))
}
