package ledger

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Group is the ledger's document about one group, groups/NAME. Nobody has to clear it: a hold ends with what its
// policy's own entry says, so a holder that crashed, was removed, renamed or paused blocks nobody for ever.
type Group struct {
	Schema int    `json:"schema"`
	Holds  []Hold `json:"holds"`
}

// Hold says that a policy had this intent in its entry when it was written. It is good for as long as that entry has that
// intent, or any key in overlap.
type Hold struct {
	Policy   string `json:"policy"`
	Rotation string `json:"rotation"`
	// WaitUntilIdle is the policy's: for how long its overlap may be prolonged.
	WaitUntilIdle Duration `json:"wait_until_idle,omitzero"`
}

// HoldGrace is for how long work that should be over still counts: an overlap whose key nobody disables, an intent that
// nobody here would settle.
const HoldGrace = time.Hour

// ParseGroup reads a group's document. One that does not exist holds nothing; one that cannot be understood is an error.
func ParseGroup(text json.RawMessage, group string) (Group, error) {
	g := Group{Schema: Schema}
	if text == nil {
		return g, nil
	}
	err := DecodeStrictly(text, &g)
	if err == nil && g.Schema != Schema {
		err = fmt.Errorf("its schema is %d and this build knows %d", g.Schema, Schema)
	}
	if err != nil {
		return g, fmt.Errorf("reading group %s: %w", group, err)
	}
	return g, nil
}

// HoldsGroup reports that the policy is between claim and end of overlap.
func (e *Entry) HoldsGroup(h Hold, attended bool, now time.Time) bool {
	if in := e.Intent; in != nil && in.Rotation == h.Rotation && (attended || now.Before(in.Started.Add(HoldGrace))) {
		return true
	}
	return slices.ContainsFunc(e.Retiring, func(k Retiring) bool {
		return k.State == InOverlap && now.Before(k.Until.Add(time.Duration(h.WaitUntilIdle)+HoldGrace))
	})
}
