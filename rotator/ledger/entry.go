package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// The versions of the ledger's documents. Entries of earlier versions are read on; a document of a newer version is refused, never
// rewritten.
const (
	Schema      = 1 // of groups, keys and replicas
	EntrySchema = 2 // with settings and history
)

// abandonedFor is how long an abandoned rotation is remembered at least, so that a key whose create arrives late is still
// recognised and deleted.
const abandonedFor = 48 * time.Hour

// Entry is the ledger's document about one policy: all that must survive a crash, and no secret. It is written only by
// check-and-set, so each writer has read the version that it replaces.
type Entry struct {
	Schema int    `json:"schema"`
	Owner  string `json:"owner"` // this installation's id, from which the ledger's owner can be rebuilt
	Policy string `json:"policy"`
	Salt   string `json:"salt"` // of every Hash below

	Claim  *Claim  `json:"claim,omitempty"`
	Intent *Intent `json:"intent,omitempty"`

	Current      *KeyRef    `json:"current,omitempty"`
	LastRotation time.Time  `json:"last_rotation,omitzero"`
	Retiring     []Retiring `json:"retiring,omitempty"`

	Abandoned []Abandoned  `json:"abandoned,omitempty"`
	Failure   *LastFailure `json:"failure,omitempty"`
	Applied   *Applied     `json:"applied,omitempty"`
	// Quarantine is the policy's as of the last rotation. It applies to the current key if the policy is removed.
	Quarantine Duration `json:"quarantine,omitzero"`
	// LimitUsed is LastRotation when a quarantine was last cut short to make room, which happens once per due time.
	LimitUsed *time.Time  `json:"limit_used,omitempty"`
	Leaks     []time.Time `json:"leaks,omitempty"`   // leak rotations of the last hour
	History   []Past      `json:"history,omitempty"` // oldest first; empty while the entry is packed
	MovedTo   string      `json:"moved_to,omitempty"`
	Moves     int         `json:"moves,omitempty"` // counts the renames of its policy

	packed Packed // the history of an entry that waits in memory
}

// Claim gives one replica the work on a policy.
type Claim struct {
	Holder string    `json:"holder"`
	Nonce  int       `json:"nonce"`        // counts renewals, so that each changes the entry
	Since  time.Time `json:"since"`        // for people; claims are never timed by it
	TTL    Duration  `json:"ttl,omitzero"` // the holder's; others wait for the longer of theirs and this
}

// Intent is a rotation that has begun. It is written together with the claim, before the create, so that a key left behind can be
// found by its unique name.
type Intent struct {
	Rotation  string    `json:"rotation"`
	KeyName   string    `json:"key_name"`
	Workspace string    `json:"workspace"`
	Account   string    `json:"account"`
	Sink      Sink      `json:"sink"`
	Reason    Trigger   `json:"reason"`
	By        By        `json:"by,omitempty"`
	Words     string    `json:"words,omitempty"` // of the person who asked
	Started   time.Time `json:"started"`
	// Seen is the newest known version of the record before the rotation, which publishes a later one.
	Seen int `json:"seen,omitempty"`
	// Verify says that the key is proven to work before it is published.
	Verify bool `json:"verify,omitempty"`
	// Settings are the optional settings of the new key: the policy's, and those of the key that it replaces.
	Settings *Settings `json:"settings,omitempty"`
	// Rollback says that no key is made: KeyName is a retiring key that is put back. It must not be abandoned.
	Rollback bool `json:"rollback,omitempty"`
}

// Key returns the rotation's key, which is not published yet.
func (in *Intent) Key(id string) KeyRef {
	return KeyRef{ID: id, Name: in.KeyName, Rotation: in.Rotation, Workspace: in.Workspace, Account: in.Account, Sink: in.Sink, Settings: in.Settings}
}

