package web

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

const (
	rowsPerPage = 100
	choices     = 200 // of a filter are offered at most; others can be typed or linked
)

// list is the page of all policies.
type list struct {
	frame
	query
	Attention       attention
	Tabs            []tab
	Columns         []column
	Groups          []group
	First, Last     int // of the rows shown, from 1
	Matching, Pages int
	Previous        string // links; "" where there is none
	Following       string
	Workspaces      []WorkspaceView
	OtherWorkspaces int // beyond those
	LabelChoices    []string
	GroupChoices    []string
	now             time.Time
}

// At shows a time that belongs to no policy.
func (l list) At(t time.Time) moment { return momentOf(t, l.now, time.UTC, "not yet") }

// tab is a state with the number of its policies.
type tab struct {
	Name, Link string
	Count      int
	Current    bool
}

// column is the head of one.
type column struct {
	Title, Class, Link string
	Order              string // aria-sort
}

// group is the rows that have a workspace or a label's value in common.
type group struct {
	Title     string // "": rows are not grouped
	Count     int    // on all pages
	Attention int
	Rows      []*row
}

// listOf chooses and orders the policies that the query asks for, and makes one page of them.
func listOf(s rotator.Snapshot, q query, now time.Time, f frame, v vitals) list {
	rows := rowsOf(&s, now)
	f.Here = q.path
	l := list{frame: f, query: q, now: now, Attention: attentionOf(s, rows, v, now, q.State == needing)}
	counts, labels := map[string]int{}, map[[2]string]bool{}
	kept := make([]*row, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		for name, value := range r.Policy.Labels {
			labels[[2]string{name, value}] = true
		}
		if !q.matches(r) {
			continue
		}
		counts[""]++
		counts[string(r.State)]++
		if r.Needs {
			counts[needing]++
		}
		if r.inState(q.State) {
			r.group = q.groupOf(r)
			kept = append(kept, r)
		}
	}
	l.choices(s, labels)
	l.tabs(counts)
	l.columns()
	q.order(kept)
	l.paginate(kept)
	return l
}

// choices offers what the policies have to filter and group by.
func (l *list) choices(s rotator.Snapshot, labels map[[2]string]bool) {
	for label := range labels {
		l.LabelChoices = append(l.LabelChoices, label[0]+"="+label[1])
		l.GroupChoices = append(l.GroupChoices, groupLabel+label[0])
	}
	slices.Sort(l.LabelChoices)
	slices.Sort(l.GroupChoices)
	l.GroupChoices = slices.Compact(l.GroupChoices)
	l.GroupChoices = l.GroupChoices[:min(len(l.GroupChoices), choices)]
	l.LabelChoices = l.LabelChoices[:min(len(l.LabelChoices), choices)]
	shown := min(len(s.Workspaces), choices)
	l.Workspaces, l.OtherWorkspaces = workspacesOf(s.Workspaces[:shown]), len(s.Workspaces)-shown
}

// tabs are the states that policies are in, and the chosen one.
func (l *list) tabs(counts map[string]int) {
	names := []string{"", needing}
	for _, state := range plan.States() {
		names = append(names, string(state))
	}
	for _, name := range names {
		if n := counts[name]; n > 0 || name == "" || name == l.State {
			l.Tabs = append(l.Tabs, tab{name, l.Link(paramState, name), n, name == l.State})
		}
	}
}

// columns links each head to the order by it, and that of the present order to the opposite one.
func (l *list) columns() {
	titles := map[string]string{"state": "State", "policy": "Policy", "workspace": "Workspace", "age": "Key age", "next": "Next rotation", "last": "Last", "old": "Old"}
	now := cmp.Or(l.Sort, "policy")
	for _, name := range columns() {
		first := name
		if name == "age" || name == "last" || name == "old" { // the oldest, the latest and the most are what one looks for
			first = "-" + name
		}
		c := column{titles[name], name, l.Link(paramSort, first), ""}
		if strings.TrimPrefix(now, "-") == name {
			c.Order, c.Link = "ascending", l.Link(paramSort, "-"+name)
			if strings.HasPrefix(now, "-") {
				c.Order, c.Link = "descending", l.Link(paramSort, name)
			}
		}
		l.Columns = append(l.Columns, c)
	}
}

