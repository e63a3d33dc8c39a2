package rotator

import (
	"context"
	"errors"
	"fmt"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

var errKeyInvalid = errors.New("ElevenLabs answers invalid_api_key")

// probe asks whether a key of the policy works; an admin key must be able to list, which a service account's key can by assumption
// A06. The error is nil only for a valid key.
func (j *job) probe(ctx context.Context, api *elevenlabs.Client, secret secret.Secret) (elevenlabs.ProbeResult, error) {
	ask := api.Probe
	if j.p.AdminOf != "" {
		ask = api.ProbeAdmin
	}
	result, err := ask(ctx, secret)
	if result == elevenlabs.Invalid {
		err = errKeyInvalid
	}
	return result, err
}

// switchAdminKey makes this process use the admin key that was just published. If that fails, the switch happens at the next
// refusal, and at the latest before the old key is retired.
func (j *job) switchAdminKey(ctx context.Context) {
	api := j.r.apiOf(j.p.AdminOf)
	if api == nil {
		return
	}
	if _, err := api.AdminKey(ctx, true); err != nil {
		j.log.Warn("switching to the new admin key failed", "workspace", j.p.AdminOf, "err", err)
	}
}

// adminMoved returns nil if this process does not manage the old key's workspace with that key, no matter which policy owns it.
// For the admin key's own policy, the process must also be seen to use the current key.
func (j *job) adminMoved(ctx context.Context, old ledger.KeyRef, current *ledger.KeyRef) error {
	api := j.r.apiOf(old.Workspace)
	if api == nil {
		return nil
	}
	own := j.p.AdminOf == old.Workspace
	key, err := api.AdminKey(ctx, own)
	if err != nil {
		return fmt.Errorf("reading the admin key of workspace %s: %w", old.Workspace, err)
	}
	hash := ledger.HashValue(j.entry().Salt, key.Reveal())
	stale := own && current != nil && current.Sink == j.p.Sink && current.Hash != "" && hash != current.Hash
	if hash == old.Hash || stale {
		return failedFor(ledger.StageRetire, ledger.FailureUnsafe, "workspace %s does not use the key that replaces %s yet", old.Workspace, old.ID)
	}
	return nil
}
