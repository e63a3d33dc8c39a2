package ledger

import (
	"fmt"
	"maps"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// The fields of a record beside the one that holds the secret.
const (
	fieldKeyID              = "key_id"
	fieldKeyName            = "key_name"
	FieldPolicy             = "policy"
	fieldAccount            = "service_account_user_id"
	fieldRotatedAt          = "rotated_at"
	fieldPreviousKeyID      = "previous_key_id"
	fieldPreviousValidUntil = "previous_valid_until"
)

// RecordFields are the names that a record's secret field must not have.
func RecordFields() []string {
	return []string{fieldKeyID, fieldKeyName, FieldPolicy, fieldAccount, fieldRotatedAt, fieldPreviousKeyID, fieldPreviousValidUntil}
}

// Record is what a reader finds at a policy's sink path.
type Record struct {
	Secret             secret.Secret // zero when the field is absent
	KeyID              string
	RotatedAt          time.Time
	PreviousKeyID      string
	PreviousValidUntil time.Time

	Doc    Doc
	Fields map[string]any
}

// ParseRecord reads a record leniently: what people did to it is noticed by the planner, not refused here.
func ParseRecord(doc Doc, field string) Record {
	r := Record{Doc: doc, Fields: doc.Fields()}
	r.KeyID, r.RotatedAt = r.Text(fieldKeyID), r.time(fieldRotatedAt)
	r.PreviousKeyID, r.PreviousValidUntil = r.Text(fieldPreviousKeyID), r.time(fieldPreviousValidUntil)
	switch v := r.Fields[field].(type) {
	case nil:
	case string:
		if v != "" {
			r.Secret = secret.New(v)
		}
	default:
		// Not ours and not empty: it must be seen as a value that nobody can place.
		r.Secret = secret.New(fmt.Sprint(v))
	}
	return r
}

// Text returns a field, "" where it is absent or not a text.
func (r Record) Text(field string) string {
	s, _ := r.Fields[field].(string)
	return s
}

func (r Record) time(field string) time.Time {
	t, err := time.Parse(time.RFC3339, r.Text(field))
	if err != nil {
		return time.Time{} // absent, or edited by hand: unknown
	}
	return t
}

// Foreign returns the fields with rekeyd's names of a record without a value that rekeyd never wrote: publishing would
// overwrite what others keep there.
func (r Record) Foreign() (names []string) {
	if _, _, _, ours := ParseKeyName(r.Text(fieldKeyName)); ours || !r.Secret.IsZero() {
		return nil
	}
	for _, name := range RecordFields() {
		if _, there := r.Fields[name]; there {
			names = append(names, name)
		}
	}
	return names
}

// Publishes reports whether the record publishes the key of this name.
func (r Record) Publishes(keyName string) bool {
	return r.Text(fieldKeyName) == keyName && !r.Secret.IsZero()
}

// SameValue reports that nothing but fields of others differs.
func (r Record) SameValue(o Record) bool {
	return r.Secret.Reveal() == o.Secret.Reveal() && r.KeyID == o.KeyID
}

// DeletedAfter reports that the version which follows o was written, and deleted since: whose it was cannot be read.
func (r Record) DeletedAfter(o Record) bool {
	return r.Doc.JSON == nil && r.Doc.Version == o.Doc.Version+1
}

// With returns the record's data with the new key in it; the fields of others stay as they are.
func (r Record) With(p Publication) map[string]any {
	data := maps.Clone(r.Fields)
	if data == nil {
		data = map[string]any{}
	}
	data[p.Sink.Field] = p.Secret.Reveal()
	data[fieldKeyID] = p.KeyID
	data[fieldKeyName] = p.KeyName
	data[FieldPolicy] = p.Policy
	data[fieldAccount] = p.Account
	data[fieldRotatedAt] = p.At.UTC().Format(time.RFC3339)
	delete(data, fieldPreviousKeyID)
	delete(data, fieldPreviousValidUntil)
	if p.PreviousID != "" {
		data[fieldPreviousKeyID] = p.PreviousID
		data[fieldPreviousValidUntil] = p.PreviousUntil.UTC().Format(time.RFC3339)
	}
	return data
}

// Publication is one key on its way into a record.
type Publication struct {
	Sink                            Sink
	Secret                          secret.Secret
	Policy, Account, KeyID, KeyName string
	At                              time.Time
	PreviousID                      string
	PreviousUntil                   time.Time
}
