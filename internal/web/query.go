package web

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// The parameters of the list of policies.
const (
	paramText      = "q"
	paramState     = "state"
	paramWorkspace = "workspace"
	paramLabel     = "label"
	paramGroup     = "group"
	paramSort      = "sort"
	paramPage      = "page"
)

const (
	needing        = "attention" // beside the states
	groupWorkspace = "workspace"
	groupLabel     = "label:" // and the label's name
	maxParam       = 200      // bytes of a value
	maxName        = 20       // of what is quoted of a bad one
)

// columns are what the list can be ordered by; a minus before a name turns its order round.
func columns() []string {
	return []string{"state", "policy", "workspace", "age", "next", "last", "old"}
}

// query is what the URL of the list asks for. A value that means nothing is left out, and said.
type query struct {
	path, Text, State, Workspace, Label, Group, Sort string
	Page                                             int
	Faults                                           []string
}

func parseQuery(path string, given url.Values) query {
	q := query{path: path, Page: 1}
	get := func(param string) string {
		value := strings.TrimSpace(given.Get(param))
		if len(value) > maxParam || !utf8.ValidString(value) {
			q.fault(param, value, fmt.Sprintf("at most %d bytes of text", maxParam))
			return ""
		}
		return value
	}
	one := func(param, wanted string, known func(string) bool) string {
		value := get(param)
		if value != "" && !known(value) {
			q.fault(param, value, wanted)
			return ""
		}
		return value
	}
	q.Text, q.Workspace = get(paramText), get(paramWorkspace)
	q.State = one(paramState, "a state of the list, or "+needing, func(v string) bool { return v == needing || slices.Contains(plan.States(), plan.State(v)) })
	q.Label = one(paramLabel, "NAME=VALUE", func(v string) bool { return strings.Index(v, "=") > 0 })
	q.Group = one(paramGroup, groupWorkspace+" or "+groupLabel+"NAME", func(v string) bool { return v == groupWorkspace || strings.HasPrefix(v, groupLabel) && v != groupLabel })
	q.Sort = one(paramSort, strings.Join(columns(), ", ")+", or one of them after a minus", func(v string) bool { return slices.Contains(columns(), strings.TrimPrefix(v, "-")) })
	page := func(v string) bool { n, err := strconv.Atoi(v); return err == nil && n >= 1 }
	if n, err := strconv.Atoi(one(paramPage, "a number from 1", page)); err == nil {
		q.Page = n
	}
	return q
}

// fault notes a value that is ignored.
func (q *query) fault(param, value, wanted string) {
	if len(value) > maxName {
		value = strings.ToValidUTF8(value[:maxName], "") + "…"
	}
	q.Faults = append(q.Faults, fmt.Sprintf("%s=%s is ignored: it is not %s.", param, value, wanted))
}

// Link is the address of the same list with one parameter changed. It begins at the first page.
func (q query) Link(param, value string) string {
	v := url.Values{}
	for name, now := range map[string]string{paramText: q.Text, paramState: q.State, paramWorkspace: q.Workspace, paramLabel: q.Label, paramGroup: q.Group, paramSort: q.Sort} {
		if now != "" {
			v.Set(name, now)
		}
	}
	v.Set(param, value)
	if value == "" {
		v.Del(param)
	}
	if len(v) == 0 {
		return q.path
	}
	return q.path + "?" + v.Encode()
}

// Filtered reports whether rows may be left out.
func (q query) Filtered() bool { return q.Text+q.State+q.Workspace+q.Label != "" }

// matches reports whether the policy passes the filters but that of the state.
func (q query) matches(r *row) bool {
	p := r.Policy
	if q.Workspace != "" && p.Workspace != q.Workspace {
		return false
	}
	if name, value, _ := strings.Cut(q.Label, "="); q.Label != "" {
		if have, labelled := p.Labels[name]; !labelled || have != value {
			return false
		}
	}
	if q.Text == "" {
		return true
	}
	text := strings.ToLower(q.Text)
	within := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	return within(p.Name) || within(p.Workspace) || within(p.ServiceAccount) || within(p.Sink.Path) || within(string(r.State)) ||
		within(plan.Word(r.Reason)) || within(r.Message) || r.Current != nil && within(r.Current.ID) ||
		slices.ContainsFunc(slices.Collect(maps.Values(p.Labels)), within) ||
		slices.ContainsFunc(r.Retiring, func(k ledger.Retiring) bool { return within(k.ID) })
}

// inState reports whether the policy is in the state, or needs attention.
func (r *row) inState(state string) bool {
	return state == "" || state == string(r.State) || state == needing && r.Needs
}

// groupOf is the group that the policy belongs to; "" where rows are not grouped.
func (q query) groupOf(r *row) string {
	if q.Group == "" {
		return ""
	}
	if name, byLabel := strings.CutPrefix(q.Group, groupLabel); byLabel {
		return r.Policy.Labels[name]
	}
	return r.Policy.Workspace
}
