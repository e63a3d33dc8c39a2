package elevenlabs

import (
	"net/netip"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// Permissions is what a key may do: everything, or the named permissions.
type Permissions struct {
	All   bool
	Names []string
}

// Settings are the configurable properties of a key.
type Settings struct {
	Permissions    Permissions
	AllowedIPs     []netip.Prefix // nil: every address
	CharacterLimit *int64         // credits a month; nil: no limit
	Optional
}

// Key is one API key as a listing shows it. A listing never holds a secret.
type Key struct {
	ID             string
	Name           string
	Hint           string
	ServiceAccount string
	CreatedAt      time.Time // zero when the listing does not say
	Disabled       bool
	DisableReason  string // "" when the listing gives none
	CharacterCount int64  // credits used in the current billing period
	Settings       Settings
}

// ServiceAccount is a service account with all of its keys.
type ServiceAccount struct {
	ID   string
	Name string
	Keys []Key
}

// CreatedKey is the answer to a create, the only one with the secret. ID is empty if the answer lacks it; the key is then
// found by its name.
type CreatedKey struct {
	ID     string
	Secret secret.Secret
}

// ProbeResult is what one request with a key proves about it.
type ProbeResult int8

// The results of Client.Probe, and that there is none.
const (
	Unprobed     ProbeResult = iota // no request was made
	Inconclusive                    // nothing was proven: 429, 5xx, no JSON, no answer
	Valid                           // accepted, or refused for a reason that only a working key gets
	Invalid                         // invalid_api_key: unknown, deleted or disabled
)
