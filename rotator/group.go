package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

func (r *Rotator) groupRef(group string) ledger.Ref { return r.opt.Ledger.Join("groups").Join(group) }

// lookAtGroup reads which policy holds the group, if a planned rotation would have to wait for it. While the rotation waits for
// something else the group is not read: each look would spend the call budget that the rotation waits for.
func (r *Rotator) lookAtGroup(ctx context.Context, st *policyState, p plan.Policy, o *plan.Observed) error {
	now, k := r.opt.Wall(), &st.known
	if p.Group == "" {
		return nil
	}
	d := plan.Plan(p, *o, now)
	waits := func(s plan.Step) bool {
		_, later := d.Later[s]
		return s.Action == plan.ActRotate && !later && !plan.BypassesGroup(p, o.Entry, s.Reason, now)
	}
	if !slices.ContainsFunc(d.Steps, waits) {
		return nil
	}
	if a := (plan.Attempt{Action: lookGroup}); k.pace.waits(a) <= 0 {
		others, _, err := r.readGroup(ctx, p)
		if err != nil {
			return err
		}
		if k.note().groupHeld = ""; len(others) > 0 {
			k.note().groupHeld = others[0].Policy
			r.tried(st, a)
		} else {
			k.pace.forget(lookGroup)
		}
	}
	o.GroupHeld = k.unusual().groupHeld
	return nil
}

// readGroup returns the valid holds of other policies, each under its policy's current name.
func (r *Rotator) readGroup(ctx context.Context, p plan.Policy) (others []ledger.Hold, version int, err error) {
	doc, err := r.opt.Store.Read(ctx, r.groupRef(p.Group), 0)
	if err != nil {
		return nil, 0, fmt.Errorf("reading group %s: %w", p.Group, err)
	}
	g, err := ledger.ParseGroup(doc.JSON, p.Group)
	if err != nil {
		return nil, 0, err
	}
	for _, h := range r.withMembers(g.Holds, p) {
		name, err := r.groupHolder(ctx, h)
		if err != nil {
			return nil, 0, fmt.Errorf("finding the holder of group %s: %w", p.Group, err)
		}
		if h.Policy = name; name != "" && name != p.Name {
			others = append(others, h)
		}
	}
	return others, doc.Version, nil
}

// withMembers returns the holds of other policies, with a hold added for each member that has none. Such a member may still have
// a key in overlap: it joined the group meanwhile, bypassed it while it could not be written, or its record was rolled back.
func (r *Rotator) withMembers(holds []ledger.Hold, p plan.Policy) []ledger.Hold {
	var more []ledger.Hold
	r.mu.Lock()
	for name, st := range r.policies {
		if st.policy.Group == p.Group && !slices.ContainsFunc(holds, func(h ledger.Hold) bool { return h.Policy == name }) {
			more = append(more, ledger.Hold{Policy: name, WaitUntilIdle: ledger.Duration(st.policy.LongestWait())})
		}
	}
	r.mu.Unlock()
	slices.SortFunc(more, func(a, b ledger.Hold) int { return strings.Compare(a.Policy, b.Policy) })
	return slices.DeleteFunc(append(holds, more...), func(h ledger.Hold) bool { return h.Policy == p.Name })
}

// groupHolder returns the current name of the policy that keeps a hold valid, "" if the hold is over. The entry is read after
// the group, and an intent is written before its hold, so a hold that is over cannot become valid again.
func (r *Rotator) groupHolder(ctx context.Context, h ledger.Hold) (string, error) {
	name := h.Policy
	var e *ledger.Entry
	for range maxRenames {
		known := 0
		if name == h.Policy {
			known = h.Version
		}
		next, err := r.entryAt(ctx, name, known)
		var remote *ledger.Error
		switch {
		case err != nil && (errors.As(err, &remote) || ctx.Err() != nil):
			return "", err
		case err != nil:
			return name, nil // an entry that cannot be parsed does not count as empty
		case next != nil:
			e = next
		}
		if next == nil || next.MovedTo == "" {
			break
		}
		name = next.MovedTo
	}
	if e == nil || !e.HoldsGroup(h, r.manages(name), r.opt.Wall()) {
		return "", nil
	}
	return name, nil
}

// manages reports whether this replica settles the policy's unfinished work.
func (r *Rotator) manages(policy string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.policies[policy]
	return st != nil && st.policy.Mode != plan.ModePaused
}

// takeGroup adds the policy's hold to the group, for the intent that is already in the entry. A rotation that bypasses the
// group adds its hold beside the existing one, and proceeds if that fails.
func (j *job) takeGroup(ctx context.Context, in *ledger.Intent) error {
	if j.p.Group == "" || in.Reason == ledger.TriggerFirst {
		return nil // a first key has no overlap
	}
	ahead := plan.BypassesGroup(j.p, j.entry(), in.Reason, j.r.opt.Wall())
	for attempt := 1; ; attempt++ {
		err := j.tryGroup(ctx, in, ahead)
		var remote *ledger.Error
		again := errors.Is(err, ledger.ErrConflict) || errors.As(err, &remote) // a retry sees whether the write happened after all
		switch {
		case err == nil || errors.Is(err, errNotDue):
			return err
		case again && attempt < publishTries && j.pause(ctx, attempt):
		case ahead:
			j.log.Warn("rotation proceeds without its group hold", "group", j.p.Group, "err", err)
			return nil
		default:
			return fmt.Errorf("taking group %s: %w", j.p.Group, err)
		}
	}
}

func (j *job) tryGroup(ctx context.Context, in *ledger.Intent, ahead bool) error {
	holds, version, err := j.r.readGroup(ctx, j.p)
	if err != nil {
		return err
	}
	if len(holds) > 0 && !ahead {
		return fmt.Errorf("%w: group %s is held by policy %s", errNotDue, j.p.Group, holds[0].Policy)
	}
	if err := j.guard(ctx); err != nil {
		return err
	}
	holds = append(holds, ledger.Hold{Policy: j.p.Name, Rotation: in.Rotation, WaitUntilIdle: ledger.Duration(j.p.LongestWait()), Version: j.st.known.version})
	_, err = j.r.opt.Store.Write(ctx, j.r.groupRef(j.p.Group), map[string]any{"schema": ledger.Schema, "holds": holds}, version)
	return err
}

// wakeGroup wakes the other members: the group may be free for one of them.
func (r *Rotator) wakeGroup(p plan.Policy) {
	if p.Group == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range r.orderedLocked() {
		if st.policy.Group == p.Group && st.policy.Name != p.Name {
			st.inbox.hurry = true
			r.enqueueLocked(st)
		}
	}
}

// ledgerRefs returns the ledger documents that a rotation of the policy writes.
func (j *job) ledgerRefs() []ledger.Ref {
	refs := []ledger.Ref{j.r.entryRef(j.p.Name)}
	if j.p.Group != "" {
		refs = append(refs, j.r.groupRef(j.p.Group))
	}
	return refs
}
