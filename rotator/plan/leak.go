package plan

import (
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// leakShown is how long a leak that was healed stays visible.
const leakShown = 24 * time.Hour

// HealedLeak returns the latest rotation that replaced a leaked key, if that was less than a day ago; nil otherwise.
func HealedLeak(history []ledger.Past, now time.Time) *ledger.Past {
	for i := len(history) - 1; i >= 0; i-- {
		if p := &history[i]; p.By == ledger.ByLeak {
			if now.Sub(p.Published) < leakShown {
				return p
			}
			return nil
		}
	}
	return nil
}
