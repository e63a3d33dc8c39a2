package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Action is a kind of step.
type Action string

// The actions. After each, everything is observed and planned again.
const (
	ActRecover Action = "recover" // settle unfinished work
	ActAdopt   Action = "adopt"   // make an existing key current; writes only the ledger
	ActInherit Action = "inherit" // take over the entry of the policy that this one replaces
	ActFollow  Action = "follow"  // the record was rolled back: make the ledger agree
	ActEnable  Action = "enable"  // undo a late disable of our own
	ActSweep   Action = "sweep"   // delete a key whose rotation was abandoned
	ActDisable Action = "disable" // overlap to quarantine
	ActDelete  Action = "delete"  // quarantine to deleted
	ActRotate  Action = "rotate"  // a new key
	ActPatch   Action = "patch"   // give the current key the policy's settings
	ActProve   Action = "prove"   // probe the current key with the record's secret, or a disabled key with its own
)

// Step is one action, on which key, and why.
type Step struct {
	Action    Action         `json:"action"`
	Reason    ledger.Trigger `json:"reason"`
	KeyID     string         `json:"key_id,omitempty"`
	Workspace string         `json:"-"`
	Account   string         `json:"-"`
}

// State is the state of a policy; the words are a metric label.
type State string

// The states of a policy.
const (
	StateOK        State = "ok"
	StateDue       State = "due"
	StateRotating  State = "rotating"
	StateFailing   State = "failing"
	StateThrottled State = "throttled"
	StatePaused    State = "paused"
	StateError     State = "error" // a person has to decide
)

// States returns every state.
func States() []State {
	return []State{StateOK, StateDue, StateRotating, StateFailing, StateThrottled, StatePaused, StateError}
}

// ListedKey is a key with the workspace that lists it. The key is the listing's own: read-only.
type ListedKey struct {
	Workspace string
	*elevenlabs.Key
}

// NoKey is no listed key: it has no id.
func NoKey() ListedKey { return ListedKey{Key: new(elevenlabs.Key)} }

// RecordView is what the planner needs of a record. It holds no secret, so it can be kept.
type RecordView struct {
	Version  int // 0: never written
	HasValue bool
	Match    string // id of the current or retiring key with the value's salted hash; else ""
	KeyID    string
	Policy   string
	Ending   string // the end of the value that a hint may show; "" if the value is too short to be a key
	Foreign  string // if there is no value: the fields with rekeyd's names that rekeyd did not write
}

// Request is a person's request for a rotation now.
type Request struct {
	NotKey string // the key to replace
	// NotRotation is a rotation that had published but not committed its key when the request was accepted. Readers had that
	// key, so it is to be replaced too.
	NotRotation string
	Revoke      bool // done only when every older key is disabled
	By          ledger.By
	Reason      string // the person's words, for log and history
	Failed      bool   // it was tried and failed; it is backed off like any rotation now
	// Pending says that the key to replace is not known yet: it is the current key at the first read of the ledger after the
	// request was accepted, or else the first key that becomes current.
	Pending bool
	Read    bool // the ledger was read since then, and had no current key
}

