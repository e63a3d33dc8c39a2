package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

func askSecondDelete(s *Session, lived []*life) (string, error) {
	var refusal error
	for _, l := range lived {
		if err := l.secondDelete; errors.Is(err, elevenlabs.ErrNotFound) {
			refusal = err
		} else if errors.Is(err, errSuccess) || refused(err) {
			return "", differ("a second delete: %s", s.said(err))
		}
	}
	if refusal == nil {
		return "", unasked("no delete was answered with success")
	}
	return s.said(refusal), nil
}

func askDelay(s *Session, lived []*life) (string, error) {
	for _, l := range lived {
		switch {
		case l.early != nil:
			return "", differ("before a new key works: %s", s.said(l.early))
		case l.relapse != nil:
			return "", differ("a key that had worked: %s", s.said(l.relapse))
		}
	}
	return s.inTime(lived, func(l *life) []*look { return []*look{l.works} }, "a new key did not work")
}

// inTime judges looks: it differs where one was not seen within the patience, and could not be asked where there is none.
func (s *Session) inTime(lived []*life, of func(*life) []*look, not string) (string, error) {
	var m Measure
	var ending error
	for _, l := range lived {
		if l.ending != nil {
			ending = l.ending
		}
		for _, look := range of(l) {
			if look != nil && !look.seen && look.last != nil && !refused(look.last) {
				return "", look.last // no answer, and so nothing to judge
			}
		}
		m.add(of(l)...)
	}
	switch {
	case m.Longer > 0:
		return "", differ("%s within %s, in %d of %d tries", not, s.opt.Patience, m.Longer, m.Longer+len(m.AtMost))
	case len(m.AtMost) > 0:
		return fmt.Sprintf("within %gs", slices.Max(m.AtMost)), nil
	case ending != nil:
		return "", ending
	}
	return "", unasked("it did not come to that")
}

func askListings(ctx context.Context, s *Session) (string, error) {
	if errors.Is(s.look(ctx, keyPlain).err, errNotListed) {
		return "", differ("%v within %s", errNotListed, s.opt.Patience)
	}
	lived, err := s.lives(ctx)
	if err != nil {
		return "", err
	}
	shown, err := s.inTime(lived, func(l *life) []*look { return []*look{l.listed, l.listedAll} }, "listings did not show a new key")
	if err != nil {
		return "", err
	}
	gone, err := s.inTime(lived, func(l *life) []*look { return []*look{l.unlisted, l.vanished} }, "listings showed a deleted key, still")
	if err != nil {
		return "", err
	}
	return "a create " + shown + ", a delete " + gone, nil
}

func askByID(_ *Session, lived []*life) (string, error) {
	for _, l := range lived {
		switch {
		case errors.Is(l.byID, elevenlabs.ErrNotFound):
			return "", differ("an update right after the create: the key is not found")
		case l.byID != nil:
			return "", l.byID
		}
	}
	return "an update right after the create succeeds", nil
}

func askDisabled(s *Session, lived []*life) (string, error) {
	return s.inTime(lived, func(l *life) []*look { return []*look{l.refused} }, "a disabled key was not refused")
}

func askChanges(s *Session, lived []*life) (string, error) {
	return s.inTime(lived, func(l *life) []*look { return []*look{l.shown} }, "the listing did not show that a key is disabled")
}
