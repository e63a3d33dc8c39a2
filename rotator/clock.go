package rotator

import (
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// maxSkew is how far this host's clock may be from the remotes' before nothing scheduled begins, and how far in the future
// a time may lie that others wrote.
const maxSkew = 5 * time.Minute

// clocked is a store that tells the time: the date of its last answer, and when that came on the monotonic clock; zero
// where none bore a date.
type clocked interface {
	Clock() (date, seen time.Time)
}

// Skew is by how much this host's clock is ahead of the remotes' dates. What a remote does not say is absent.
type Skew struct {
	Store      *time.Duration
	Workspaces map[string]time.Duration
}

// Skew compares this host's clock with what the remotes said last.
func (r *Rotator) Skew() Skew {
	s := Skew{Workspaces: map[string]time.Duration{}}
	if c, ok := r.sink.store.(clocked); ok {
		if d, known := r.skewOf(c); known {
			s.Store = &d
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ws := range r.spaces {
		if d, known := r.skewOf(ws.api); known {
			s.Workspaces[ws.name] = d
		}
	}
	return s
}

func (r *Rotator) skewOf(c clocked) (time.Duration, bool) {
	date, seen := c.Clock()
	if date.IsZero() {
		return 0, false
	}
	return r.Wall().Sub(date.Add(time.Since(seen))), true
}

// wrongClock returns by how much this host's clock is wrong, by what ElevenLabs and the store both say; where the store
// does not tell the time, as files do not, by what ElevenLabs says. Below maxSkew it is 0. Rotator.mu is held.
func (r *Rotator) wrongClock(api *elevenlabs.Client) time.Duration {
	d, known := r.skewOf(api)
	if !known || d.Abs() <= maxSkew {
		return 0
	}
	if c, ok := r.sink.store.(clocked); ok {
		if s, known := r.skewOf(c); !known || s.Abs() <= maxSkew {
			return 0
		}
	}
	return d
}

// now is the time for what ledger and record promise: by this host's clock, or, where that is wrong, by the remotes.
func (j *job) now() time.Time {
	j.r.mu.Lock()
	defer j.r.mu.Unlock()
	return j.r.Wall().Add(-j.r.wrongClock(j.api))
}

// logSkew says once that the clock is wrong, and once that it is right again. Rotator.mu is held.
func (r *Rotator) logSkew(ws *workspace) {
	skew := r.wrongClock(ws.api)
	if (skew != 0) == ws.skewed {
		return
	}
	ws.skewed = skew != 0
	if skew == 0 {
		r.Logger.Info("clock agrees with the remotes again", "workspace", ws.name)
		return
	}
	r.Logger.Error("clock differs from what ElevenLabs and the store say, nothing scheduled begins", "workspace", ws.name, "ahead_by", skew.Round(time.Second).String())
}

// planSkew holds back what only the clock calls for, where the clock is wrong or nothing vouches for it yet.
func planSkew(o Observed, d Decision) Decision {
	if o.Skew == 0 && !o.ClockUnknown {
		return d
	}
	n := len(d.Steps)
	d.Steps = slices.DeleteFunc(slices.Clone(d.Steps), func(s Step) bool {
		switch s.Reason {
		case ReasonSchedule, ReasonMaxAge, ReasonOverlapEnded, ReasonQuarantineEnded:
			return true
		}
		return false
	})
	if o.Skew == 0 {
		return d
	}
	if d.State == StateOK || d.State == StateDue || len(d.Steps) < n {
		d.Reason = ReasonClockSkew
		d.Message = fmt.Sprintf("this host's clock differs by %s from what ElevenLabs and Vault say, so nothing scheduled begins; set it right", o.Skew.Round(time.Second).Abs())
	}
	return d
}

// inFuture reports a time that nobody can have written whose clock was right.
func inFuture(t, now time.Time) bool { return t.Sub(now) > maxSkew }

// soonest returns when to try again, where that was written by a clock that was right: no wait is longer than maxBackoff.
func soonest(t, now time.Time) time.Time {
	if t.Sub(now) > maxBackoff+maxSkew {
		return time.Time{}
	}
	return t
}

// mended returns the entry with times that can be waited for, nil where they are that already. What a clock that was wrong
// wrote is replaced by what ElevenLabs says of the key; where that says nothing, it stays, and is an error of the policy.
func mended(p Policy, o Observed, now time.Time) *Entry {
	e := o.Entry
	if e == nil || o.Skew != 0 {
		return nil
	}
	wrong := func(k KeyRef) bool { return inFuture(k.Published, now) || inFuture(k.Created, now) }
	old := func(r Retiring) bool {
		return wrong(r.KeyRef) || r.State == InQuarantine && inFuture(r.Until, now.Add(time.Duration(r.Quarantine)))
	}
	if !inFuture(e.LastRotation, now) && (e.Current == nil || !wrong(*e.Current)) && !slices.ContainsFunc(e.Retiring, old) {
		return nil
	}
	e = e.clone()
	fix := func(k *KeyRef) {
		listed, found := o.key(k.ID)
		if !wrong(*k) || !found || listed.CreatedAt.IsZero() || inFuture(listed.CreatedAt, now) {
			return
		}
		k.Created, k.Published = listed.CreatedAt, listed.CreatedAt
	}
	for i := range e.Retiring {
		fix(&e.Retiring[i].KeyRef)
	}
	if e.Current == nil {
		return e
	}
	fix(e.Current)
	since := e.Current.Published // when what is retiring was replaced, at the latest
	if listed, found := o.key(e.Current.ID); found && inFuture(e.LastRotation, now) && !listed.CreatedAt.IsZero() && !inFuture(listed.CreatedAt, now) {
		e.LastRotation = listed.CreatedAt
	}
	for i := range e.Retiring {
		r := &e.Retiring[i]
		until := since.Add(p.Overlap + p.WaitUntilIdle)
		if r.State == InQuarantine {
			until = until.Add(time.Duration(r.Quarantine))
		}
		if !inFuture(since, now) && until.Before(r.Until) && inFuture(r.Until, now) {
			r.Until = until
		}
	}
	return e
}

// planFuture is the error of an entry whose times nobody can mend.
func planFuture(p Policy, e *Entry, now time.Time, d Decision) (Decision, bool) {
	if p.Mode == modeRemoved || e.Current == nil || !inFuture(e.LastRotation, now) {
		return d, false
	}
	return d.fail(ReasonClockSkew, "the ledger says that policy %s was rotated at %s, which has yet to come: a clock was wrong, and ElevenLabs does not list its key; run: rekeyd rotate %s",
		p.Name, e.LastRotation.UTC().Format(time.RFC3339), p.Name), true
}
