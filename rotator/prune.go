package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Prune deletes a lost key. The current key of a removed policy is disabled and enters its ledger entry as retiring: a
// daemon deletes it after the quarantine. A key that readers may have is refused.
func (r *Rotator) Prune(ctx context.Context, k LostKey) error {
	if err := r.prune(ctx, k); err != nil {
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
	if err := r.giveUp(ctx, k); err != nil {
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

// notUsed returns an error where a ledger entry or a record has the key, the own ones of a removed policy aside, or the
// record of a loaded policy may hold its secret.
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
			return fmt.Errorf("%s, the record of policy %s, may hold its secret; say whose key that is with adopt, or rotate the policy", ref, policy.Name)
		}
	}
	return nil
}

// stillUnused looks at the records once more when the ledger says that the key is given up: who looks at the ledger from now
// on finds that, but its secret may have been put into a record right before. Then the mark is taken back.
func (r *Rotator) stillUnused(ctx context.Context, k LostKey) error {
	entries, err := r.entries(ctx)
	if err == nil {
		err = r.notUsed(ctx, k, entries)
	}
	if err == nil {
		return nil
	}
	if back := r.mark(ctx, k, false); back != nil {
		return fmt.Errorf("%w; and the ledger goes on saying that the key is given up: %w", err, back)
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

// ownPlace reports that the record is that of the removed policy whose key is to be pruned.
func ownPlace(k LostKey, ref ledger.Ref, entries []*ledger.Entry) bool {
	return k.Removed && slices.ContainsFunc(entries, func(e *ledger.Entry) bool {
		return e.Policy == k.Policy && e.Current != nil && e.Current.Sink.Ref == ref
	})
}

// mayHold reports that the record's value is, or for all that is known could be, the key's secret: by its salted hash,
// else by the hint.
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
	if said, listed := r.listedAs(k.Workspace, k.Account, rec.KeyID); listed && said.ID != k.KeyID && view.Fit(said.Hint) == plan.HintFits {
		return false
	}
	key, _ := r.listedAs(k.Workspace, k.Account, k.KeyID)
	return view.Fit(key.Hint) != plan.HintDiffers
}

// listedAs returns a key as its workspace listed it last.
func (r *Rotator) listedAs(workspace, account, id string) (elevenlabs.Key, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ws := r.workspaces[workspace]; ws != nil && ws.listing != nil {
		for _, k := range ws.listing.accounts[account] {
			if k.ID == id {
				return k, true
			}
		}
	}
	return elevenlabs.Key{}, false
}

// giveUp notes in the ledger, before the key is deleted, that its rotation is abandoned: so the key becomes current by no
// way, and the delete does no harm however late it arrives.
func (r *Rotator) giveUp(ctx context.Context, k LostKey) error { return r.mark(ctx, k, true) }

// mark writes into the ledger that a lost key is given up, or that it is not.
func (r *Rotator) mark(ctx context.Context, k LostKey, given bool) error {
	_, _, rotation, ours := ledger.ParseKeyName(k.KeyName)
	if !ours || !ledger.ValidName(k.Policy) {
		return errors.New("its name is not one that rekeyd gives")
	}
	name := k.Policy
	for attempt, renames := 1, 0; ; {
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
			return fmt.Errorf("the ledger entry of policy %s names it by now", name)
		case e.Claim != nil || e.Intent != nil:
			return fmt.Errorf("policy %s is being worked on; try again when that has ended", name)
		}
		if given {
			e.Abandoned = append(e.Abandoned, ledger.Abandoned{Rotation: rotation, KeyName: k.KeyName, Workspace: k.Workspace, Account: k.Account, Since: r.opt.Wall(), KeyID: k.KeyID})
		} else {
			e.Abandoned = slices.DeleteFunc(e.Abandoned, func(a ledger.Abandoned) bool { return a.KeyID == k.KeyID })
		}
		_, err = r.opt.Store.Write(ctx, r.entryRef(name), e.Data(), doc.Version)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ledger.ErrConflict) && !ledger.MaybeWritten(err), attempt == publishTries:
			return fmt.Errorf("writing ledger entry of %s: %w", name, err)
		}
		attempt++ // what became of it is seen when it is read again
	}
}
