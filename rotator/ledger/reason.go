package ledger

// Reason is why something is done, waits or failed. The words are a closed set: they are metric labels, appear in
// logs, in `rekeyd plan` and in events, and are never made from what a remote said.
type Reason string

// Why a rotation happens.
const (
	ReasonFirst         Reason = "first"      // there is no key yet
	ReasonSchedule      Reason = "schedule"   // the schedule says so
	ReasonMaxAge        Reason = "max_age"    // the key would outlive max_age
	ReasonMoved         Reason = "moved"      // the policy names another workspace, account or sink
	ReasonRequested     Reason = "requested"  // a person asked
	ReasonRevoke        Reason = "revoke_now" // a person asked, and wants every older key dead
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
	ReasonClaimExpired    Reason = "claim_expired"    // the holder of a claim went away
	ReasonUnsettled       Reason = "unsettled"        // our own work did not come to its end
	ReasonAbandonedKey    Reason = "abandoned"        // a key whose secret nobody holds
	ReasonRecordFound     Reason = "record_found"     // empty ledger, but the record names a key that exists
	ReasonAdoptNamed      Reason = "adopt"            // the policy says which key to take over
	ReasonRolledBack      Reason = "rolled_back"      // somebody put an earlier version of the record back
	ReasonRenamedBack     Reason = "renamed_back"     // a rename was undone
	ReasonReturned        Reason = "returned"         // a pruned policy is loaded again, and the record holds its key
	ReasonLateDisable     Reason = "late_disable"     // a late call of our own disabled the current key
	ReasonDisabledOutside Reason = "disabled_outside" // a retiring key was disabled by others
	ReasonLateEnable      Reason = "late_enable"      // a late call of our own enabled a key in quarantine
	// ReasonQuarantineEnabled is shown, and nothing is done: a person enabled a key in quarantine.
	ReasonQuarantineEnabled Reason = "quarantine_enabled"
)

// Why work that is due has to wait.
const (
	ReasonPaused      Reason = "paused"
	ReasonManual      Reason = "manual"
	ReasonBackoff     Reason = "backoff"         // an attempt failed; the next has its time
	ReasonClockSkew   Reason = "clock_skew"      // a clock is wrong: this host's, or that of who wrote the ledger
	ReasonCallBudget  Reason = "call_budget"     // it has cost its calls of this hour in vain
	ReasonOverlap     Reason = "overlap_running" // an earlier key is still in overlap
	ReasonWindow      Reason = "window"          // it is too late for this run
	ReasonGroup       Reason = "group_busy"      // another member of its group is between claim and end of overlap
	ReasonThrottled   Reason = "throttled"       // REKEYD_MAX_ROTATIONS_PER_HOUR
	ReasonClaimed     Reason = "claimed"         // another replica works on it
	ReasonNotObserved Reason = "not_observed"    // ElevenLabs has not been listed yet
	ReasonOthersFirst Reason = "others_first"    // an admin key lets the keys of its workspace go first, a member of a group one that waited longer
)

// Why a policy is in error: a person has to decide.
const (
	ReasonRecordChanged   Reason = "record_changed"  // the record holds a value that nobody here knows
	ReasonLedgerInvalid   Reason = "ledger_invalid"  // an entry that cannot be read
	ReasonUnknownAccount  Reason = "unknown_account" // the listing lacks the service account
	ReasonAdoptUnknown    Reason = "adopt_unknown"   // the key to adopt does not exist
	ReasonAdoptRefused    Reason = "adopt_refused"   // the record does not hold its secret, or it is another policy's
	ReasonSinkField       Reason = "sink_field"      // the secret's field has a name that rekeyd itself writes
	ReasonTrialEnded      Reason = "trial_ended"
	ReasonDowngraded      Reason = "subscription_downgrade"
	ReasonKeyDisabled     Reason = "key_disabled" // by a person, or for a reason that we do not know
	ReasonLeakStorm       Reason = "leak_storm"   // three leak rotations within an hour
	ReasonKeyVanished     Reason = "key_vanished" // missing from the listing, and no proof that it is gone
	ReasonSettingsIgnored Reason = "settings_ignored"
	ReasonReplicasDiffer  Reason = "replicas_disagree"
	ReasonRemoved         Reason = "unmanaged"  // the policy is no longer loaded; its current key stays
	ReasonMovedAway       Reason = "moved_away" // the entry was taken over under another name
)

