package rotator

import (
	"context"
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// recordLacks returns nil where no record that is read now holds a retiring key of a policy without a current one: readers
// do not have it, so it may go. Of a removed policy whose current key was pruned, a person decided.
func (j *job) recordLacks(ctx context.Context, old ledger.KeyRef) error {
	if j.p.Mode == plan.ModeRemoved {
		return nil
	}
	for _, sink := range slices.Compact([]ledger.Sink{old.Sink, j.p.Sink}) {
		if _, err := j.r.readRecord(ctx, j.st, sink); err != nil {
			return err
		}
		if j.st.known.record.MayBe(old) {
			return failedFor(ledger.StageRetire, ledger.ReasonUnsafe, "%s may hold key %s, and there is no current one", sink, old.ID)
		}
	}
	return nil
}
