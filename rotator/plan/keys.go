package plan

import (
	"slices"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// KeyCounts counts a policy's keys at ElevenLabs.
type KeyCounts struct {
	Current    int32 `json:"current"`
	Overlap    int32 `json:"overlap"`
	Quarantine int32 `json:"quarantine"`
	Lost       int32 `json:"lost"`    // with this policy's name, but not in its ledger entry
	Foreign    int32 `json:"foreign"` // of the account, made outside rekeyd
}

// CauseOf maps ElevenLabs' reason to the closed set of labels.
func CauseOf(s string) DisableCause {
	if c := DisableCause(s); slices.Contains(DisableCauses(), c) {
		return c
	}
	return DisabledOther
}

// CountKeys counts the policy's keys by kind.
func CountKeys(p Policy, o Observed) KeyCounts {
	var n KeyCounts
	e := o.Entry
	if e != nil {
		for _, r := range e.Retiring {
			if r.State == ledger.InOverlap {
				n.Overlap++
			} else {
				n.Quarantine++
			}
		}
		if e.Current != nil {
			n.Current = 1
		}
	}
	for _, k := range o.Keys {
		owner, policy, rotation, ok := ledger.ParseKeyName(k.Name)
		switch ours := ok && owner == o.Owner; {
		case e != nil && e.Explains(*k.Key, rotation):
		case ours && policy == p.Name:
			n.Lost++
		case !ours && k.Workspace == p.Workspace && k.ServiceAccount == p.ServiceAccount:
			n.Foreign++
		}
	}
	return n
}
