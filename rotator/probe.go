package rotator

import (
	"context"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// ProbeCurrent asks once for the policy's paths with the secret in its record; none where there is no secret yet.
func (r *Rotator) ProbeCurrent(ctx context.Context, p plan.Policy) ([]ledger.ProbeAnswer, error) {
	api := r.apiOf(p.Workspace)
	if len(p.Probes) == 0 || api == nil {
		return nil, nil
	}
	doc, err := r.opt.Store.Read(ctx, p.Sink.Ref, 0)
	if err != nil {
		return nil, fmt.Errorf("reading record: %w", err)
	}
	current := ledger.ParseRecord(doc, p.Sink.Field).Secret
	if current.IsZero() {
		return nil, nil
	}
	defer r.redact(current)()
	var answers []ledger.ProbeAnswer
	for _, path := range p.Probes {
		status, err := api.ProbePath(ctx, current, path)
		if len(p.Settings.AllowedIPs) > 0 && elevenlabs.RefusesAddress(err) {
			continue // the key may not be used from here
		}
		answers = append(answers, ledger.ProbeAnswer{Path: path, Status: status})
	}
	return answers, nil
}

// proveEnd notes whether a disabled key is rejected, which may take a moment (assumption A18).
func (j *job) proveEnd(ctx context.Context, s plan.Step) outcome {
	key := j.entry().RetiringKey(s.KeyID)
	proof := j.endOf(ctx, key.KeyRef)
	if proof.Open() && proof == key.Proof {
		return outcome{} // tried again later
	}
	err := j.write(ctx, func(e *ledger.Entry) { noteProof(e, s.KeyID, proof, j.now()) })
	if err != nil {
		return claimFailed(err)
	}
	j.tellProof(key.KeyRef, proof)
	return outcome{again: !proof.Open()}
}

// endOf tries a disabled key with its secret from the record's kept version; "" where neither store nor ElevenLabs gave a clear
// answer.
func (j *job) endOf(ctx context.Context, key ledger.KeyRef) ledger.Proof {
	if key.Version == 0 || key.Hash == "" {
		return ledger.NotTried // an earlier version did not note them
	}
	doc, err := j.r.opt.Store.Read(ctx, key.Sink.Ref, key.Version)
	if err != nil {
		return ""
	}
	kept := ledger.ParseRecord(doc, key.Sink.Field).Secret
	if kept.IsZero() || ledger.HashValue(j.entry().Salt, kept.Reveal()) != key.Hash {
		return ledger.NotTried
	}
	defer j.r.redact(kept)()
	switch result, _ := j.api.Probe(ctx, kept); result {
	case elevenlabs.Valid:
		return ledger.StillAccepted
	case elevenlabs.Invalid:
		return ledger.Rejected
	}
	return ""
}

func noteProof(e *ledger.Entry, keyID string, proof ledger.Proof, now time.Time) {
	if r := e.RetiringKey(keyID); r != nil {
		r.Proof = proof
	}
	if past := e.PastOf(keyID); past != nil && proof != "" {
		past.Proof, past.ProofAt = proof, now.Truncate(time.Second)
	}
}

// tellProof logs what became of a disabled key's secret.
func (j *job) tellProof(key ledger.KeyRef, proof ledger.Proof) {
	switch proof {
	case ledger.StillAccepted:
		j.log.Error("disabled key still accepted", "key_id", key.ID, "rotation", key.Rotation)
	case ledger.Rejected, ledger.NotTried:
		j.audit("disabled key checked", "key_id", key.ID, "rotation", key.Rotation, "proof", string(proof))
	}
}
