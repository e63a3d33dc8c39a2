package rotator

import (
	"slices"
	"time"
)

// planSchedule asks whether the schedule or max_age makes the policy due.
func planSchedule(p Policy, o Observed, now time.Time, d Decision) Decision {
	due, why := nextDue(p, o.Entry)
	run := due // the one to which a late policy belongs
	if why == ReasonSchedule && !due.IsZero() && !due.After(now) {
		byAge, limited := ageDue(p, o.Entry)
		wait := false
		switch run, wait = lateRun(p, due, now); {
		case limited && !byAge.After(now):
			why = ReasonMaxAge // which waits for nothing that a run by schedule may wait for
		case wait:
			d.NextDue, d.Reason = run, ReasonWindow
			if limited {
				d.NextDue = earlier(run, byAge)
			}
			d.wakeAt(d.NextDue)
			return d
		case limited:
			d.wakeAt(byAge)
		}
	}
	switch {
	case due.IsZero():
		return d
	case due.After(now):
		d.wakeAt(due)
		return d
	}
	if turn := o.goesLast(p, run); why == ReasonSchedule && turn.After(now) {
		d.State, d.Reason = StateDue, ReasonOthersFirst
		d.wakeAt(turn)
		return d
	}
	return planRotation(p, o, now, why, d)
}

// nextDue returns when the next rotation is due and what makes it so; zero means never.
func nextDue(p Policy, e *Entry) (time.Time, Reason) {
	var due time.Time
	why := ReasonSchedule
	if p.Mode != ModeManual {
		if next := p.Schedule.Next(e.LastRotation); !next.IsZero() {
			due = next.Add(SplayOf(p.Name, p.Splay))
		}
	}
	if age, ok := ageDue(p, e); ok && (due.IsZero() || age.Before(due)) {
		return age, ReasonMaxAge
	}
	return due, why
}

func ageDue(p Policy, e *Entry) (time.Time, bool) {
	if p.MaxAge == 0 || e.Current == nil {
		return time.Time{}, false
	}
	return e.Current.Created.Add(p.MaxAge - p.Overlap - p.WaitUntilIdle), true
}

func tooOld(p Policy, e *Entry, now time.Time) bool {
	at, limited := ageDue(p, e)
	return limited && !at.After(now)
}

// lateRun says whether a run that was due waits for the next one because its window has closed.
func lateRun(p Policy, due, now time.Time) (next time.Time, wait bool) {
	if p.Window == 0 || now.Sub(due) <= p.Window {
		return due, false
	}
	if every, counts := p.Schedule.Every(); counts { // from the last rotation, whatever was left out since
		next = due.Add((now.Sub(due) - p.Window + every - 1) / every * every)
		return next, next.After(now)
	}
	splay := SplayOf(p.Name, p.Splay)
	next = p.Schedule.Next(now.Add(-p.Window - splay)).Add(splay)
	return next, next.After(now)
}

// planRotation is where every reason to rotate ends: it applies what can make a rotation wait.
func planRotation(p Policy, o Observed, now time.Time, why Reason, d Decision) Decision {
	d.State, d.Reason = StateDue, why
	if o.Entry != nil && o.Entry.Failure != nil {
		d.State = StateFailing
	}
	wait := func(s State, r Reason) Decision { d.State, d.Reason = s, r; return d }
	asked := o.Request != nil && !o.Request.Failed && (why == ReasonRequested || why == ReasonRevoke)
	switch {
	case o.AdminRefused:
		return wait(StateFailing, ReasonAdminKeyRefused)
	case !o.Listed:
		return wait(d.State, ReasonNotObserved)
	case !o.Found:
		return failUnknownAccount(p, d)
	case !asked && soonest(retryAt(o), now).After(now):
		d.NextDue = retryAt(o)
		d.wakeAt(d.NextDue)
		return wait(StateFailing, ReasonBackoff)
	case waitsForOverlap(why) && o.inOverlap(p, now):
		return wait(StateDue, ReasonOverlap)
	case o.GroupHeld != "" && !goesAhead(p, o.Entry, why, now):
		d.HeldBy = o.GroupHeld
		return wait(StateDue, ReasonGroup)
	case !exempt(why) && o.MaxRotations > 0 && o.Uncounted:
		return wait(d.State, ReasonNotObserved)
	case !exempt(why) && o.MaxRotations > 0 && o.Rotations >= o.MaxRotations:
		return wait(StateThrottled, ReasonThrottled)
	}
	d.add(Step{Action: ActRotate, Reason: why, Workspace: p.Workspace, Account: p.ServiceAccount})
	return d
}

func retryAt(o Observed) time.Time {
	at := o.RetryAt
	if o.Entry != nil && o.Entry.Failure != nil && o.Entry.Failure.NextTry.After(at) {
		at = o.Entry.Failure.NextTry
	}
	return at
}

func waitsForOverlap(why Reason) bool { return why == ReasonSchedule }

func exempt(why Reason) bool {
	return why == ReasonExposed || why == ReasonSelfDisabled || why == ReasonRevoke
}

// inOverlap reports a key in overlap. One in a workspace that the policy has left counts for a while only: that workspace
// may never answer again. One in the policy's own counts until it is disabled, or keys would pile up there.
func (o Observed) inOverlap(p Policy, now time.Time) bool {
	return o.Entry != nil && slices.ContainsFunc(o.Entry.Retiring, func(r Retiring) bool {
		return r.State == InOverlap && (r.Workspace == p.Workspace || now.Before(r.Until.Add(p.WaitUntilIdle+holdGrace)))
	})
}

// leaked reports that the key being replaced must not get an overlap.
func leaked(why Reason) bool { return why == ReasonExposed || why == ReasonSelfDisabled }

// overlapEnd returns until when the key that is being replaced now may be used: the overlap, cut short where the key
// would otherwise outlive max_age. An overlap is rounded up to a whole second, which is what records can say.
func overlapEnd(p Policy, old KeyRef, now time.Time) time.Time {
	end := now.Add(p.Overlap)
	if whole := end.Truncate(time.Second); p.Overlap > 0 && whole.Before(end) {
		end = whole.Add(time.Second)
	}
	if p.MaxAge == 0 {
		return end
	}
	return earlier(end, old.Created.Add(p.MaxAge))
}
