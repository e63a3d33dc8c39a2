package rotator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// discover finds the ledger entries of policies that are no longer loaded, so that their retiring keys finish their
// way. What cannot be read now is found at the next resync.
func (r *Rotator) discover(ctx context.Context) {
	names, err := r.Store.List(ctx, r.Ledger.Join("policies"))
	if err != nil {
		return
	}
	slices.Sort(names)
	for _, name := range names {
		r.mu.Lock()
		known := r.policies[name] != nil || r.unmanaged[name] != nil
		r.mu.Unlock()
		if known || !validName(name) {
			continue
		}
		e, err := r.entryOf(ctx, name)
		if err != nil || e == nil || e.MovedTo != "" {
			continue
		}
		r.addUnmanaged(removedPolicy(e))
	}
}

func (r *Rotator) entryOf(ctx context.Context, policy string) (*Entry, error) {
	doc, err := r.Store.Read(ctx, r.entryRef(policy), 0)
	if err != nil || doc.JSON == nil {
		return nil, err
	}
	return ParseEntry(doc.JSON, policy)
}

// removedPolicy is what the ledger still knows of a policy.
func removedPolicy(e *Entry) Policy {
	p := Policy{Name: e.Policy, Mode: modeRemoved}
	ref := e.Current
	if ref == nil && len(e.Retiring) > 0 {
		ref = &e.Retiring[0].KeyRef
	}
	if ref != nil {
		p.Workspace, p.ServiceAccount, p.Sink, p.Verify = ref.Workspace, ref.Account, ref.Sink, ref.Verified
	}
	if p.Quarantine = time.Duration(e.Quarantine); p.Quarantine == 0 {
		p.Quarantine = defaultQuarantine // an adopted key that was never rotated
	}
	return p
}

func (r *Rotator) addUnmanaged(p Policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := r.workspaces[p.Workspace]
	if ws == nil || r.policies[p.Name] != nil || r.unmanaged[p.Name] != nil {
		return // nobody here can reach its keys
	}
	st := &policyState{}
	st.load(&p, ws)
	r.unmanaged[p.Name], r.inOrder = st, nil
	r.enqueue(st)
}

// LostKey is a key with this installation's owner id that no ledger entry explains, or, with Unmanaged, the current key
// of a policy that is no longer loaded.
type LostKey struct {
	Policy    string    `json:"policy"`
	Workspace string    `json:"workspace"`
	Account   string    `json:"service_account_user_id"`
	KeyID     string    `json:"key_id"`
	KeyName   string    `json:"key_name"`
	Created   time.Time `json:"created"`
	Disabled  bool      `json:"disabled"`
	Unmanaged bool      `json:"unmanaged"`
}

// Lost lists the lost keys, of the named policies where names are given. The current key of a removed policy is in the
// list only when the policy is named. A key that any record or ledger entry names is never in it.
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
		_, policy, rotation, _ := parseKeyName(k.Name)
		explained := slices.ContainsFunc(entries, func(e *Entry) bool { return e.explains(k.Key, rotation) })
		if wanted(policy) && !explained && !published[k.ID] {
			lost = append(lost, lostKey(policy, k, false))
		}
	}
	return append(lost, r.unmanagedKeys(entries, names)...), nil
}

func lostKey(policy string, k ListedKey, unmanaged bool) LostKey {
	return LostKey{policy, k.Workspace, k.ServiceAccount, k.ID, k.Name, k.CreatedAt, k.Disabled, unmanaged}
}

// entries reads the whole ledger. One that cannot be read stops everything: it might explain any key.
func (r *Rotator) entries(ctx context.Context) ([]*Entry, error) {
	names, err := r.Store.List(ctx, r.Ledger.Join("policies"))
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	slices.Sort(names)
	var all []*Entry
	for _, name := range names {
		e, err := r.entryOf(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("reading the ledger: %w", err)
		}
		if e != nil {
			all = append(all, e)
		}
	}
	return all, nil
}

// publishedKeys returns the ids of the keys that any record names, at the places that policies and ledger know.
func (r *Rotator) publishedKeys(ctx context.Context, entries []*Entry) (map[string]bool, error) {
	sinks := map[Ref]bool{}
	r.mu.Lock()
	for _, st := range r.policies {
		sinks[st.policy.Sink.Ref] = true
	}
	r.mu.Unlock()
	for _, e := range entries {
		if e.Current != nil {
			sinks[e.Current.Sink.Ref] = true
		}
		for _, k := range e.Retiring {
			sinks[k.Sink.Ref] = true
		}
	}
	ids := map[string]bool{}
	byPath := func(a, b Ref) int { return strings.Compare(a.String(), b.String()) }
	for _, ref := range slices.SortedFunc(maps.Keys(sinks), byPath) {
		doc, err := r.Store.Read(ctx, ref, 0)
		if err != nil {
			return nil, fmt.Errorf("reading records: %w", err)
		}
		ids[parseRecord(doc, "").KeyID] = true
	}
	return ids, nil
}

