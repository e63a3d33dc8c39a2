package plan

import "github.com/rekeyd/rekeyd/rotator/ledger"

// Reason is why a policy is in its state, or why something happened, in one word: a [ledger.Trigger], a [ledger.Failure], a [Wait],
// a [Delayed] rotation, a [Fault] or a [DisableCause]. It is what is shown: what decides by a word takes the word's own type.
type Reason interface{ Word() string }

// Word returns the word of a reason, "" if there is none.
func Word(r Reason) string {
	if r == nil {
		return ""
	}
	return r.Word()
}

// Wait is why work that is due, or will be, has to wait.
type Wait string

// Why nothing begins now.
const (
	WaitPaused      Wait = "paused"
	WaitRemoved          = Wait(ledger.TriggerRemoved) // the policy is no longer loaded; its current key stays
	WaitBackoff     Wait = "backoff"                   // an attempt failed, and the next is scheduled
	WaitClockSkew   Wait = "clock_skew"                // the clock of this host is wrong
	WaitCallBudget  Wait = "call_budget"               // it used up this hour's calls without success
	WaitOverlap     Wait = "overlap_running"           // an earlier key is still in overlap
	WaitWindow      Wait = "window"                    // the window of this run has closed
	WaitGroup       Wait = "group_busy"                // another member of its group is between claim and end of overlap
	WaitThrottled   Wait = "throttled"                 // REKEYD_MAX_ROTATIONS_PER_HOUR
	WaitClaimed     Wait = "claimed"                   // another replica works on it
	WaitNotObserved Wait = "not_observed"              // ElevenLabs has not been listed yet
	WaitOthersFirst Wait = "others_first"              // an admin key yields to the keys of its workspace, a member of a group to one that waited longer
	// WaitQuarantineEnabled is for a key that a person enabled in quarantine: it is not deleted until it is revoked.
	WaitQuarantineEnabled Wait = "quarantine_enabled"
)

// Which evidence an overlap waits for.
const (
	WaitOldKeyInUse  Wait = "old_key_in_use"
	WaitNewKeyUnused Wait = "new_key_unused"
)

// Word returns the wait as text.
func (w Wait) Word() string { return string(w) }

// Delayed is why a rotation happens later than its trigger would have it. Its word is that of the wait.
type Delayed struct {
	Wait
	Trigger ledger.Trigger
}

// TriggerOf returns the trigger of a rotation that is delayed or not, "" where the reason is none of a rotation.
func TriggerOf(r Reason) ledger.Trigger {
	if d, delayed := r.(Delayed); delayed {
		return d.Trigger
	}
	t, _ := r.(ledger.Trigger)
	return t
}

// Fault is why a policy is in the state error: a person has to decide. The words are a metric label.
type Fault string

// The faults of a policy.
const (
	FaultRecordChanged         = Fault(ledger.FailureRecordChanged) // the record holds an unknown value
	FaultLedgerInvalid   Fault = "ledger_invalid"                   // an entry that cannot be parsed
	FaultUnknownAccount  Fault = "unknown_account"                  // the listing lacks the service account
	FaultAdoptUnknown    Fault = "adopt_unknown"                    // the key to adopt does not exist
	FaultAdoptRefused    Fault = "adopt_refused"                    // the record does not hold its secret, or another policy owns it
	FaultSinkField       Fault = "sink_field"                       // the secret's field is one that rekeyd itself writes
	FaultTrialEnded      Fault = "trial_ended"
	FaultDowngraded      Fault = "subscription_downgrade"
	FaultKeyDisabled     Fault = "key_disabled" // by a person, or for an unknown reason
	FaultLeakStorm       Fault = "leak_storm"   // three leak rotations within an hour
	FaultKeyVanished     Fault = "key_vanished" // missing from the listing, without proof that it is gone
	FaultSettingsIgnored Fault = "settings_ignored"
	FaultReplicasDiffer  Fault = "replicas_disagree"
	FaultMovedAway       Fault = "moved_away"         // the entry was taken over under another name
	FaultClockSkew             = Fault(WaitClockSkew) // the clock of this host, or of an earlier writer of the ledger, is wrong
)

// Word returns the fault as text.
func (f Fault) Word() string { return string(f) }

// Faults returns every fault.
func Faults() []Fault {
	return []Fault{
		FaultRecordChanged, FaultLedgerInvalid, FaultUnknownAccount, FaultAdoptUnknown, FaultAdoptRefused, FaultSinkField, FaultTrialEnded, FaultDowngraded,
		FaultKeyDisabled, FaultLeakStorm, FaultKeyVanished, FaultSettingsIgnored, FaultReplicasDiffer, FaultMovedAway, FaultClockSkew,
	}
}

// DisableCause is why ElevenLabs lists a key as disabled. Where that calls for a rotation it is the trigger, where a person has to
// decide it is the fault.
type DisableCause string

// The causes that ElevenLabs names.
const (
	DisabledExposed    = DisableCause(ledger.TriggerExposed)
	DisabledItself     = DisableCause(ledger.TriggerSelfDisabled)
	DisabledTrialEnded = DisableCause(FaultTrialEnded)
	DisabledDowngraded = DisableCause(FaultDowngraded)
	DisabledOther      = DisableCause("other")
)

// Word returns the cause as text.
func (c DisableCause) Word() string { return string(c) }

// DisableCauses returns every cause.
func DisableCauses() []DisableCause {
	return []DisableCause{DisabledExposed, DisabledItself, DisabledTrialEnded, DisabledDowngraded, DisabledOther}
}
