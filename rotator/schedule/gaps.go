package schedule

import "time"

// Gaps measures the time between the runs of schedules and caches it per expression and zone, for callers that check many
// policies. The zero value is ready. It must not be used concurrently.
type Gaps struct {
	calendar []calendarDay
	offsets  map[string][]int64
	known    map[gapsKey]gapsRange
}

type gapsKey struct{ expr, zone string }

// gapsRange is the shortest and the longest gap seen, in seconds; 0 and 0 before the first.
type gapsRange struct{ shortest, longest int64 }

// calendarDay is a date as a cron expression sees it.
type calendarDay struct{ dom, month, dow uint8 }

const (
	daySeconds = 24 * 60 * 60
	// In 28 years leap years and days of the week go through all their combinations (until 2100).
	gapsFirstYear = 2026
	gapsDays      = 28*365 + 7
	// A weekly schedule meets all its clock changes within a year, since those fall on fixed days of the week.
	gapsDaysWeekly = 2 * 365
	// clocksChange stands for the offset of a day that has several.
	clocksChange = 1 << 40
)

// Gaps returns the shortest and the longest time between two successive runs, in real time as it will pass from
// 2026 to 2053 by the rules known of the zone. Both are 0 for the zero value. For many schedules, see [Gaps].
func (s Schedule) Gaps() (shortest, longest time.Duration) { return new(Gaps).Of(s) }

// Of is [Schedule.Gaps].
func (g *Gaps) Of(schedule Schedule) (shortest, longest time.Duration) {
	s := schedule.parts()
	if s.loc == nil || s.every > 0 {
		return s.every, s.every
	}
	if g.known == nil {
		g.calendar = gapsCalendar()
		g.offsets = make(map[string][]int64)
		g.known = make(map[gapsKey]gapsRange)
	}
	key := gapsKey{s.expr, schedule.Zone()}
	r, ok := g.known[key]
	if !ok {
		r = g.measure(s)
		g.known[key] = r
	}
	return time.Duration(r.shortest) * time.Second, time.Duration(r.longest) * time.Second
}

// measure walks the calendar day by day. On a day with one offset the runs follow from the fields; only on days when clocks change
// is the schedule asked for each run. Times are in Unix seconds.
func (g *Gaps) measure(s parts) gapsRange {
	first, last, r := dayRuns(s)
	start := gapsStart()
	next := func(after int64) int64 { return s.next(time.Unix(after, 0)).Unix() }
	prev := next(whenReads(start, start.In(s.loc)).Unix() - 1)
	upcoming := prev
	for i, offset := range g.zoneOffsets(s.loc)[:horizon(s)] {
		midnight := start.Unix() + int64(i)*daySeconds
		switch {
		case offset == clocksChange:
			if !runsOn(s, g.calendar[i]) && !runsOn(s, g.calendar[max(i-1, 0)]) {
				continue // no run today, nor one that the clock moved to today
			}
			if upcoming <= prev {
				upcoming = next(prev)
			}
			for onWall(time.Unix(upcoming, 0).In(s.loc)).Unix() < midnight+daySeconds {
				r.add(upcoming - prev)
				prev, upcoming = upcoming, next(upcoming)
			}
		case runsOn(s, g.calendar[i]):
			r.add(midnight + first - offset - prev)
			prev = midnight + last - offset
		}
	}
	return r
}

// add counts a gap. The very first run ends no gap.
func (r *gapsRange) add(gap int64) {
	if gap <= 0 {
		return
	}
	if r.shortest == 0 || gap < r.shortest {
		r.shortest = gap
	}
	r.longest = max(r.longest, gap)
}

// dayRuns returns the first and the last run of a day, in seconds after its midnight, and the gaps between its runs.
func dayRuns(s parts) (first, last int64, gaps gapsRange) {
	first = -1
	for minute := range int64(24 * 60) {
		if s.spec.Hour&(1<<(minute/60)) == 0 || s.spec.Minute&(1<<(minute%60)) == 0 {
			continue
		}
		if first < 0 {
			first = minute * 60
		} else {
			gaps.add(minute*60 - last)
		}
		last = minute * 60
	}
	return first, last, gaps
}

// runsOn says whether the day is one of the schedule's, by the rule of robfig/cron.
func runsOn(s parts, day calendarDay) bool {
	dom, dow := s.spec.Dom&(1<<day.dom) != 0, s.spec.Dow&(1<<day.dow) != 0
	if s.spec.Month&(1<<day.month) == 0 {
		return false
	}
	if isStar(s.spec.Dom) || isStar(s.spec.Dow) {
		return dom && dow
	}
	return dom || dow
}

// isStar says whether a field of robfig/cron is *, which it notes in the highest bit.
func isStar(field uint64) bool { return field>>63 == 1 }

// horizon returns how many days the schedule must be followed for.
func horizon(s parts) int {
	if isStar(s.spec.Dom) && isStar(s.spec.Month) {
		return gapsDaysWeekly
	}
	return gapsDays
}

func gapsStart() time.Time { return time.Date(gapsFirstYear, time.January, 1, 0, 0, 0, 0, time.UTC) }

// gapsCalendar returns the dates that gaps are measured over.
func gapsCalendar() []calendarDay {
	days := make([]calendarDay, gapsDays)
	for i := range days {
		t := gapsStart().AddDate(0, 0, i)
		days[i] = calendarDay{uint8(t.Day()), uint8(t.Month()), uint8(t.Weekday())} //nolint:gosec // at most 31
	}
	return days
}

// zoneOffsets returns the zone's offset from UTC in seconds for each day of the calendar, or clocksChange.
func (g *Gaps) zoneOffsets(loc *time.Location) []int64 {
	if offsets, ok := g.offsets[loc.String()]; ok {
		return offsets
	}
	offsets := make([]int64, gapsDays)
	for i := range offsets {
		offsets[i] = clocksChange // a civil day that the zone skips stays so
	}
	seen := make([]bool, gapsDays)
	for t := gapsStart().In(loc).Add(-maxShift); !t.IsZero(); {
		end := offsetChange(t)
		markOffset(offsets, seen, t, end)
		t = end
	}
	g.offsets[loc.String()] = offsets
	return offsets
}

// offsetChange returns when the offset first differs from that at t; zero if that is after the calendar.
func offsetChange(t time.Time) time.Time {
	_, offset := t.Zone()
	for end := offsetEnd(t); !end.IsZero() && end.Before(gapsStart().AddDate(0, 0, gapsDays).Add(maxShift)); end = offsetEnd(end) {
		if _, o := end.Zone(); o != offset {
			return end
		}
	}
	return time.Time{}
}

// markOffset enters the offset that holds from t to end (zero: for ever) for the days that have no other.
func markOffset(offsets []int64, seen []bool, t, end time.Time) {
	_, offset := t.Zone()
	from := onWall(t).Unix() - gapsStart().Unix()
	to := int64(gapsDays * daySeconds)
	if !end.IsZero() {
		to = min(to, end.Unix()+int64(offset)-gapsStart().Unix())
	}
	for i := max(from, 0) / daySeconds; i*daySeconds < to; i++ {
		// not even from midnight on: a run of the day before may have been moved to that instant
		whole := i*daySeconds > from && (i+1)*daySeconds <= to
		offsets[i] = clocksChange
		if whole && !seen[i] {
			offsets[i] = int64(offset)
		}
		seen[i] = true
	}
}
