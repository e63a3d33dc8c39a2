package rotator

import (
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// EventType is the name of a state change in events, after the prefix "rekeyd.".
type EventType string

// The state changes that Options.Observe receives.
const (
	EventRotated     EventType = "rotated"
	EventFailed      EventType = "failed"
	EventKeyDisabled EventType = "key_disabled" // outside rekeyd
	EventRetired     EventType = "retired"      // rekeyd disabled or deleted a former key
	EventDrifted     EventType = "drifted"
	EventError       EventType = "error" // a person has to decide
	EventLostDeleted EventType = "lost_deleted"
	EventRetireError EventType = "retire_failed"
)

// Event is one state change. It never holds a secret.
type Event struct {
	Type               EventType
	At                 time.Time
	Policy, Workspace  string
	KeyID, KeyName     string
	PreviousKeyID      string
	PreviousValidUntil time.Time
	Stage              ledger.Stage // of a failure
	Reason             plan.Reason
	Evidence           []Evidence    // that the new key works, or that the old one does not
	Duration           time.Duration // of a rotation or a failed one
}

// Evidence is what a rotation or a retirement was proven by: one of these words, or one of a [ledger.Proof].
type Evidence string

// What a new key was proven by before it was published.
const (
	EvidenceVerified Evidence = "verified" // ElevenLabs accepted its secret
	EvidenceProbed   Evidence = "probed"   // every probe was answered 2xx
)

// evidenceOf returns what proved a new key.
func evidenceOf(key ledger.KeyRef, e *ledger.Entry) []Evidence {
	var all []Evidence
	if key.Verified {
		all = append(all, EvidenceVerified)
	}
	history := e.Rotations()
	if n := len(history); n > 0 && history[n-1].KeyID == key.ID && history[n-1].Probed() {
		all = append(all, EvidenceProbed)
	}
	return all
}

// endEvidence returns what is known of the end of a key that was replaced.
func endEvidence(keyID string, e *ledger.Entry) []Evidence {
	if e == nil {
		return nil
	}
	if past := e.PastOf(keyID); past != nil && past.Proof != "" {
		return []Evidence{Evidence(past.Proof)}
	}
	return nil
}
