package rotator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A secret was found where it should not be, such as in a log. The ledger's salted hashes say whose it is. It is compared here and
// sent nowhere, except, once it is known, to the workspace of its key, to see whether it still works.

// LeakState is the state of a key whose secret was found.
type LeakState string

// The states of such a key.
const (
	LeakCurrent    LeakState = "current"
	LeakOverlap    LeakState = "overlap"
	LeakQuarantine LeakState = "quarantine"
	LeakAdmin      LeakState = "admin" // a workspace is managed with it
)

// Works is what ElevenLabs says to a secret.
type Works string

// The answers. WorksUnknown means that ElevenLabs gave none.
const (
	WorksYes     Works = "yes"
	WorksNo      Works = "no"
	WorksUnknown Works = "unknown"
)

// The values of Leak.Rotation.
const (
	LeakRotated   = "done"
	LeakRequested = "requested" // a running rotator takes it up soon
	LeakOver      = "not_needed"
)

// Leak says whose key a secret is. It does not hold the secret.
type Leak struct {
	Known     bool      `json:"known"`
	Policy    string    `json:"policy"` // "": unknown, or an admin key that no policy rotates
	State     LeakState `json:"state"`
	Workspace string    `json:"workspace,omitempty"`
	KeyID     string    `json:"key_id,omitempty"` // "" if the ledger does not know the key
	Works     Works     `json:"works,omitempty"`
	Rotation  string    `json:"rotation,omitempty"` // "" if none was asked for
}

// leakReason is the reason of rotations that end a leak, for the log.
const leakReason = "reported as leaked"

// longestSecret bounds a secret in bytes; ElevenLabs' keys have 51. Each policy's salt costs a hash of the secret.
const longestSecret = 1 << 10

// ParseLeaked takes a secret from text, without the white space around it. The error does not repeat the text.
func ParseLeaked(text string) (secret.Secret, error) {
	switch text = strings.TrimSpace(text); {
	case text == "":
		return secret.Secret{}, errors.New("the secret is empty")
	case len(text) > longestSecret:
		return secret.Secret{}, fmt.Errorf("the secret is longer than %d bytes, which no key is; give one secret and nothing else", longestSecret)
	case strings.ContainsFunc(text, unicode.IsSpace):
		return secret.Secret{}, errors.New("the secret has white space in it; give one secret and nothing else")
	}
	return secret.New(text), nil
}

// Leaked looks for a secret in the whole ledger, among the admin keys in use, and in the records. The error is not nil if the
// secret was not found and something could not be read. It is for commands; a running rotator uses LeakedHere.
func (r *Rotator) Leaked(ctx context.Context, s secret.Secret) (Leak, error) {
	entries, ledgerErr := r.entries(ctx)
	l, _ := leakedIn(entries, s)
	l, adminErr := r.leakedAdminKey(ctx, l, s)
	if l.Known {
		return r.tryLeaked(ctx, l, s), nil
	}
	l, recordErr := r.leakedRecord(ctx, entries, s)
	if l.Known {
		return r.tryLeaked(ctx, l, s), nil
	}
	return l, errors.Join(ledgerErr, adminErr, recordErr)
}

// rereadWithin leaves time to ask ElevenLabs when the store hangs; the entry as held is the answer then.
const rereadWithin = 3 * time.Second

// LeakedHere looks for a secret among the admin keys in use and in the entries that this process holds. For a known secret it
// reads one entry, so that the state is the ledger's; for an unknown one it reads none, and does not know a key that another
// replica published in the last reconcile interval, nor the value of a record that rekeyd did not publish or adopt. The error is
// not nil if the secret was not found and an entry was never read.
func (r *Rotator) LeakedHere(ctx context.Context, s secret.Secret) (Leak, error) {
	entries, heldErr := r.heldEntries()
	l, from := leakedIn(entries, s)
	if from != nil && from.MovedTo == "" {
		reading, cancel := context.WithTimeout(ctx, rereadWithin)
		if e, err := r.entryOf(reading, from.Policy); err == nil && e != nil {
			l, _ = leakedIn([]*ledger.Entry{e}, s) // unknown: the key was deleted
		}
		cancel()
	}
	l, adminErr := r.leakedAdminKey(ctx, l, s)
	if l.Known {
		return r.tryLeaked(ctx, l, s), nil
	}
	return l, errors.Join(heldErr, adminErr)
}

