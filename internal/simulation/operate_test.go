package simulation_test

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// operate runs an operator's command in a process of its own, beside the replicas. Like them it can be crashed at every
// call, and it gives up after a while.
func (w *world) operate(what string, do func(context.Context, *rotator.Rotator) error, done func(error)) {
	w.commands++
	r := &replica{id: 100 + w.commands, life: 1, command: true, alive: true, ttl: w.profile.ttls[0], crash: 0.1}
	if what == "prune" {
		r.crash = 0.3 // it makes few calls
	}
	patience := 20 * time.Minute
	if w.profile.suspended >= 0 { // an operator's laptop
		r.ttl, patience = standstill, longestHold+time.Hour
	}
	r.since = map[string]time.Time{}
	r.gate = &gate{w: w, replica: r.id, life: 1, counts: map[string]uint64{}, listings: newListings(), command: r}
	rot := w.newRotator(r)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.stop = cancel
	w.running.Go(func() {
		defer cancel()
		err := do(ctx, rot)
		w.locked(func() {
			w.tracef("command %s ends: %v (crashed %t)", what, err, r.gate.dead)
			switch verb, _, _ := strings.Cut(what, " "); {
			case r.gate.dead:
				w.hits["command crashed: "+verb]++
			case err != nil:
				w.hits["command failed: "+verb]++
				done(err)
			default:
				w.hits["command done: "+verb]++
				done(nil)
			}
		})
	})
}

func (w *world) rotate(p plan.Policy, revoke bool) {
	path := p.Sink.String()
	r := w.oracle.at(path)
	r.asked = true
	before, begun := r.key, time.Now()
	var older []*life
	for _, k := range w.oracle.keys {
		if k.policy == base(p.Name) && !k.published.IsZero() {
			older = append(older, k)
			k.revoked = k.revoked || revoke
		}
	}
	r.revoking = r.revoking || revoke
	w.operate("rotate "+p.Name, func(ctx context.Context, rot *rotator.Rotator) error {
		return rot.Rotate(ctx, p.Name, rotator.RotateOptions{Revoke: revoke, Reason: pasted(before)})
	}, func(err error) {
		if err != nil || r.foreign || w.oracle.restored {
			return
		}
		if before != nil && r.key == before && !r.at.After(begun) {
			w.oracle.violated("rotate ended well, and %s still holds key %s", path, short(before.ID))
		}
		for _, k := range older {
			if revoke && k != r.key && !k.Disabled && !k.Deleted() {
				w.oracle.violated("rotate --revoke-now ended well, and the older key %s still works", short(k.ID))
			}
		}
	})
}

// leaked reports the secret of a policy's key, as found where it should not be, with rekeyd leaked --rotate.
func (w *world) leaked(p plan.Policy) {
	r := w.oracle.at(p.Sink.String())
	k := r.key
	if k == nil || r.foreign || k.Disabled || k.Deleted() {
		return
	}
	w.tracef("others find the secret of key %s (%s)", short(k.ID), p.Name)
	r.asked, r.revoking = true, true
	for _, older := range w.oracle.keys {
		if older.policy == base(p.Name) && !older.published.IsZero() {
			older.revoked = true
		}
	}
	known := false
	w.operate("leaked "+p.Name, func(ctx context.Context, rot *rotator.Rotator) error {
		s := secret.New(k.Secret)
		l, err := rot.Leaked(ctx, s)
		if known = l.Known; err != nil || !known {
			return err
		}
		_, err = rot.EndLeak(ctx, l, s)
		return err
	}, func(err error) {
		if err == nil && !k.Disabled && !k.Deleted() && !w.oracle.restored {
			w.oracle.violated("leaked --rotate ended well (known %t), and key %s still works", known, short(k.ID))
		}
	})
}

func (w *world) rollback(p plan.Policy) {
	path := p.Sink.String()
	r := w.oracle.at(path)
	r.asked = true
	before, begun := r.key, time.Now()
	w.operate("rollback "+p.Name, func(ctx context.Context, rot *rotator.Rotator) error { return rot.Rollback(ctx, p.Name) }, func(err error) {
		// A rotation that was under way when it began comes first; then the key that it replaces is the one to put back.
		if err == nil && r.key == before && !r.at.After(begun) && !w.oracle.restored {
			w.oracle.violated("rollback ended well, and %s still holds key %s", path, short(before.ID))
		}
	})
}

// prune deletes what is lost, and, where a policy was removed, its keys too.
func (w *world) prune() {
	var names []string
	if w.removed != nil {
		names = []string{w.removed.Name}
		w.oracle.at(w.removed.Sink.String()).pruned = true
	}
	begun := time.Now()
	w.operate("prune", func(ctx context.Context, rot *rotator.Rotator) error {
		lost, err := rot.Lost(ctx, names...)
		if err != nil {
			return err
		}
		for _, l := range lost {
			w.locked(func() { w.pruning(l, begun) })
			if err := rot.Prune(ctx, l); err != nil {
				return err
			}
		}
		return nil
	}, func(error) {})
}

// hasTwin reports a key whose create arrived twice: until the second one is noted, it is lost.
func (o *oracle) hasTwin(k *life) bool {
	for _, other := range o.keys {
		if other != k && other.Name == k.Name {
			return true
		}
	}
	return false
}

// leftAlone reports a key whose create arrived twice, and whose twin others deleted before it was noted: nothing says then
// that its secret is nowhere.
func (o *oracle) leftAlone(k *life) bool {
	for _, other := range o.keys {
		if other != k && other.Name == k.Name && other.Deleted() && other.touched {
			return true
		}
	}
	return false
}

// pruning checks what a prune that was begun at a time is about to delete. What is newer it may name, and is then refused.
func (w *world) pruning(l rotator.LostKey, begun time.Time) {
	k := w.oracle.keys[l.KeyID]
	w.tracef("prune names key %s (unmanaged %t)", short(l.KeyID), l.Removed)
	switch {
	case k == nil || !k.ours && !k.touched:
		w.oracle.violated("prune names key %s, which is not ours", short(l.KeyID))
	case l.Removed && (w.removed == nil || base(l.Policy) != base(w.removed.Name)):
		w.oracle.violated("prune names the current key of policy %s, which is loaded", l.Policy)
	case w.removed != nil && k.policy == base(w.removed.Name) && k.published.IsZero(): // abandoned, and no daemon has its policy
	case len(w.profile.lags) > 0: // a list from a node that lags may name it, and is refused then
	case !l.Removed && !w.oracle.restored && !k.Deleted() && !w.oracle.hasTwin(k) && k.CreatedAt.Before(begun):
		w.oracle.violated("prune names key %s, although Vault has forgotten nothing", short(l.KeyID))
	}
	if k != nil {
		k.orphan, k.pruned = false, true
	}
}

// removePolicy takes the last policy out of every replica's file.
func (w *world) removePolicy() {
	if w.removed != nil || w.snapshot || w.renamed || w.paused {
		return
	}
	p := w.policies[len(w.policies)-1]
	w.removed = &p
	w.policies = slices.Clone(w.policies[:len(w.policies)-1])
	w.oracle.at(p.Sink.String()).removed = true
	w.loadAll()
	if w.profile.again && w.rng.IntN(2) == 0 {
		until := time.Duration(1+w.rng.IntN(300)) * time.Minute
		w.later(until/2, w.prune)
		w.later(until, w.addAgain)
	}
}
