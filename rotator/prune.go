package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Prune deletes a lost key. The current key of a removed policy is disabled and becomes a retiring key of its ledger entry; a
// daemon deletes it after the quarantine. Prune refuses a key that readers may have.
func (r *Rotator) Prune(ctx context.Context, k LostKey) error {
	if err := r.prune(ledger.WithSession(ctx), k); err != nil {
		return fmt.Errorf("pruning key %s of policy %s: %w", k.KeyID, k.Policy, err)
	}
	return nil
}

func (r *Rotator) prune(ctx context.Context, k LostKey) error {
	if !r.isLoaded(k.Policy) {
		if err := r.notRunning(ctx, k.Policy); err != nil {
			return err
		}
	}
	entries, err := r.entries(ctx)
	if err != nil {
		return err
	}
	if err := r.notUsed(ctx, k, entries); err != nil {
		return err
	}
	if k.Removed {
		return r.pruneRemoved(ctx, k)
	}
	api := r.apiOf(k.Workspace)
	if api == nil {
		return fmt.Errorf("workspace %s is not configured", k.Workspace)
	}
	if err := r.mark(ctx, k, true); err != nil {
		return err
	}
	if err := r.stillUnused(ctx, k); err != nil {
		return err
	}
	if err := api.DeleteKey(ctx, k.Account, k.KeyID); err != nil && !errors.Is(err, elevenlabs.ErrNotFound) {
		return fmt.Errorf("deleting it: %w", err)
	}
	r.opt.Logger.Info("lost key deleted", "action", "prune", "policy", k.Policy, "key_id", k.KeyID, "key_name", k.KeyName, "outcome", "done")
	r.countLost(k.Workspace)
	return nil
}

// notUsed returns an error if a ledger entry or a record names the key, other than a removed policy's own, or if the record of a
// loaded policy may hold its secret.
func (r *Rotator) notUsed(ctx context.Context, k LostKey, entries []*ledger.Entry) error {
	_, _, rotation, _ := ledger.ParseKeyName(k.KeyName)
	for _, e := range entries {
		own := k.Removed && e.Policy == k.Policy
		if e.MovedTo == "" && !own && e.Knows(k.KeyID, rotation) && !e.IsAbandoned(k.KeyID, rotation) {
			return fmt.Errorf("the ledger entry of policy %s names it", e.Policy)
		}
	}
	loaded := r.loadedSinks()
	for _, ref := range r.sinks(entries) {
		policy := loaded[ref]
		inUse, field := policy != nil, ""
		if inUse {
			field = policy.Sink.Field
		}
		doc, err := r.opt.Store.Read(ctx, ref, 0)
		if err != nil {
			return fmt.Errorf("reading records: %w", err)
		}
		rec := ledger.ParseRecord(doc, field)
		if rec.KeyID == k.KeyID && (inUse || !ownPlace(k, ref, entries)) {
			return fmt.Errorf("the record %s names it", ref)
		}
		if inUse && r.mayHold(rec, k, entries) {
			return fmt.Errorf("%s, the record of policy %s, may hold its secret; set adopt to the id of the key in the record, or rotate the policy", ref, policy.Name)
		}
	}
	return nil
}

// stillUnused checks the records once more after the ledger says that the key is abandoned. Later readers of the ledger see
// that, but another process may have published the secret just before. In that case the mark is removed.
func (r *Rotator) stillUnused(ctx context.Context, k LostKey) error {
	entries, err := r.entries(ctx)
	if err == nil {
		err = r.notUsed(ctx, k, entries)
	}
	if err == nil {
		return nil
	}
	if back := r.mark(ctx, k, false); back != nil {
		return fmt.Errorf("%w; and the ledger still marks the key as abandoned: %w", err, back)
	}
	return err
}

func (r *Rotator) loadedSinks() map[ledger.Ref]*plan.Policy {
	r.mu.Lock()
	defer r.mu.Unlock()
	loaded := map[ledger.Ref]*plan.Policy{}
	for _, st := range r.policies {
		loaded[st.policy.Sink.Ref] = st.policy
	}
	return loaded
}

