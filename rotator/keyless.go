package rotator

import (
	"context"
	"slices"
)

// recordLacks returns nil where no record that is read now holds a retiring key of a policy without a current one: readers
// do not have it, so it may go. Of a removed policy whose current key was pruned, a person decided.
func (j *job) recordLacks(ctx context.Context, old KeyRef) error {
	if j.p.Mode == modeRemoved {
		return nil
	}
	for _, sink := range slices.Compact([]Sink{old.Sink, j.p.Sink}) {
		if _, err := j.r.readRecord(ctx, j.st, sink); err != nil {
			return err
		}
		v := j.st.known.record
		if v.HasValue && (v.Match == old.ID || v.KeyID == old.ID || v.Match == "" && old.Hash == "") {
			return failedFor(StageRetire, ReasonUnsafe, "%s may hold key %s, and there is no current one", sink, old.ID)
		}
	}
	return nil
}
