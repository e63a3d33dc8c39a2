package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Doc is one document as a [Store] holds it.
type Doc struct {
	// JSON is the document as it was read, a JSON object; nil when there is nothing to read: never written, deleted or
	// destroyed.
	JSON json.RawMessage
	// Version is the version that was read. Of the newest (Read with version 0) it is the current version of
	// the metadata, the check-and-set value of the next write, also when that version was deleted; 0 means that
	// nothing was ever written.
	Version int
}

// Fields takes the document apart, numbers as they are written; nil when there is nothing to read.
func (d Doc) Fields() map[string]any {
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(d.JSON))
	dec.UseNumber()
	if dec.Decode(&fields) != nil {
		return nil // it is nothing: a store returns objects only
	}
	return fields
}

// Store keeps versioned documents: the records that readers read, and the ledger. Its writes are durable when
// they return. It never retries a write; it may retry a read.
//
// Every error is an [*Error] or wraps one, except ErrConflict and the context's own.
type Store interface {
	// Read returns the given version of a document, the newest when version is 0. A document that does not exist
	// is no error: JSON is nil. It is an error where the mount itself is missing or of the wrong kind.
	Read(ctx context.Context, ref Ref, version int) (Doc, error)
	// Write makes data the next version if the current one is cas, and returns that next version. ErrConflict
	// means for certain that nothing was written. Of any other error, Error.MaybeApplied says whether the write
	// may have happened all the same.
	Write(ctx context.Context, ref Ref, data map[string]any, cas int) (int, error)
	// List returns the names directly below ref, folders with a trailing slash; none is no error.
	List(ctx context.Context, ref Ref) ([]string, error)
	// Check says whether every one of refs could be read and written now. What it learnt it may remember for a
	// resync interval, and forgets at the first refusal.
	Check(ctx context.Context, refs ...Ref) error
}

// ErrConflict is returned by Store.Write when the current version is not the expected one.
var ErrConflict = errors.New("the document was changed by someone else")

// Error is the failure of one call to a remote party, or of one stage of a rotation.
type Error struct {
	Op     string // verb phrase: "writing secret/elevenlabs/tts-prod"
	Reason Reason
	// Outage says that the remote as a whole does not serve (unreachable, sealed, refusing our token), as opposed
	// to refusing this one request: it is probed once per reconcile interval, not backed off per policy.
	Outage bool
	// MaybeApplied says that a write may have happened although its answer was lost.
	MaybeApplied bool
	Advice       string // what a person can do; may be empty
	Err          error
}

func (e *Error) Error() string {
	s := e.Op
	if e.Err != nil {
		s = fmt.Sprintf("%s: %v", s, e.Err)
	}
	if e.Advice != "" {
		s += "; " + e.Advice
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// IsOutage reports that the store as a whole does not serve.
func IsOutage(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.Outage
}

// MaybeWritten reports that a store's write may have happened although it failed.
func MaybeWritten(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.MaybeApplied
}

const maxMessage = 300

// Shorten bounds what of an error is kept in the ledger and shown.
func Shorten(s string) string {
	if r := []rune(s); len(r) > maxMessage {
		return string(r[:maxMessage-1]) + "…"
	}
	return s
}
