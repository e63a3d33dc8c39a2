package rotator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// LostKey is a key with this installation's owner id that no ledger entry explains, or, with Removed, the current key of a
// removed policy.
type LostKey struct {
	Policy    string    `json:"policy"`
	Workspace string    `json:"workspace"`
	Account   string    `json:"service_account_user_id"`
	KeyID     string    `json:"key_id"`
	KeyName   string    `json:"key_name"`
	Created   time.Time `json:"created"`
	Disabled  bool      `json:"disabled"`
	Removed   bool      `json:"unmanaged"`
}

// Lost lists the lost keys, only those of the named policies if names are given. The current key of a removed policy is included
// only if the policy is named; a lost key that a record or a ledger entry names is not included.
func (r *Rotator) Lost(ctx context.Context, names ...string) ([]LostKey, error) {
	if err := r.loadOwner(ctx, false); err != nil {
		return nil, err
	}
	entries, err := r.entries(ctx)
	if err != nil {
		return nil, err
	}
	published, err := r.publishedKeys(ctx, entries)
	if err != nil {
		return nil, err
	}
	wanted := func(policy string) bool { return len(names) == 0 || slices.Contains(names, policy) }
	var lost []LostKey
	keys, err := r.ownKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		_, policy, rotation, _ := ledger.ParseKeyName(k.Name)
		explained := slices.ContainsFunc(entries, func(e *ledger.Entry) bool {
			pruned := e.IsAbandoned(k.ID, rotation) && !r.isLoaded(e.Policy) // a prune marked it, and no daemon sweeps it
			return e.Explains(*k.Key, rotation) && !pruned
		})
		if wanted(policy) && !explained && !published[k.ID] {
			lost = append(lost, lostKey(policy, k, false))
		}
	}
	return append(lost, r.removedKeys(entries, names)...), nil
}

func lostKey(policy string, k plan.ListedKey, removed bool) LostKey {
	return LostKey{policy, k.Workspace, k.ServiceAccount, k.ID, k.Name, k.CreatedAt, k.Disabled, removed}
}

// publishedKeys returns the ids of the keys that the records of all policies and ledger entries name.
func (r *Rotator) publishedKeys(ctx context.Context, entries []*ledger.Entry) (map[string]bool, error) {
	ids := map[string]bool{}
	records := r.sinks(entries)
	for i, ref := range records {
		Progress(ctx, i, len(records))
		doc, err := r.opt.Store.Read(ctx, ref, 0)
		if err != nil {
			return nil, fmt.Errorf("reading records: %w", err)
		}
		ids[ledger.ParseRecord(doc, "").KeyID] = true
	}
	return ids, nil
}

// sinks returns the records of all policies and ledger entries, sorted.
func (r *Rotator) sinks(entries []*ledger.Entry) []ledger.Ref {
	sinks := map[ledger.Ref]bool{}
	for ref := range r.loadedSinks() {
		sinks[ref] = true
	}
	for _, e := range entries {
		for k := range e.Keys() {
			sinks[k.Sink.Ref] = true
		}
	}
	return slices.SortedFunc(maps.Keys(sinks), func(a, b ledger.Ref) int { return strings.Compare(a.String(), b.String()) })
}

// ownKeys lists every workspace and returns the keys that carry this installation's owner id.
func (r *Rotator) ownKeys(ctx context.Context) ([]plan.ListedKey, error) {
	r.mu.Lock()
	workspaces := r.sortedWorkspaces
	r.mu.Unlock()
	var keys []plan.ListedKey
	for _, ws := range workspaces {
		r.reconcile(ctx, ws)
		r.mu.Lock()
		l, err := ws.listing, ws.err
		if err == nil && l != nil {
			for _, policy := range slices.Sorted(maps.Keys(l.owned)) {
				for _, k := range l.owned[policy] {
					keys = append(keys, plan.ListedKey{Workspace: ws.name, Key: &k})
				}
			}
		}
		r.mu.Unlock()
		if err != nil || l == nil {
			return nil, fmt.Errorf("listing workspace %s: %w", ws.name, err)
		}
	}
	return keys, nil
}

// removedKeys returns the current keys of the named policies that are removed.
func (r *Rotator) removedKeys(entries []*ledger.Entry, names []string) []LostKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []LostKey
	for _, e := range entries {
		c := e.Current
		if c == nil || e.MovedTo != "" || r.policies[e.Policy] != nil || !slices.Contains(names, e.Policy) {
			continue
		}
		found = append(found, LostKey{Policy: e.Policy, Workspace: c.Workspace, Account: c.Account, KeyID: c.ID, KeyName: c.Name, Created: c.Created, Removed: true})
	}
	return found
}

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

func (r *Rotator) pruneRemoved(ctx context.Context, k LostKey) error {
	e, err := r.entryOf(ctx, k.Policy)
	if err != nil || e == nil {
		return fmt.Errorf("reading its ledger entry: %w", cmp.Or(err, errStateChanged))
	}
	r.addRemoved(plan.RemovedPolicy(e))
	r.mu.Lock()
	st := r.removed[k.Policy]
	r.mu.Unlock()
	if st == nil {
		return fmt.Errorf("the policy is loaded, or its workspace %s is not", k.Workspace)
	}
	if err := r.readEntry(ctx, st, k.Policy); err != nil {
		return err
	}
	if cur := st.known.entry; cur == nil || cur.Claim != nil || ledger.CurrentID(cur) != k.KeyID {
		return errors.New("work on the policy is under way; try again")
	}
	j := r.newJob(st, *st.policy, plan.Step{Action: plan.ActDisable, Reason: ledger.TriggerRemoved, KeyID: k.KeyID, Workspace: k.Workspace})
	if err := j.adminMoved(ctx, *st.known.entry.Current, nil); err != nil {
		return err
	}
	return j.retireRemoved(ctx)
}

// retireRemoved disables the current key of a removed policy and makes it a retiring key.
func (j *job) retireRemoved(ctx context.Context) error {
	old, now := *j.entry().Current, j.r.opt.Wall()
	call, err := j.newCall(ledger.CallDisable)
	if err != nil {
		return err
	}
	old.Note(call)
	err = j.write(ctx, func(e *ledger.Entry) {
		j.takeClaim(e)
		e.Retiring = append(e.Retiring, ledger.Retiring{KeyRef: old, State: ledger.InOverlap, Until: now, Quarantine: ledger.Duration(j.p.Quarantine), Reason: ledger.TriggerRemoved})
		e.Current = nil
	})
	if err != nil {
		return err
	}
	err = j.send(ctx, call, old)
	gone := errors.Is(err, elevenlabs.ErrNotFound)
	if err != nil && !gone {
		_ = j.release(ctx, nil) // the ledger has it as retiring, so a daemon disables it
		return err
	}
	if !j.retired(ctx, plan.Step{Action: plan.ActDisable, Reason: ledger.TriggerRemoved, KeyID: old.ID}, ledger.Retiring{KeyRef: old}, gone, "").progress {
		return errors.New("the key is disabled, but writing that to the ledger failed; try again")
	}
	return nil
}
