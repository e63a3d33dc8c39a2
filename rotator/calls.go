package rotator

import (
	"context"
	"fmt"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

const callIDLength = 6

// newCall returns a call, to be noted in the ledger and then sent.
func (j *job) newCall(kind ledger.CallKind) (ledger.Call, error) {
	id, err := j.r.newID(callIDLength)
	return ledger.Call{Kind: kind, ID: id, At: j.r.opt.Wall()}, err
}

// send sends a call that the ledger has noted.
func (j *job) send(ctx context.Context, c ledger.Call, key ledger.KeyRef) error {
	now, err := j.ready(ctx)
	if err == nil {
		err = j.sendNow(now, c.Kind, key)
	}
	if !elevenlabs.MaybeApplied(err) {
		j.settled(c)
	}
	return err
}

// settled lets the next write of the entry drop the note of a call that was answered or never sent.
func (j *job) settled(c ledger.Call) { j.answered = append(j.answered, c.ID) }

func (j *job) sendNow(ctx context.Context, kind ledger.CallKind, key ledger.KeyRef) error {
	if kind == ledger.CallDelete {
		if err := j.api.DeleteKey(ctx, key.Account, key.ID); err != nil {
			return fmt.Errorf("deleting key %s: %w", key.ID, err)
		}
		return nil
	}
	on, verb := kind == ledger.CallEnable, "disabling"
	if on {
		verb = "enabling"
	}
	if err := j.api.UpdateKey(ctx, key.Account, key.ID, elevenlabs.Update{Name: key.Name, Enabled: &on}); err != nil {
		return fmt.Errorf("%s key %s: %w", verb, key.ID, err)
	}
	return nil
}
