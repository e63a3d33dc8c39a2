package plan

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

func TestAHealedLeakIsShownForADay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	past := func(by ledger.By, key string, ago time.Duration) ledger.Past {
		return ledger.Past{By: by, KeyID: key, Published: now.Add(-ago)}
	}
	for name, c := range map[string]struct {
		history []ledger.Past
		want    string
	}{
		"no history":             {nil, ""},
		"no leak":                {[]ledger.Past{past(ledger.BySchedule, "a", time.Hour), past(ledger.ByCommand, "b", 0)}, ""},
		"a leak just now":        {[]ledger.Past{past(ledger.ByLeak, "a", 0)}, "a"},
		"rotated since":          {[]ledger.Past{past(ledger.ByLeak, "a", 2*time.Hour), past(ledger.BySchedule, "b", time.Hour)}, "a"},
		"two leaks":              {[]ledger.Past{past(ledger.ByLeak, "a", 2*time.Hour), past(ledger.ByLeak, "b", time.Hour)}, "b"},
		"the last second":        {[]ledger.Past{past(ledger.ByLeak, "a", 24*time.Hour-time.Second)}, "a"},
		"a day ago":              {[]ledger.Past{past(ledger.ByLeak, "a", 24*time.Hour)}, ""},
		"by a clock that is off": {[]ledger.Past{past(ledger.ByLeak, "a", -time.Minute)}, "a"},
	} {
		got := ""
		if p := HealedLeak(c.history, now); p != nil {
			got = p.KeyID
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
