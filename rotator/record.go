package rotator

import (
	"fmt"
	"maps"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

// The fields of a record beside the one that holds the secret.
const (
	fieldKeyID              = "key_id"
	fieldKeyName            = "key_name"
	fieldPolicy             = "policy"
	fieldAccount            = "service_account_user_id"
	fieldRotatedAt          = "rotated_at"
	fieldPreviousKeyID      = "previous_key_id"
	fieldPreviousValidUntil = "previous_valid_until"
)

// RecordFields are the names that a record's secret field must not have.
func RecordFields() []string {
	return []string{fieldKeyID, fieldKeyName, fieldPolicy, fieldAccount, fieldRotatedAt, fieldPreviousKeyID, fieldPreviousValidUntil}
}

// Record is what a reader finds at a policy's sink path.
type Record struct {
	Secret             elevenlabs.Secret // zero when the field is absent
	KeyID              string
	RotatedAt          time.Time
	PreviousKeyID      string
	PreviousValidUntil time.Time

	doc    Doc
	fields map[string]any
}

// parseRecord reads a record leniently: what people did to it is noticed by the planner, not refused here.
func parseRecord(doc Doc, field string) Record {
	r := Record{doc: doc, fields: doc.Fields()}
	r.KeyID, r.RotatedAt = r.text(fieldKeyID), r.time(fieldRotatedAt)
	r.PreviousKeyID, r.PreviousValidUntil = r.text(fieldPreviousKeyID), r.time(fieldPreviousValidUntil)
	switch v := r.fields[field].(type) {
	case nil:
	case string:
		if v != "" {
			r.Secret = elevenlabs.NewSecret(v)
		}
	default:
		// Not ours and not empty: it must be seen as a value that nobody can place.
		r.Secret = elevenlabs.NewSecret(fmt.Sprint(v))
	}
	return r
}

func (r Record) text(field string) string {
	s, _ := r.fields[field].(string)
	return s
}

func (r Record) time(field string) time.Time {
	t, err := time.Parse(time.RFC3339, r.text(field))
	if err != nil {
		return time.Time{} // absent, or edited by hand: unknown
	}
	return t
}

// foreign returns the fields with rekeyd's names of a record without a value that rekeyd never wrote: publishing would
// overwrite what others keep there.
func (r Record) foreign() (names []string) {
	if _, _, _, ours := parseKeyName(r.text(fieldKeyName)); ours || !r.Secret.IsZero() {
		return nil
	}
	for _, name := range RecordFields() {
		if _, there := r.fields[name]; there {
			names = append(names, name)
		}
	}
	return names
}

// holds reports whether the record publishes the key of this name.
func (r Record) holds(keyName string) bool {
	return r.text(fieldKeyName) == keyName && !r.Secret.IsZero()
}

// sameValue reports that nothing but fields of others differs.
func (r Record) sameValue(o Record) bool {
	return r.Secret.Reveal() == o.Secret.Reveal() && r.KeyID == o.KeyID
}

// deletedAfter reports that the version which follows o was written, and deleted since: whose it was cannot be read.
func (r Record) deletedAfter(o Record) bool {
	return r.doc.JSON == nil && r.doc.Version == o.doc.Version+1
}

// withKey returns the record's data with the new key in it; the fields of others stay as they are.
func (r Record) withKey(p publication) map[string]any {
	data := maps.Clone(r.fields)
	if data == nil {
		data = map[string]any{}
	}
	data[p.sink.Field] = p.secret.Reveal()
	data[fieldKeyID] = p.keyID
	data[fieldKeyName] = p.keyName
	data[fieldPolicy] = p.policy
	data[fieldAccount] = p.account
	data[fieldRotatedAt] = p.at.UTC().Format(time.RFC3339)
	delete(data, fieldPreviousKeyID)
	delete(data, fieldPreviousValidUntil)
	if p.previousID != "" {
		data[fieldPreviousKeyID] = p.previousID
		data[fieldPreviousValidUntil] = p.previousUntil.UTC().Format(time.RFC3339)
	}
	return data
}

// publication is one key on its way into a record.
type publication struct {
	sink                            Sink
	secret                          elevenlabs.Secret
	policy, account, keyID, keyName string
	at                              time.Time
	previousID                      string
	previousUntil                   time.Time
}
