package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// soon is a policy with a schedule, next due some hours after midnight of 2026-03-02, a Monday.
func soon(t testing.TB, name, expr string, hours float64, change func(*plan.Coming)) plan.Coming {
	t.Helper()
	s, err := schedule.Parse(expr, "UTC")
	if err != nil {
		t.Fatal(err)
	}
	c := plan.Coming{Policy: &plan.Policy{Name: name, Workspace: "w", Schedule: s, Mode: plan.ModeAuto, Overlap: 6 * time.Hour}, Why: ledger.TriggerSchedule}
	c.Next = monday().Add(time.Duration(hours * float64(time.Hour)))
	if change != nil {
		change(&c)
	}
	return c
}

func monday() time.Time { return time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC) }

// hours names the hours with runs, and how many.
func hours(f plan.Forecast) string {
	var all []string
	for i, n := range f.Hours {
		if n > 0 {
			all = append(all, fmt.Sprintf("%d:%d", i, n))
		}
	}
	return strings.Join(all, " ")
}

func TestForecastCountsRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		coming plan.Coming
		want   string
	}{
		"daily":           {soon(t, "p", "0 3 * * *", 3, nil), "3:1 27:1 51:1"},
		"late":            {soon(t, "p", "0 3 * * *", -21, nil), "0:1 3:1 27:1 51:1"},
		"first by age":    {soon(t, "p", "0 3 * * *", 2, func(c *plan.Coming) { c.Why = ledger.TriggerMaxAge }), "2:1 3:1 27:1 51:1"},
		"every":           {soon(t, "p", "@every 30h", 10, nil), "10:1 40:1 70:1"},
		"with splay":      {soon(t, "p", "0 3 * * *", 3, func(c *plan.Coming) { c.Policy.Splay = 2 * time.Hour }), ""},
		"never":           {soon(t, "p", "0 3 * * *", 0, func(c *plan.Coming) { c.Next = time.Time{} }), ""},
		"after the end":   {soon(t, "p", "0 3 * * *", 99, nil), ""},
		"manual":          {soon(t, "p", "0 3 * * *", 5, func(c *plan.Coming) { c.Policy.Mode = plan.ModeManual }), "5:1"},
		"not before then": {soon(t, "p", "0 3 * * *", 27, nil), "27:1 51:1"},
	} {
		f := plan.MakeForecast([]plan.Coming{c.coming}, monday().Add(10*time.Minute), monday().Add(72*time.Hour), 1000, 0)
		got := hours(f)
		if name == "with splay" {
			at := int(schedule.SplayOf("p", 2*time.Hour) / time.Hour)
			c.want = fmt.Sprintf("3:1 %d:1 %d:1", 27+at, 51+at)
		}
		if got != c.want || len(f.Hours) != 72 {
			t.Errorf("%s: %s of %d hours, want %s", name, got, len(f.Hours), c.want)
		}
	}
}

func TestForecastIsBounded(t *testing.T) {
	t.Parallel()
	var coming []plan.Coming
	for i := range 1000 {
		coming = append(coming, soon(t, fmt.Sprint("p", i), "@hourly", 1, nil))
	}
	coming = append(coming, soon(t, "quick", "@every 1s", 0, nil))
	f := plan.MakeForecast(coming, monday(), monday().Add(14*24*time.Hour), 50_000, 100)
	if all := sum(f.Hours); all > 50_000 || all < 20_000 || !f.Until.Equal(monday().Add(time.Duration(len(f.Hours))*time.Hour)) {
		t.Errorf("%d runs in %d hours, until %s", all, len(f.Hours), f.Until)
	}
	if o := f.Over[0]; o.Due != 3600 || o.Workspace != "w" || !o.At.Equal(monday()) || len(f.Over) != len(f.Hours) {
		t.Errorf("too many rotations in %d hours, first %+v", len(f.Over), o)
	}
	runs, all := f.In(monday(), monday().Add(time.Hour), monday().Add(2*time.Hour), 10)
	if all != 4600 || len(runs) != 10 || runs[0].Policy.Name != "p0" {
		t.Errorf("%d of %d runs in an hour", len(runs), all)
	}
}

func sum(all []int) (n int) {
	for _, x := range all {
		n += x
	}
	return n
}

func TestForecastOfGroups(t *testing.T) {
	t.Parallel()
	member := func(change func(*plan.Coming)) func(*plan.Coming) {
		return func(c *plan.Coming) {
			c.Policy.Group = "g"
			if change != nil {
				change(c)
			}
		}
	}
	for name, c := range map[string]struct {
		coming []plan.Coming
		want   string
	}{
		"apart":                   {[]plan.Coming{soon(t, "a", "0 3 * * *", 3, member(nil)), soon(t, "b", "0 12 * * *", 12, member(nil))}, ""},
		"one waits":               {[]plan.Coming{soon(t, "a", "0 3 * * *", 3, member(nil)), soon(t, "b", "0 4 * * *", 4, member(nil))}, "b waits for a 04-09, b waits for a 04-09"},
		"its window closes":       {[]plan.Coming{soon(t, "a", "0 3 * * *", 3, member(nil)), soon(t, "b", "0 4 * * *", 4, member(func(c *plan.Coming) { c.Policy.Window = time.Hour }))}, "b misses for a 04-09, b misses for a 04-09"},
		"its window is enough":    {[]plan.Coming{soon(t, "a", "0 3 * * *", 3, member(nil)), soon(t, "b", "0 4 * * 1", 4, member(func(c *plan.Coming) { c.Policy.Window = 5 * time.Hour }))}, "b waits for a 04-09"},
		"an overlap that goes on": {[]plan.Coming{soon(t, "a", "0 3 * * 0", 99, member(func(c *plan.Coming) { c.Held = monday().Add(2 * time.Hour) })), soon(t, "b", "0 1 * * 1", 1, member(nil))}, "b waits for a 01-02"},
		"by age, without waiting": {[]plan.Coming{soon(t, "a", "0 3 * * 1", 3, member(nil)), soon(t, "b", "0 4 * * 0", 4, member(func(c *plan.Coming) { c.Why = ledger.TriggerMaxAge }))}, ""},
		"of other groups":         {[]plan.Coming{soon(t, "a", "0 3 * * *", 3, member(nil)), soon(t, "b", "0 4 * * *", 4, nil)}, ""},
	} {
		f := plan.MakeForecast(c.coming, monday(), monday().Add(48*time.Hour), 1000, 0)
		var got []string
		for _, w := range f.Waits {
			verb := "waits"
			if w.Missed {
				verb = "misses"
			}
			got = append(got, fmt.Sprintf("%s %s for %s %s-%s", w.Policy.Name, verb, w.For.Name, w.At.Format("15"), w.Until.Format("15")))
		}
		if words := strings.Join(got, ", "); words != c.want {
			t.Errorf("%s: %q, want %q", name, words, c.want)
		}
	}
}

func BenchmarkForecast(b *testing.B) {
	var coming []plan.Coming
	for i := range 10_000 {
		coming = append(coming, soon(b, fmt.Sprint("p", i), fmt.Sprintf("%d %d * * *", i%60, i/60%24), 24, func(c *plan.Coming) { c.Policy.Workspace = fmt.Sprint(i / 100) }))
	}
	b.ReportAllocs()
	for b.Loop() {
		if f := plan.MakeForecast(coming, monday(), monday().Add(14*24*time.Hour), 400_000, 100); slices.Max(f.Hours) == 0 {
			b.Fatal("nothing is due")
		}
	}
}
