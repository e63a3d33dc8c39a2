package rotator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
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

const callIDLength = 6

// remembered reports that the call may still explain what is seen of its key.
func (c Call) remembered(now time.Time) bool {
	return c.Kind == CallDelete || c.At.IsZero() || now.Sub(c.At) <= callRemembered
}

// outstanding reports that a call of this kind may have been sent and not been answered.
func (k *KeyRef) outstanding(kind CallKind, now time.Time) bool {
	return k != nil && slices.ContainsFunc(k.Calls, func(c Call) bool { return c.Kind == kind && c.remembered(now) })
}

// deleting reports that a delete may be carried out at any time: the key must never become current again.
func (k *KeyRef) deleting() bool { return k.outstanding(CallDelete, time.Time{}) }

// note adds a call that is about to be sent. Earlier ones of its kind become one, so that there are two at most.
func (k *KeyRef) note(c Call) {
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

// settle takes the note of a call away that was answered, or never sent.
func (k *KeyRef) settle(id string) {
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

// newCall is a call that is about to be noted, and sent after that.
func (j *job) newCall(kind CallKind) (Call, error) {
	id, err := j.r.newID(callIDLength)
	return Call{Kind: kind, ID: id, At: j.r.Wall()}, err
}

// send carries out a call that the ledger has a note of.
func (j *job) send(ctx context.Context, c Call, key KeyRef) error {
	now, err := j.ready(ctx)
	if err == nil {
		err = j.sendNow(now, c.Kind, key)
	}
	if !elevenlabs.MaybeApplied(err) {
		j.settled(c)
	}
	return err
}

// settled has the note of a call that was answered, or never sent, taken away by the next write of the entry.
func (j *job) settled(c Call) { j.answered = append(j.answered, c.ID) }

func (j *job) sendNow(ctx context.Context, kind CallKind, key KeyRef) error {
	if kind == CallDelete {
		if err := j.api.DeleteKey(ctx, key.Account, key.ID); err != nil {
			return fmt.Errorf("deleting key %s: %w", key.ID, err)
		}
		return nil
	}
	on, verb := kind == CallEnable, "disabling"
	if on {
		verb = "enabling"
	}
	if err := j.api.UpdateKey(ctx, key.Account, key.ID, elevenlabs.Update{Name: key.Name, Enabled: &on}); err != nil {
		return fmt.Errorf("%s key %s: %w", verb, key.ID, err)
	}
	return nil
}
