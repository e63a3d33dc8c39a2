package ledger

import (
	"maps"
	"slices"
)

// FailureReasons returns every reason of a failed stage, for series that must exist before the first failure.
func FailureReasons() []Reason { return slices.Sorted(maps.Keys(advice)) }

// IsFailure reports whether a stage can fail for this reason.
func IsFailure(r Reason) bool {
	_, known := advice[r]
	return known
}

// Advise adds to the text of a failure what a person can do about its reason.
func Advise(text string, r Reason) string {
	if a := advice[r]; a != "" {
		text += "; " + a
	}
	return text
}

// advice is what a person can do, by every reason why a remote call or a stage fails.
//
//nolint:gochecknoglobals // a constant table; nothing changes it
var advice = map[Reason]string{
	ReasonAdminKeyRefused:    "put a working admin key where the workspace's api_key says; rekeyd looks there once per reconcile interval",
	ReasonMissingPermissions: "give the admin key the permission service_account_write, or use another key",
	ReasonForbidden:          "look at the limits of the workspace's plan and the rights of its admin key",
	ReasonNotFound:           "check that service account and key still exist, and the path of base_url",
	ReasonInvalidRequest:     "check permissions, addresses and limits in the policy",
	ReasonKeyLimit:           "delete keys of the service account that are not needed, or shorten the quarantine",
	ReasonAPIUnreachable:     "check base_url and the network",
	ReasonNotUsable:          "check that allowed_ips has the daemon's own address, or set verify: off",
	ReasonProbeFailed:        "correct the path, or share what it names with the service account",
	ReasonSinkDenied:         "check Vault's token and policy with: rekeyd check --online",
	ReasonSinkWrapping:       "check Vault's token and policy with: rekeyd check --online",
	ReasonSinkSealed:         "unseal Vault",
	ReasonSinkStandby:        "point VAULT_ADDR at the active node or at a load balancer that finds it",
	ReasonSinkUnreachable:    "check VAULT_ADDR and that Vault runs",
	ReasonSinkDNS:            "check the host name in VAULT_ADDR and that this machine's resolver knows it",
	ReasonSinkTimeout:        "check whether Vault is overloaded or a firewall drops its packets",
	ReasonSinkTLS:            "check that VAULT_ADDR starts with https:// exactly if Vault uses TLS of at least 1.2, and the certificate's dates",
	ReasonSinkTLSName:        "name Vault in VAULT_ADDR as its certificate does, or give that name in VAULT_TLS_SERVER_NAME",
	ReasonSinkTLSCA:          "give the authority that signed Vault's certificate in VAULT_CACERT or VAULT_CAPATH",
	ReasonSinkRateLimited:    "raise Vault's rate limit quota or lower REKEYD_CONCURRENCY",
	ReasonSinkNoMount:        "name a KV version 2 mount",
	ReasonSinkNotKV2:         "name a KV version 2 mount",
	ReasonSinkTooLarge:       "remove fields from the record that are not needed",
	ReasonSinkConflict:       "find out who else writes this record",
	ReasonRecordChanged:      "find out who else writes this record",
	ReasonUnsafe:             "compare the record with the current key: rekeyd plan says what it sees",
	ReasonSinkError:          "see the log of Vault, or of this machine for the file sink",
	ReasonClaimLost:          "nothing has to be done unless it stays",
	ReasonInterrupted:        "nothing has to be done unless it stays",
	ReasonLostAnswer:         "nothing has to be done unless it stays",
	ReasonRateLimited:        "nothing has to be done unless it stays",
	ReasonAPIError:           "nothing has to be done unless it stays",
	ReasonBadAnswer:          "nothing has to be done unless it stays",
	ReasonOther:              "",
}
