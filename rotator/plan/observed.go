package plan

import (
	"strings"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// WantsRecord reports whether planning needs the record.
func WantsRecord(p Policy, e *ledger.Entry) bool {
	return e == nil || (e.Claim == nil && (e.Current == nil || Moved(p, *e.Current)))
}

// Unexplained returns the ids of the policy's listed keys that the cached entry does not know.
func Unexplained(o Observed) (ids string) {
	if o.Entry == nil {
		return ""
	}
	for _, k := range o.Keys {
		if owner, policy, rotation, ok := ledger.ParseKeyName(k.Name); ok && owner == o.Entry.Owner && policy == o.Entry.Policy && !o.Entry.Knows(k.ID, rotation) {
			ids += " " + k.ID
		}
	}
	return ids
}

// View compares a record's value with the keys that the entry knows.
func View(rec ledger.Record, e *ledger.Entry) *RecordView {
	v := &RecordView{
		Version: rec.Doc.Version, HasValue: !rec.Secret.IsZero(), KeyID: rec.KeyID, Policy: rec.Text(ledger.FieldPolicy),
		Ending: Ending(rec.Secret.Reveal()), Foreign: strings.Join(rec.Foreign(), ", "),
	}
	if e == nil || !v.HasValue {
		return v
	}
	hash := ledger.HashValue(e.Salt, rec.Secret.Reveal())
	if c := e.Current; c != nil && c.Hash == hash {
		v.Match = c.ID
		if v.KeyID == c.ID && v.Policy == e.Policy {
			v.KeyID, v.Policy = c.ID, e.Policy // not the copies that are equal: a view is kept
		}
		return v
	}
	for _, k := range e.Retiring {
		if k.Hash == hash {
			v.Match = k.ID
		}
	}
	return v
}
