package ledger

// Reason is why rekeyd acts, waits or failed. The words are a closed set: they are metric labels, appear in logs, events and
// `rekeyd plan`, and are not made from a remote's answer.
type Reason string

// Why a rotation happens.
const (
	ReasonFirst         Reason = "first"      // there is no key yet
	ReasonSchedule      Reason = "schedule"   // the schedule says so
	ReasonMaxAge        Reason = "max_age"    // the key would outlive max_age
	ReasonMoved         Reason = "moved"      // the policy names another workspace, account or sink
	ReasonRequested     Reason = "requested"  // a person asked
	ReasonRevoke        Reason = "revoke_now" // a person asked, and wants every older key disabled
	ReasonExposed       Reason = "exposed_publicly"
	ReasonSelfDisabled  Reason = "self_disabled"
	ReasonKeyMissing    Reason = "key_missing"    // the current key is gone
	ReasonRecordMissing Reason = "record_missing" // the record or its field is gone
	ReasonRollback      Reason = "rollback"       // a person wants the previous key back
	ReasonDrift         Reason = "drift"          // settings differ from the policy
)

// Why other work happens.
const (
	ReasonOverlapEnded    Reason = "overlap_ended"
	ReasonQuarantineEnded Reason = "quarantine_ended"
	ReasonClaimExpired    Reason = "claim_expired"    // the claim holder is gone
	ReasonUnsettled       Reason = "unsettled"        // our own work is unfinished
	ReasonAbandonedKey    Reason = "abandoned"        // a key whose secret is stored nowhere
	ReasonRecordFound     Reason = "record_found"     // empty ledger, but the record names a key that exists
	ReasonAdoptNamed      Reason = "adopt"            // the policy names the key to adopt
	ReasonRolledBack      Reason = "rolled_back"      // an earlier version of the record was put back
	ReasonRenamedBack     Reason = "renamed_back"     // a rename was undone
	ReasonReturned        Reason = "returned"         // a pruned policy is loaded again, and the record holds its key
	ReasonLateDisable     Reason = "late_disable"     // a late call of our own disabled the current key
	ReasonDisabledOutside Reason = "disabled_outside" // a retiring key was disabled outside rekeyd
	ReasonLateEnable      Reason = "late_enable"      // a late call of our own enabled a key in quarantine
	ReasonProof           Reason = "proof"            // a disabled key is tried once more
	// ReasonQuarantineEnabled is only shown: a person enabled a key in quarantine.
	ReasonQuarantineEnabled Reason = "quarantine_enabled"
)

// Why work that is due has to wait.
const (
	ReasonPaused      Reason = "paused"
	ReasonManual      Reason = "manual"
	ReasonBackoff     Reason = "backoff"         // an attempt failed, and the next is scheduled
	ReasonClockSkew   Reason = "clock_skew"      // the clock of this host, or of an earlier writer of the ledger, is wrong
	ReasonCallBudget  Reason = "call_budget"     // it used up this hour's calls without success
	ReasonOverlap     Reason = "overlap_running" // an earlier key is still in overlap
	ReasonWindow      Reason = "window"          // the window of this run has closed
	ReasonGroup       Reason = "group_busy"      // another member of its group is between claim and end of overlap
	ReasonThrottled   Reason = "throttled"       // REKEYD_MAX_ROTATIONS_PER_HOUR
	ReasonClaimed     Reason = "claimed"         // another replica works on it
	ReasonNotObserved Reason = "not_observed"    // ElevenLabs has not been listed yet
	ReasonOthersFirst Reason = "others_first"    // an admin key yields to the keys of its workspace, a member of a group to one that waited longer
)

// Which evidence an overlap waits for.
const (
	ReasonOldKeyInUse  Reason = "old_key_in_use"
	ReasonNewKeyUnused Reason = "new_key_unused"
)

// Why a policy is in error: a person has to decide.
const (
	ReasonRecordChanged   Reason = "record_changed"  // the record holds an unknown value
	ReasonLedgerInvalid   Reason = "ledger_invalid"  // an entry that cannot be parsed
	ReasonUnknownAccount  Reason = "unknown_account" // the listing lacks the service account
	ReasonAdoptUnknown    Reason = "adopt_unknown"   // the key to adopt does not exist
	ReasonAdoptRefused    Reason = "adopt_refused"   // the record does not hold its secret, or another policy owns it
	ReasonSinkField       Reason = "sink_field"      // the secret's field is one that rekeyd itself writes
	ReasonTrialEnded      Reason = "trial_ended"
	ReasonDowngraded      Reason = "subscription_downgrade"
	ReasonKeyDisabled     Reason = "key_disabled" // by a person, or for an unknown reason
	ReasonLeakStorm       Reason = "leak_storm"   // three leak rotations within an hour
	ReasonKeyVanished     Reason = "key_vanished" // missing from the listing, without proof that it is gone
	ReasonSettingsIgnored Reason = "settings_ignored"
	ReasonReplicasDiffer  Reason = "replicas_disagree"
	ReasonRemoved         Reason = "unmanaged"  // the policy is no longer loaded; its current key stays
	ReasonMovedAway       Reason = "moved_away" // the entry was taken over under another name
)

