package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A policy's ledger entry moves to another name in two check-and-set writes. The first marks the old entry as moved, so that no
// process works on it. The second writes the new entry. The mark is written even if it is already there: that refuses an earlier
// write of the opposite move, however late it arrives. If two entries are marked with each other's names, the one with more
// moves is valid.

// inherit takes over the ledger entry of the policy that this one replaces, or takes its own entry back from the policy that
// replaced it.
func (j *job) inherit(ctx context.Context) outcome {
	from, err := j.giver(ctx)
	if err == nil && from != "" {
		err = j.takeEntry(ctx, from)
	}
	var busy *entryBusyError
	switch {
	case errors.As(err, &busy), claimLost(err):
		j.st.known.loaded = false // the other policy's entry was in the way; the next look reads both again
		return outcome{}
	case err != nil:
		return storeFailed(err)
	case from == "":
		return outcome{again: true}
	}
	j.r.mu.Lock()
	j.st.mayTakeBack = false
	j.r.mu.Unlock()
	j.st.known.note().inherits = ""
	return j.noted(nil, "ledger entry taken over", ledger.CurrentID(j.entry()), "from", from)
}

// giver reads again which policy's entry this policy may take.
func (j *job) giver(ctx context.Context) (string, error) {
	if e := j.entry(); e != nil {
		return j.r.returning(ctx, j.st, j.p, e)
	}
	if _, err := j.r.readRecord(ctx, j.st, j.p.Sink, 0); err != nil {
		return "", err
	}
	return j.r.predecessor(ctx, j.p, j.st.known.record)
}

// entryBusyError is why an entry cannot move now.
type entryBusyError struct{ policy, why string }

func (e *entryBusyError) Error() string { return "policy " + e.policy + " " + e.why }

// takeEntry moves another policy's ledger entry to this policy.
func (j *job) takeEntry(ctx context.Context, from string) error {
	ref := j.r.entryRef(from)
	doc, err := j.r.opt.Store.Read(ctx, ref, 0)
	if err != nil {
		return fmt.Errorf("reading ledger entry of %s: %w", from, err)
	}
	if doc.JSON == nil {
		return &entryBusyError{from, "has no ledger entry"}
	}
	given, err := ledger.ParseEntry(doc.JSON, from)
	if err != nil {
		return err
	}
	own, content := j.entry(), given
	if own == nil {
		own = &ledger.Entry{Moves: -1}
	}
	switch undo := own.MovedTo != "" && own.Moves > given.Moves; {
	case undo:
		content = own // its move stopped after the first write
	case given.Claim != nil || given.Intent != nil:
		return &entryBusyError{from, "is being worked on"}
	case given.MovedTo != "" && given.MovedTo != j.p.Name:
		return &entryBusyError{from, fmt.Sprintf("gave its ledger entry to policy %s; run: rekeyd rename %s %s", given.MovedTo, given.MovedTo, j.p.Name)}
	}
	if content == given {
		given.Moves = max(given.Moves, own.Moves+1)
	}
	given.MovedTo = j.p.Name
	if _, err := j.r.opt.Store.Write(ctx, ref, given, doc.Version); err != nil {
		return fmt.Errorf("marking ledger entry of %s: %w", from, err)
	}
	return j.write(ctx, func(next *ledger.Entry) {
		abandoned := next.Abandoned
		*next = *content.Clone()
		next.Policy, next.MovedTo, next.Moves = j.p.Name, "", content.Moves+1
		for _, a := range abandoned {
			if !slices.Contains(next.Abandoned, a) {
				next.Abandoned = append(next.Abandoned, a)
			}
		}
	})
}

// returning finds the policy from which a policy may take back its entry, although the entry is marked as moved; "" is none.
// That policy's entry is already marked as moved back, or this process saw it replace the policy before the policy was loaded
// again.
func (r *Rotator) returning(ctx context.Context, st *policyState, p plan.Policy, e *ledger.Entry) (string, error) {
	name := e.MovedTo
	for range maxRenames {
		next, err := r.entryOf(ctx, name)
		switch {
		case err != nil:
			return "", fmt.Errorf("looking for the ledger entry of %s: %w", p.Name, err)
		case next == nil:
			return "", nil
		case next.MovedTo == p.Name && next.Moves > e.Moves:
			return name, nil
		case next.MovedTo == p.Name:
			name = e.MovedTo // this entry is the newer one
			fallthrough
		case next.MovedTo == "":
			if r.sawReplaced(st, name) {
				return name, nil
			}
			return "", nil
		}
		name = next.MovedTo
	}
	return "", nil
}