// ownPlace reports whether the record is that of the removed policy whose key is to be pruned.
func ownPlace(k LostKey, ref ledger.Ref, entries []*ledger.Entry) bool {
	return k.Removed && slices.ContainsFunc(entries, func(e *ledger.Entry) bool {
		return e.Policy == k.Policy && e.Current != nil && e.Current.Sink.Ref == ref
	})
}

// mayHold reports whether the record's value is, or could be, the key's secret: by its salted hash, or else by the hint.
func (r *Rotator) mayHold(rec ledger.Record, k LostKey, entries []*ledger.Entry) bool {
	if rec.Secret.IsZero() {
		return false
	}
	for _, e := range entries {
		hash := ledger.HashValue(e.Salt, rec.Secret.Reveal())
		for known := range e.Keys() {
			if known.Hash == hash {
				return known.ID == k.KeyID
			}
		}
	}
	view := plan.View(rec, nil)
	r.mu.Lock()
	said, _, listed := r.listedKeyLocked(ledger.KeyRef{Workspace: k.Workspace, Account: k.Account, ID: rec.KeyID})
	key, _, _ := r.listedKeyLocked(ledger.KeyRef{Workspace: k.Workspace, Account: k.Account, ID: k.KeyID})
	r.mu.Unlock()
	if listed && said.ID != k.KeyID && view.Fit(said.Hint) == plan.HintFits {
		return false
	}
	return view.Fit(key.Hint) != plan.HintDiffers
}

// pruneWaits is how many seconds prune waits for another process's work on a policy.
const pruneWaits = 15

// mark sets or removes the mark in the ledger that a lost key is abandoned. It is set before the key is deleted: the key can then
// never become current, so the delete is harmless however late it arrives.
func (r *Rotator) mark(ctx context.Context, k LostKey, given bool) error {
	_, _, rotation, ours := ledger.ParseKeyName(k.KeyName)
	if !ours || !ledger.ValidName(k.Policy) {
		return errors.New("its name was not given by rekeyd")
	}
	name := k.Policy
	for attempt, renames, waits := 1, 0, 0; ; {
		doc, err := r.opt.Store.Read(ctx, r.entryRef(name), 0)
		if err != nil {
			return fmt.Errorf("reading ledger entry of %s: %w", name, err)
		}
		var e *ledger.Entry
		if doc.JSON != nil {
			e, err = ledger.ParseEntry(doc.JSON, name)
		} else {
			e, err = r.blankEntry(name)
		}
		switch {
		case err != nil:
			return err
		case e.MovedTo != "" && renames < maxRenames:
			name, renames = e.MovedTo, renames+1
			continue
		case e.IsAbandoned(k.KeyID, rotation) == given:
			return nil
		case given && e.Knows(k.KeyID, rotation):
			return fmt.Errorf("the ledger entry of policy %s names it now", name)
		case (e.Claim != nil || e.Intent != nil) && waits < pruneWaits && sleep(ctx, time.Second):
			waits++ // a step of a daemon takes seconds
			continue
		case e.Claim != nil || e.Intent != nil:
			return fmt.Errorf("policy %s is being worked on; try again when that has ended", name)
		}
		if given {
			e.Abandoned = append(e.Abandoned, ledger.Abandoned{Rotation: rotation, KeyName: k.KeyName, Workspace: k.Workspace, Account: k.Account, Since: r.opt.Wall(), KeyID: k.KeyID})
		} else {
			e.Abandoned = slices.DeleteFunc(e.Abandoned, func(a ledger.Abandoned) bool { return a.KeyID == k.KeyID })
		}
		_, err = r.opt.Store.Write(ctx, r.entryRef(name), e, doc.Version)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ledger.ErrConflict) && !ledger.MaybeWritten(err), attempt == publishTries:
			return fmt.Errorf("writing ledger entry of %s: %w", name, err)
		}
		attempt++ // the next read shows whether it was written
	}
}
