package ledger

// Trigger is why a rotation or another step happens. The words are a closed set: they stand in the ledger, in logs, events and
// `rekeyd plan`, and are not made from a remote's answer.
type Trigger string

// Why a rotation happens.
const (
	TriggerFirst         Trigger = "first"      // there is no key yet
	TriggerSchedule      Trigger = "schedule"   // the schedule says so
	TriggerMaxAge        Trigger = "max_age"    // the key would outlive max_age
	TriggerMoved         Trigger = "moved"      // the policy names another workspace, account or sink
	TriggerRequested     Trigger = "requested"  // a person asked
	TriggerRevoke        Trigger = "revoke_now" // a person asked, and wants every older key disabled
	TriggerExposed       Trigger = "exposed_publicly"
	TriggerSelfDisabled  Trigger = "self_disabled"
	TriggerKeyMissing    Trigger = "key_missing"    // the current key is gone
	TriggerRecordMissing Trigger = "record_missing" // the record or its field is gone
	TriggerRollback      Trigger = "rollback"       // a person wants the previous key back
	TriggerDrift         Trigger = "drift"          // settings differ from the policy
)

// Why other work happens.
const (
	TriggerOverlapEnded    Trigger = "overlap_ended"
	TriggerQuarantineEnded Trigger = "quarantine_ended"
	TriggerKeyLimit        Trigger = "key_limit"        // the account is full, so a quarantine is cut short
	TriggerClaimExpired    Trigger = "claim_expired"    // the claim holder is gone
	TriggerUnsettled       Trigger = "unsettled"        // our own work is unfinished
	TriggerAbandonedKey    Trigger = "abandoned"        // a key whose secret is stored nowhere
	TriggerRecordFound     Trigger = "record_found"     // empty ledger, but the record names a key that exists
	TriggerAdoptNamed      Trigger = "adopt"            // the policy names the key to adopt
	TriggerRolledBack      Trigger = "rolled_back"      // an earlier version of the record was put back
	TriggerRenamedBack     Trigger = "renamed_back"     // a rename was undone
	TriggerReturned        Trigger = "returned"         // a pruned policy is loaded again, and the record holds its key
	TriggerLateDisable     Trigger = "late_disable"     // a late call of our own disabled the current key
	TriggerDisabledOutside Trigger = "disabled_outside" // a retiring key was disabled outside rekeyd
	TriggerLateEnable      Trigger = "late_enable"      // a late call of our own enabled a key in quarantine
	TriggerProof           Trigger = "proof"            // a disabled key is tried once more
	TriggerRemoved         Trigger = "unmanaged"        // prune: the policy is no longer loaded
)

// Word returns the trigger as text.
func (t Trigger) Word() string { return string(t) }
