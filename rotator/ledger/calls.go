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

// Call is the note of a call about a key, written before the call is sent. Until that call has a definite answer it may take
// effect at any time, even if its sender looks dead.
type Call struct {
	Kind CallKind  `json:"kind"`
	ID   string    `json:"id,omitempty"` // of this call; "" for several merged calls, which no answer settles
	At   time.Time `json:"at"`           // of the newest
}

// callRemembered is how long an unsettled disable or enable explains the state of its key. After that an act of a person is more
// likely. An unsettled delete counts until the key is gone.
const callRemembered = 7 * 24 * time.Hour

// remembered reports whether the call may still explain the state of its key.
func (c Call) remembered(now time.Time) bool {
	return c.Kind == CallDelete || c.At.IsZero() || now.Sub(c.At) <= callRemembered
}

// Outstanding reports whether a call of this kind may be sent and unanswered.
func (k *KeyRef) Outstanding(kind CallKind, now time.Time) bool {
	return k != nil && slices.ContainsFunc(k.Calls, func(c Call) bool { return c.Kind == kind && c.remembered(now) })
}

// Deleting reports whether a delete may take effect at any time, so that the key must not become current again.
func (k *KeyRef) Deleting() bool { return k.Outstanding(CallDelete, time.Time{}) }

// Note adds a call that is about to be sent. It merges earlier calls of the same kind, so that there are at most two.
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

// Settle removes the note of a call that was answered or never sent.
func (k *KeyRef) Settle(id string) {
	k.Calls = slices.DeleteFunc(slices.Clone(k.Calls), func(c Call) bool { return c.ID == id && id != "" })
}

// forgetCalls drops expired notes, and dates those whose time is unknown or in the future.
func (k *KeyRef) forgetCalls(now time.Time) {
	k.Calls = slices.DeleteFunc(slices.Clone(k.Calls), func(c Call) bool { return !c.remembered(now) })
	for i := range k.Calls {
		if c := &k.Calls[i]; c.At.IsZero() || c.At.After(now) {
			c.At = now
		}
	}
}
