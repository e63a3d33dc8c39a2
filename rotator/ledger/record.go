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

// Record is the document that readers read at a policy's sink path.
type Record struct {
	Secret             secret.Secret // zero when the field is absent
	KeyID              string
	RotatedAt          time.Time
	PreviousKeyID      string
	PreviousValidUntil time.Time

	Doc    Doc
	Fields map[string]any
}

// ParseRecord parses a record leniently: the planner handles manual edits, so they are not errors here.
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
		// Not ours and not empty: it counts as an unknown value.
		r.Secret = secret.New(fmt.Sprint(v))
	}
	return r
}

// Text returns a field, "" if it is absent or not a string.
func (r Record) Text(field string) string {
	s, _ := r.Fields[field].(string)
	return s
}

func (r Record) time(field string) time.Time {
	t, err := time.Parse(time.RFC3339, r.Text(field))
	if err != nil {
		return time.Time{} // absent or edited by hand
	}
	return t
}

// Foreign returns the fields of a record that have rekeyd's names although rekeyd did not write the record, if it has no value.
// Publishing would overwrite them.
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

// SameValue reports whether both records have the same secret and key id.
func (r Record) SameValue(o Record) bool {
	return r.Secret.Reveal() == o.Secret.Reveal() && r.KeyID == o.KeyID
}

// DeletedAfter reports whether the version after o was written and then deleted, so that its content is unknown.
func (r Record) DeletedAfter(o Record) bool {
	return r.Doc.JSON == nil && r.Doc.Version == o.Doc.Version+1
}

// With returns the record's data with the new key in it; other writers' fields stay unchanged.
func (r Record) With(p Publication) map[string]any {
	data := maps.Clone(r.Fields)
	if data == nil {
		data = map[string]any{}
	}
	data[p.Sink.Field] = p.Secret.Reveal()
	data[fieldKeyID] = p.ID
	data[fieldKeyName] = p.Name
	data[FieldPolicy] = p.Policy
	data[fieldAccount] = p.Account
	data[fieldRotatedAt] = p.Published.UTC().Format(time.RFC3339)
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
	KeyRef
	Secret        secret.Secret
	Policy        string
	PreviousID    string
	PreviousUntil time.Time
}
