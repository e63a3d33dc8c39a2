package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

const (
	paramHour     = "hour"
	hourLayout    = "2006-01-02T15Z"
	calendarDays  = 14
	calendarRuns  = 400_000 // are counted at most; the calendar ends before there are more
	conflictsRows = 20      // are shown
	dayLength     = 24 * time.Hour
)

// calendar is the page of the coming two weeks.
type calendar struct {
	frame
	query
	plan.Forecast
	Cut       bool // it ends early
	Days      []time.Time
	Rows      []hourRow
	All       int // rotations
	Busiest   slot
	PerHour   int
	Conflicts []conflict
	More      int // conflicts
	Chosen    *chosenHour
	Choices   []WorkspaceView
}

// hourRow is an hour of the day, on each day.
type hourRow struct {
	Hour  string
	Slots []slot
}

// slot is an hour of a day.
type slot struct {
	Count int
	Short string // the count in few characters
	Link  string
	Class string
	Title string
	Past  bool // or beyond the end
}

// conflict is a run that will have to wait, in words.
type conflict struct {
	At            moment
	Policy, Words string
}

// chosenHour is the runs of one hour.
type chosenHour struct {
	Title string
	Runs  []conflict
	More  int
}

// calendarPage serves the page.
func (s *Server) calendarPage(w http.ResponseWriter, r *http.Request) {
	s.render(w, "calendar.html", calendarOf(s.snapshot(), r.URL.Query(), time.Now(), s.cfg.MaxRotationsPerHour, s.frame(r)))
}

func calendarOf(s rotator.Snapshot, given url.Values, now time.Time, perHour int, f frame) calendar {
	c := calendar{frame: f, query: parseQuery("/calendar", given), PerHour: perHour, Choices: workspacesOf(s.Workspaces[:min(len(s.Workspaces), choices)])}
	c.Here = c.path
	var coming []plan.Coming
	for i := range s.Policies {
		if p := &s.Policies[i]; c.matches(&row{PolicyStatus: p}) {
			coming = append(coming, comingOf(p))
		}
	}
	today := now.UTC().Truncate(dayLength)
	end := today.Add(calendarDays * dayLength)
	c.Forecast = plan.MakeForecast(coming, now, end, calendarRuns, perHour)
	c.Cut = c.Until.Before(end)
	c.grid(today)
	c.conflicts(now)
	if text := given.Get(paramHour); text != "" {
		hour, err := time.Parse(hourLayout, text)
		if err != nil || hour.Before(c.From) || !hour.Before(c.Until) {
			c.fault(paramHour, text, "an hour of the calendar such as "+c.From.Format(hourLayout))
			return c
		}
		runs, all := c.In(now, hour, hour.Add(time.Hour), rowsPerPage)
		c.Chosen = &chosenHour{Title: hour.Format("Mon 2 Jan 15:04") + " UTC", More: all - len(runs)}
		for _, run := range runs {
			c.Chosen.Runs = append(c.Chosen.Runs, conflict{momentOf(run.At, now, run.Policy.Schedule.Location(), ""), run.Policy.Name, run.Policy.Workspace})
		}
	}
	return c
}

// comingOf is the next rotation as it was decided, and until when an old key holds the group.
func comingOf(s *rotator.PolicyStatus) plan.Coming {
	c := plan.Coming{Policy: s.Policy, Next: s.NextDue, Why: plan.TriggerOf(s.NextReason)}
	for _, r := range s.Retiring {
		if until := leaves(s, r); r.State == ledger.InOverlap && until.After(c.Held) {
			c.Held = until
		}
	}
	return c
}

// grid has a row for each hour of the day and a column for each day.
func (c *calendar) grid(today time.Time) {
	for i := range calendarDays {
		c.Days = append(c.Days, today.Add(time.Duration(i)*dayLength))
	}
	highest := slices.Max(append([]int{1}, c.Hours...))
	over := map[time.Time]bool{}
	for _, o := range c.Over {
		over[o.At] = true
	}
	for hour := range 24 {
		r := hourRow{Hour: fmt.Sprintf("%02d", hour)}
		for _, day := range c.Days {
			at := day.Add(time.Duration(hour) * time.Hour)
			i := int(at.Sub(c.From) / time.Hour)
			if at.Before(c.From) || i >= len(c.Hours) {
				r.Slots = append(r.Slots, slot{Past: true})
				continue
			}
			n := c.Hours[i]
			s := slot{Count: n, Short: short(n), Link: c.Link(paramHour, at.Format(hourLayout)), Title: at.Format("Mon 2 Jan 15:04")}
			if n > 0 {
				s.Class = fmt.Sprintf("l%d", 1+4*n/highest)
			}
			if over[at] {
				s.Class += " over"
			}
			c.All += n
			if n > c.Busiest.Count {
				c.Busiest = s
			}
			r.Slots = append(r.Slots, s)
		}
		c.Rows = append(c.Rows, r)
	}
}

// short writes a count in at most four characters.
func short(n int) string {
	switch {
	case n >= 10_000:
		return fmt.Sprintf("%dk", n/1000)
	case n >= 1000:
		return fmt.Sprintf("%d.%dk", n/1000, n%1000/100)
	}
	return fmt.Sprint(n)
}

// conflicts says which runs meet, those that are skipped first.
func (c *calendar) conflicts(now time.Time) {
	waits := slices.Clone(c.Waits)
	slices.SortStableFunc(waits, func(x, y plan.Run) int { return sign(!x.Missed, !y.Missed, false) })
	c.More = len(waits) + len(c.Over)
	for _, w := range waits[:min(len(waits), conflictsRows)] {
		words := fmt.Sprintf("waits %s at least: %s has its group %s", Span(w.Until.Sub(w.At)), w.For.Name, w.Policy.Group)
		if w.Missed {
			words = fmt.Sprintf("is skipped: its window is %s, and %s has its group %s for another %s", Span(w.Policy.Window), w.For.Name, w.Policy.Group, Span(w.Until.Sub(w.At)))
		}
		c.Conflicts = append(c.Conflicts, conflict{momentOf(w.At, now, w.Policy.Schedule.Location(), ""), w.Policy.Name, words})
	}
	for _, o := range c.Over[:min(len(c.Over), conflictsRows-len(c.Conflicts))] {
		words := fmt.Sprintf("workspace %s: %d rotations, of which REKEYD_MAX_ROTATIONS_PER_HOUR lets %d begin", o.Workspace, o.Due, c.PerHour)
		c.Conflicts = append(c.Conflicts, conflict{momentOf(o.At, now, time.UTC, ""), "", words})
	}
	c.More -= len(c.Conflicts)
}
