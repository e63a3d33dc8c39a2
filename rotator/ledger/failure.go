package ledger

import (
	"maps"
	"slices"
)

// Failure is why a remote call or a stage failed. The words are a closed set, since they are a metric label.
type Failure string

// Why a call to ElevenLabs, or a stage, failed.
const (
	FailureAdminKeyRefused    Failure = "admin_key_refused"   // ElevenLabs no longer knows the workspace's admin key
	FailureMissingPermissions Failure = "missing_permissions" // the admin key may not do this
	FailureForbidden          Failure = "forbidden"           // 403 for another cause
	FailureNotFound           Failure = "not_found"
	FailureInvalidRequest     Failure = "invalid_request" // 400 or 422
	FailureKeyLimit           Failure = "key_limit"
	FailureRateLimited        Failure = "rate_limited"
	FailureAPIUnreachable     Failure = "api_unreachable"
	FailureAPIError           Failure = "api_error"   // 5xx
	FailureBadAnswer          Failure = "bad_answer"  // an answer that does not fit the API
	FailureLostAnswer         Failure = "lost_answer" // a create whose outcome is found by listing
	FailureNotUsable          Failure = "not_usable"  // the new key did not work within the verify timeout
	FailureProbeFailed        Failure = "probe_failed"
	FailureRecordChanged      Failure = "record_changed" // another writer changed the record during the rotation
	FailureUnsafe             Failure = "unsafe"         // a fresh read forbids it
	FailureClaimLost          Failure = "claim_lost"     // another replica took over the claim
	FailureInterrupted        Failure = "interrupted"    // the process that worked on it stopped
	FailureOther              Failure = "other"
)

// Why a call to the store failed.
const (
	FailureSinkDenied      Failure = "sink_denied"
	FailureSinkWrapping    Failure = "sink_wrapping_token" // another client may have unwrapped the wrapped secret id
	FailureSinkSealed      Failure = "sink_sealed"
	FailureSinkStandby     Failure = "sink_standby"
	FailureSinkUnreachable Failure = "sink_unreachable"
	FailureSinkDNS         Failure = "sink_dns"
	FailureSinkTimeout     Failure = "sink_timeout"
	FailureSinkTLS         Failure = "sink_tls"
	FailureSinkTLSName     Failure = "sink_tls_name" // the certificate is for another name
	FailureSinkTLSCA       Failure = "sink_tls_ca"   // the certificate is signed by an unknown authority
	FailureSinkRateLimited Failure = "sink_rate_limited"
	FailureSinkNoMount     Failure = "sink_no_mount"
	FailureSinkNotKV2      Failure = "sink_not_kv2"
	FailureSinkTooLarge    Failure = "sink_too_large"
	FailureSinkError       Failure = "sink_error"
	FailureSinkConflict    Failure = "sink_conflict" // another writer kept changing the document
)

// Word returns the failure as text.
func (f Failure) Word() string { return string(f) }

// Failures returns every failure, for series that must exist before the first one.
func Failures() []Failure { return slices.Sorted(maps.Keys(advice)) }

// Known reports whether this build knows the failure.
func (f Failure) Known() bool {
	_, known := advice[f]
	return known
}

// Advise adds to the text of a failure what a person can do about it.
func Advise(text string, f Failure) string {
	if a := advice[f]; a != "" {
		text += "; " + a
	}
	return text
}

// advice is what a person can do, by every failure.
//
//nolint:gochecknoglobals // a constant table; nothing changes it
var advice = map[Failure]string{
	FailureAdminKeyRefused:    "put a working admin key where the workspace's api_key says; rekeyd looks there once per reconcile interval",
	FailureMissingPermissions: "give the admin key the permission service_account_write, or use another key",
	FailureForbidden:          "look at the limits of the workspace's plan and the rights of its admin key",
	FailureNotFound:           "check that service account and key still exist, and the path of base_url",
	FailureInvalidRequest:     "check permissions, addresses and limits in the policy",
	FailureKeyLimit:           "delete keys of the service account that are not needed, or shorten the quarantine",
	FailureAPIUnreachable:     "check base_url and the network",
	FailureNotUsable:          "check that allowed_ips has the daemon's own address, or set verify: off",
	FailureProbeFailed:        "correct the path, or share what it names with the service account",
	FailureSinkDenied:         "check Vault's token and policy with: rekeyd check --online",
	FailureSinkWrapping:       "check Vault's token and policy with: rekeyd check --online",
	FailureSinkSealed:         "unseal Vault",
	FailureSinkStandby:        "point VAULT_ADDR at the active node or at a load balancer that finds it",
	FailureSinkUnreachable:    "check VAULT_ADDR and that Vault runs",
	FailureSinkDNS:            "check the host name in VAULT_ADDR and that this machine's resolver knows it",
	FailureSinkTimeout:        "check whether Vault is overloaded or a firewall drops its packets",
	FailureSinkTLS:            "check that VAULT_ADDR starts with https:// exactly if Vault uses TLS of at least 1.2, and the certificate's dates",
	FailureSinkTLSName:        "name Vault in VAULT_ADDR as its certificate does, or give that name in VAULT_TLS_SERVER_NAME",
	FailureSinkTLSCA:          "give the authority that signed Vault's certificate in VAULT_CACERT or VAULT_CAPATH",
	FailureSinkRateLimited:    "raise Vault's rate limit quota or lower REKEYD_CONCURRENCY",
	FailureSinkNoMount:        "name a KV version 2 mount",
	FailureSinkNotKV2:         "name a KV version 2 mount",
	FailureSinkTooLarge:       "remove fields from the record that are not needed",
	FailureSinkConflict:       "find out who else writes this record",
	FailureRecordChanged:      "find out who else writes this record",
	FailureUnsafe:             "compare the record with the current key: rekeyd plan says what it sees",
	FailureSinkError:          "see the log of Vault, or of this machine for the file sink",
	FailureClaimLost:          "nothing has to be done unless it stays",
	FailureInterrupted:        "nothing has to be done unless it stays",
	FailureLostAnswer:         "nothing has to be done unless it stays",
	FailureRateLimited:        "nothing has to be done unless it stays",
	FailureAPIError:           "nothing has to be done unless it stays",
	FailureBadAnswer:          "nothing has to be done unless it stays",
	FailureOther:              "",
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
