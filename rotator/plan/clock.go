package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// MaxSkew is how far this host's clock may differ from the remotes' before scheduled work stops, and how far a stored time may
// lie in the future.
const MaxSkew = 5 * time.Minute

// planSkew drops steps that only the clock makes due while the clock is wrong or unconfirmed.
func planSkew(o Observed, d Decision) Decision {
	if o.Skew == 0 && !o.ClockUnknown {
		return d
	}
	n := len(d.Steps)
	d.Steps = slices.DeleteFunc(slices.Clone(d.Steps), func(s Step) bool {
		switch s.Reason {
		case ledger.TriggerSchedule, ledger.TriggerMaxAge, ledger.TriggerOverlapEnded, ledger.TriggerQuarantineEnded:
			return true
		}
		return false
	})
	if o.Skew == 0 {
		return d
	}
	message := fmt.Sprintf("this host's clock differs by %s from what ElevenLabs and Vault say, so nothing scheduled begins; set it right", o.Skew.Round(time.Second).Abs())
	switch {
	case d.State == StateError:
		d.Message += "; also, " + message
	case d.State == StateOK || d.State == StateDue || len(d.Steps) < n:
		d.Reason, d.Message = WaitClockSkew, message
	}
	return d
}

// InFuture reports whether only a wrong clock can have written a time.
func InFuture(t, now time.Time) bool { return t.Sub(now) > MaxSkew }

// soonest returns the time of the next try, zero if a wrong clock wrote it: no wait exceeds MaxBackoff.
func soonest(t, now time.Time) time.Time {
	if t.Sub(now) > MaxBackoff+MaxSkew {
		return time.Time{}
	}
	return t
}

// planFuture is the error of an entry whose future times ElevenLabs cannot correct.
func planFuture(p Policy, e *ledger.Entry, now time.Time, d Decision) (Decision, bool) {
	if !InFuture(e.LastRotation, now) {
		return d, false
	}
	return d.fail(FaultClockSkew, "the ledger says that policy %s was rotated at %s, which is in the future: a clock was wrong, and ElevenLabs does not list its key; run: rekeyd rotate %s",
		p.Name, e.LastRotation.UTC().Format(time.RFC3339), p.Name), true
}
