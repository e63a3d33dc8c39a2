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
		if j.st.known.record.mayBe(old) {
			return failedFor(StageRetire, ReasonUnsafe, "%s may hold key %s, and there is no current one", sink, old.ID)
		}
	}
	return nil
}

// mayBe reports that the record may hold the key's secret: by its hash, by what it says, or because that is not known.
func (v RecordView) mayBe(k KeyRef) bool {
	return v.HasValue && (v.Match == k.ID || v.KeyID == k.ID || v.Match == "" && k.Hash == "")
}
