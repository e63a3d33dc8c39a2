package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func mustSchedule(t testing.TB, expr, zone string) Schedule {
	t.Helper()
	s, err := Parse(expr, zone)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instant reads a time as written in the tables, with its offset.
func instant(t testing.TB, value string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestScheduleNext(t *testing.T) {
	const oslo, york, paulo, howe = "Europe/Oslo", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe"
	for _, tc := range []struct{ zone, expr, after, want string }{
		{oslo, "0 3 * * 1", "2026-11-23T02:59:59+01:00", "2026-11-23T03:00:00+01:00"},
		{oslo, "0 3 * * 1", "2026-11-23T03:00:00+01:00", "2026-11-30T03:00:00+01:00"},
		{oslo, "0 3 * * 1", "2026-11-23T02:59:59.999999999+01:00", "2026-11-23T03:00:00+01:00"},
		// the skipped hour
		{oslo, "30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"},
		{oslo, "30 2 * * *", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"},
		{oslo, "10,20,30 2-3 * * *", "2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"},
		{oslo, "10,20,30 2-3 * * *", "2026-03-29T03:00:00+02:00", "2026-03-29T03:10:00+02:00"},
		{oslo, "30 * * * *", "2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"},
		{oslo, "0 */2 * * *", "2026-03-29T00:00:00+01:00", "2026-03-29T04:00:00+02:00"},
		{york, "30 2 * * *", "2026-03-07T12:00:00-05:00", "2026-03-08T03:00:00-04:00"},
		{howe, "15 2 * * *", "2026-10-03T12:00:00+10:30", "2026-10-04T02:30:00+11:00"},
		{howe, "30 2 * * *", "2026-10-03T12:00:00+10:30", "2026-10-04T02:30:00+11:00"},
		{"Africa/Casablanca", "30 2 * * *", "2026-03-21T12:00:00+00:00", "2026-03-22T03:00:00+01:00"},
		{"Europe/Dublin", "30 1 * * *", "2026-03-28T12:00:00+00:00", "2026-03-29T02:00:00+01:00"},
		// the repeated hour
		{oslo, "30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"},
		{oslo, "30 2 * * *", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		{oslo, "30 2 * * *", "2026-10-25T02:10:00+01:00", "2026-10-26T02:30:00+01:00"},
		{oslo, "0 3 * * *", "2026-10-25T02:30:00+01:00", "2026-10-25T03:00:00+01:00"},
		{oslo, "0 3 * * *", "2026-10-25T02:59:59+02:00", "2026-10-25T03:00:00+01:00"},
		{oslo, "30 * * * *", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"},
		{oslo, "0 * * * *", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"},
		{oslo, "0 ? * * *", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"},
		{oslo, "0 0-23 * * *", "2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"},
		{york, "30 1 * * *", "2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"},
		{howe, "45 1 * * *", "2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"},
		{howe, "45 * * * *", "2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30"},
		{"Africa/Casablanca", "30 2 * * *", "2026-02-15T02:30:00+01:00", "2026-02-16T02:30:00+00:00"},
		{"Europe/Dublin", "30 1 * * *", "2026-10-25T01:30:00+01:00", "2026-10-26T01:30:00+00:00"},
		// midnight skipped, and repeated
		{paulo, "0 0 * * *", "2018-11-03T12:00:00-03:00", "2018-11-04T01:00:00-02:00"},
		{paulo, "30 0 * * *", "2018-11-03T12:00:00-03:00", "2018-11-04T01:00:00-02:00"},
		{paulo, "@daily", "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"},
		{paulo, "@hourly", "2018-11-03T23:00:00-03:00", "2018-11-04T01:00:00-02:00"},
		{paulo, "30 23 * * *", "2018-02-17T23:30:00-02:00", "2018-02-18T23:30:00-03:00"},
		{paulo, "0 0 * * 0", "2018-02-17T23:45:00-02:00", "2018-02-18T00:00:00-03:00"},
		// a day skipped
		{"Pacific/Apia", "0 3 * * *", "2011-12-29T03:00:00-10:00", "2011-12-31T03:00:00+14:00"},
		{"Pacific/Apia", "0 0 * * *", "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"},
		{"Pacific/Apia", "@hourly", "2011-12-29T23:00:00-10:00", "2011-12-31T00:00:00+14:00"},
		{"Pacific/Kwajalein", "0 3 * * *", "1993-08-20T03:00:00-12:00", "1993-08-22T03:00:00+12:00"},
		// far ahead
		{"UTC", "0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00+00:00"},
		{"UTC", "0 0 29 2 *", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00+00:00"},
		{oslo, "30 2 29 2 *", "2028-12-31T12:00:00+01:00", "2032-02-29T02:30:00+01:00"}, // last day of a leap year
		{oslo, "0 * 1 1 *", "2096-12-31T23:30:00+01:00", "2097-01-01T00:00:00+01:00"},
		{"", "TZ=Europe/Oslo @weekly", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00+01:00"},
		{oslo, "@every 36h", "2026-03-28T12:00:00.5+01:00", "2026-03-30T01:00:00.5+02:00"},
	} {
		s := mustSchedule(t, tc.expr, tc.zone)
		got := s.Next(instant(t, tc.after)).Format("2006-01-02T15:04:05.999999999-07:00")
		if got != tc.want {
			t.Errorf("%s: %q after %s is %s, want %s", tc.zone, tc.expr, tc.after, got, tc.want)
		}
	}
}

func TestScheduleZeroValueNeverRuns(t *testing.T) {
	var s Schedule
	short, long := s.Gaps()
	if !s.Next(time.Now()).IsZero() || short != 0 || long != 0 || s.Zone() != "UTC" || s.String() != "" {
		t.Errorf("zero value: next %v, gaps %v %v, zone %s, expression %q", s.Next(time.Now()), short, long, s.Zone(), s)
	}
}

// clockZones are zones with every kind of change: whole and half hours, at midnight, negative, irregular, of a day.
func clockZones() []string {
	return []string{"Europe/Oslo", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca",
		"Europe/Dublin", "Pacific/Apia", "Africa/Cairo"}
}

// clockChanges returns the days, as midnights UTC, before which the zone's offset was another than after.
func clockChanges(loc *time.Location, from, to int) []time.Time {
	var changes []time.Time
	_, offset := time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC).In(loc).Zone()
	for day := time.Date(from, 1, 2, 0, 0, 0, 0, time.UTC); day.Year() < to; day = day.AddDate(0, 0, 1) {
		if _, o := day.In(loc).Zone(); o != offset {
			changes, offset = append(changes, day), o
		}
	}
	return changes
}

// onceADay fails unless the schedule runs once on each of the days from the first to before the last, given as
// midnights UTC, that the zone has.
func onceADay(t *testing.T, s Schedule, first, last time.Time) {
	t.Helper()
	at := s.Next(time.Date(first.Year(), first.Month(), first.Day(), 0, 0, 0, -1, s.Location()))
	for day := first; day.Before(last); day = day.AddDate(0, 0, 1) {
		if noon := time.Date(day.Year(), day.Month(), day.Day(), 12, 0, 0, 0, s.Location()); noon.Day() != day.Day() {
			continue // the zone has no such day
		}
		if got, want := at.Format(time.DateOnly), day.Format(time.DateOnly); got != want {
			t.Fatalf("%s %s: runs at %s, want a run on %s", s.Zone(), s, at, want)
		}
		at = s.Next(at)
	}
}

// A daily schedule runs once each civil day for ten years: some minutes of the day through all of them, many around
// each change of clocks.
func TestScheduleDailyRunsOnceEachDay(t *testing.T) {
	const from, to = 2009, 2019 // with Apia's missing day and the last years of São Paulo's and Casablanca's old rules
	for _, zone := range clockZones() {
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			var parser Parser
			for minute := 0; minute < 24*60; minute++ {
				if hour := minute / 60; hour >= 4 && hour < 23 && minute%20 != 0 {
					continue
				}
				s, err := parser.Parse(fmt.Sprintf("%d %d * * *", minute%60, minute/60), zone)
				if err != nil {
					t.Fatal(err)
				}
				for _, change := range clockChanges(s.Location(), from, to) {
					onceADay(t, s, change.AddDate(0, 0, -3), change.AddDate(0, 0, 3))
				}
				if minute%470 == 30 || minute == 0 { // 0:00, 0:30, 8:20, 16:10
					onceADay(t, s, time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(to, 1, 1, 0, 0, 0, 0, time.UTC))
				}
			}
		})
	}
}

func TestScheduleHourlyFollowsTheWallClock(t *testing.T) {
	for _, tc := range []struct {
		zone, expr, day string
		runs            int
	}{
		{"Europe/Oslo", "@hourly", "2026-03-28", 24},
		{"Europe/Oslo", "@hourly", "2026-03-29", 23},
		{"Europe/Oslo", "@hourly", "2026-10-25", 25},
		{"Europe/Oslo", "30 * * * *", "2026-03-29", 23},
		{"Europe/Oslo", "30 * * * *", "2026-10-25", 25},
		{"Europe/Oslo", "*/30 * * * *", "2026-10-25", 50},
		{"America/New_York", "0 * * * *", "2026-03-08", 23},
		{"America/New_York", "0 * * * *", "2026-11-01", 25},
		{"America/Sao_Paulo", "0 * * * *", "2018-11-04", 23},
		{"America/Sao_Paulo", "0 * * * *", "2018-02-17", 25},
		{"Australia/Lord_Howe", "15 * * * *", "2026-10-04", 23},
		{"Australia/Lord_Howe", "45 * * * *", "2026-10-04", 24},
		{"Australia/Lord_Howe", "45 * * * *", "2026-04-05", 25},
		{"Australia/Lord_Howe", "0 * * * *", "2026-04-05", 24},
		{"Africa/Casablanca", "0 * * * *", "2026-02-15", 25},
		{"Africa/Casablanca", "0 * * * *", "2026-03-22", 23},
		{"Europe/Dublin", "0 * * * *", "2026-10-25", 25},
		{"Europe/Dublin", "0 * * * *", "2026-03-29", 23},
		{"Europe/Oslo", "0 0-23 * * *", "2026-03-29", 23}, // named hours: 02:00 and 03:00 are one
		{"Europe/Oslo", "0 0-23 * * *", "2026-10-25", 24},
	} {
		s := mustSchedule(t, tc.expr, tc.zone)
		runs := 0
		at := s.Next(instant(t, tc.day+"T00:00:00+14:00").Add(-1))
		for ; at.Format(time.DateOnly) <= tc.day; at = s.Next(at) {
			if at.Format(time.DateOnly) == tc.day {
				runs++
			}
		}
		if runs != tc.runs {
			t.Errorf("%s %q runs %d times on %s, want %d", tc.zone, tc.expr, runs, tc.day, tc.runs)
		}
	}
}

// refSpec is an independent reading of a cron expression, for the reference below.
type refSpec struct {
	minute, hour, dom, month, dow [60]bool
	anyDom, anyDow, wild          bool
}

func refField(field string, low, high int) (set [60]bool) {
	for item := range strings.SplitSeq(field, ",") {
		values, stepText, hasStep := strings.Cut(item, "/")
		from, to, isRange := strings.Cut(values, "-")
		first, last, step := low, high, 1
		if values != "*" {
			first, _ = strconv.Atoi(from)
			last = first
			if isRange {
				last, _ = strconv.Atoi(to)
			} else if hasStep {
				last = high
			}
		}
		if hasStep {
			step, _ = strconv.Atoi(stepText)
		}
		for v := first; v <= last; v += step {
			set[v] = true
		}
	}
	return set
}

func newRefSpec(expr string) refSpec {
	f := strings.Fields(expr)
	return refSpec{
		minute: refField(f[0], 0, 59), hour: refField(f[1], 0, 23), dom: refField(f[2], 1, 31),
		month: refField(f[3], 1, 12), dow: refField(f[4], 0, 6),
		anyDom: f[2] == "*", anyDow: f[4] == "*", wild: strings.Contains(f[1], "*"),
	}
}

func (r *refSpec) matches(wall time.Time) bool {
	day := r.dom[wall.Day()] || r.dow[wall.Weekday()]
	if r.anyDom || r.anyDow {
		day = r.dom[wall.Day()] && r.dow[wall.Weekday()]
	}
	return day && r.month[wall.Month()] && r.hour[wall.Hour()] && r.minute[wall.Minute()]
}

// refRuns walks from start to end minute by minute, looking at the clock, and returns the runs.
func refRuns(expr string, loc *time.Location, start, end time.Time) (runs []time.Time) {
	spec := newRefSpec(expr)
	const warmUp = 3 * 24 * time.Hour
	var furthest time.Time
	for t := start.Add(-warmUp).Truncate(time.Minute); t.Before(end); t = t.Add(time.Minute) {
		here := t.In(loc)
		wall := time.Date(here.Year(), here.Month(), here.Day(), here.Hour(), here.Minute(), 0, 0, time.UTC)
		run := spec.wild && spec.matches(wall)
		if wall.Sub(furthest) > 24*time.Hour { // the start, or a day skipped
			furthest = wall.Add(-time.Minute)
		}
		for furthest.Before(wall) {
			furthest = furthest.Add(time.Minute)
			run = run || !spec.wild && spec.matches(furthest)
		}
		if run && !t.Before(start) {
			runs = append(runs, t)
		}
	}
	return runs
}

func genField(low, high int, star int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 9).Draw(t, "star") < star {
			return "*"
		}
		a := rapid.IntRange(low, high).Draw(t, "a")
		b := rapid.IntRange(a, high).Draw(t, "b")
		step := rapid.IntRange(1, high).Draw(t, "step")
		forms := []string{fmt.Sprint(a), fmt.Sprintf("%d-%d", a, b), fmt.Sprintf("%d-%d/%d", a, b, step),
			fmt.Sprintf("*/%d", max(step, 2)), fmt.Sprintf("%d,%d", a, b), fmt.Sprintf("%d/%d", a, step)}
		return rapid.SampledFrom(forms).Draw(t, "form")
	})
}

func TestScheduleMatchesReference(t *testing.T) {
	zones := append(clockZones(), "UTC", "Antarctica/Troll", "America/Havana", "Asia/Kathmandu", "Pacific/Kwajalein")
	changes := map[string][]time.Time{}
	var parser Parser
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		expr := strings.Join([]string{genField(0, 59, 1).Draw(t, "minute"), genField(0, 23, 3).Draw(t, "hour"),
			genField(1, 31, 6).Draw(t, "dom"), genField(1, 12, 8).Draw(t, "month"), genField(0, 6, 6).Draw(t, "dow")}, " ")
		s, err := parser.Parse(expr, zone)
		if err != nil {
			if strings.Contains(err.Error(), "never fires") {
				return
			}
			t.Fatal(err)
		}
		if changes[zone] == nil {
			changes[zone] = append(clockChanges(s.Location(), 1990, 2050), time.Date(2028, 12, 31, 0, 0, 0, 0, time.UTC))
		}
		start := rapid.SampledFrom(changes[zone]).Draw(t, "change").
			Add(-time.Duration(rapid.IntRange(0, 60*60).Draw(t, "minutes before")) * time.Minute)
		end := start.Add(4 * 24 * time.Hour)
		var got []time.Time
		for at := s.Next(start.Add(-1)); at.Before(end); at = s.Next(at) {
			got = append(got, at)
		}
		want := refRuns(expr, s.Location(), start, end)
		if !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Fatalf("%s %q from %s:\n got %v\nwant %v", zone, expr, start, got, want)
		}
	})
}

