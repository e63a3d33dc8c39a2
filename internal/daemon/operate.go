package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Commands call these on a Daemon that they built and do not Run.

// Survey observes the named policies once, or all of them, and changes nothing.
func (d *Daemon) Survey(ctx context.Context, policies ...string) (rotator.Snapshot, error) {
	s, err := d.rotator.Survey(ctx, policies...)
	if err != nil {
		return s, fmt.Errorf("observing the policies: %w", err)
	}
	return s, nil
}

// Refusal returns why Rotate would refuse a policy that was just surveyed, nil if it would not.
func (d *Daemon) Refusal(ctx context.Context, policy string, o rotator.RotateOptions) error {
	return d.rotator.Refusal(ctx, policy, o)
}

// Outcome is a policy's state after a command.
type Outcome struct {
	Policy             string    `json:"policy"`
	KeyID              string    `json:"key_id"`                        // the current key now
	PreviousKeyID      string    `json:"previous_key_id,omitempty"`     // the one before it
	PreviousValidUntil time.Time `json:"previous_valid_until,omitzero"` // zero when it no longer works
	Disabled           []string  `json:"disabled,omitempty"`            // older keys, disabled and not yet deleted
	Unproven           []string  `json:"unproven,omitempty"`            // of those: adopted by id alone, so readers may have had another
}

// Rotate rotates a policy now.
func (d *Daemon) Rotate(ctx context.Context, policy string, o rotator.RotateOptions) (Outcome, error) {
	defer d.flush(ctx)
	if err := d.rotator.Rotate(ctx, policy, o); err != nil {
		return Outcome{}, fmt.Errorf("rotating policy %s: %w", policy, err)
	}
	return d.outcome(ctx, policy)
}

// Rollback publishes a policy's previous key again.
func (d *Daemon) Rollback(ctx context.Context, policy string) (Outcome, error) {
	defer d.flush(ctx)
	if err := d.rotator.Rollback(ctx, policy); err != nil {
		return Outcome{}, err
	}
	return d.outcome(ctx, policy)
}

// Rename gives the ledger entry of a removed policy to a loaded one.
func (d *Daemon) Rename(ctx context.Context, from, to string) (Outcome, error) {
	if err := d.rotator.Rename(ctx, from, to); err != nil {
		return Outcome{}, err
	}
	s, err := d.rotator.Survey(ctx, to)
	if err == nil && len(s.Policies) == 1 && s.Policies[0].Current == nil {
		return Outcome{Policy: to}, nil // the policy never had a key
	}
	return d.outcome(ctx, to)
}

func (d *Daemon) outcome(ctx context.Context, policy string) (Outcome, error) {
	s, err := d.rotator.Survey(ctx, policy)
	if err == nil && (len(s.Policies) != 1 || s.Policies[0].Current == nil) {
		err = errors.New("it has no current key")
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("policy %s: done, but reading its new state failed: %w", policy, err)
	}
	return outcomeOf(s.Policies[0]), nil
}

func outcomeOf(s rotator.PolicyStatus) Outcome {
	o := Outcome{Policy: s.Policy.Name, KeyID: s.Current.ID}
	var previous *ledger.Retiring
	for i := range s.Retiring {
		k := &s.Retiring[i]
		if k.State == ledger.InQuarantine {
			o.Disabled = append(o.Disabled, k.ID)
			if k.Unproven {
				o.Unproven = append(o.Unproven, k.ID)
			}
		}
		if previous == nil || !k.Published.Before(previous.Published) { // of two in the same second, the later in the list
			previous = k
		}
	}
	if previous != nil {
		o.PreviousKeyID = previous.ID
		if previous.State == ledger.InOverlap {
			o.PreviousValidUntil = previous.Until
		}
	}
	return o
}

// History reads what the ledger remembers of these policies' rotations.
func (d *Daemon) History(ctx context.Context, policies ...string) []rotator.PolicyHistory {
	return d.rotator.History(ctx, policies...)
}

// Lost lists the keys that Prune may take: those of the named policies, or all.
func (d *Daemon) Lost(ctx context.Context, policies ...string) ([]rotator.LostKey, error) {
	return d.rotator.Lost(ctx, policies...)
}

// Prune deletes a lost key, or retires the current key of a removed policy.
func (d *Daemon) Prune(ctx context.Context, k rotator.LostKey) error {
	defer d.flush(ctx)
	return d.rotator.Prune(ctx, k)
}

// Leaked says whose key a secret is.
func (d *Daemon) Leaked(ctx context.Context, s secret.Secret) (rotator.Leak, error) {
	l, err := d.rotator.Leaked(ctx, s)
	if err != nil {
		return l, fmt.Errorf("looking for the secret: %w", err)
	}
	return l, nil
}

// EndLeak rotates the policy of a leaked key and returns its new state, unless that would change nothing.
func (d *Daemon) EndLeak(ctx context.Context, l rotator.Leak, s secret.Secret) (rotator.Leak, Outcome, error) {
	defer d.flush(ctx)
	l, err := d.rotator.EndLeak(ctx, l, s)
	if err != nil {
		return l, Outcome{}, fmt.Errorf("ending the leak: %w", err)
	}
	if l.Rotation != rotator.LeakRotated {
		return l, Outcome{}, nil
	}
	out, err := d.outcome(ctx, l.Policy)
	return l, out, err
}

// Remembered returns the names of all policies in the ledger, loaded or not.
func (d *Daemon) Remembered(ctx context.Context) ([]string, error) {
	names, err := d.rotator.EntryNames(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return names, nil
}

// Redactor holds the secrets that the process uses.
func (d *Daemon) Redactor() *secret.Redactor { return d.redactor }

// SinkVersion says what serves records and ledger: Vault with its version, or files.
func (d *Daemon) SinkVersion(ctx context.Context) string {
	if d.vault == nil {
		return "files"
	}
	version, sealed, err := d.vault.Seal(ctx)
	if err != nil {
		return "Vault, of an unknown version: " + err.Error()
	}
	return fmt.Sprintf("Vault %s, sealed: %t", version, sealed)
}