// Observed is all that Plan knows besides the policy. With the zero value it plans nothing.
type Observed struct {
	LedgerError string        // the entry exists but cannot be parsed
	Entry       *ledger.Entry // nil: none
	Inherits    string        // the policy whose entry this one may take over
	Record      *RecordView   // nil: not read
	Listed      bool          // the policy's workspace answered a listing
	Found       bool          // … and lists the service account
	Keys        []ListedKey   // the keys of the policy's account and of the current key's, and all that carry its name
	HomeListed  bool          // the current key's account was listed after the key was published

	Owner   string   // this installation's id
	InUse   []string // ids of retiring keys whose usage grew within the last two listings
	Idle    []string // … of those unused for two listings; the others are unknown
	Enabled []string // … of those in quarantine that a later listing shows as enabled
	Used    bool     // the current key was seen in use since it became current

	Elsewhere map[string]string // key id to policy: keys of other policies that this one might take for its own

	GroupHeld string // the other policy that holds the group, if that was read; "": none

	AdminRefused bool      // the workspace's admin key was refused
	OthersDue    bool      // other policies go first: those of the admin key's workspace, or a member of the group
	Answers      time.Time // since when the workspace answers, as far as this process knows

	ClaimExpired bool // the claim was seen unchanged for a claim TTL
	ClaimOurs    bool // the claim is this process's own, and no work is under way

	MissingTwice bool                   // two listings, one interval apart, lacked the current key
	Proof        elevenlabs.ProbeResult // the result of probing the record's secret since, if it was
	Differs      bool                   // other settings were applied after this process loaded the policy
	Displaced    bool                   // another replica has moved the key away from the policy's place since then

	Skew         time.Duration // by which this host's clock is wrong, if above MaxSkew; else 0
	ClockUnknown bool          // the workspace has not answered this process yet, so the clock is unconfirmed

	Rotations    int // of the workspace in the last hour, as far as this replica knows
	MaxRotations int
	RoomAt       time.Time // when the oldest rotation of the last hour will be an hour ago
	Uncounted    bool      // entries of the workspace are unread, so Rotations is incomplete
	RetryAt      time.Time // next attempt, if the ledger could not be written
	PatchAfter   time.Time // a patch failed: the next attempt
	Request      *Request
	Pacing       Pacing // earlier failed tries
}

// Decision is the result of Plan.
type Decision struct {
	Outlook
	Later map[Step]time.Time // the steps that have to wait, and until when
	Wake  time.Time          // when this decision may change by itself; zero: never
}

// Outlook is the part of a decision that is kept: it is shown, and decisions about other policies read it.
type Outlook struct {
	Steps   []Step
	State   State
	Reason  Reason    // why it is due, waits, fails, or is in error; nil when all is well
	Message string    // the error in a sentence
	HeldBy  string    // with WaitGroup: the policy that holds the group
	NextDue time.Time // when the next rotation, or the next try of a failed one, begins; zero: never
	// NextReason is what makes it due (schedule, max_age, first), or as a Delayed what delays it, too (window, backoff, throttled).
	NextReason Reason
	Leaves     map[string]time.Time // when each retiring key is disabled or deleted, at the latest: by its id
	Missing    map[string][]Wait    // the evidence that ends a retiring key's overlap earlier: by its id
	Drift      []string
}

// wakeAt sets Wake to t, unless it is earlier already.
func (d *Decision) wakeAt(t time.Time) {
	if d.Wake.IsZero() || t.Before(d.Wake) {
		d.Wake = t
	}
}

func (d *Decision) add(s Step) { d.Steps = append(d.Steps, s) }

// Rotates reports whether a rotation is among the steps.
func (d Outlook) Rotates() bool {
	return slices.ContainsFunc(d.Steps, func(s Step) bool { return s.Action == ActRotate })
}

// fail turns the decision into an error, which a person has to resolve before anything is rotated.
func (d Decision) fail(f Fault, format string, args ...any) Decision {
	d.State, d.Reason, d.Message = StateError, f, fmt.Sprintf(format, args...)
	d.NextDue, d.NextReason = time.Time{}, nil
	return d
}

// wants reports whether the request is to replace this key.
func (q *Request) wants(c ledger.KeyRef) bool {
	return c.ID == q.NotKey || q.NotRotation != "" && c.Rotation == q.NotRotation
}

// Fulfilled reports whether the key to replace is no longer current and, if requested, every older key is disabled.
func (q *Request) Fulfilled(e *ledger.Entry) bool {
	if q.Pending || e == nil || e.Current == nil || q.wants(*e.Current) {
		return false
	}
	for _, k := range e.Retiring {
		if q.Revoke && k.State == ledger.InOverlap {
			return false
		}
	}
	return true
}
