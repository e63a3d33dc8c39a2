package web

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

const rowsPerPage = 100

// row is one policy on the status page.
type row struct {
	PolicyView
	zone *time.Location
	now  time.Time
}

func rowsOf(s rotator.Snapshot, v View, now time.Time) []row {
	rows := make([]row, 0, len(v.Policies)+len(v.Unmanaged))
	for i, p := range v.Policies {
		rows = append(rows, row{p, s.Policies[i].Policy.Schedule.Location(), now})
	}
	for _, p := range v.Unmanaged {
		rows = append(rows, row{p, time.UTC, now})
	}
	return rows
}

// needsAttention reports whether a person should look.
func (r *row) needsAttention() bool {
	return r.State == plan.StateError || r.State == plan.StateFailing || r.Failure != nil || len(r.Drift) > 0 || r.Keys.Lost > 0 || r.tooOld()
}

func (r *row) tooOld() bool { return r.Key != nil && r.MaxAge > 0 && r.now.After(r.Key.MaxAgeEnds) }

// Class returns the row's CSS classes.
func (r *row) Class() string {
	class := ""
	switch {
	case r.needsAttention():
		class = "attention"
	case r.State != plan.StateOK:
		class = "waiting"
	}
	if r.tooOld() {
		class += " over"
	}
	return class
}

// Rotatable reports whether a rotation can be requested.
func (r *row) Rotatable() bool {
	return r.Reason != ledger.ReasonRemoved && r.Mode != plan.ModePaused
}

// limit returns when the current key should be replaced: at the end of its max_age, or else at the next rotation.
func (r *row) limit() (at time.Time, words string) {
	if !r.Key.MaxAgeEnds.IsZero() {
		return r.Key.MaxAgeEnds, "allowed"
	}
	return r.NextRotation, "until the next rotation"
}

// Life says how old the current key is, and of what limit.
func (r *row) Life() string {
	if r.Key == nil || r.Key.Created.IsZero() {
		return "no key"
	}
	at, words := r.limit()
	if at.IsZero() {
		return r.Age(r.now) + ", without a limit"
	}
	return fmt.Sprintf("%s of %s %s", r.Age(r.now), Span(at.Sub(r.Key.Created)), words)
}

// Healed says that a leaked key was replaced within the last day.
func (r *row) Healed() string {
	return strings.Replace(r.HealedLeak(r.now), "leaked", "Leaked", 1)
}

// Percent returns the elapsed share of the current key's life.
func (r *row) Percent() int {
	at, _ := r.limit()
	whole := at.Sub(r.Key.Created)
	if at.IsZero() || whole <= 0 {
		return 0
	}
	return int(min(max(100*r.now.Sub(r.Key.Created).Seconds()/whole.Seconds(), 0), 100))
}

// NextAt is when the next rotation is due.
func (r *row) NextAt() moment { return momentOf(r.NextRotation, r.now, r.zone, "none") }

// LastAt is when the policy was rotated last.
func (r *row) LastAt() moment { return momentOf(r.LastRotation, r.now, r.zone, "never") }

// Old says for each retiring key when it stops working or is deleted.
func (r *row) Old() []string {
	all := r.Leaving(r.now)
	for i, k := range r.Retiring {
		all[i] += " (" + absolute(k.Until, r.zone) + ")"
	}
	if r.InUse && len(all) > 0 {
		all = append(all, "An old key is still in use.")
	}
	return all
}

// Trouble describes the last failure.
func (r *row) Trouble() string {
	f := r.Failure
	if f == nil {
		return ""
	}
	text := fmt.Sprintf("Failed at %s, %s: %s.", f.Stage, momentOf(f.At, r.now, r.zone, "").Relative, strings.TrimSuffix(f.Message, "."))
	if f.Count > 1 {
		text += fmt.Sprintf(" %d times in a row.", f.Count)
	}
	if f.NextTry.After(r.now) {
		text += " Tries again in " + Span(f.NextTry.Sub(r.now)) + "."
	}
	return text
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

// selection is a query and the rows it selects.
type selection struct {
	Query, State        string
	States              []string
	Rows                []*row
	Page, Pages         int
	Previous, Following string // links; "" where there is none
	Summary             string
}

// selected filters and orders rows, those that need attention first, and returns one page of them.
func selected(rows []row, query url.Values) selection {
	s := selection{Query: strings.TrimSpace(query.Get("q")), State: query.Get("state"), States: []string{"", "attention"}}
	for _, state := range plan.States() {
		s.States = append(s.States, string(state))
	}
	needing := 0
	var attention, rest []*row
	for i := range rows {
		r := &rows[i]
		needs := r.needsAttention()
		if needs {
			needing++
		}
		switch matches := r.matches(strings.ToLower(s.Query), s.State, needs); {
		case matches && needs:
			attention = append(attention, r)
		case matches:
			rest = append(rest, r)
		}
	}
	kept := slices.Concat(attention, rest)
	s.Summary = fmt.Sprintf("Policies: %d. Need attention: %d.", len(rows), needing)
	if len(kept) != len(rows) {
		s.Summary += fmt.Sprintf(" Match the filter: %d.", len(kept))
	}
	s.paginate(query.Get("page"), kept)
	return s
}

func (r *row) matches(text, state string, needs bool) bool {
	if state == "attention" && !needs || state != "" && state != "attention" && state != string(r.State) {
		return false
	}
	if text == "" {
		return true
	}
	all := []string{r.Name, r.Workspace, r.ServiceAccount, r.Sink.Path, r.Words()}
	if r.Key != nil {
		all = append(all, r.Key.ID)
	}
	return strings.Contains(strings.ToLower(strings.Join(all, "\n")), text)
}

// paginate takes the numbered page of rows; a number out of range means the first or the last.
func (s *selection) paginate(page string, rows []*row) {
	s.Pages = max(1, (len(rows)+rowsPerPage-1)/rowsPerPage)
	n, _ := strconv.Atoi(page) // 0 when it is no number
	s.Page = min(max(n, 1), s.Pages)
	first := (s.Page - 1) * rowsPerPage
	s.Rows = rows[first:min(first+rowsPerPage, len(rows))]
	link := func(n int) string {
		return "/?" + url.Values{"q": {s.Query}, "state": {s.State}, "page": {strconv.Itoa(n)}}.Encode()
	}
	if s.Page > 1 {
		s.Previous = link(s.Page - 1)
	}
	if s.Page < s.Pages {
		s.Following = link(s.Page + 1)
	}
}