// heldEntries returns the entries as last read, and an error unless there is one for each policy that has one.
func (r *Rotator) heldEntries() ([]*ledger.Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var entries []*ledger.Entry
	unread := r.owner == ""
	for _, st := range r.orderedLocked() {
		unread = unread || !st.last.planned || st.last.decision.Reason == plan.FaultLedgerInvalid
		if st.last.entry != nil {
			entries = append(entries, st.last.entry)
		}
	}
	if unread {
		return entries, errors.New("not every ledger entry has been read")
	}
	return entries, nil
}

// leakedIn finds the key with this secret, and its entry, by the salted hashes.
func leakedIn(entries []*ledger.Entry, s secret.Secret) (Leak, *ledger.Entry) {
	moves := make(map[string]int, len(entries))
	for _, e := range entries {
		moves[e.Policy] = e.Moves
	}
	for _, e := range entries {
		if e.MovedTo != "" && moves[e.MovedTo] > e.Moves {
			continue // the other entry has the keys, and this one those of the time of the move
		}
		hash := ledger.HashValue(e.Salt, s.Reveal())
		for k := range e.Keys() {
			if subtle.ConstantTimeCompare([]byte(k.Hash), []byte(hash)) == 1 {
				return leakOf(e, *k), e
			}
		}
	}
	return Leak{}, nil
}

func leakOf(e *ledger.Entry, k ledger.KeyRef) Leak {
	l := Leak{Known: true, Policy: cmp.Or(e.MovedTo, e.Policy), State: LeakCurrent, Workspace: k.Workspace, KeyID: k.ID}
	if old := e.RetiringKey(k.ID); old != nil {
		l.State = LeakState(old.State)
	}
	return l
}

// leakedAdminKey returns l, unless a workspace is managed with the secret. The key is then known, whatever the ledger says.
func (r *Rotator) leakedAdminKey(ctx context.Context, l Leak, s secret.Secret) (Leak, error) {
	r.mu.Lock()
	workspaces := r.sortedWorkspaces
	r.mu.Unlock()
	var unread []error
	for _, ws := range workspaces {
		api := r.apiOf(ws.name)
		if api == nil {
			continue // a reload removed it
		}
		switch key, err := api.AdminKey(ctx, false); {
		case err != nil:
			unread = append(unread, fmt.Errorf("workspace %s: %w", ws.name, err))
		case equalSecrets(key, s):
			return Leak{Known: true, Policy: cmp.Or(l.Policy, r.adminPolicy(ws.name)), State: LeakAdmin, Workspace: ws.name, KeyID: l.KeyID}, nil
		}
	}
	return l, errors.Join(unread...)
}

// adminPolicy returns the policy that rotates a workspace's admin key, "" if none does.
func (r *Rotator) adminPolicy(workspace string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, st := range r.policies {
		if st.policy.AdminOf == workspace {
			return name
		}
	}
	return ""
}

// leakedRecord looks at the records for what the ledger has no hash of: an adopted previous key, whose secret only a kept version
// has, and a value that readers have and rekeyd has not published or adopted.
func (r *Rotator) leakedRecord(ctx context.Context, entries []*ledger.Entry, s secret.Secret) (Leak, error) {
	var unread []error
	for _, e := range entries {
		for k := range e.Keys() {
			if k.Hash != "" || e.MovedTo != "" {
				continue
			}
			kept, err := r.keptAs(ctx, *k, s)
			if kept {
				return leakOf(e, *k), nil
			}
			unread = append(unread, err)
		}
	}
	for ref, p := range r.loadedSinks() {
		doc, err := r.opt.Store.Read(ctx, ref, 0)
		switch {
		case err != nil && (ledger.IsOutage(err) || ctx.Err() != nil):
			return Leak{}, fmt.Errorf("reading records: %w", err) // the others would fail as well
		case err != nil:
			unread = append(unread, fmt.Errorf("reading records: %w", err))
		case equalSecrets(ledger.ParseRecord(doc, p.Sink.Field).Secret, s):
			return Leak{Known: true, Policy: p.Name, State: LeakCurrent, Workspace: p.Workspace}, nil
		}
	}
	return Leak{}, errors.Join(unread...)
}

