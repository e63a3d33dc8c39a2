package rotator

import (
	"context"
	"fmt"
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// PolicyHistory is what the ledger remembers of one policy's rotations.
type PolicyHistory struct {
	Policy    string
	Rotations []ledger.Past // oldest first
	Err       error         // why the entry was not read
}

// History reads what the ledger remembers of these policies, loaded or not. It reads nothing else, so it works while ElevenLabs
// does not answer.
func (r *Rotator) History(ctx context.Context, policies ...string) []PolicyHistory {
	all := make([]PolicyHistory, 0, len(policies))
	for _, name := range policies {
		h := PolicyHistory{Policy: name}
		switch e, err := r.entryOf(ctx, name); {
		case err != nil:
			h.Err = fmt.Errorf("reading the history of %s: %w", name, err)
		case e != nil && e.MovedTo != "":
			h.Err = &MovedError{name, e.MovedTo}
		case e != nil:
			h.Rotations = e.Rotations()
		}
		all = append(all, h)
	}
	return all
}

// MovedError says that a policy's entry, with its history, belongs to another policy now.
type MovedError struct{ Policy, To string }

// Error implements error.
func (e *MovedError) Error() string {
	return fmt.Sprintf("reading the history of %s: policy %s took its ledger entry over; run: rekeyd history %s", e.Policy, e.To, e.To)
}

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

// end is a step towards the end of a key, in the words of the log.
type end struct{ what, keyID string }

// tell notes an end that was logged.
func (k *knowledge) tell(e end) {
	if k.told == nil {
		k.told = map[end]bool{}
	}
	k.told[e] = true
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

// Evidence is what a rotation or a retirement was proven by: one of these words, or one of a [ledger.Proof].
type Evidence string

// What a new key was proven by before it was published.
const (
	EvidenceVerified Evidence = "verified" // ElevenLabs accepted its secret
	EvidenceProbed   Evidence = "probed"   // every probe was answered 2xx
)

// evidenceOf returns what proved a new key.
func evidenceOf(key ledger.KeyRef, e *ledger.Entry) []Evidence {
	var all []Evidence
	if key.Verified {
		all = append(all, EvidenceVerified)
	}
	history := e.Rotations()
	if n := len(history); n > 0 && history[n-1].KeyID == key.ID && history[n-1].Probed() {
		all = append(all, EvidenceProbed)
	}
	return all
}

// endEvidence returns what is known of the end of a key that was replaced.
func endEvidence(keyID string, e *ledger.Entry) []Evidence {
	if e == nil {
		return nil
	}
	if past := e.PastOf(keyID); past != nil && past.Proof != "" {
		return []Evidence{Evidence(past.Proof)}
	}
	return nil
}
