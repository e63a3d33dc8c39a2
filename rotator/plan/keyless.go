package plan

import "github.com/rekeyd/rekeyd/rotator/ledger"

// MayBe reports that the record may hold the key's secret: by its hash, by what it says, or because that is not known.
func (v RecordView) MayBe(k ledger.KeyRef) bool {
	return v.HasValue && (v.Match == k.ID || v.KeyID == k.ID || v.Match == "" && k.Hash == "")
}