// keptAs reports whether a kept version of the key's record has the secret as that of the key.
func (r *Rotator) keptAs(ctx context.Context, k ledger.KeyRef, s secret.Secret) (bool, error) {
	_, kept, err := r.keptVersion(ctx, k, func(value secret.Secret) bool { return equalSecrets(value, s) })
	if err != nil {
		return false, fmt.Errorf("reading records: %w", err)
	}
	return kept, nil
}

// equalSecrets compares hashes, so that timing reveals no length.
func equalSecrets(a, b secret.Secret) bool {
	x, y := sha256.Sum256([]byte(a.Reveal())), sha256.Sum256([]byte(b.Reveal()))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// tryLeaked asks the key's workspace whether the secret works. From here on something could repeat it, so it is redacted; an
// unknown text is not, since a report of an ordinary word would take that word out of the log.
func (r *Rotator) tryLeaked(ctx context.Context, l Leak, s secret.Secret) Leak {
	defer r.redact(s)()
	l.Works = WorksUnknown
	api := r.apiOf(l.Workspace)
	if api == nil {
		return l // the workspace is no longer configured
	}
	switch result, _ := api.Probe(ctx, s); result { // its error says why it is inconclusive
	case elevenlabs.Valid:
		l.Works = WorksYes
	case elevenlabs.Invalid:
		l.Works = WorksNo
	case elevenlabs.Inconclusive:
	}
	return l
}

// over reports whether a rotation would change nothing: a key in quarantine is disabled already. Rotating for each report of it
// would take the current key from its readers each time.
func (l Leak) over() bool { return l.State == LeakQuarantine && l.Works != WorksYes }

// rotatable returns why no rotation ends the leak, and what a person can do instead.
func (r *Rotator) rotatable(l Leak) error {
	switch loaded := r.isLoaded(l.Policy); {
	case loaded:
		return nil
	case l.Policy == "":
		return fmt.Errorf("no policy rotates the admin key of workspace %s: make another in ElevenLabs, put it where the workspace's api_key says, then delete this one in ElevenLabs", l.Workspace)
	case l.State == LeakCurrent:
		return fmt.Errorf("policy %s is not in the policy file: run rekeyd prune %s, which disables its key", l.Policy, l.Policy)
	}
	return fmt.Errorf("policy %s is not in the policy file: disable key %s in ElevenLabs", l.Policy, l.KeyID)
}

// EndLeak rotates the policy of a known key as if by --revoke-now, unless that would change nothing, and returns nil only when
// ElevenLabs rejects the secret. It is for commands; a running rotator uses RequestEnd.
func (r *Rotator) EndLeak(ctx context.Context, l Leak, s secret.Secret) (Leak, error) {
	defer r.redact(s)()
	if l.over() {
		l.Rotation = LeakOver
		if l.Works != WorksNo {
			return l, fmt.Errorf("policy %s is not rotated, since key %s is disabled already, but ElevenLabs did not say whether it still accepts the secret: run rekeyd leaked again", l.Policy, l.KeyID)
		}
		return l, nil
	}
	if err := r.rotatable(l); err != nil {
		return l, err
	}
	if err := r.Rotate(ctx, l.Policy, RotateOptions{Revoke: true, Leaked: true, Reason: leakReason}); err != nil {
		return l, err
	}
	l.Rotation = LeakRotated
	patience, cancel := context.WithTimeout(ctx, r.opt.VerifyTimeout)
	defer cancel()
	for {
		l = r.tryLeaked(ctx, l, s)
		switch {
		case l.Works == WorksNo:
			return l, nil
		case sleep(patience, poll):
		case l.Works == WorksYes:
			return l, fmt.Errorf("policy %s is rotated, but ElevenLabs still accepts the reported secret: find its key in ElevenLabs and disable it", l.Policy)
		default:
			return l, fmt.Errorf("policy %s is rotated, but ElevenLabs did not say whether it still accepts the reported secret: run rekeyd leaked again", l.Policy)
		}
	}
}

// RequestEnd makes a running rotator end a leak soon, as EndLeak does.
func (r *Rotator) RequestEnd(l Leak) (Leak, error) {
	if l.over() {
		l.Rotation = LeakOver
		return l, nil
	}
	if err := r.rotatable(l); err != nil {
		return l, err
	}
	l.Rotation = LeakRequested
	return l, r.Request(l.Policy, RotateOptions{Revoke: true, Leaked: true, Reason: leakReason})
}
