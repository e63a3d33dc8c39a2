package web

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// meeting is policies of which two are in a group, one of which misses its window, and two of a workspace rotate in the same hour;
// at two in the afternoon of a Monday.
func meeting(t testing.TB) (s rotator.Snapshot, now time.Time) {
	t.Helper()
	now = time.Date(2026, 3, 2, 14, 0, 0, 0, time.UTC)
	for _, p := range []struct {
		name, expr, workspace string
		window                time.Duration
	}{{"a", "0 3 * * *", "east", 0}, {"b", "0 4 * * 3", "east", time.Hour}, {"c", "0 3 * * *", "west", 0}, {"d", "5 4 * * 3", "east", 0}} {
		run, err := schedule.Parse(p.expr, "UTC")
		if err != nil {
			t.Fatal(err)
		}
		policy := &plan.Policy{Name: p.name, Workspace: p.workspace, Schedule: run, Mode: plan.ModeAuto, Window: p.window, Overlap: 6 * time.Hour}
		if p.name < "c" {
			policy.Group = "g"
		}
		s.Policies = append(s.Policies, rotator.PolicyStatus{Policy: policy, Outlook: plan.Outlook{State: plan.StateOK, NextDue: run.Next(now), NextReason: ledger.TriggerSchedule}, Current: &ledger.KeyRef{ID: "k"}})
	}
	s.Workspaces = []rotator.WorkspaceStatus{{Name: "east"}, {Name: "west"}}
	return s, now
}

func TestTheCalendar(t *testing.T) {
	t.Parallel()
	s, now := meeting(t)
	of := func(query string, perHour int) calendar {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		return calendarOf(s, q, now, perHour, frame{})
	}
	c := of("", 1)
	if c.All != 13+2+13+2 || c.Busiest.Count != 2 || c.Busiest.Title != "Tue 3 Mar 03:00" || len(c.Days) != calendarDays || len(c.Rows) != 24 || c.Cut {
		t.Errorf("%d rotations, the busiest hour %+v", c.All, c.Busiest)
	}
	if first, tuesday := c.Rows[3].Slots[0], c.Rows[3].Slots[1]; !first.Past || tuesday.Link != "/calendar?hour=2026-03-03T03Z" || tuesday.Class != "l5" {
		t.Errorf("at three, today: %+v, tomorrow: %+v", first, tuesday)
	}
	if wednesday := c.Rows[4].Slots[2]; wednesday.Class != "l5 over" {
		t.Errorf("two of one workspace, which may rotate one: %+v", wednesday)
	}
	if len(c.Conflicts) != 4 || c.Conflicts[2].Words != "workspace east: 2 rotations, of which REKEYD_MAX_ROTATIONS_PER_HOUR lets 1 begin" || c.Conflicts[0].Policy != "b" || !strings.HasPrefix(c.Conflicts[0].Words, "is skipped: its window is 1h0m, and a has its group g for another 5h0m") {
		t.Errorf("conflicts: %+v", c.Conflicts)
	}
	if c := of("workspace=west", 0); c.All != 13 || len(c.Conflicts) != 0 {
		t.Errorf("of one workspace: %d, %+v", c.All, c.Conflicts)
	}
	c = of("hour=2026-03-03T03Z", 0)
	if c.Chosen == nil || len(c.Chosen.Runs) != 2 || c.Chosen.Runs[1].Policy != "c" || len(c.Faults) != 0 {
		t.Errorf("in an hour: %+v", c.Chosen)
	}
	for _, bad := range []string{"yesterday", "2026-03-02T03Z", "2027-03-02T03Z"} {
		if c := of("hour="+bad, 0); c.Chosen != nil || len(c.Faults) != 1 || c.Faults[0] != "hour="+bad+" is ignored: it is not an hour of the calendar such as 2026-03-02T14Z." {
			t.Errorf("hour=%s: %q", bad, c.Faults)
		}
	}
	s.Policies = nil
	if c := of("", 1); c.All != 0 || len(c.Conflicts) != 0 {
		t.Errorf("without policies: %d", c.All)
	}
	for n, want := range map[int]string{7: "7", 999: "999", 1000: "1.0k", 1999: "1.9k", 34567: "34k"} {
		if got := short(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}

// TestTheCalendarInABrowser leads from an hour to its rotations, and from there to a policy.
func TestTheCalendarInABrowser(t *testing.T) {
	t.Parallel()
	url := shows(t, fleet(t, 10_000, time.Now()))
	b := newBrowser(t)
	b.do(chromedp.Navigate(url+"/"), chromedp.Click(chromedp.CSS(`.bar [href="/calendar"]`)), chromedp.WaitVisible(chromedp.CSS(".grid .l5")))
	if got := b.text(`document.querySelector(".bar [aria-current]").textContent`); got != "Calendar" {
		t.Errorf("here is %s", got)
	}
	b.do(chromedp.Click(chromedp.CSS(".grid .l5 a")), chromedp.WaitVisible(chromedp.CSS(".chosen")))
	if got := b.text(`document.querySelectorAll(".chosen li").length + document.querySelector(".chosen li:last-child").textContent`); !strings.HasPrefix(got, "101and ") {
		t.Errorf("the hour has %s", got)
	}
	b.do(chromedp.Click(chromedp.CSS(".chosen a")), chromedp.WaitVisible(chromedp.CSS("#history")))
}
