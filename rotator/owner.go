package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// awaitOwner finds or makes this installation's id, which every key name needs. It retries until that works.
func (r *Rotator) awaitOwner(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.loadOwner(ctx, true)
		if err == nil {
			return
		}
		if errors.Is(err, ledger.ErrConflict) && sleep(ctx, 100*time.Millisecond) {
			continue // another replica made it first
		}
		r.outage.log(r.opt.Logger, "", err)
		r.failAll(err)
		sleep(ctx, max(r.opt.ReconcileInterval, time.Second))
	}
}

// loadOwner reads this installation's id, rebuilds it from any ledger entry, or, if there is no entry and create is set, makes
// it.
func (r *Rotator) loadOwner(ctx context.Context, create bool) error {
	ref := r.opt.Ledger.Join("owner")
	doc, err := r.opt.Store.Read(ctx, ref, 0)
	if err != nil {
		return fmt.Errorf("reading the ledger's owner: %w", err)
	}
	owner, _ := doc.Fields()["owner"].(string)
	if owner == "" {
		if owner, err = r.ownerOfEntries(ctx); err != nil || (owner == "" && !create) {
			return err
		}
		if owner == "" {
			if owner, err = ledger.RandomID(r.opt.Random, ledger.OwnerLength); err != nil {
				return err
			}
		}
		if !create {
			return r.setOwner(owner)
		}
		if _, err = r.opt.Store.Write(ctx, ref, map[string]any{"owner": owner}, doc.Version); err != nil {
			return fmt.Errorf("writing the ledger's owner: %w", err)
		}
	}
	return r.setOwner(owner)
}

func (r *Rotator) setOwner(owner string) error {
	if len(owner) != ledger.OwnerLength {
		return fmt.Errorf("reading the ledger's owner: %q is not an id of %d characters; %s was changed outside rekeyd", owner, ledger.OwnerLength, r.opt.Ledger.Join("owner"))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owner = owner
	return nil
}

func (r *Rotator) ownerOfEntries(ctx context.Context) (string, error) {
	names, err := r.EntryNames(ctx)
	if err != nil {
		return "", fmt.Errorf("looking for the ledger's owner: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		doc, err := r.opt.Store.Read(ctx, r.entryRef(name), 0)
		if err != nil {
			return "", fmt.Errorf("looking for the ledger's owner: %w", err)
		}
		if owner, _ := doc.Fields()["owner"].(string); owner != "" {
			return owner, nil
		}
	}
	return "", nil
}

// failAll counts a failure of the store for every policy: none can be read.
func (r *Rotator) failAll(err error) {
	r.mu.Lock()
	states := r.orderedLocked()
	r.mu.Unlock()
	for _, st := range states {
		r.noteStoreFailure(st, err)
	}
}
