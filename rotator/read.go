package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// readEntry reads the ledger entry. An entry that cannot be parsed is kept as an error, not as missing.
func (r *Rotator) readEntry(ctx context.Context, st *policyState, name string) error {
	return r.readEntryAt(ctx, st, name, st.known.version)
}

// readEntryAt reads an entry that is known to have reached a version.
func (r *Rotator) readEntryAt(ctx context.Context, st *policyState, name string, known int) error {
	k := &st.known
	doc, restored, err := r.newest(ctx, r.entryRef(name), known, r.blankData(name))
	if err != nil {
		return fmt.Errorf("reading ledger entry of %s: %w", name, err)
	}
	switch {
	case restored:
		r.ledgerRestored(name, k.version, doc.Version)
	case k.loaded && doc.Version == k.version && k.unusual().ledgerError == "":
		return nil
	}
	k.record = nil
	if doc.JSON == nil {
		k.followed = true
		k.setEntry(nil, doc.Version, time.Now())
		return nil
	}
	e, err := ledger.ParseEntry(doc.JSON, name)
	if err == nil && e.Owner != r.ownerID() {
		err = fmt.Errorf("reading ledger entry of %s: its owner is %s, this installation is %s; two ledgers were mixed", name, e.Owner, r.ownerID())
	}
	if err != nil {
		k.loaded, k.entry, k.version, k.note().ledgerError, k.followed = true, nil, doc.Version, err.Error(), false
		return nil
	}
	r.mu.Lock()
	p := st.policy
	r.mu.Unlock()
	for c := range e.Keys() {
		if !plan.Moved(*p, *c) {
			c.Workspace, c.Account, c.Sink = p.Workspace, p.ServiceAccount, p.Sink // not the copies that are equal
		}
	}
	k.followPlace(*p, e, doc.Version)
	if k.followed {
		r.logOthers(name, k.entry, e)
		r.logEnds(name, k.entry, e, k.unusual().told)
	}
	k.followed, k.note().told = true, nil
	k.setEntry(e, doc.Version, time.Now())
	r.noteRecent(st, e)
	return nil
}

// ledgerRestored reacts to a ledger that was restored from a backup. The cached entries are newer than the ledger, which will
// assign their version numbers again, so everything is read again.
func (r *Rotator) ledgerRestored(policy string, from, to int) {
	r.opt.Logger.Warn("ledger went back in time; was Vault restored? everything is read again", "policy", policy, "known_version", from, "version", to)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range r.orderedLocked() {
		st.inbox.resync = true
		r.enqueueLocked(st)
	}
}

// readRecord reads a record, and keeps what the planner needs of it. known is a version that it is known to have reached, beside
// that in which the current key was published.
func (r *Rotator) readRecord(ctx context.Context, st *policyState, sink ledger.Sink, known int) (ledger.Record, error) {
	k, id := &st.known, ledger.CurrentID(st.known.entry)
	var empty func() (any, error)
	if id != "" && id != k.unusual().renumbered && k.entry.Current.Sink.Ref == sink.Ref && k.entry.Current.Version >= known {
		known, empty = k.entry.Current.Version, func() (any, error) {
			return map[string]any{ledger.FieldPolicy: k.entry.Policy}, nil // a record without the secret's field counts as empty
		}
	}
	doc, renumbered, err := r.newest(ctx, sink.Ref, known, empty)
	if err != nil {
		return ledger.Record{}, fmt.Errorf("reading record: %w", err)
	}
	if renumbered {
		k.note().renumbered = id
	}
	rec := ledger.ParseRecord(doc, sink.Field)
	k.record = plan.View(rec, k.entry)
	return rec, nil
}

// prove makes sure that the entry is the newest, where a read may lag: it is written again as it is. It reports false for an entry
// under a claim, which such a write would end.
func (r *Rotator) prove(ctx context.Context, st *policyState, name string) (bool, error) {
	k := &st.known
	for range newestTries {
		switch {
		case !r.mayLag(ctx) || k.entry == nil:
			return true, nil
		case k.entry.Claim != nil:
			return false, nil
		}
		version, err := r.opt.Store.Write(ctx, r.entryRef(name), k.entry, k.version)
		if err == nil {
			k.setEntry(k.entry, version, time.Now())
			return true, nil
		}
		if !errors.Is(err, ledger.ErrConflict) {
			return false, fmt.Errorf("making sure that the ledger entry of %s is the newest: %w", name, err)
		}
		if err := r.readEntryAt(ctx, st, name, r.beyond(ctx, k.version)); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("making sure that the ledger entry of %s is the newest: %w", name, ledger.ErrConflict)
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

// entries reads the whole ledger. With an error it returns the entries that could be read; one that could not may explain any key.
func (r *Rotator) entries(ctx context.Context) ([]*ledger.Entry, error) {
	names, err := r.EntryNames(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	var all []*ledger.Entry
	var unread []error
	slices.Sort(names)
	for i, name := range names {
		Progress(ctx, i, len(names))
		switch e, err := r.entryOf(ctx, name); {
		case err != nil && (ledger.IsOutage(err) || ctx.Err() != nil):
			return all, fmt.Errorf("reading the ledger: %w", err) // the others would fail as well
		case err != nil:
			unread = append(unread, err)
		case e != nil:
			all = append(all, e)
		}
	}
	return all, errors.Join(unread...)
}

// blankEntry returns a new entry for a policy that has none.
func (r *Rotator) blankEntry(policy string) (*ledger.Entry, error) {
	salt, err := r.newID(16)
	if err != nil {
		return nil, err
	}
	return &ledger.Entry{Schema: ledger.EntrySchema, Owner: r.ownerID(), Policy: policy, Salt: salt}, nil
}

// blankData returns what makes the content of a new entry.
func (r *Rotator) blankData(policy string) func() (any, error) {
	return func() (any, error) { return r.blankEntry(policy) }
}

// maxRenames bounds how many names of one policy are followed.
const maxRenames = 32

// EntryNames lists the policies that have a ledger entry, loaded or not.
func (r *Rotator) EntryNames(ctx context.Context) ([]string, error) {
	return r.opt.Store.List(ctx, r.opt.Ledger.Join("policies"))
}