// Why a remote call or a stage failed.
const (
	ReasonAdminKeyRefused    Reason = "admin_key_refused"   // ElevenLabs does not know the workspace's admin key any more
	ReasonMissingPermissions Reason = "missing_permissions" // the admin key may not do this
	ReasonForbidden          Reason = "forbidden"           // 403 for another cause
	ReasonNotFound           Reason = "not_found"
	ReasonInvalidRequest     Reason = "invalid_request" // 400 or 422
	ReasonKeyLimit           Reason = "key_limit"
	ReasonRateLimited        Reason = "rate_limited"
	ReasonAPIUnreachable     Reason = "api_unreachable"
	ReasonAPIError           Reason = "api_error"   // 5xx
	ReasonBadAnswer          Reason = "bad_answer"  // an answer that cannot be what was promised
	ReasonLostAnswer         Reason = "lost_answer" // a create whose outcome had to be found out by listing
	ReasonNotUsable          Reason = "not_usable"  // the new key did not work within the verify timeout

	ReasonSinkDenied      Reason = "sink_denied"
	ReasonSinkWrapping    Reason = "sink_wrapping_token" // a wrapped secret id that somebody else may have unwrapped
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
	ReasonSinkConflict    Reason = "sink_conflict" // somebody else kept writing

	ReasonUnsafe      Reason = "unsafe"      // what was read again does not allow it
	ReasonClaimLost   Reason = "claim_lost"  // another replica took the claim over
	ReasonInterrupted Reason = "interrupted" // the process that worked on it went away
	ReasonOther       Reason = "other"
)

// FailureReasons is every reason that a failed stage can have, for series that must exist before the first failure.
func FailureReasons() []Reason {
	return []Reason{
		ReasonAdminKeyRefused, ReasonMissingPermissions, ReasonForbidden, ReasonNotFound, ReasonInvalidRequest,
		ReasonKeyLimit, ReasonRateLimited, ReasonAPIUnreachable, ReasonAPIError, ReasonBadAnswer, ReasonLostAnswer,
		ReasonNotUsable, ReasonSinkDenied, ReasonSinkWrapping, ReasonSinkSealed, ReasonSinkStandby, ReasonSinkUnreachable, ReasonSinkDNS,
		ReasonSinkTimeout, ReasonSinkTLS, ReasonSinkTLSName, ReasonSinkTLSCA,
		ReasonSinkRateLimited, ReasonSinkNoMount, ReasonSinkNotKV2, ReasonSinkTooLarge, ReasonSinkError,
		ReasonSinkConflict, ReasonRecordChanged, ReasonUnsafe, ReasonClaimLost, ReasonInterrupted, ReasonOther,
	}
}

// ErrorReasons is every reason that the state error can have.
func ErrorReasons() []Reason {
	return []Reason{
		ReasonRecordChanged, ReasonLedgerInvalid, ReasonUnknownAccount, ReasonAdoptUnknown, ReasonAdoptRefused, ReasonSinkField, ReasonTrialEnded, ReasonDowngraded,
		ReasonKeyDisabled, ReasonLeakStorm, ReasonKeyVanished, ReasonSettingsIgnored, ReasonReplicasDiffer, ReasonMovedAway,
		ReasonClockSkew,
	}
}

// DisableReasons is every reason for which a key can have been disabled by others.
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

// Stages is every stage.
func Stages() []Stage {
	return []Stage{StageClaim, StageCreate, StageVerify, StagePublish, StageCommit, StageRetire}
}
