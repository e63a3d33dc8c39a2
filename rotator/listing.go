package rotator

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// index arranges a listing by account and by the policy in the keys' names. One that shows the same as the last stays as arranged.
func (r *Rotator) index(ws *workspace, accounts []elevenlabs.ServiceAccount, begun time.Time) *listing {
	l, last := &listing{begun: begun, answer: accounts, seq: 1}, ws.listing
	if last != nil {
		l.seq = last.seq + 1
	}
	if last != nil && !last.changed && same(last.answer, accounts) {
		l.accounts, l.owned = last.accounts, last.owned
		return l
	}
	l.accounts, l.owned = make(map[string][]elevenlabs.Key, len(accounts)), make(map[string][]elevenlabs.Key, len(accounts))
	for _, a := range accounts {
		l.accounts[a.ID] = a.Keys
		for i, k := range a.Keys {
			owner, policy, _, ok := ledger.ParseKeyName(k.Name)
			switch others := l.owned[policy]; {
			case !ok || owner != r.owner:
			case others == nil:
				l.owned[policy] = a.Keys[i : i+1 : i+1] // the usual case, without a copy
			default:
				l.owned[policy] = append(others, k)
			}
		}
	}
	return l
}

// same reports whether two listings are one in memory, as they are where ElevenLabs answered the same.
func same(a, b []elevenlabs.ServiceAccount) bool {
	return len(a) == len(b) && len(a) > 0 && &a[0] == &b[0]
}

// findStraysLocked notes whether a workspace lists keys of policies that are not in it. Usually there are none, which saves each
// policy a search of every workspace.
func (r *Rotator) findStraysLocked(ws *workspace) {
	if ws.listing == nil {
		return
	}
	ws.listing.strays = false
	for policy := range ws.listing.owned {
		if st := r.policies[policy]; st == nil || st.policy.Workspace != ws.name {
			ws.listing.strays = true
			return
		}
	}
}

// listedKeyLocked returns the key as its workspace's last listing shows it, and that listing's number.
func (r *Rotator) listedKeyLocked(ref ledger.KeyRef) (key elevenlabs.Key, seq int, listed bool) {
	ws := r.workspaces[ref.Workspace]
	if ws == nil || ws.listing == nil {
		return elevenlabs.Key{}, 0, false
	}
	for _, k := range ws.listing.accounts[ref.Account] {
		if k.ID == ref.ID {
			return k, ws.listing.seq, true
		}
	}
	return elevenlabs.Key{}, ws.listing.seq, false
}

// listedSinceLocked reports whether the key's workspace was listed by a listing that began after the given time.
func (r *Rotator) listedSinceLocked(ref ledger.KeyRef, since time.Time) bool {
	ws := r.workspaces[ref.Workspace]
	return ws != nil && ws.listing != nil && ws.listing.begun.After(since)
}

// listedLocked returns what the last listing shows of a key, if that listing began after the given time. An older one may show
// the key as disabled from before a rollback to it.
func (r *Rotator) listedLocked(ref ledger.KeyRef, since time.Time) (disabled, found bool) {
	if !r.listedSinceLocked(ref, since) {
		return false, false
	}
	k, _, found := r.listedKeyLocked(ref)
	return k.Disabled, found
}

func (ws *workspace) seq(r *Rotator) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ws.listing == nil {
		return 0
	}
	return ws.listing.seq
}

// unlisted reports whether a listing that began after the given wall time lacks the keys of an abandoned rotation.
func (r *Rotator) unlisted(a ledger.Abandoned, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := r.workspaces[a.Workspace]
	if ws == nil || ws.listing == nil || !r.opt.Wall().Add(-time.Since(ws.listing.begun)).After(since) {
		return false
	}
	_, policy, _, _ := ledger.ParseKeyName(a.KeyName)
	return !slices.ContainsFunc(ws.listing.owned[policy], func(k elevenlabs.Key) bool {
		_, _, rotation, _ := ledger.ParseKeyName(k.Name)
		return a.Is(k.ID, rotation)
	})
}

// updateListing applies our own change of a key to the last listing, so that it is not planned again. A nil change removes the
// key.
func (r *Rotator) updateListing(workspace, account, id string, change func(*elevenlabs.Key)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ws := r.workspaces[workspace]
	if ws == nil || ws.listing == nil {
		return
	}
	l := ws.listing
	keys, listed := l.accounts[account]
	if !listed {
		return
	}
	l.changed = true // the next listing is arranged anew, even if it shows the same
	for _, k := range keys {
		if _, policy, _, ok := ledger.ParseKeyName(k.Name); ok && k.ID == id && l.owned[policy] != nil {
			l.owned[policy] = updatedKeys(l.owned[policy], id, change)
		}
	}
	l.accounts[account] = updatedKeys(keys, id, change)
}

// updatedKeys returns a changed copy: observations share the old slice.
func updatedKeys(keys []elevenlabs.Key, id string, change func(*elevenlabs.Key)) []elevenlabs.Key {
	keys = slices.Clone(keys)
	for i := range keys {
		if keys[i].ID == id && change != nil {
			change(&keys[i])
		}
	}
	if change == nil {
		keys = slices.DeleteFunc(keys, func(k elevenlabs.Key) bool { return k.ID == id })
	}
	return keys
}

// advisedLocked adds advice to a listing's error, with more to say if ElevenLabs no longer knows the admin key.
func (r *Rotator) advisedLocked(ws *workspace, err error) error {
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, elevenlabs.ErrInvalidKey):
		return &ledger.Error{Reason: FailureOf(err), Err: err}
	}
	err = &ledger.Error{Op: "using the admin key", Reason: ledger.FailureAdminKeyRefused, Err: err}
	for _, st := range r.policies {
		if st.policy.AdminOf == ws.name {
			err = fmt.Errorf("%w; policy %s cannot replace a key that is refused: set its adopt to the id of the key that you put there", err, st.policy.Name)
		}
	}
	return err
}

// noteRefusedLocked stops work on a workspace whose admin key was refused until its next listing: every other call would be
// refused as well.
func (r *Rotator) noteRefusedLocked(workspace string, err error) {
	ws := r.workspaces[workspace]
	if ws == nil || ws.err != nil || !errors.Is(err, elevenlabs.ErrInvalidKey) {
		return
	}
	err = r.advisedLocked(ws, err)
	r.logListing(ws, err)
	ws.err = err
}

func (r *Rotator) logListing(ws *workspace, err error) {
	was, is := ledger.Failure(""), ledger.Failure("")
	if ws.err != nil {
		was = FailureOf(ws.err)
	}
	if err != nil {
		is = FailureOf(err)
	}
	switch {
	case was == is:
	case err == nil:
		r.logLocked(slog.LevelInfo, "workspace available again", "workspace", ws.name)
	default:
		r.logLocked(slog.LevelError, "listing workspace failed", "workspace", ws.name, "failure", is, "err", err)
	}
}