// KeyRef is a published key, with its account and the record that its secret was written to.
type KeyRef struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Rotation  string    `json:"rotation,omitempty"` // "" for an adopted key
	Workspace string    `json:"workspace"`
	Account   string    `json:"account"`
	Sink      Sink      `json:"sink"`
	Hash      string    `json:"hash,omitempty"` // salted SHA-256 of the published value; "" if rekeyd never saw it
	Created   time.Time `json:"created"`
	Published time.Time `json:"published"`
	Verified  bool      `json:"verified"`
	Version   int       `json:"version,omitempty"` // of the record: the newest known since it became current
	// Settings are the optional settings that it was created or adopted with. They count once no listing shows the key.
	Settings *Settings `json:"settings,omitempty"`
	// Calls are the unanswered calls. They stay with a key that becomes current again.
	Calls []Call `json:"calls,omitempty"`
	// Unproven says that the key was adopted by id alone: no hint showed that the record's value is its secret.
	Unproven bool `json:"unproven,omitempty"`
	// Disabling is how earlier builds noted a disable; ParseEntry turns it into a Call.
	Disabling bool `json:"disabling,omitempty"`
}

// RetiringState is the state of a former current key.
type RetiringState string

// The states of a retiring key.
const (
	InOverlap    RetiringState = "overlap"    // still enabled
	InQuarantine RetiringState = "quarantine" // disabled, can be re-enabled
)

// Retiring is a former current key that is being retired.
type Retiring struct {
	KeyRef
	State      RetiringState `json:"state"`
	Until      time.Time     `json:"until"`      // end of this state
	Quarantine Duration      `json:"quarantine"` // how long it will stay disabled
	// WaitUntilIdle and WaitUntilUsed are by how much the policy lets the overlap be extended.
	WaitUntilIdle Duration  `json:"wait_until_idle,omitzero"`
	WaitUntilUsed Duration  `json:"wait_until_used,omitzero"`
	Reason        Trigger   `json:"reason,omitempty"` // why the key was replaced
	Proof         Proof     `json:"proof,omitempty"`  // of its end, in quarantine
	Tries         int       `json:"tries,omitempty"`  // failed attempts to take it to its next state
	NextTry       time.Time `json:"next_try,omitzero"`
}

// Duration is a time.Duration written as text ("24h0m0s").
type Duration time.Duration

// MarshalText writes the duration in Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads Go's notation.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Abandoned is a rotation whose key, if one exists or ever appears, has a secret that is stored nowhere.
type Abandoned struct {
	Rotation  string    `json:"rotation"`
	KeyName   string    `json:"key_name"`
	Workspace string    `json:"workspace"`
	Account   string    `json:"account"`
	Since     time.Time `json:"since"`
	KeyID     string    `json:"key_id,omitempty"` // "": every key of the rotation
	InUse     bool      `json:"in_use,omitempty"` // its key was in use, and stays although its counter may begin anew
}

// Is reports whether a key with this id and rotation is the abandoned one.
func (a Abandoned) Is(id, rotation string) bool {
	return a.KeyID == id && id != "" || a.KeyID == "" && a.Rotation == rotation
}

