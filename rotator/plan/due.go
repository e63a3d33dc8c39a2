package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// planSchedule decides whether the schedule or max_age makes the policy due.
func planSchedule(p Policy, o Observed, now time.Time, d Decision) Decision {
	due, why := NextDue(p, o.Entry)
	run := due // a late policy may belong to a later run
	if why == ledger.TriggerSchedule && !due.IsZero() && !due.After(now) {
		byAge, limited := ageDue(p, o.Entry)
		wait := false
		switch run, wait = lateRun(p, due, now); {
		case limited && !byAge.After(now):
			why = ledger.TriggerMaxAge // it skips the waits of a scheduled run
		case wait:
			d.NextDue, d.NextReason, d.Reason = run, Delayed{WaitWindow, why}, WaitWindow
			if limited && !run.Before(byAge) {
				d.NextDue, d.NextReason = byAge, ledger.TriggerMaxAge
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
	if turn := o.yieldUntil(p, run); why == ledger.TriggerSchedule && turn.After(now) {
		d.State, d.Reason = StateDue, WaitOthersFirst
		d.wakeAt(turn)
		return d
	}
	return planRotation(p, o, now, why, d)
}

// NextDue returns when the next rotation is due and what makes it so; zero means never.
func NextDue(p Policy, e *ledger.Entry) (time.Time, ledger.Trigger) {
	var due time.Time
	why := ledger.TriggerSchedule
	if p.Mode != ModeManual {
		if next := p.Schedule.Next(e.LastRotation); !next.IsZero() {
			due = next.Add(schedule.SplayOf(p.Name, p.Splay))
		}
	}
	if age, ok := ageDue(p, e); ok && (due.IsZero() || age.Before(due)) {
		return age, ledger.TriggerMaxAge
	}
	return due, why
}

func ageDue(p Policy, e *ledger.Entry) (time.Time, bool) {
	if p.MaxAge == 0 || e.Current == nil {
		return time.Time{}, false
	}
	return e.Current.Created.Add(p.MaxAge - p.Overlap - p.LongestWait()), true
}

func tooOld(p Policy, e *ledger.Entry, now time.Time) bool {
	at, limited := ageDue(p, e)
	return limited && !at.After(now)
}

// lateRun returns whether a due run waits for the next one because its window has closed.
func lateRun(p Policy, due, now time.Time) (next time.Time, wait bool) {
	if p.Window == 0 || now.Sub(due) <= p.Window {
		return due, false
	}
	if every, counts := p.Schedule.Every(); counts { // counted from the last rotation, missed runs included
		next = due.Add((now.Sub(due) - p.Window + every - 1) / every * every)
		return next, next.After(now)
	}
	splay := schedule.SplayOf(p.Name, p.Splay)
	next = p.Schedule.Next(now.Add(-p.Window - splay)).Add(splay)
	return next, next.After(now)
}

// planRotation plans a rotation for any reason, or finds what makes it wait.
func planRotation(p Policy, o Observed, now time.Time, why ledger.Trigger, d Decision) Decision {
	d.State, d.Reason = StateDue, why
	if o.Entry != nil && o.Entry.Failure != nil {
		d.State = StateFailing
	}
	unscheduled := d.NextDue.IsZero() // a first key, say
	if unscheduled {
		d.NextDue, d.NextReason = now, why
	}
	wait := func(s State, r Reason) Decision { d.State, d.Reason = s, r; return d }
	asked := o.Request != nil && !o.Request.Failed && (why == ledger.TriggerRequested || why == ledger.TriggerRevoke)
	switch {
	case o.AdminRefused:
		return wait(StateFailing, ledger.FailureAdminKeyRefused)
	case !o.Listed:
		return wait(d.State, WaitNotObserved)
	case !o.Found:
		return failUnknownAccount(p, d)
	case !asked && soonest(retryAt(o), now).After(now):
		d.NextDue, d.NextReason = retryAt(o), Delayed{WaitBackoff, why}
		d.wakeAt(d.NextDue)
		return wait(StateFailing, WaitBackoff)
	case waitsForOverlap(why) && o.inOverlap(p, now):
		return wait(StateDue, WaitOverlap)
	case o.GroupHeld != "" && !BypassesGroup(p, o.Entry, why, now):
		d.HeldBy = o.GroupHeld
		return wait(StateDue, WaitGroup)
	case !Exempt(why) && o.MaxRotations > 0 && o.Uncounted:
		return wait(d.State, WaitNotObserved)
	case !Exempt(why) && o.MaxRotations > 0 && o.Rotations >= o.MaxRotations:
		d.Message = fmt.Sprintf("workspace %s has had %d rotations within an hour (REKEYD_MAX_ROTATIONS_PER_HOUR is %d); it goes on after %s",
			p.Workspace, o.Rotations, o.MaxRotations, o.RoomAt.UTC().Format("15:04 UTC"))
		if unscheduled {
			d.NextDue, d.NextReason = o.RoomAt, Delayed{WaitThrottled, why}
		}
		return wait(StateThrottled, WaitThrottled)
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

func waitsForOverlap(why ledger.Trigger) bool { return why == ledger.TriggerSchedule }

// Exempt reports whether a rotation for this reason skips the hourly limit.
func Exempt(why ledger.Trigger) bool {
	return why == ledger.TriggerExposed || why == ledger.TriggerSelfDisabled || why == ledger.TriggerRevoke
}

// inOverlap reports whether a key is in overlap. A key in the policy's own workspace counts until it is disabled, or keys would
// pile up there. A key in a workspace that the policy has left counts only for a while: that workspace may be gone for good.
func (o Observed) inOverlap(p Policy, now time.Time) bool {
	return o.Entry != nil && slices.ContainsFunc(o.Entry.Retiring, func(r ledger.Retiring) bool {
		return r.State == ledger.InOverlap && (r.Workspace == p.Workspace || now.Before(r.Until.Add(p.LongestWait()+ledger.HoldGrace)))
	})
}

// Leaked reports whether the replaced key is leaked, so that it must not get an overlap.
func Leaked(why ledger.Trigger) bool {
	return why == ledger.TriggerExposed || why == ledger.TriggerSelfDisabled
}

// OverlapEnd returns until when the key that is being replaced now may be used: the end of the overlap, or of the key's max_age if
// that is earlier. It is rounded up to a whole second, the precision of records.
func OverlapEnd(p Policy, old ledger.KeyRef, now time.Time) time.Time {
	end := now.Add(p.Overlap)
	if whole := end.Truncate(time.Second); p.Overlap > 0 && whole.Before(end) {
		end = whole.Add(time.Second)
	}
	if p.MaxAge == 0 {
		return end
	}
	return earlier(end, old.Created.Add(p.MaxAge))
}

// RetiringOf returns how the key that is being replaced leaves: in overlap, or without one if it was leaked, revoked or listed as
// disabled. until is the end of the overlap that the record promised, if known.
func RetiringOf(p Policy, old ledger.KeyRef, why ledger.Trigger, disabled, listed bool, now, until time.Time) ledger.Retiring {
	r := ledger.Retiring{KeyRef: old, State: ledger.InOverlap, Until: until, Quarantine: ledger.Duration(p.Quarantine), WaitUntilIdle: ledger.Duration(p.WaitUntilIdle), WaitUntilUsed: ledger.Duration(p.WaitUntilUsed), Reason: why}
	if until.IsZero() {
		r.Until = OverlapEnd(p, old, now)
	}
	switch {
	case Leaked(why):
		r.State, r.Until = ledger.InQuarantine, now.Add(p.Quarantine)
	case why == ledger.TriggerKeyMissing && !listed:
		r.State, r.Until = ledger.InQuarantine, now
	case why == ledger.TriggerRevoke || disabled || r.Until.Before(now):
		r.Until = now // the listing may be old, so it is disabled again
	}
	return r
}

// The admin key of a workspace is a key like any other, published where the workspace's client reads it (Policy.AdminOf). It
// differs in three ways: it is proven by listing the service accounts, it rotates last, and the key before it stays until this
// process is seen to use the new one.

// yieldFor is how long an admin key that could rotate yields to the other keys of its workspace, and a member of a group to the
// member that goes first.
const yieldFor = time.Hour

// yieldUntil returns until when a due scheduled run yields to other policies: with a window, for at most half of it.
func (o Observed) yieldUntil(p Policy, run time.Time) time.Time {
	if !o.OthersDue {
		return run
	}
	from := run
	if o.Answers.After(run) {
		from = o.Answers // the other policies could not rotate before
	}
	if until := run.Add(p.Window / 2); p.Window > 0 {
		return earlier(until, from.Add(yieldFor))
	}
	return from.Add(yieldFor)
}

// BypassesGroup reports whether a rotation does not wait for its group: a leaked, revoked or too old key cannot wait, and readers
// without a working key have nothing to lose.
func BypassesGroup(p Policy, e *ledger.Entry, why ledger.Trigger, now time.Time) bool {
	switch why {
	case ledger.TriggerSchedule, ledger.TriggerMoved, ledger.TriggerRequested, ledger.TriggerDrift:
		return e != nil && tooOld(p, e, now)
	}
	return true
}
