package web

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// listed makes the list that a query asks for.
func listed(t *testing.T, s rotator.Snapshot, query string, now time.Time) list {
	t.Helper()
	q, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return listOf(s, parseQuery("/", q), now, frame{}, vitals{started: now})
}

// names are the policies that are shown, with the groups before theirs.
func (l list) names() []string {
	var all []string
	for _, g := range l.Groups {
		if g.Title != "" {
			all = append(all, fmt.Sprintf("[%s %d]", g.Title, g.Count))
		}
		for _, r := range g.Rows {
			all = append(all, r.Policy.Name)
		}
	}
	return all
}

func TestTheListIsFilteredOrderedAndGrouped(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	one := func(name, workspace, team string, state plan.State, created, next int) rotator.PolicyStatus {
		s := rotator.PolicyStatus{Policy: &plan.Policy{Name: name, Workspace: workspace, ServiceAccount: "svcacc_" + name, Sink: ledger.Sink{Ref: ledger.Ref{Path: "app/" + name}}}, Outlook: plan.Outlook{State: state}}
		if team != "" {
			s.Policy.Labels = map[string]string{"team": team}
		}
		if created != 0 {
			s.Current, s.LastRotation = &ledger.KeyRef{ID: "key-of-" + name, Created: at(created)}, at(created)
		}
		if next != 0 {
			s.NextDue = at(next)
		}
		return s
	}
	s := rotator.Snapshot{Policies: []rotator.PolicyStatus{
		one("a", "west", "speech", plan.StateOK, -9, 5),
		one("b", "east", "", plan.StateError, 0, 0),
		one("c", "west", "studio", plan.StateOK, -30, 1),
		one("d", "east", "speech", plan.StatePaused, -2, 0),
	}, Workspaces: []rotator.WorkspaceStatus{{Name: "east"}, {Name: "west"}}}
	s.Policies[2].Retiring = []ledger.Retiring{{KeyRef: ledger.KeyRef{ID: "old-one"}, State: ledger.InQuarantine}}
	for query, want := range map[string]string{
		"":                                  "a b c d",
		"sort=policy":                       "a b c d",
		"sort=-policy":                      "d c b a",
		"sort=state":                        "b d a c",
		"sort=-state":                       "a c d b",
		"sort=workspace":                    "b d a c",
		"sort=-workspace":                   "a c b d",
		"sort=age":                          "d a c b",
		"sort=-age":                         "c a d b",
		"sort=next":                         "c a b d",
		"sort=-next":                        "a c b d",
		"sort=last":                         "c a d b",
		"sort=-last":                        "d a c b",
		"sort=-old":                         "c a b d",
		"group=workspace":                   "[east 2] b d [west 2] a c",
		"group=workspace&sort=-age":         "[east 2] d b [west 2] c a",
		"group=label:team":                  "[speech 2] a d [studio 1] c [without team 1] b",
		"workspace=east":                    "b d",
		"workspace=north":                   "",
		"label=team%3Dspeech":               "a d",
		"label=team%3Dnobody":               "",
		"state=paused":                      "d",
		"state=attention":                   "b",
		"q=SVCACC_C":                        "c",
		"q=old-one":                         "c",
		"q=studio":                          "c",
		"q=app/b&workspace=east":            "b",
		"label=team%3Dspeech&state=ok&q=a":  "a",
		"label=team%3Dspeech&state=failing": "",
	} {
		if got := strings.Join(listed(t, s, query, now).names(), " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	l := listed(t, s, "workspace=east&sort=-age", now)
	var tabs []string
	for _, tab := range l.Tabs {
		tabs = append(tabs, fmt.Sprintf("%s %d %s", tab.Name, tab.Count, tab.Link))
	}
	want := []string{" 2 /?sort=-age&workspace=east", "attention 1 /?sort=-age&state=attention&workspace=east", "paused 1 /?sort=-age&state=paused&workspace=east", "error 1 /?sort=-age&state=error&workspace=east"}
	if !slices.Equal(tabs, want) {
		t.Errorf("the states are %q", tabs)
	}
	for _, c := range l.Columns {
		if c.Title == "Key age" && (c.Order != "descending" || c.Link != "/?sort=age&workspace=east") || c.Title == "Old" && (c.Order != "" || c.Link != "/?sort=-old&workspace=east") {
			t.Errorf("a column is %+v", c)
		}
	}
}

func TestTheListIsPaged(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := fleet(t, 1000, now)
	for query, want := range map[string]string{
		"":                                 "1 1-100 of 1000,  /?page=2",
		"page=2":                           "2 101-200 of 1000, /?page=1 /?page=3",
		"page=10":                          "10 901-1000 of 1000, /?page=9 ",
		"page=1000":                        "10 901-1000 of 1000, /?page=9 ",
		"workspace=emea-03&page=2":         "1 1-100 of 100,  ",
		"q=nobody":                         "1 1-0 of 0,  ",
		"group=label:tier&page=6":          "6 501-600 of 1000, /?group=label%3Atier&page=5 /?group=label%3Atier&page=7",
		"sort=-age&label=tier%3Dprod&q=00": "1 1-", // what is asked for stays
	} {
		l := listed(t, s, query, now)
		if got := fmt.Sprintf("%d %d-%d of %d, %s %s", l.Page, l.First, l.Last, l.Matching, l.Previous, l.Following); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	if names := listed(t, s, "group=label:tier&page=6", now).names(); names[0] != "[staging 500]" {
		t.Errorf("a group that goes on begins with %s", names[0])
	}
}

// TestBadParameters: each is ignored, in a sentence, and nothing else is.
func TestBadParameters(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := fleet(t, 200, now)
	for query, want := range map[string]string{
		"state=broken":                        "state=broken is ignored: it is not a state of the list, or attention.",
		"label=team":                          "label=team is ignored: it is not NAME=VALUE.",
		"label=%3Dspeech":                     "label==speech is ignored: it is not NAME=VALUE.",
		"group=account":                       "group=account is ignored: it is not workspace or label:NAME.",
		"group=label:":                        "group=label: is ignored: it is not workspace or label:NAME.",
		"sort=colour":                         "sort=colour is ignored: it is not state, policy, workspace, age, next, last, old, or one of them after a minus.",
		"sort=--age":                          "sort=--age is ignored: it is not state, policy, workspace, age, next, last, old, or one of them after a minus.",
		"page=0":                              "page=0 is ignored: it is not a number from 1.",
		"page=last":                           "page=last is ignored: it is not a number from 1.",
		"page=99999999999999999999":           "page=99999999999999999999 is ignored: it is not a number from 1.",
		"q=" + strings.Repeat("x", 201):       "q=xxxxxxxxxxxxxxxxxxxx… is ignored: it is not at most 200 bytes of text.",
		"workspace=" + strings.Repeat("x", 9): "",
		"q=%ff":                               "q=\xff is ignored: it is not at most 200 bytes of text.",
		"state=ok&nonsense=1":                 "",
	} {
		l := listed(t, s, query, now)
		if got := strings.Join(l.Faults, "|"); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
		if want != "" && (l.Matching != 200 || strings.Contains(l.Link(paramState, "ok"), "broken")) {
			t.Errorf("%s: %d policies, and the link %s", query, l.Matching, l.Link(paramState, "ok"))
		}
	}
}

func TestRowInWords(t *testing.T) {
	t.Parallel()
	oslo, err := schedule.Parse("0 3 * * *", "Europe/Oslo")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	status := rotator.PolicyStatus{
		Policy: &plan.Policy{Name: "p", Schedule: oslo}, Outlook: plan.Outlook{State: plan.StateFailing, NextDue: at(3)}, Current: &ledger.KeyRef{Created: at(-9)}, InUse: true,
		Retiring: []ledger.Retiring{{KeyRef: ledger.KeyRef{ID: "k1"}, State: ledger.InOverlap, Until: at(2)}, {KeyRef: ledger.KeyRef{ID: "k2"}, State: ledger.InQuarantine, Until: at(5)}},
		Failure:  &ledger.LastFailure{Stage: ledger.StageClaim, Reason: ledger.FailureSinkSealed, Message: "Vault is sealed; unseal Vault", At: at(-1), Count: 3, NextTry: at(1)},
	}
	row := func() *row { return &rowsOf(&rotator.Snapshot{Policies: []rotator.PolicyStatus{status}}, now)[0] }
	if got, want := row().Note(), "Failed at claim, 1h0m ago: Vault is sealed; unseal Vault. 3 times in a row. Tries again in 1h0m."; got != want {
		t.Errorf("it says %q", got)
	}
	if got, want := row().Old(), "k1 works for another 2h0m; k2 is disabled, deleted in 5h0m"; got != want {
		t.Errorf("it says %q", got)
	}
	if r := row(); r.Percent() != 39 || r.Limit() != "of 23h0m between runs" || r.Class() != "failing attention" || r.Over() {
		t.Errorf("%d %q %q", r.Percent(), r.Limit(), r.Class())
	}
	status.Policy.MaxAge = 8 * time.Hour
	if r := row(); r.Percent() != 100 || r.Limit() != "of 8h0m allowed" || r.Age() != "9h0m" || !r.Over() {
		t.Errorf("%d %q %q", r.Percent(), r.Limit(), r.Age())
	}
	status.State, status.NextDue = plan.StateError, time.Time{}
	if got := row().NextAt().Never; got != "none: needs a decision" {
		t.Errorf("the next rotation is %q", got)
	}
}

func TestLabelsInTheView(t *testing.T) {
	t.Parallel()
	v := ViewOf(rotator.Snapshot{Policies: []rotator.PolicyStatus{{Policy: &plan.Policy{Name: "a", Labels: map[string]string{"team": "speech"}}}, {Policy: &plan.Policy{Name: "b"}}}})
	text, err := json.Marshal(v.Policies)
	if err != nil || strings.Count(string(text), `"labels":`) != 1 || !strings.Contains(string(text), `"labels":{"team":"speech"}`) {
		t.Errorf("%v: %s", err, text)
	}
}

// TestTheViewPromisesWhatIsDecided: an old key that may be used on is shown until the end of that, not of its overlap.
func TestTheViewPromisesWhatIsDecided(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 23, 12, 0, 0, 0, time.UTC)
	old := ledger.Retiring{KeyRef: ledger.KeyRef{ID: "k1"}, State: ledger.InOverlap, Until: now.Add(time.Hour)}
	status := rotator.PolicyStatus{Policy: &plan.Policy{Name: "tts-prod"}, Retiring: []ledger.Retiring{old}}
	for want, leaves := range map[string]map[string]time.Time{
		"k1 works for another 1h0m": nil, // nothing is decided yet
		"k1 works for another 4h0m": {"k1": now.Add(4 * time.Hour)},
	} {
		status.Leaves = leaves
		if got := ViewOf(rotator.Snapshot{Policies: []rotator.PolicyStatus{status}}).Policies[0].Leaving(now); len(got) != 1 || got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