// ownKeys lists every workspace and returns the keys that carry this installation's owner id.
func (r *Rotator) ownKeys(ctx context.Context) ([]ListedKey, error) {
	r.mu.Lock()
	spaces := r.spaces
	r.mu.Unlock()
	var keys []ListedKey
	for _, ws := range spaces {
		r.reconcile(ctx, ws)
		r.mu.Lock()
		l, err := ws.listing, ws.err
		if err == nil && l != nil {
			for _, policy := range slices.Sorted(maps.Keys(l.owned)) {
				for _, k := range l.owned[policy] {
					keys = append(keys, ListedKey{ws.name, k})
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

// unmanagedKeys returns the current keys of the named policies that are no longer loaded.
func (r *Rotator) unmanagedKeys(entries []*Entry, names []string) []LostKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []LostKey
	for _, e := range entries {
		c := e.Current
		if c == nil || e.MovedTo != "" || r.policies[e.Policy] != nil || !slices.Contains(names, e.Policy) {
			continue
		}
		found = append(found, LostKey{Policy: e.Policy, Workspace: c.Workspace, Account: c.Account, KeyID: c.ID, KeyName: c.Name, Created: c.Created, Unmanaged: true})
	}
	return found
}

// Prune deletes a lost key. The current key of a removed policy is disabled and enters its ledger entry as retiring: a
// daemon deletes it after the quarantine.
func (r *Rotator) Prune(ctx context.Context, k LostKey) error {
	if k.Unmanaged {
		return r.pruneUnmanaged(ctx, k)
	}
	entries, err := r.entries(ctx)
	if err != nil {
		return err
	}
	_, _, rotation, ours := parseKeyName(k.KeyName)
	if !ours || slices.ContainsFunc(entries, func(e *Entry) bool { return e.knows(k.KeyID, rotation) }) {
		return fmt.Errorf("pruning key %s: the ledger knows it by now", k.KeyID)
	}
	api := r.apiOf(k.Workspace)
	if api == nil {
		return fmt.Errorf("pruning key %s: workspace %s is not configured", k.KeyID, k.Workspace)
	}
	if err := api.DeleteKey(ctx, k.Account, k.KeyID); err != nil && !errors.Is(err, elevenlabs.ErrNotFound) {
		return fmt.Errorf("pruning key %s: %w", k.KeyID, err)
	}
	r.Logger.Info("lost key deleted", "action", "prune", "policy", k.Policy, "key_id", k.KeyID, "key_name", k.KeyName, "outcome", "done")
	r.countLost(k.Workspace)
	return nil
}

func (r *Rotator) pruneUnmanaged(ctx context.Context, k LostKey) error {
	e, err := r.entryOf(ctx, k.Policy)
	if err != nil || e == nil {
		return fmt.Errorf("pruning policy %s: its ledger entry cannot be read: %w", k.Policy, orUnknown(err))
	}
	r.addUnmanaged(removedPolicy(e))
	r.mu.Lock()
	st := r.unmanaged[k.Policy]
	r.mu.Unlock()
	if st == nil {
		return fmt.Errorf("pruning policy %s: it is loaded, or its workspace %s is not", k.Policy, k.Workspace)
	}
	if err := r.readEntry(ctx, st, k.Policy); err != nil {
		return err
	}
	if cur := st.known.entry; cur == nil || cur.Claim != nil || currentID(cur) != k.KeyID {
		return fmt.Errorf("pruning policy %s: work on it is under way; try again", k.Policy)
	}
	j := r.newJob(st, *st.policy, Step{Action: ActDisable, Reason: ReasonUnmanaged, KeyID: k.KeyID, Workspace: k.Workspace})
	if err := j.adminMoved(ctx, *st.known.entry.Current, nil); err != nil {
		return fmt.Errorf("pruning policy %s: %w", k.Policy, err)
	}
	return j.retireUnmanaged(ctx)
}

// retireUnmanaged makes the current key of a removed policy a retiring one and disables it.
func (j *job) retireUnmanaged(ctx context.Context) error {
	old, now := *j.entry().Current, j.r.Wall()
	call, err := j.newCall(CallDisable)
	if err != nil {
		return err
	}
	old.note(call)
	err = j.write(ctx, func(e *Entry) {
		j.takeClaim(e)
		e.Retiring = append(e.Retiring, Retiring{KeyRef: old, State: InOverlap, Until: now, Quarantine: Duration(j.p.Quarantine), Reason: ReasonUnmanaged})
		e.Current = nil
	})
	if err != nil {
		return fmt.Errorf("pruning policy %s: %w", j.p.Name, err)
	}
	err = j.send(ctx, call, old)
	gone := errors.Is(err, elevenlabs.ErrNotFound)
	if err != nil && !gone {
		_ = j.release(ctx, nil) // a daemon disables it: it is noted
		return fmt.Errorf("pruning policy %s: %w", j.p.Name, err)
	}
	if !j.retired(ctx, Step{Action: ActDisable, Reason: ReasonUnmanaged, KeyID: old.ID}, Retiring{KeyRef: old}, gone) {
		return fmt.Errorf("pruning policy %s: key %s is disabled, but that could not be noted; try again", j.p.Name, old.ID)
	}
	return nil
}

// defaultQuarantine is that of a removed policy of which the ledger remembers none.
const defaultQuarantine = 24 * time.Hour
