package plan

import "github.com/rekeyd/rekeyd/rotator/ledger"

// MayBe reports whether the record may hold the key's secret: its hash or key id says so, or both hashes are unknown.
func (v RecordView) MayBe(k ledger.KeyRef) bool {
	return v.HasValue && (v.Match == k.ID || v.KeyID == k.ID || v.Match == "" && k.Hash == "")
}