// LastFailure is the last failure of a policy since its last success.
type LastFailure struct {
	Stage   Stage     `json:"stage"`
	Reason  Failure   `json:"reason"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
	Count   int       `json:"count"` // in a row
	NextTry time.Time `json:"next_try,omitzero"`
}

// Applied is the settings that rekeyd last gave the current key.
type Applied struct {
	Digest  string    `json:"digest"`
	At      time.Time `json:"at"`
	Ignored []string  `json:"ignored,omitempty"` // fields that still differed when read back
}

// MarshalJSON encodes the entry with its history, packed or not.
func (e *Entry) MarshalJSON() ([]byte, error) {
	type plain Entry
	whole := plain(*e)
	whole.History = e.Rotations()
	return json.Marshal(whole) //nolint:wrapcheck // its own
}

// ParseEntry parses an entry strictly: an entry that is not fully understood must not be rewritten.
func ParseEntry(text json.RawMessage, policy string) (*Entry, error) {
	var e Entry
	err := DecodeStrictly(text, &e)
	schema := strconv.Itoa(e.Schema)
	if err != nil { // a newer schema may be why
		schema = schemaOf(text)
	}
	if schema != "1" && schema != strconv.Itoa(EntrySchema) {
		return nil, fmt.Errorf("reading ledger entry of %s: its schema is %s and this build knows %d; run the version of rekeyd that wrote it, or a newer one", policy, Shorten(schema), EntrySchema)
	}
	if err != nil {
		return nil, fmt.Errorf("reading ledger entry of %s: %w", policy, err)
	}
	if e.Policy != policy {
		return nil, fmt.Errorf("reading ledger entry of %s: it says that it is the entry of %q", policy, e.Policy)
	}
	if e.Owner == "" || e.Salt == "" {
		return nil, fmt.Errorf("reading ledger entry of %s: it lacks owner or salt", policy)
	}
	e.upgrade()
	e.Policy = policy // not the copy that is equal
	return &e, nil
}

// upgrade converts the notes of earlier builds, which have no time.
func (e *Entry) upgrade() {
	e.Schema = EntrySchema
	for k := range e.Keys() {
		if k.Disabling {
			k.Note(Call{Kind: CallDisable})
			k.Disabling = false
		}
	}
}

// Keys iterates over the current key and the retiring keys.
func (e *Entry) Keys() iter.Seq[*KeyRef] {
	return func(yield func(*KeyRef) bool) {
		if e.Current != nil && !yield(e.Current) {
			return
		}
		for i := range e.Retiring {
			if !yield(&e.Retiring[i].KeyRef) {
				return
			}
		}
	}
}

// Key returns the current or retiring key with this id.
func (e *Entry) Key(id string) *KeyRef {
	for k := range e.Keys() {
		if k.ID == id {
			return k
		}
	}
	return nil
}

// DecodeStrictly decodes JSON and refuses fields that into does not have.
func DecodeStrictly(text json.RawMessage, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// schemaOf returns the schema of a document of any version.
func schemaOf(text json.RawMessage) string {
	var doc struct {
		Schema any `json:"schema"`
	}
	_ = json.Unmarshal(text, &doc) // a document that is not JSON has none
	return fmt.Sprint(doc.Schema)
}

// Equal reports whether a document is this entry.
func (e *Entry) Equal(text json.RawMessage) bool {
	other, err := ParseEntry(text, e.Policy)
	if err != nil {
		return false
	}
	a, errA := json.Marshal(e)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// Clone returns a copy that can be changed without touching e, since a failed write must not change the cache.
func (e *Entry) Clone() *Entry {
	c := *e
	c.Claim, c.Intent, c.Current = ClonePtr(e.Claim), ClonePtr(e.Intent), ClonePtr(e.Current)
	c.Failure, c.Applied, c.LimitUsed = ClonePtr(e.Failure), ClonePtr(e.Applied), ClonePtr(e.LimitUsed)
	c.Retiring = slices.Clone(e.Retiring)
	c.Abandoned = slices.Clone(e.Abandoned)
	c.Leaks = slices.Clone(e.Leaks)
	if c.History, c.packed = e.Rotations(), ""; e.packed == "" {
		c.History = slices.Clone(c.History)
	}
	return &c
}

// ClonePtr returns a pointer to a copy of *p, nil for nil.
func ClonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

// MadeRoom reports whether a quarantine was already cut short for the rotation that is due now.
func (e *Entry) MadeRoom() bool { return e.LimitUsed != nil && e.LimitUsed.Equal(e.LastRotation) }

// RoomMade reports whether the last rotation found its account full, and a quarantine was cut short for it.
func (e *Entry) RoomMade() bool {
	if e.LimitUsed == nil {
		return false
	}
	rotations := slices.DeleteFunc(e.Rotations(), func(p Past) bool { return p.Reason == TriggerRollback })
	n := len(rotations)
	return n > 1 && rotations[n-2].Published.Equal(e.LimitUsed.Truncate(time.Second))
}

// RetiringKey returns the retiring key with this id.
func (e *Entry) RetiringKey(id string) *Retiring {
	for i := range e.Retiring {
		if e.Retiring[i].ID == id {
			return &e.Retiring[i]
		}
	}
	return nil
}

// DropRetiring removes a retiring key that is deleted or current again.
func (e *Entry) DropRetiring(id string) {
	e.Retiring = slices.DeleteFunc(e.Retiring, func(r Retiring) bool { return r.ID == id })
}

// IsAbandoned reports whether this key of this rotation is abandoned, so that it may be deleted.
func (e *Entry) IsAbandoned(id, rotation string) bool {
	return slices.ContainsFunc(e.Abandoned, func(a Abandoned) bool { return a.Is(id, rotation) })
}

// TwinOf returns the other key of the same rotation, whose create arrived twice; nil: none.
func (e *Entry) TwinOf(id, rotation string) *KeyRef {
	for k := range e.Keys() {
		if k.Rotation == rotation && rotation != "" && k.ID != id {
			return k
		}
	}
	return nil
}

// Knows reports whether the entry has a key with this id or rotation. Keys made outside rekeyd have no rotation.
func (e *Entry) Knows(id, rotation string) bool {
	if e.Intent != nil && e.Intent.Rotation == rotation {
		return true
	}
	return e.Key(id) != nil || e.IsAbandoned(id, rotation)
}

// Explains reports whether the entry decides what happens to a listed key. An abandoned key that is in use needs a person's
// decision.
func (e *Entry) Explains(k elevenlabs.Key, rotation string) bool {
	inUse := (k.CharacterCount > 0 || e.Spares(k.ID, rotation)) && e.Key(k.ID) == nil && e.IsAbandoned(k.ID, rotation)
	return e.Knows(k.ID, rotation) && !inUse
}

// Abandon turns the intent into an abandoned rotation; version is the newest known version of the record.
func (e *Entry) Abandon(now time.Time, version int) {
	in := e.Intent
	if in != nil && !in.Rollback && !e.IsAbandoned("", in.Rotation) {
		e.Abandoned = append(e.Abandoned, Abandoned{in.Rotation, in.KeyName, in.Workspace, in.Account, now, "", false})
	}
	if c := e.Current; in != nil && c != nil && c.Sink == in.Sink && version != 0 {
		c.Version = version
	}
	e.Intent = nil
}

// Spare notes that the key of an abandoned rotation is in use, so that its secret must be stored somewhere.
func (e *Entry) Spare(keyName string) {
	for i := range e.Abandoned {
		if e.Abandoned[i].KeyName == keyName {
			e.Abandoned[i].InUse = true
		}
	}
}

// Spares reports whether an abandoned key was in use when its rotation was abandoned.
func (e *Entry) Spares(id, rotation string) bool {
	return slices.ContainsFunc(e.Abandoned, func(a Abandoned) bool { return a.InUse && a.Is(id, rotation) })
}

// ForgetOld drops expired notes. It keeps an abandoned rotation until gone reports that its keys are gone.
func (e *Entry) ForgetOld(now time.Time, gone func(a Abandoned, since time.Time) bool) {
	for k := range e.Keys() {
		k.forgetCalls(now)
	}
	e.Abandoned = slices.DeleteFunc(e.Abandoned, func(a Abandoned) bool {
		return now.Sub(a.Since) > abandonedFor && gone(a, a.Since.Add(abandonedFor))
	})
	e.Leaks = slices.DeleteFunc(e.Leaks, func(t time.Time) bool { return now.Sub(t) > time.Hour })
}

// ClaimOf returns the entry's claim, nil where there is none. The entry may be nil.
func ClaimOf(e *Entry) *Claim {
	if e == nil {
		return nil
	}
	return e.Claim
}

// MaxClaimTTL is the longest claim TTL that can be configured.
const MaxClaimTTL = 24 * time.Hour

// Lasts returns for how long the claim must be seen unchanged before a process with this claim TTL may take it over. What no
// configuration allows is not waited for. The claim may be nil.
func (c *Claim) Lasts(own time.Duration) time.Duration {
	if c == nil || c.TTL > Duration(MaxClaimTTL) {
		return own
	}
	return max(own, time.Duration(c.TTL))
}

// CurrentID returns the id of the entry's current key, "" where there is none. The entry may be nil.
func CurrentID(e *Entry) string {
	if e == nil || e.Current == nil {
		return ""
	}
	return e.Current.ID
}
