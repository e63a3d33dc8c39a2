package rotator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// keyDoc is the ledger's document keys/KEYID: it names the policy that adopted a key which rekeyd did not make. It is written
// once, by check-and-set, before that policy's entry, and stays, so that no second policy adopts the key however late its
// write arrives.
type keyDoc struct {
	Schema int    `json:"schema"`
	Policy string `json:"policy"`
}

func (r *Rotator) keyRef(id string) ledger.Ref { return r.opt.Ledger.Join("keys").Join(id) }

// reserve reserves an existing key for the policy, or returns the policy that already owns it. A key that this installation
// made carries its policy in its name.
func (r *Rotator) reserve(ctx context.Context, policy string, key plan.ListedKey) (other string, err error) {
	if owner, named, _, ok := ledger.ParseKeyName(key.Name); ok && owner == r.ownerID() {
		if named != policy {
			return named, nil
		}
		return "", nil
	}
	if !ledger.ValidKeyID(key.ID) {
		return "", fmt.Errorf("reserving key %q: its id cannot name a document", ledger.Shorten(key.ID))
	}
	ref := r.keyRef(key.ID)
	for version, known, attempt := 0, 0, 1; ; attempt++ {
		_, failure := r.opt.Store.Write(ctx, ref, map[string]any{"schema": ledger.Schema, "policy": policy}, version)
		if failure == nil {
			return "", nil
		}
		if !errors.Is(failure, ledger.ErrConflict) && !ledger.MaybeWritten(failure) {
			return "", fmt.Errorf("reserving key %s: %w", key.ID, failure)
		}
		if errors.Is(failure, ledger.ErrConflict) {
			known = r.beyond(ctx, version)
		}
		doc, _, err := r.newest(ctx, ref, known, nil)
		switch {
		case err != nil:
			return "", fmt.Errorf("reserving key %s: %w", key.ID, err)
		case doc.JSON != nil:
			return r.reservedFor(ctx, doc.JSON, policy, key.ID)
		case attempt == publishTries:
			return "", fmt.Errorf("reserving key %s: %w", key.ID, failure)
		}
		version = doc.Version // of a document that was deleted
	}
}

// reservedFor returns the current name of the policy in a key's document, or "" if that is the given policy.
func (r *Rotator) reservedFor(ctx context.Context, text json.RawMessage, policy, keyID string) (string, error) {
	var doc keyDoc
	if err := ledger.DecodeStrictly(text, &doc); err != nil || doc.Schema != ledger.Schema || !ledger.ValidName(doc.Policy) {
		return "", fmt.Errorf("reading %s: it was not written by this version of rekeyd", r.keyRef(keyID))
	}
	name := doc.Policy
	for range maxRenames {
		if name == policy {
			return "", nil
		}
		e, err := r.entryOf(ctx, name)
		if err != nil {
			return "", fmt.Errorf("looking for the policy that owns key %s: %w", keyID, err)
		}
		if e == nil || e.MovedTo == "" {
			break
		}
		name = e.MovedTo
	}
	return name, nil
}

// adopt makes an existing key the current one. It writes only the ledger.
func (j *job) adopt(ctx context.Context, s plan.Step) outcome {
	rec, err := j.r.readRecord(ctx, j.st, j.p.Sink, 0)
	if err != nil {
		return storeFailed(err)
	}
	if !j.stillPlanned(s) {
		return outcome{again: true} // the record was changed meanwhile
	}
	key := j.listedKey(s.KeyID)
	other, err := j.r.reserve(ctx, j.p.Name, key)
	if err != nil {
		return storeFailed(err)
	}
	if other != "" {
		j.st.known.note().elsewhere = map[string]string{key.ID: other} // read again at the next resync
		return outcome{again: true}
	}
	previous, err := j.previousOf(ctx, rec, key.ID)
	if err != nil {
		return storeFailed(err)
	}
	now := j.now()
	err = j.write(ctx, func(e *ledger.Entry) {
		past := ledger.Past{By: ledger.ByAdopt, Reason: s.Reason, KeyID: key.ID, PreviousKeyID: previous.ID, Started: now, Created: key.CreatedAt, Published: now}
		if old := e.Current; old != nil && old.ID != key.ID {
			e.Retiring = append(e.Retiring, j.retiringOf(*old, s.Reason, now, time.Time{}))
			past.PreviousKeyID = old.ID
		}
		e.Remember(past)
		ref := j.adopted(e, key, now)
		e.LastRotation = ref.Created
		if rec.KeyID == key.ID && !rec.RotatedAt.IsZero() {
			e.LastRotation, ref.Published = rec.RotatedAt, rec.RotatedAt
		}
		ref.Hash, ref.Version = ledger.HashValue(e.Salt, rec.Secret.Reveal()), rec.Doc.Version
		ref.Unproven = j.st.known.record.Fit(key.Hint) != plan.HintFits
		if back := e.RetiringKey(key.ID); back != nil {
			ref.Calls = back.Calls
		}
		e.Current, e.Failure = &ref, nil
		e.DropRetiring(key.ID)
		if previous.ID != "" {
			e.Retiring = append(e.Retiring, ledger.Retiring{KeyRef: j.adopted(e, previous, now), State: ledger.InOverlap,
				Until: rec.PreviousValidUntil, Quarantine: ledger.Duration(j.p.Quarantine), Reason: s.Reason})
		}
	})
	return j.noted(err, "key adopted", s.KeyID)
}

// previousOf returns the record's previous key if this policy is to retire it.
func (j *job) previousOf(ctx context.Context, rec ledger.Record, keyID string) (plan.ListedKey, error) {
	id := rec.PreviousKeyID
	if rec.KeyID != keyID || id == "" || id == keyID || j.entry() != nil && j.entry().RetiringKey(id) != nil {
		return plan.NoKey(), nil
	}
	previous := j.listedKey(id)
	if previous.ID == "" {
		return previous, nil
	}
	j.r.mu.Lock()
	other := j.r.elsewhereLocked(j.p, &j.st.known)[id]
	j.r.mu.Unlock()
	var err error
	if other == "" {
		other, err = j.r.reserve(ctx, j.p.Name, previous)
	}
	if other != "" {
		j.log.Warn("previous key of the record belongs to another policy", "key_id", id, "owner", other)
		return plan.NoKey(), nil
	}
	return previous, err
}

// adopted describes a key that rekeyd did not publish, or that the ledger has lost track of.
func (j *job) adopted(e *ledger.Entry, k plan.ListedKey, now time.Time) ledger.KeyRef {
	ref := ledger.KeyRef{ID: k.ID, Name: k.Name, Workspace: k.Workspace, Account: k.ServiceAccount, Sink: j.p.Sink, Created: k.CreatedAt,
		Settings: ledger.SettingsOf(k.Settings.Optional)}
	if ref.Created.IsZero() {
		ref.Created = now
	}
	ref.Published = ref.Created
	if owner, _, rotation, ok := ledger.ParseKeyName(k.Name); ok && owner == e.Owner {
		ref.Rotation = rotation
	}
	return ref
}
