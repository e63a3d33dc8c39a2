package ledger

import (
	"slices"
	"time"
)

// CallKind is what a call does to a key.
type CallKind string

// The calls that are noted before they are sent.
const (
	CallDisable CallKind = "disable"
	CallEnable  CallKind = "enable"
	CallDelete  CallKind = "delete"
)

// Call notes a call about a key before it is sent. Until that very call has a definite answer it may be carried out at
// any time, also by a process that everybody takes for dead.
type Call struct {
	Kind CallKind  `json:"kind"`
	ID   string    `json:"id,omitempty"` // of this one call; "" for several, which no answer settles
	At   time.Time `json:"at"`           // of the newest
}

// callRemembered is how long an unsettled disable or enable explains a key that is found so. After that a person's act is
// more likely. An unsettled delete counts until the key is gone.
const callRemembered = 7 * 24 * time.Hour

// remembered reports that the call may still explain what is seen of its key.
func (c Call) remembered(now time.Time) bool {
	return c.Kind == CallDelete || c.At.IsZero() || now.Sub(c.At) <= callRemembered
}

// Outstanding reports that a call of this kind may have been sent and not been answered.
func (k *KeyRef) Outstanding(kind CallKind, now time.Time) bool {
	return k != nil && slices.ContainsFunc(k.Calls, func(c Call) bool { return c.Kind == kind && c.remembered(now) })
}

// Deleting reports that a delete may be carried out at any time: the key must never become current again.
func (k *KeyRef) Deleting() bool { return k.Outstanding(CallDelete, time.Time{}) }

// Note adds a call that is about to be sent. Earlier ones of its kind become one, so that there are two at most.
func (k *KeyRef) Note(c Call) {
	earlier := Call{Kind: c.Kind}
	calls := slices.DeleteFunc(slices.Clone(k.Calls), func(old Call) bool {
		if old.Kind == c.Kind && !old.At.Before(earlier.At) {
			earlier.At = old.At
		}
		return old.Kind == c.Kind
	})
	if len(calls) < len(k.Calls) {
		calls = append(calls, earlier)
	}
	k.Calls = append(calls, c)
}

// Settle takes the note of a call away that was answered, or never sent.
func (k *KeyRef) Settle(id string) {
	k.Calls = slices.DeleteFunc(slices.Clone(k.Calls), func(c Call) bool { return c.ID == id && id != "" })
}

// forgetCalls drops the notes that explain nothing any more, and dates those whose time is unknown or yet to come.
func (k *KeyRef) forgetCalls(now time.Time) {
	k.Calls = slices.DeleteFunc(slices.Clone(k.Calls), func(c Call) bool { return !c.remembered(now) })
	for i := range k.Calls {
		if c := &k.Calls[i]; c.At.IsZero() || c.At.After(now) {
			c.At = now
		}
	}
}
