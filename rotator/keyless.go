package rotator

import (
	"context"
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// recordLacks returns nil if no record holds the retiring key of a policy without a current key: readers do not have it, so it
// may go. It does not check a removed policy, whose current key a person pruned.
func (j *job) recordLacks(ctx context.Context, old ledger.KeyRef) error {
	if j.p.Mode == plan.ModeRemoved {
		return nil
	}
	for _, sink := range slices.Compact([]ledger.Sink{old.Sink, j.p.Sink}) {
		if _, err := j.r.readRecord(ctx, j.st, sink, 0); err != nil {
			return err
		}
		if j.st.known.record.MayBe(old) {
			return failedFor(ledger.StageRetire, ledger.FailureUnsafe, "%s may hold key %s, and there is no current one", sink, old.ID)
		}
	}
	return nil
}