// Why a remote call or a stage failed.
const (
	ReasonAdminKeyRefused    Reason = "admin_key_refused"   // ElevenLabs no longer knows the workspace's admin key
	ReasonMissingPermissions Reason = "missing_permissions" // the admin key may not do this
	ReasonForbidden          Reason = "forbidden"           // 403 for another cause
	ReasonNotFound           Reason = "not_found"
	ReasonInvalidRequest     Reason = "invalid_request" // 400 or 422
	ReasonKeyLimit           Reason = "key_limit"
	ReasonRateLimited        Reason = "rate_limited"
	ReasonAPIUnreachable     Reason = "api_unreachable"
	ReasonAPIError           Reason = "api_error"   // 5xx
	ReasonBadAnswer          Reason = "bad_answer"  // an answer that does not fit the API
	ReasonLostAnswer         Reason = "lost_answer" // a create whose outcome is found by listing
	ReasonNotUsable          Reason = "not_usable"  // the new key did not work within the verify timeout
	ReasonProbeFailed        Reason = "probe_failed"

	ReasonSinkDenied      Reason = "sink_denied"
	ReasonSinkWrapping    Reason = "sink_wrapping_token" // another client may have unwrapped the wrapped secret id
	ReasonSinkSealed      Reason = "sink_sealed"
	ReasonSinkStandby     Reason = "sink_standby"
	ReasonSinkUnreachable Reason = "sink_unreachable"
	ReasonSinkDNS         Reason = "sink_dns"
	ReasonSinkTimeout     Reason = "sink_timeout"
	ReasonSinkTLS         Reason = "sink_tls"
	ReasonSinkTLSName     Reason = "sink_tls_name" // the certificate is for another name
	ReasonSinkTLSCA       Reason = "sink_tls_ca"   // the certificate is signed by an unknown authority
	ReasonSinkRateLimited Reason = "sink_rate_limited"
	ReasonSinkNoMount     Reason = "sink_no_mount"
	ReasonSinkNotKV2      Reason = "sink_not_kv2"
	ReasonSinkTooLarge    Reason = "sink_too_large"
	ReasonSinkError       Reason = "sink_error"
	ReasonSinkConflict    Reason = "sink_conflict" // another writer kept changing the document

	ReasonUnsafe      Reason = "unsafe"      // a fresh read forbids it
	ReasonClaimLost   Reason = "claim_lost"  // another replica took over the claim
	ReasonInterrupted Reason = "interrupted" // the process that worked on it stopped
	ReasonOther       Reason = "other"
)

// ErrorReasons returns every reason of the state error.
func ErrorReasons() []Reason {
	return []Reason{
		ReasonRecordChanged, ReasonLedgerInvalid, ReasonUnknownAccount, ReasonAdoptUnknown, ReasonAdoptRefused, ReasonSinkField, ReasonTrialEnded, ReasonDowngraded,
		ReasonKeyDisabled, ReasonLeakStorm, ReasonKeyVanished, ReasonSettingsIgnored, ReasonReplicasDiffer, ReasonMovedAway,
		ReasonClockSkew,
	}
}

// DisableReasons returns every reason for which a key can be disabled outside rekeyd.
func DisableReasons() []Reason {
	return []Reason{ReasonExposed, ReasonSelfDisabled, ReasonTrialEnded, ReasonDowngraded, ReasonOther}
}

// Stage is the part of a rotation that failed.
type Stage string

// The stages, in their order.
const (
	StageClaim   Stage = "claim"
	StageCreate  Stage = "create"
	StageVerify  Stage = "verify"
	StagePublish Stage = "publish"
	StageCommit  Stage = "commit"
	StageRetire  Stage = "retire"
)

// Stages returns every stage.
func Stages() []Stage {
	return []Stage{StageClaim, StageCreate, StageVerify, StagePublish, StageCommit, StageRetire}
}