// Next agrees with itself from any starting point: nothing depends on the walk that led there.
func TestScheduleNextFromAnyInstant(t *testing.T) {
	for _, expr := range []string{"30 2 * * *", "*/20 1-3 * * *", "15 * * * *", "0 */2 * * *"} {
		for _, zone := range clockZones() {
			s := mustSchedule(t, expr, zone)
			change := clockChanges(s.Location(), 2009, 2019)[3]
			want := s.Next(change.AddDate(0, 0, 3))
			for at := change.AddDate(0, 0, 3); at.After(change.AddDate(0, 0, -3)); at = at.Add(-5 * time.Minute) {
				got := s.Next(at)
				if !got.After(at) || got.After(want) || got.Before(want) && !s.Next(got).Equal(want) {
					t.Fatalf("%s %q: after %s is %s; the run after that, from later on, is %s", zone, expr, at, got, want)
				}
				want = got
			}
		}
	}
}

func TestSplayOf(t *testing.T) {
	for _, limit := range []time.Duration{-time.Hour, 0, time.Microsecond} {
		if got := SplayOf("tts-prod", limit); got != 0 {
			t.Errorf("splay up to %s is %s, want 0", limit, got)
		}
	}
	for _, tc := range []struct{ limit, unit time.Duration }{
		{10 * time.Minute, time.Second}, {90 * time.Second, time.Second}, {500 * time.Millisecond, time.Millisecond},
	} {
		buckets := make([]int, 10)
		for i := range 10_000 {
			got := SplayOf(fmt.Sprintf("policy-%d", i), tc.limit)
			if got < 0 || got > tc.limit || got%tc.unit != 0 {
				t.Fatalf("splay up to %s is %s", tc.limit, got)
			}
			buckets[min(9, got*10/tc.limit)]++
		}
		if slices.Min(buckets) < 850 || slices.Max(buckets) > 1150 {
			t.Errorf("splays up to %s are uneven: %v in each tenth", tc.limit, buckets)
		}
	}
	if a, b := SplayOf("tts-prod", time.Hour), SplayOf("tts-prod", time.Hour); a != b {
		t.Errorf("splay of one name is %s and %s", a, b)
	}
}

func BenchmarkScheduleNext(b *testing.B) {
	for _, expr := range []string{"0 3 * * 1", "@hourly", "@yearly", "@every 36h"} {
		b.Run(expr, func(b *testing.B) {
			s := mustSchedule(b, expr, "Europe/Oslo")
			at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			b.ReportAllocs()
			for b.Loop() {
				if s.Next(at).IsZero() {
					b.Fatal("never")
				}
				at = at.Add(time.Hour)
			}
		})
	}
}
