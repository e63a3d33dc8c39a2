package ledger

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Group is the ledger's document about one group, groups/NAME. It needs no cleanup: a hold ends by what its policy's entry says,
// so a holder that crashed, was removed, renamed or paused does not block the group for ever.
type Group struct {
	Schema int    `json:"schema"`
	Holds  []Hold `json:"holds"`
}

// Hold says that a policy's entry had this intent when the hold was written. It is valid while that entry has that intent or any
// key in overlap.
type Hold struct {
	Policy   string `json:"policy"`
	Rotation string `json:"rotation"`
	// WaitUntilIdle is by how much the policy lets the overlap be extended.
	WaitUntilIdle Duration `json:"wait_until_idle,omitzero"`
	// Version is the entry's when the hold was written, so that an older answer is not taken for the end of the hold.
	Version int `json:"version,omitempty"`
}

// HoldGrace is how long overdue work still counts: an overlap whose key is not disabled, or an intent that this replica does not
// settle.
const HoldGrace = time.Hour

// ParseGroup parses a group's document. A missing document has no holds.
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

// HoldsGroup reports whether the policy is between claim and end of overlap; managed says that this replica settles its work.
func (e *Entry) HoldsGroup(h Hold, managed bool, now time.Time) bool {
	if in := e.Intent; in != nil && in.Rotation == h.Rotation && (managed || now.Before(in.Started.Add(HoldGrace))) {
		return true
	}
	return slices.ContainsFunc(e.Retiring, func(k Retiring) bool {
		return k.State == InOverlap && now.Before(k.Until.Add(time.Duration(h.WaitUntilIdle)+HoldGrace))
	})
}
