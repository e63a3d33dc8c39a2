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

// discover finds the ledger entries of removed policies, so that their retiring keys are still retired. An entry that cannot be
// read now is found at the next resync.
func (r *Rotator) discover(ctx context.Context) {
	names, err := r.EntryNames(ctx)
	if err != nil {
		return
	}
	slices.Sort(names)
	for _, name := range names {
		r.mu.Lock()
		known := r.policies[name] != nil || r.removed[name] != nil
		r.mu.Unlock()
		if known || !ledger.ValidName(name) {
			continue
		}
		e, err := r.entryOf(ctx, name)
		if err != nil || e == nil || e.MovedTo != "" || r.nothingLeft(e) {
			continue
		}
		r.addRemoved(plan.RemovedPolicy(e))
	}
}

// nothingLeft reports whether an entry has no keys, and no listing shows one of its abandoned keys.
func (r *Rotator) nothingLeft(e *ledger.Entry) bool {
	if e.Current != nil || len(e.Retiring) > 0 || e.Claim != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ws := range r.sortedWorkspaces {
		if ws.listing == nil {
			continue
		}
		for _, k := range ws.listing.owned[e.Policy] {
			if _, _, rotation, _ := ledger.ParseKeyName(k.Name); e.IsAbandoned(k.ID, rotation) {
				return false
			}
		}
	}
	return true
}

func (r *Rotator) entryOf(ctx context.Context, policy string) (*ledger.Entry, error) {
	return r.entryAt(ctx, policy, 0)
}

// entryAt reads an entry that is known to have reached a version.
func (r *Rotator) entryAt(ctx context.Context, policy string, known int) (*ledger.Entry, error) {
	doc, _, err := r.newest(ctx, r.entryRef(policy), known, func() (any, error) { return nil, nil })
	if err != nil || doc.JSON == nil {
		return nil, err
	}
	return ledger.ParseEntry(doc.JSON, policy)
}

func (r *Rotator) addRemoved(p plan.Policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := r.workspaces[p.Workspace]
	if ws == nil || r.policies[p.Name] != nil || r.removed[p.Name] != nil {
		return // this process cannot reach its keys
	}
	st := &policyState{}
	st.load(&p, ws)
	r.removed[p.Name], r.inOrder = st, nil
	r.enqueueLocked(st)
}

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
			return e.Explains(k.Key, rotation) && !pruned
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
					keys = append(keys, plan.ListedKey{Workspace: ws.name, Key: k})
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
