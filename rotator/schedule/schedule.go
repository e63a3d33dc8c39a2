package schedule

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"time"
	"unique"

	"github.com/robfig/cron/v3"
)

// Schedule says when a policy's runs are. It is a small value, made by [Parse] and never changed; the zero
// value never runs. It satisfies cron.Schedule of robfig/cron, whose parser reads the fields; what they mean on the
// days when clocks change is decided here, as in cron(8):
//
//   - A schedule that names its hour ("30 2 * * *", "0 0-23 * * *", @daily) runs when the clock on the wall first
//     reads the time or a later one. So a run inside the skipped hour happens at the first instant after it, several
//     of them as one, and a run inside the repeated hour happens once, at the first of the two. A civil day that a
//     zone skipped as a whole (Apia, 30 December 2011) has no runs.
//   - A schedule with * (or its synonym ?) in the hour field ("0 * * * *", "0 */2 * * *", @hourly) runs whenever the
//     wall clock reads the time: not in the skipped hour, twice in the repeated one.
//   - @every runs that long after the last run, whatever clocks do.
//
// As in robfig/cron, a day matches if day-of-month or day-of-week does, when neither is *; a */2 is not *.
type Schedule struct {
	shared unique.Handle[parts] // thousands of policies have few schedules
}

type parts struct {
	expr  string
	loc   *time.Location
	every time.Duration     // above 0: an @every schedule
	spec  cron.SpecSchedule // else these fields; asked about wall-clock readings written as if they were UTC
	wild  bool              // the hour field has a *
}

// maxShift exceeds any difference between two of the world's wall clocks, past or present; today the largest is 26 hours.
const maxShift = 48 * time.Hour

// String returns the expression as written, without the zone prefix and extra blanks.
func (s Schedule) String() string { return s.parts().expr }

// Location returns the schedule's time zone; UTC for the zero value.
func (s Schedule) Location() *time.Location { return cmp.Or(s.parts().loc, time.UTC) }

// Zone returns the IANA name of the schedule's time zone.
func (s Schedule) Zone() string { return s.Location().String() }

// Every returns the interval of an @every schedule, and whether it is one.
func (s Schedule) Every() (time.Duration, bool) { return s.parts().every, s.parts().every > 0 }

// Next returns the first run strictly after the given time, in the schedule's zone; the zero time means never.
// An @every schedule counts from the given time, which is a policy's last rotation.
func (s Schedule) Next(after time.Time) time.Time { return s.parts().next(after) }

func (s Schedule) parts() parts {
	if s == (Schedule{}) {
		return parts{}
	}
	return s.shared.Value()
}

func (s parts) next(after time.Time) time.Time {
	switch {
	case s.loc == nil:
		return time.Time{}
	case s.every > 0:
		return after.Round(0).Add(s.every).In(s.loc)
	case s.wild:
		return s.nextReading(after.In(s.loc))
	default:
		return s.nextReached(after.In(s.loc))
	}
}

// nextReached is Next for schedules that name their hour: the first instant at which the clock has reached the next
// of the times that it had not reached by t.
func (s parts) nextReached(t time.Time) time.Time {
	due := s.nextOnWall(furthestReading(t))
	if due.IsZero() {
		return due
	}
	if near := due.Add(-maxShift); near.After(t) { // no zone's clock reads due that early
		t = near.In(s.loc)
	}
	var shift time.Duration // by which the clock was put forward at t
	for {
		end := offsetEnd(t)
		at := whenReads(due, t)
		switch {
		case !at.Before(t):
		case shift < 24*time.Hour: // the clock skipped it
			at = t
		default: // its day never was
			due = s.nextOnWall(onWall(t).Add(-1))
			at = whenReads(due, t)
		}
		if end.IsZero() || at.Before(end) {
			return at
		}
		shift = onWall(end).Sub(onWall(t)) - end.Sub(t)
		t = end
	}
}

// nextReading is Next for schedules with * in the hour: the next instant at which the clock reads one of the times.
func (s parts) nextReading(t time.Time) time.Time {
	from := onWall(t)
	for {
		due := s.nextOnWall(from)
		if due.IsZero() {
			return due
		}
		end := offsetEnd(t)
		at := whenReads(due, t)
		if end.IsZero() || at.Before(end) {
			return at
		}
		t, from = end, onWall(end).Add(-1) // the reading at end itself may be one
	}
}

// nextOnWall returns the first of the spec's readings after the given one; zero if there is none.
// The spec looks ahead for five years only, but around 2100 there is no 29 February for eight.
func (s parts) nextOnWall(reading time.Time) time.Time {
	next := s.spec.Next(reading)
	if next.IsZero() {
		next = s.spec.Next(reading.AddDate(5, 0, 0))
	}
	return next
}

// onWall returns what the clock in t's zone reads at t, written as if it were UTC.
func onWall(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// whenReads returns when a clock reads the reading, provided that it is as far from UTC as it is at t.
func whenReads(reading, t time.Time) time.Time {
	_, offset := t.Zone()
	return reading.Add(-time.Duration(offset) * time.Second).In(t.Location())
}

// furthestReading returns the latest reading that the clock has shown by t: the reading at t, except after the clock was put
// back.
func furthestReading(t time.Time) time.Time {
	furthest := onWall(t)
	end := offsetEnd(t.Add(-maxShift))
	for !end.IsZero() && !end.After(t) {
		if last := onWall(end.Add(-1)); last.After(furthest) {
			furthest = last
		}
		end = offsetEnd(end)
	}
	return furthest
}

// offsetEnd returns a time after t up to which the offset of t's zone stays as it is at t; zero means for ever.
func offsetEnd(t time.Time) time.Time {
	_, end := t.ZoneBounds()
	if end.IsZero() || end.After(t) {
		return end
	}
	// The time package takes years by rule for 365 days long: on the last day of a leap year the end is in the past.
	return time.Date(t.UTC().Year()+1, time.January, 1, 0, 0, 0, 0, time.UTC).In(t.Location())
}

// SplayOf returns the delay of a policy's runs: from 0 to limit, fixed per name and spread evenly over names. It is in whole
// seconds, or in milliseconds if limit is under a second.
func SplayOf(name string, limit time.Duration) time.Duration {
	unit := time.Second
	if limit < unit {
		unit = time.Millisecond
	}
	if limit < unit {
		return 0
	}
	sum := sha256.Sum256([]byte(name))
	return time.Duration(int64(binary.BigEndian.Uint32(sum[:]))%int64(limit/unit+1)) * unit
}
