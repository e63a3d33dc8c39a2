package sinks

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// These methods serve the report of rekeyd check --online; rotation does not need them.

// Seal returns Vault's version and whether it is sealed. It needs no token.
func (v *Vault) Seal(ctx context.Context) (version string, sealed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, v.opt.Timeout)
	defer cancel()
	s, err := v.client.Sys().SealStatusWithContext(ctx)
	if err != nil {
		return "", false, v.faultError(ctx, "asking Vault whether it is sealed", answer{fault: notVault(err)}, false)
	}
	return s.Version, s.Sealed, nil
}

// LookUp returns when the token ends, the zero time for never, and whether it can be renewed.
func (v *Vault) LookUp(ctx context.Context) (expiry time.Time, renewable bool, err error) {
	if err := v.lookup(ctx); err != nil {
		return time.Time{}, false, err
	}
	_, expiry, renewable = v.token.state()
	return expiry, renewable, nil
}

// CheckMount returns an error if a mount is missing or not a KV engine of version 2.
func (v *Vault) CheckMount(ctx context.Context, mount string) error {
	return v.checkMount(ctx, "checking mount "+mount, mount)
}

// Retention is Vault's automatic deletion of versions.
type Retention struct {
	MaxVersions int           // 0: Vault's default, which is 10, or for a document that of its mount
	DeleteAfter time.Duration // 0: never
}

// MountRetention returns the retention in a mount's configuration. seen is false if the token may not read it.
func (v *Vault) MountRetention(ctx context.Context, mount string) (r Retention, seen bool, err error) {
	return v.retention(ctx, "reading the configuration of mount "+mount, mount+"/config")
}

// Retention returns the retention in a document's metadata, zero if the document does not exist yet. seen is false if the
// token may not read it.
func (v *Vault) Retention(ctx context.Context, ref ledger.Ref) (r Retention, seen bool, err error) {
	return v.retention(ctx, "reading the metadata of "+ref.String(), ref.Mount+"/metadata/"+ref.Path)
}

func (v *Vault) retention(ctx context.Context, op, path string) (Retention, bool, error) {
	a := v.get(ctx, opCheck, path, nil)
	switch {
	case a.fault == nil && a.status == http.StatusForbidden:
		return Retention{}, false, nil
	case a.fault == nil && a.status == http.StatusNotFound:
		return Retention{}, true, nil
	case !a.ok():
		return Retention{}, false, v.failure(ctx, op, a, false)
	}
	var said struct {
		MaxVersions int    `json:"max_versions"`
		DeleteAfter string `json:"delete_version_after"`
	}
	if err := decode(a.data, &said); err != nil {
		return Retention{}, false, fmt.Errorf("%s: %w", op, err)
	}
	after, err := time.ParseDuration(said.DeleteAfter)
	if err != nil && said.DeleteAfter != "" {
		return Retention{}, false, fmt.Errorf("%s: delete_version_after is not a duration: %w", op, err)
	}
	return Retention{said.MaxVersions, after}, true, nil
}
