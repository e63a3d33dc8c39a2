package plan

import (
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Action is one kind of thing that can be done about a policy.
type Action string

// The actions. Each is carried out whole, then everything is looked at again.
const (
	ActRecover Action = "recover" // settle work that did not come to its end
	ActAdopt   Action = "adopt"   // take an existing key over as current; writes the ledger only
	ActInherit Action = "inherit" // take over the entry of the policy that this one replaces
	ActFollow  Action = "follow"  // the record was rolled back: make the ledger agree
	ActEnable  Action = "enable"  // undo a late disable of our own
	ActSweep   Action = "sweep"   // delete a key whose rotation was abandoned
	ActDisable Action = "disable" // overlap to quarantine
	ActDelete  Action = "delete"  // quarantine to gone
	ActRotate  Action = "rotate"  // a new key
	ActPatch   Action = "patch"   // give the current key the policy's settings
	ActProve   Action = "prove"   // ask with the sink's secret whether the current key lives
)

// Step is one thing to do, on which key, and why.
type Step struct {
	Action    Action        `json:"action"`
	Reason    ledger.Reason `json:"reason"`
	KeyID     string        `json:"key_id,omitempty"`
	Workspace string        `json:"-"`
	Account   string        `json:"-"`
}

// State is how a policy stands; the words are a metric label.
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

// States is every state.
func States() []State {
	return []State{StateOK, StateDue, StateRotating, StateFailing, StateThrottled, StatePaused, StateError}
}

// ListedKey is a key with the place where it was listed.
type ListedKey struct {
	Workspace string
	elevenlabs.Key
}

// RecordView is what the planner needs of a record. It holds no secret, so it can be kept.
type RecordView struct {
	Version            int // 0: never written
	HasValue           bool
	Match              string // id of the key, current or retiring, whose salted hash the value has; else ""
	Hash               string // under the entry's salt; "" without an entry
	KeyID              string
	Policy             string
	RotatedAt          time.Time
	PreviousKeyID      string
	PreviousValidUntil time.Time
	Ending             string   // of the value, what a hint may show of it; "" where it is too short to be a key
	Foreign            []string // without a value: the fields with rekeyd's names that rekeyd did not write
}

// Request is a person's wish for a rotation now.
type Request struct {
	NotKey string // the key that must not be current any more when it is done
	// NotRotation is a rotation that had published its key, but not committed it, when the request was accepted: readers had
	// that key, so it is the one to be replaced.
	NotRotation string
	Revoke      bool   // every older key is disabled before it is done
	Reason      string // the person's words, for the log
	Failed      bool   // it was tried; from now on it is backed off like any other rotation
	// Pending: which key is to be replaced is not known yet: the one that is current when the ledger is read after the
	// request was accepted, or where there is none then, the first one that is.
	Pending bool
	Read    bool // the ledger was read since then, and had no current key
}

// Observed is all that Plan knows of the world besides the policy. The zero value knows nothing, and so plans nothing.
type Observed struct {
	LedgerError string        // the entry exists and cannot be understood
	Entry       *ledger.Entry // nil: none
	Inherits    string        // the removed policy whose entry may be taken: without one, because the record holds its current key
	Record      *RecordView   // nil: not read
	Listed      bool          // the policy's workspace answered a listing
	Found       bool          // … in which the service account was
	Keys        []ListedKey   // the keys of the policy's account and of the current key's, and all that carry its name
	HomeListed  bool          // the current key's account was listed after the key was published

	Owner   string   // this installation's id
	InUse   []string // ids of retiring keys whose usage grew within the last two listings
	Idle    []string // … of those that were seen to stand still for two; of others nothing is known yet
	Enabled []string // … of those in quarantine that a listing of the time since then shows as enabled

	Elsewhere map[string]string // which other policies have keys that this one might take for its own: id to policy

	GroupHeld string // the other policy that holds the group, where that was asked; "": none

	AdminRefused bool      // the workspace's admin key was refused
	OthersDue    bool      // others are to go first: those of the workspace whose admin key this is, or a member of its group
	Answers      time.Time // since when the workspace does, as far as this process knows

	ClaimExpired bool // the claim was seen unchanged for a claim TTL
	ClaimOurs    bool // it is this process's own, and no work on it is under way

	MissingTwice bool                   // two listings, one interval apart, lacked the current key
	Proof        elevenlabs.ProbeResult // what the sink's secret answered since
	Differs      bool                   // other settings were applied after this process loaded the policy
	Displaced    bool                   // another replica has moved the key away from where the policy says since then

	Skew         time.Duration // by which this host's clock is wrong, where that is too much; 0: it is not
	ClockUnknown bool          // the workspace has not answered this process yet, so nothing vouches for the clock

	Rotations    int // of the workspace in the last hour, as far as this replica knows
	MaxRotations int
	Uncounted    bool      // entries of the workspace are unread, so that nobody knows how many there were
	RetryAt      time.Time // next attempt, where the ledger could not be told
	PatchAfter   time.Time // a patch failed: the next attempt
	Request      *Request
	Pacing       Pacing // what was tried in vain
}

// Decision is what Plan concludes.
type Decision struct {
	Steps   []Step
	State   State
	Reason  ledger.Reason // why it is due, waits, or is in error; "" when all is well
	Message string        // the error in a sentence
	HeldBy  string        // with ReasonGroup: the member whose turn it is
	NextDue time.Time     // when the next rotation, or the next attempt at one that failed, will begin; zero: none will
	// NextReason is what makes it due: schedule, max_age, or window and backoff, which held it up.
	NextReason ledger.Reason
	Leaves     map[string]time.Time // when each retiring key is disabled or deleted, at the latest: by its id
	Drift      []string
	Later      map[Step]time.Time // those of the steps that were tried in vain, and when they may be tried again
	Wake       time.Time          // when time alone may change this decision; zero: never
}

// wakeAt has the policy looked at again at t.
func (d *Decision) wakeAt(t time.Time) {
	if d.Wake.IsZero() || t.Before(d.Wake) {
		d.Wake = t
	}
}

func (d *Decision) add(s Step) { d.Steps = append(d.Steps, s) }

// fail makes it an error, which a person has to settle before anything is rotated.
func (d Decision) fail(reason ledger.Reason, format string, args ...any) Decision {
	d.State, d.Reason, d.Message = StateError, reason, fmt.Sprintf(format, args...)
	d.NextDue, d.NextReason = time.Time{}, ""
	return d
}

// wants reports that this very key is to be replaced.
func (q *Request) wants(c ledger.KeyRef) bool {
	return c.ID == q.NotKey || q.NotRotation != "" && c.Rotation == q.NotRotation
}

// Fulfilled reports that the key which was current at the request is not any more, nor any older one enabled where
// that was asked for.
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
