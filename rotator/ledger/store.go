package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
)

// Doc is one document as a [Store] holds it.
type Doc struct {
	// JSON is the document, a JSON object; nil if it was never written, or is deleted or destroyed.
	JSON json.RawMessage
	// Version is the version that was read. For the newest one (Read with version 0) it is the current version in the
	// metadata, even if that version is deleted: the check-and-set value of the next write. 0 means never written.
	Version int
}

// Fields decodes the document, with numbers as json.Number; nil if there is no document.
func (d Doc) Fields() map[string]any {
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(d.JSON))
	dec.UseNumber()
	if dec.Decode(&fields) != nil {
		return nil // no document: a store returns only objects
	}
	return fields
}

// Store keeps versioned documents: the records that readers read, and the ledger. Its writes are durable when
// they return. It never retries a write; it may retry a read.
//
// A store of several nodes may answer a read from a node that lags behind the writes; a read in a [Session] then waits for the
// session's last write, where the nodes can tell. A write is refused or applied by what is true.
//
// Every error is an [*Error] or wraps one, except ErrConflict and the context's own.
type Store interface {
	// Read returns the given version of a document, the newest when version is 0. A document that does not exist
	// is no error: JSON is nil. A missing mount, or one of the wrong kind, is an error.
	Read(ctx context.Context, ref Ref, version int) (Doc, error)
	// Write makes data, which encodes as a JSON object, the next version if the current one is cas, and returns that version. ErrConflict
	// means for certain that nothing was written. For any other error, Error.MaybeApplied says whether the write may
	// have happened.
	Write(ctx context.Context, ref Ref, data any, cas int) (int, error)
	// List returns the names directly below ref, folders with a trailing slash; none is no error.
	List(ctx context.Context, ref Ref) ([]string, error)
	// Check returns an error unless all refs could be read and written now. It may cache the result for a resync
	// interval, and drops it at the first refusal.
	Check(ctx context.Context, refs ...Ref) error
	// Lags reports whether a read without a session's index may come from a node that lags.
	Lags(ctx context.Context) bool
}

// Foresight is a Store that checks many documents in one call if it knows beforehand which ones it will be asked about.
type Foresight interface {
	// Expect sets what the store asks when it checks a document: the documents that may be checked next, in their order.
	Expect(refs iter.Seq[Ref])
}

// ErrConflict is returned by Store.Write when the current version is not the expected one.
var ErrConflict = errors.New("the document was changed by another writer")

// Error is the failure of one call to a remote party, or of one stage of a rotation.
type Error struct {
	Op     string // verb phrase: "writing secret/elevenlabs/tts-prod"; "" where Err begins with one
	Reason Failure
	// Outage says that the remote as a whole is down (unreachable, sealed, refusing our token), not that it refused one
	// request: it is probed once per reconcile interval, not backed off per policy.
	Outage bool
	// MaybeApplied says that the write may have happened although its answer was lost.
	MaybeApplied bool
	Advice       string // what a person can do, where that is more than the advice for the reason
	Err          error
}

func (e *Error) Error() string {
	s := e.Op
	switch {
	case e.Err != nil && s == "":
		s = e.Err.Error()
	case e.Err != nil:
		s = fmt.Sprintf("%s: %v", s, e.Err)
	}
	if e.Advice != "" {
		return s + "; " + e.Advice
	}
	return Advise(s, e.Reason)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// IsOutage reports whether the store as a whole is down.
func IsOutage(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.Outage
}

// MaybeWritten reports whether a failed write of the store may have happened.
func MaybeWritten(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.MaybeApplied
}

const maxMessage = 300

// Shorten bounds the length of an error message for ledger and display.
func Shorten(s string) string { return shortenTo(s, maxMessage) }

func shortenTo(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
