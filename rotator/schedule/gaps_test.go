package schedule

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestGapsOfKnownSchedules(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		zone, expr        string
		shortest, longest time.Duration
	}{
		{"UTC", "* * * * *", time.Minute, time.Minute},
		{"UTC", "0 0 29 2 *", 4*365*day + day, 4*365*day + day},
		{"UTC", "@yearly", 365 * day, 366 * day},
		{"UTC", "@monthly", 28 * day, 31 * day},
		{"UTC", "0 0 31 * *", 31 * day, 61 * day},
		{"UTC", "@every 36h", 36 * time.Hour, 36 * time.Hour},
		{"Europe/Oslo", "0 3 * * 1", 167 * time.Hour, 169 * time.Hour},
		{"Europe/Oslo", "@monthly", 28 * day, 31*day + time.Hour},
		{"Europe/Oslo", "30 2 * * *", 23*time.Hour + 30*time.Minute, 25 * time.Hour},
		{"Europe/Oslo", "@hourly", time.Hour, time.Hour},
		{"Europe/Oslo", "*/30 * * * *", 30 * time.Minute, 30 * time.Minute},
		{"Europe/Oslo", "0 0-23 * * *", time.Hour, 2 * time.Hour},
		{"Europe/Oslo", "0 */2 * * *", time.Hour, 3 * time.Hour},
		{"Australia/Lord_Howe", "@hourly", time.Hour, 90 * time.Minute},
		{"America/Nuuk", "30 23,0 * * *", 30 * time.Minute, 23 * time.Hour},
		{"Africa/Cairo", "45 0 * * 5", 167*time.Hour + 15*time.Minute, 169 * time.Hour},
	} {
		shortest, longest := mustSchedule(t, tc.expr, tc.zone).Gaps()
		if shortest != tc.shortest || longest != tc.longest {
			t.Errorf("%s %q: gaps are %s to %s, want %s to %s", tc.zone, tc.expr, shortest, longest, tc.shortest, tc.longest)
		}
	}
}

// walkedGaps measures gaps the slow way, from run to run.
func walkedGaps(s Schedule, years int) (shortest, longest time.Duration) {
	prev := s.Next(time.Date(gapsFirstYear, 1, 1, 0, 0, 0, -1, s.Location()))
	for {
		next := s.Next(prev)
		if next.Year() >= gapsFirstYear+years {
			return shortest, longest
		}
		if gap := next.Sub(prev); shortest == 0 || gap < shortest {
			shortest = gap
		}
		longest = max(longest, next.Sub(prev))
		prev = next
	}
}

func TestGapsMatchesWalk(t *testing.T) {
	zones := []string{"UTC", "Europe/Oslo", "Australia/Lord_Howe", "Australia/Sydney", "Africa/Casablanca", "Africa/Cairo",
		"America/Havana", "Asia/Beirut", "America/Nuuk", "Antarctica/Troll"}
	for _, tc := range []struct {
		years int // to walk; fewer where runs are many
		exprs []string
	}{
		{28, []string{"@yearly", "@monthly", "0 3 * * 1", "0 2 29 3 *", "0 0 29 2 *", "0 0 1 1,7 *", "30 23 * * 4", "30 23 * * 6", "45 0 * * 5",
			"15 0,23 31 3,10 0", "0 2 * 3 0", "7 3 */5 * *", "0 * 31 3 *", "30 1 25-31 10 *"}},
		{4, []string{"30 2 * * *", "0 */8 * * *", "15 0,12 * * 0,6", "30 23,0 * * *", "0 0-23/3 * * *"}},
		{1, []string{"@hourly", "30 0-4 * * *", "0 */2 * * *", "*/20 * * * 0"}},
	} {
		for _, zone := range zones {
			t.Run(fmt.Sprintf("%s %d", zone, tc.years), func(t *testing.T) {
				t.Parallel()
				var gaps Gaps
				for _, expr := range tc.exprs {
					s := mustSchedule(t, expr, zone)
					shortest, longest := gaps.Of(s)
					wantShortest, wantLongest := walkedGaps(s, tc.years)
					if shortest != wantShortest || longest != wantLongest {
						t.Errorf("%q: gaps are %s to %s, want %s to %s", expr, shortest, longest, wantShortest, wantLongest)
					}
				}
			})
		}
	}
}

// A clock put back across midnight leaves neither day with one offset. (No zone does so half past the hour today.)
func TestMarkOffsetAcrossMidnight(t *testing.T) {
	start := gapsStart()
	east := time.FixedZone("", 3600)
	change := start.AddDate(0, 0, 2).Add(-30 * time.Minute) // 00:30 of day 2 becomes 23:30 of day 1
	offsets, seen := make([]int64, gapsDays), make([]bool, gapsDays)
	markOffset(offsets, seen, start.AddDate(0, 0, -1).In(east), change.In(east))
	markOffset(offsets, seen, change, time.Time{})
	if want := []int64{3600, clocksChange, clocksChange, 0}; !slices.Equal(offsets[:4], want) {
		t.Errorf("offsets of the first days are %v, want %v", offsets[:4], want)
	}
}

// Gaps keeps to one measurement per expression and zone, and tells zones apart.
func TestGapsRemembers(t *testing.T) {
	var gaps Gaps
	for range 3 {
		for _, zone := range []string{"UTC", "Europe/Oslo"} {
			want := 7 * 24 * time.Hour
			if zone != "UTC" {
				want -= time.Hour
			}
			if got, _ := gaps.Of(mustSchedule(t, "0 3 * * 1", zone)); got != want {
				t.Errorf("%s: shortest gap is %s, want %s", zone, got, want)
			}
		}
	}
	if len(gaps.known) != 2 || len(gaps.offsets) != 2 {
		t.Errorf("%d measurements and %d zones kept, want 2 and 2", len(gaps.known), len(gaps.offsets))
	}
}

// BenchmarkGapsReload is what a reload of 10,000 policies asks for, all with different schedules.
func BenchmarkGapsReload(b *testing.B) {
	zones := clockZones()
	for b.Loop() {
		var parser Parser
		var gaps Gaps
		for i := range 10_000 {
			expr := fmt.Sprintf("%d %d * * %d", i%60, i/60%24, i%7)
			if i%4 == 0 {
				expr = fmt.Sprintf("%d %d %d * *", i%60, i/60%24, i%28+1)
			}
			s, err := parser.Parse(expr, zones[i%len(zones)])
			if err != nil {
				b.Fatal(err)
			}
			gaps.Of(s)
		}
	}
}

func BenchmarkGapsDense(b *testing.B) {
	s := mustSchedule(b, "* * * * *", "Europe/Oslo")
	for b.Loop() {
		s.Gaps()
	}
}
