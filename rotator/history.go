package rotator

import (
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// logOthers logs the rotations that commands and other replicas made between two reads of an entry. Without an earlier entry only
// the last one is new for certain: the others may have come with a rename.
func (r *Rotator) logOthers(policy string, was, is *ledger.Entry) {
	added := is.Rotations()
	if was == nil {
		added = added[max(0, len(added)-1):]
	} else {
		known := was.Rotations()
		for i := len(added) - 1; i >= 0; i-- {
			if slices.ContainsFunc(known, added[i].Same) {
				added = added[i+1:]
				break
			}
		}
	}
	for _, p := range added {
		what := "rotated by another process"
		switch {
		case p.By == ledger.ByCommand:
			what = "changed by a command"
		case p.By == ledger.ByLeak && p.Reason == ledger.TriggerRevoke:
			what = "key reported as leaked, and replaced by another process"
		case was != nil && was.Intent != nil && was.Intent.Rotation == p.Rotation && was.Claim != nil && was.Claim.Holder == r.holder:
			continue // it began here, and the answer to its commit was lost
		}
		r.opt.Logger.Info(what, "policy", policy, "trigger", string(p.Reason), "words", p.Words, "rotation", p.Rotation,
			"key_id", p.KeyID, "previous_key_id", p.PreviousKeyID)
	}
}

// logEnds logs the keys that commands and other replicas disabled or deleted between two reads of an entry. told is the ends that
// this process logged although it could not write them.
func (r *Rotator) logEnds(policy string, was, is *ledger.Entry, told map[end]bool) {
	if was == nil || is.MovedTo != "" {
		return // what came with a rename is old
	}
	var ids []string
	for k := range was.Keys() {
		ids = append(ids, k.ID)
	}
	for _, p := range is.Rotations() {
		if p.PreviousKeyID != "" && !slices.Contains(ids, p.PreviousKeyID) && !slices.ContainsFunc(was.Rotations(), p.Same) {
			ids = append(ids, p.PreviousKeyID)
		}
	}
	for _, id := range ids {
		before, now := endsOf(was, id), endsOf(is, id)
		for _, e := range now {
			if slices.Contains(before, e) || told[e] {
				continue
			}
			args := []any{"policy", policy, "key_id", id}
			if past := is.PastOf(id); past != nil {
				args = append(args, "replaced_by", past.KeyID, "proof", string(past.Proof))
			}
			r.opt.Logger.Info(e.what+" by another process", args...)
		}
	}
}

const (
	keyDisabled = "key disabled"
	keyDeleted  = "key deleted"
)

// endsOf is what the entry says that rekeyd did to a former key. A key that prune took from a removed policy was never replaced, so
// no rotation remembers its end.
func endsOf(e *ledger.Entry, id string) (all []end) {
	past, key := e.PastOf(id), e.RetiringKey(id)
	if past != nil && !past.Disabled.IsZero() || past == nil && key != nil && key.State == ledger.InQuarantine {
		all = append(all, end{keyDisabled, id})
	}
	if past != nil && !past.Deleted.IsZero() || past == nil && key == nil && ledger.CurrentID(e) != id {
		all = append(all, end{keyDeleted, id})
	}
	return all
}