// order sorts by group, then by the column, then by name. What has no value comes last.
func (q query) order(rows []*row) {
	column, reverse := strings.CutPrefix(q.Sort, "-")
	timed := func(x, y time.Time, latest bool) int {
		switch {
		case x.IsZero() || y.IsZero():
			return sign(x.IsZero(), y.IsZero(), reverse)
		case latest:
			return y.Compare(x)
		}
		return x.Compare(y)
	}
	by := map[string]func(x, y *row) int{
		"state":     func(x, y *row) int { return cmp.Compare(x.severity(), y.severity()) },
		"workspace": func(x, y *row) int { return cmp.Compare(x.Policy.Workspace, y.Policy.Workspace) },
		"age":       func(x, y *row) int { return timed(x.created(), y.created(), true) },
		"next":      func(x, y *row) int { return timed(x.NextDue, y.NextDue, false) },
		"last":      func(x, y *row) int { return timed(x.LastRotation, y.LastRotation, false) },
		"old":       func(x, y *row) int { return cmp.Compare(len(x.Retiring), len(y.Retiring)) },
	}[column]
	slices.SortStableFunc(rows, func(x, y *row) int {
		if x.group != y.group {
			return cmp.Or(sign(x.group == "", y.group == "", false), cmp.Compare(x.group, y.group))
		}
		order := 0
		if by != nil {
			order = by(x, y)
		}
		if reverse {
			order = -order
		}
		if order == 0 {
			order = cmp.Compare(x.Policy.Name, y.Policy.Name)
			if by == nil && reverse {
				order = -order
			}
		}
		return order
	})
}

// sign orders what lacks a value last, in an order that may be turned round afterwards.
func sign(x, y, turned bool) int {
	if x == y {
		return 0
	}
	if x == turned {
		return -1
	}
	return 1
}

// severity orders states, the worst first.
func (r *row) severity() int {
	if r.Needs {
		return int(r.worst)
	}
	return int(drift) + 1 + slices.Index([]plan.State{plan.StateError, plan.StateFailing, plan.StateThrottled, plan.StateRotating, plan.StateDue, plan.StatePaused, plan.StateOK}, r.State)
}

func (r *row) created() time.Time {
	if r.Current == nil {
		return time.Time{}
	}
	return r.Current.Created
}

// paginate takes the numbered page of rows, or the last, and divides it into groups.
func (l *list) paginate(rows []*row) {
	l.Matching, l.Pages = len(rows), max(1, (len(rows)+rowsPerPage-1)/rowsPerPage)
	l.Page = min(l.Page, l.Pages)
	l.First = (l.Page-1)*rowsPerPage + 1
	l.Last = min(l.First+rowsPerPage-1, len(rows))
	if l.Page > 1 {
		l.Previous = l.Link(paramPage, fmt.Sprint(l.Page-1))
	}
	if l.Page < l.Pages {
		l.Following = l.Link(paramPage, fmt.Sprint(l.Page+1))
	}
	shown := rows[l.First-1 : l.Last]
	if l.Group == "" {
		l.Groups = []group{{Rows: shown}}
		return
	}
	sizes, needing := map[string]int{}, map[string]int{}
	for _, r := range rows {
		g := r.group
		sizes[g]++
		if r.Needs {
			needing[g]++
		}
	}
	for len(shown) > 0 {
		g, n := shown[0].group, 1
		for n < len(shown) && shown[n].group == g {
			n++
		}
		title := g
		if g == "" {
			title = "without " + strings.TrimPrefix(l.Group, groupLabel)
		}
		l.Groups = append(l.Groups, group{title, sizes[g], needing[g], shown[:n]})
		shown = shown[n:]
	}
}
