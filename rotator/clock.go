package rotator

import (
	"log/slog"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// clocked is a remote that tells the time: the date of its last answer, and when that arrived on the monotonic clock. The date
// is zero if no answer had one.
type clocked interface {
	Clock() (date, seen time.Time)
}

// Skew is how far this host's clock is ahead of the remotes' dates. A remote that sends no date is absent.
type Skew struct {
	Store      *time.Duration
	Workspaces map[string]time.Duration
}

// Skew compares this host's clock with the last dates of the remotes.
func (r *Rotator) Skew() Skew {
	s := Skew{Workspaces: map[string]time.Duration{}}
	if c, ok := r.outage.store.(clocked); ok {
		if d, known := r.skewOf(c); known {
			s.Store = &d
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ws := range r.sortedWorkspaces {
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
	return r.opt.Wall().Sub(date.Add(time.Since(seen))), true
}

// wrongClockLocked returns by how much this host's clock is wrong: ElevenLabs and the store must both say so, or ElevenLabs
// alone if the store tells no time, as with files. Up to MaxSkew it returns 0.
func (r *Rotator) wrongClockLocked(api *elevenlabs.Client) time.Duration {
	d, known := r.skewOf(api)
	if !known || d.Abs() <= plan.MaxSkew {
		return 0
	}
	if c, ok := r.outage.store.(clocked); ok {
		if s, known := r.skewOf(c); !known || s.Abs() <= plan.MaxSkew {
			return 0
		}
	}
	return d
}

// logSkewLocked logs once that the clock is wrong, and once that it is right again.
func (r *Rotator) logSkewLocked(ws *workspace) {
	skew := r.wrongClockLocked(ws.api)
	if (skew != 0) == ws.skewed {
		return
	}
	ws.skewed = skew != 0
	if skew == 0 {
		r.logLocked(slog.LevelInfo, "clock agrees with the remotes again", "workspace", ws.name)
		return
	}
	r.logLocked(slog.LevelError, "clock differs from what ElevenLabs and the store say, nothing scheduled begins", "workspace", ws.name, "ahead_by", skew.Round(time.Second).String())
}

// mended returns the entry with future times, which a wrong clock wrote, replaced by what ElevenLabs says of the keys; nil if
// there are none. A time about which ElevenLabs says nothing stays, and puts the policy in error.
func mended(p plan.Policy, o plan.Observed, now time.Time) *ledger.Entry {
	e := o.Entry
	if e == nil || o.Skew != 0 {
		return nil
	}
	wrong := func(k ledger.KeyRef) bool { return plan.InFuture(k.Published, now) || plan.InFuture(k.Created, now) }
	old := func(r ledger.Retiring) bool {
		return wrong(r.KeyRef) || r.State == ledger.InQuarantine && plan.InFuture(r.Until, now.Add(time.Duration(r.Quarantine)))
	}
	if !plan.InFuture(e.LastRotation, now) && (e.Current == nil || !wrong(*e.Current)) && !slices.ContainsFunc(e.Retiring, old) {
		return nil
	}
	e = e.Clone()
	fix := func(k *ledger.KeyRef) {
		listed, found := o.Key(k.ID)
		if !wrong(*k) || !found || listed.CreatedAt.IsZero() || plan.InFuture(listed.CreatedAt, now) {
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
	since := e.Current.Published // the retiring keys were replaced by then
	if listed, found := o.Key(e.Current.ID); found && plan.InFuture(e.LastRotation, now) && !listed.CreatedAt.IsZero() && !plan.InFuture(listed.CreatedAt, now) {
		e.LastRotation = listed.CreatedAt
	}
	for i := range e.Retiring {
		r := &e.Retiring[i]
		until := since.Add(p.Overlap + p.LongestWait())
		if r.State == ledger.InQuarantine {
			until = until.Add(time.Duration(r.Quarantine))
		}
		if !plan.InFuture(since, now) && until.Before(r.Until) && plan.InFuture(r.Until, now) {
			r.Until = until
		}
	}
	return e
}
