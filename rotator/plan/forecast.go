package plan

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// Coming is a policy and its next rotation, as a decision has it.
type Coming struct {
	Policy *Policy
	Next   time.Time // zero: none
	Why    ledger.Trigger
	Held   time.Time // until when an old key of its own holds its group; zero: none does
}

// Forecast is what schedules bring if every rotation succeeds at once. It looks at no policy's ledger entry, and decides nothing.
type Forecast struct {
	From, Until time.Time  // whole hours
	Hours       []int      // the rotations due in each
	Over        []Overload // in the order of time
	Waits       []Run

	coming []Coming
	series map[seriesKey][]time.Time
}

// Overload is an hour with more rotations of a workspace than REKEYD_MAX_ROTATIONS_PER_HOUR.
type Overload struct {
	At        time.Time
	Workspace string
	Due       int
}

// Run is a coming rotation, and, where it finds its group busy, for whom it waits.
type Run struct {
	At     time.Time
	Policy *Policy
	For    *Policy   // nil: it does not wait
	Until  time.Time // at the earliest
	Missed bool      // the window closes before that, so the run is skipped
}

type seriesKey struct{ expr, zone string }

// MakeForecast looks ahead from the hour of a time to an end, or less far where that would be more than most runs.
func MakeForecast(coming []Coming, now, until time.Time, most, perHour int) Forecast {
	f := Forecast{From: now.UTC().Truncate(time.Hour), coming: coming, series: map[seriesKey][]time.Time{}}
	f.Until = f.horizon(now, until, most)
	hours := int(f.Until.Sub(f.From) / time.Hour)
	f.Hours = make([]int, hours)
	workspaces, groups := map[string][]int{}, map[string][]Run{}
	for _, c := range coming {
		p := c.Policy
		of := workspaces[p.Workspace]
		if of == nil {
			of = make([]int, hours)
			workspaces[p.Workspace] = of
		}
		why := c.Why
		f.each(c, now, f.Until, func(at time.Time) {
			hour := int(at.Sub(f.From) / time.Hour)
			f.Hours[hour]++
			of[hour]++
			if p.Group != "" && !BypassesGroup(*p, nil, why, at) {
				groups[p.Group] = append(groups[p.Group], Run{At: at, Policy: p})
			}
			why = ledger.TriggerSchedule
		})
	}
	for _, name := range slices.Sorted(maps.Keys(workspaces)) {
		for hour, n := range workspaces[name] {
			if perHour > 0 && n > perHour {
				f.Over = append(f.Over, Overload{f.From.Add(time.Duration(hour) * time.Hour), name, n})
			}
		}
	}
	slices.SortStableFunc(f.Over, func(x, y Overload) int { return x.At.Compare(y.At) })
	f.turns(groups)
	return f
}

// In returns the first runs that are due within a time, at most so many, and how many there are.
func (f *Forecast) In(now, from, until time.Time, most int) (runs []Run, all int) {
	for _, c := range f.coming {
		f.each(c, now, until, func(at time.Time) {
			if !at.Before(from) {
				runs = append(runs, Run{At: at, Policy: c.Policy})
			}
		})
	}
	slices.SortFunc(runs, func(x, y Run) int { return cmp.Or(x.At.Compare(y.At), cmp.Compare(x.Policy.Name, y.Policy.Name)) })
	return runs[:min(most, len(runs))], len(runs)
}

// horizon halves the time to look ahead until it has few enough runs.
func (f *Forecast) horizon(now, until time.Time, most int) time.Time {
	for {
		runs := 0
		for _, c := range f.coming {
			runs += f.count(c, now, until)
		}
		ahead := until.Sub(f.From)
		if runs <= most || ahead <= time.Hour {
			return until
		}
		until = f.From.Add((ahead / 2).Truncate(time.Hour))
	}
}

// count is how many runs each would visit.
func (f *Forecast) count(c Coming, now, until time.Time) int {
	at, more := c.first(now, until)
	switch every, counts := c.Policy.Schedule.Every(); {
	case at.IsZero():
		return 0
	case !more:
		return 1
	case counts:
		return 1 + int((until.Sub(at)-1)/(every+schedule.SplayOf(c.Policy.Name, c.Policy.Splay)))
	}
	runs := f.runsOf(c.Policy.Schedule, now, until)
	return 1 + max(0, indexAfter(runs, until)-indexAfter(runs, at))
}

// first is the next rotation, which is now if it is late, and whether the schedule has more.
func (c Coming) first(now, until time.Time) (at time.Time, more bool) {
	if c.Next.IsZero() || !c.Next.Before(until) {
		return time.Time{}, false
	}
	at = c.Next
	if at.Before(now) {
		at = now
	}
	return at, c.Policy.Mode == ModeAuto
}

// each visits the runs of a policy in order.
func (f *Forecast) each(c Coming, now, until time.Time, visit func(time.Time)) {
	at, more := c.first(now, until)
	if at.IsZero() {
		return
	}
	visit(at)
	if !more {
		return
	}
	splay := schedule.SplayOf(c.Policy.Name, c.Policy.Splay)
	if every, counts := c.Policy.Schedule.Every(); counts {
		for at = at.Add(every + splay); at.Before(until); at = at.Add(every + splay) {
			visit(at)
		}
		return
	}
	runs := f.runsOf(c.Policy.Schedule, now, until)
	for _, run := range runs[indexAfter(runs, at):] {
		due := run.Add(splay)
		if !due.Before(until) {
			return
		}
		visit(due)
	}
}

// indexAfter is where the runs after a time begin.
func indexAfter(runs []time.Time, t time.Time) int {
	return sort.Search(len(runs), func(i int) bool { return runs[i].After(t) })
}

// runsOf is the runs of a schedule, splay apart. They are found once, since many policies have the same one, and the first call
// looks furthest ahead.
func (f *Forecast) runsOf(s schedule.Schedule, now, until time.Time) []time.Time {
	key := seriesKey{s.String(), s.Zone()}
	runs, known := f.series[key]
	if !known {
		for at := s.Next(now); !at.IsZero() && at.Before(until); at = s.Next(at) {
			runs = append(runs, at)
		}
		f.series[key] = runs
	}
	return runs
}

// turns finds the runs for which another member of the group is between its run and the end of its overlap.
func (f *Forecast) turns(groups map[string][]Run) {
	busy := map[string]Run{} // who has the group, and until when
	for _, c := range f.coming {
		if g := c.Policy.Group; g != "" && c.Held.After(busy[g].Until) {
			busy[g] = Run{Policy: c.Policy, Until: c.Held}
		}
	}
	for name, runs := range groups {
		slices.SortStableFunc(runs, func(x, y Run) int { return x.At.Compare(y.At) })
		for _, r := range runs {
			begin, holder := r.At, busy[name]
			if holder.Until.After(r.At) && holder.Policy != r.Policy {
				r.For, r.Until = holder.Policy, holder.Until
				r.Missed = r.Policy.Window > 0 && r.Until.Sub(r.At) > r.Policy.Window
				f.Waits = append(f.Waits, r)
				begin = r.Until
			}
			if !r.Missed {
				busy[name] = Run{Policy: r.Policy, Until: begin.Add(r.Policy.Overlap)}
			}
		}
	}
	slices.SortFunc(f.Waits, func(x, y Run) int { return cmp.Or(x.At.Compare(y.At), cmp.Compare(x.Policy.Name, y.Policy.Name)) })
}