// sawReplaced reports whether the policy was loaded again after another policy that is removed now, and has not taken its entry
// back since.
func (r *Rotator) sawReplaced(st *policyState, by string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	other := r.removed[by]
	return st.mayTakeBack && other != nil && other.loadedAt != 0 && other.loadedAt < st.loadedAt
}

// predecessor returns the policy of which this one is the new name; "" is none. It is the policy that wrote the record, under its
// latest name, if that is removed and the record holds its current key. While it has a claim, the record may still change, so
// it counts as well.
func (r *Rotator) predecessor(ctx context.Context, p plan.Policy, v *plan.RecordView) (string, error) {
	name := v.Policy
	for range maxRenames {
		if !v.HasValue || name == p.Name || !ledger.ValidName(name) || r.isLoaded(name) {
			return "", nil
		}
		e, err := r.entryOf(ctx, name)
		switch {
		case err != nil:
			return "", fmt.Errorf("looking for the former name of %s: %w", p.Name, err)
		case e == nil:
			return "", nil
		case e.MovedTo != "" && e.MovedTo != p.Name:
			name = e.MovedTo
		case e.Claim != nil || v.KeyID != "" && ledger.CurrentID(e) == v.KeyID:
			return name, nil
		default:
			return "", nil
		}
	}
	return "", nil
}

func (r *Rotator) isLoaded(policy string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policies[policy] != nil
}

// Rename moves the ledger entry of a removed policy to a loaded one that has no keys of its own.
func (r *Rotator) Rename(ctx context.Context, from, to string) error {
	err := r.rename(ledger.WithSession(ctx), from, to)
	if err != nil {
		return fmt.Errorf("moving the ledger entry of policy %s to policy %s: %w", from, to, err)
	}
	return nil
}

func (r *Rotator) rename(ctx context.Context, from, to string) error {
	switch {
	case !ledger.ValidName(from) || !ledger.ValidName(to):
		return errors.New("a policy's name is 1 to 36 of a-z 0-9 -")
	case from == to:
		return errors.New("both names are the same")
	case r.isLoaded(from):
		return fmt.Errorf("policy %s is still in the policy file; remove it there first", from)
	}
	r.mu.Lock()
	st := r.policies[to]
	r.mu.Unlock()
	if st == nil {
		return unknownPolicy(to)
	}
	if st.policy.Mode == plan.ModePaused {
		return pausedPolicy(to)
	}
	if err := r.loadOwner(ctx, false); err != nil {
		return err
	}
	if err := r.notRunning(ctx, from); err != nil {
		return err
	}
	if err := r.readEntry(ctx, st, to); err != nil {
		return err
	}
	if st.known.unusual().ledgerError != "" {
		return errors.New(st.known.unusual().ledgerError)
	}
	given, err := r.entryOf(ctx, from)
	if err != nil {
		return err
	}
	own := st.known.entry
	switch {
	case own == nil:
	case own.Claim != nil || own.Intent != nil:
		return fmt.Errorf("policy %s is being worked on; try again when that has ended", to)
	case own.MovedTo == "" && given != nil && given.MovedTo == to:
		return nil // it is done
	case own.MovedTo == "" && (own.Current != nil || len(own.Retiring) > 0):
		return fmt.Errorf("policy %s has keys of its own: %s", to, keysOf(own))
	case own.MovedTo != "":
		if err := r.leadsTo(ctx, own, from); err != nil {
			return err
		}
	}
	return r.newJob(st, *st.policy, plan.Step{Action: plan.ActInherit, Reason: ledger.TriggerRequested}).takeEntry(ctx, from)
}

func keysOf(e *ledger.Entry) string {
	var ids []string
	if e.Current != nil {
		ids = append(ids, e.Current.ID)
	}
	for _, k := range e.Retiring {
		ids = append(ids, k.ID)
	}
	return fmt.Sprint(ids)
}

// leadsTo returns nil if an entry that moved away now belongs to the given policy, directly or through other names.
func (r *Rotator) leadsTo(ctx context.Context, own *ledger.Entry, policy string) error {
	seen, name := []string{own.Policy}, own.MovedTo
	for name != policy {
		e, err := r.entryOf(ctx, name)
		if err != nil {
			return err
		}
		if e == nil || e.MovedTo == "" || slices.Contains(seen, name) {
			return fmt.Errorf("the entry of policy %s is that of policy %s now; run: rekeyd rename %s %s", own.Policy, name, name, own.Policy)
		}
		seen, name = append(seen, name), e.MovedTo
	}
	return nil
}
