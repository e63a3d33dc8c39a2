package rotator

import (
	"context"
	"fmt"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// probePaths asks for the policy's paths with the new key, each until the answer is 2xx or will not change: a new key takes a
// moment to be known everywhere. A refusal of this host's address by the key's own allowlist says nothing about the path.
func (j *job) probePaths(ctx context.Context, secret secret.Secret) ([]ledger.ProbeAnswer, error) {
	var answers []ledger.ProbeAnswer
	deadline := time.Now().Add(j.r.opt.VerifyTimeout)
	for _, path := range j.p.Probes {
		for attempt := 1; ; attempt++ {
			status, err := j.api.ProbePath(ctx, secret, path)
			if err != nil && len(j.p.Settings.AllowedIPs) > 0 && elevenlabs.RefusesAddress(err) {
				j.log.Warn("path not probed: the key's allowed_ips leave out this host", "path", path, "status", status)
				err = nil
			}
			if err == nil {
				answers = append(answers, ledger.ProbeAnswer{Path: path, Status: status})
				break
			}
			if elevenlabs.MayChange(status) && time.Now().Before(deadline) && j.pause(ctx, attempt) {
				if err := j.guard(ctx); err != nil {
					return nil, err
				}
				continue
			}
			// The error is not wrapped: what the new key may not do says nothing about the admin key.
			return nil, failedFor(ledger.StageVerify, ledger.ReasonProbeFailed, "probe %s with the new key: %v", path, err)
		}
	}
	return answers, nil
}

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

// proveEnd notes whether a disabled key is rejected.
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
