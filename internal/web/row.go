package web

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// row is one policy on the page. There is one for each policy, however few are shown, so it only points at the snapshot.
type row struct {
	*rotator.PolicyStatus
	Needs bool   // attention
	worst alert  // why
	group string // of the list
	now   time.Time
}

func rowsOf(s *rotator.Snapshot, now time.Time) []row {
	refused := s.Refused()
	rows := make([]row, 0, len(s.Policies)+len(s.Removed))
	for _, all := range [][]rotator.PolicyStatus{s.Policies, s.Removed} {
		for i := range all {
			r := row{PolicyStatus: &all[i], now: now}
			if alerts := alertsOf(r.PolicyStatus, refused[r.Policy.Workspace], now); len(alerts) > 0 {
				r.Needs, r.worst = true, alerts[0]
			}
			rows = append(rows, r)
		}
	}
	return rows
}

func (r *row) zone() *time.Location { return r.Policy.Schedule.Location() }

func (r *row) removed() bool { return r.Policy.Mode == plan.ModeRemoved }

// Class returns the row's CSS classes.
func (r *row) Class() string {
	if r.Needs {
		return string(r.State) + " attention"
	}
	return string(r.State)
}

// Note is what there is to say beside the state, in one line.
func (r *row) Note() string {
	v := viewOf(r.PolicyStatus)
	words := v.Sentence()
	if r.Needs {
		words = matter{alert: r.worst, row: r}.Words()
	}
	all := slices.DeleteFunc([]string{words, r.Healed(), v.Unguarded()}, func(s string) bool { return s == "" })
	if len(all) > 1 {
		all[0] = strings.TrimSuffix(all[0], ".")
	}
	return strings.Join(all, "; ")
}

// Healed says that a leaked key was replaced within the last day.
func (r *row) Healed() string {
	return strings.Replace(viewOf(r.PolicyStatus).HealedLeak(r.now), "leaked", "Leaked", 1)
}

// Rotatable reports whether a rotation can be requested.
func (r *row) Rotatable() bool { return !r.removed() && r.Policy.Mode != plan.ModePaused }

// Age is the current key's age in words.
func (r *row) Age() string { return viewOf(r.PolicyStatus).Age(r.now) }

// limit returns the age at which the current key should be replaced: max_age, or else the gap of the schedule in which it was
// made. 0: there is none.
func (r *row) limit() (age time.Duration, words string) {
	if r.Policy.MaxAge > 0 {
		return r.Policy.MaxAge, "allowed"
	}
	if r.removed() || r.Policy.Mode == plan.ModeManual {
		return 0, ""
	}
	if run := r.Policy.Schedule.Next(r.Current.Created); !run.IsZero() {
		return run.Sub(r.Current.Created), "between runs"
	}
	return 0, ""
}

// Limit says of which age the bar is a part.
func (r *row) Limit() string {
	if age, words := r.limit(); age > 0 {
		return "of " + Span(age) + " " + words
	}
	return "without a limit"
}

// Percent is the current key's age as a part of its limit.
func (r *row) Percent() int {
	limit, _ := r.limit()
	if limit <= 0 {
		return 0
	}
	return int(min(max(100*r.now.Sub(r.Current.Created).Seconds()/limit.Seconds(), 0), 100))
}

// Over reports whether the current key is older than its max_age.
func (r *row) Over() bool {
	return r.Current != nil && r.Policy.MaxAge > 0 && r.now.Sub(r.Current.Created) > r.Policy.MaxAge
}

// NextAt is when the next rotation is due.
func (r *row) NextAt() moment {
	return momentOf(r.NextDue, r.now, r.zone(), viewOf(r.PolicyStatus).noNext())
}

// LastAt is when the policy was rotated last.
func (r *row) LastAt() moment { return momentOf(r.LastRotation, r.now, r.zone(), "never") }

// Old says for each retiring key when it stops working or is deleted.
func (r *row) Old() string { return strings.Join(viewOf(r.PolicyStatus).Leaving(r.now), "; ") }

// Labels are the policy's labels, as NAME=VALUE.
func (r *row) Labels() []string {
	all := make([]string, 0, len(r.Policy.Labels))
	for name, value := range r.Policy.Labels {
		all = append(all, name+"="+value)
	}
	slices.Sort(all)
	return all
}

// moment is a time as the page shows it.
type moment struct{ Never, ISO, Absolute, Relative string }

func momentOf(t, now time.Time, zone *time.Location, never string) moment {
	if t.IsZero() {
		return moment{Never: never}
	}
	m := moment{ISO: t.UTC().Format(time.RFC3339), Absolute: absolute(t, zone), Relative: Span(now.Sub(t)) + " ago"}
	if t.After(now) {
		m.Relative = "in " + Span(t.Sub(now))
	}
	return m
}

func absolute(t time.Time, zone *time.Location) string {
	t = t.In(zone)
	return t.Format("2006-01-02 15:04:05 ") + cmp.Or(zone.String(), "UTC")
}
