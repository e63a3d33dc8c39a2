package daemon

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
)

// rotateBody is what POST /api/v1/policies/{name}/rotate takes. No body at all is an ordinary rotation.
type rotateBody struct {
	RevokeNow bool   `json:"revoke_now"`
	Reason    string `json:"reason"`
}

// rotateAnswer says what was taken on. That it was done is seen in /api/v1/policies: the key is another one.
type rotateAnswer struct {
	Policy    string `json:"policy"`
	Status    string `json:"status"`           // requested
	KeyID     string `json:"key_id,omitempty"` // the current key, as far as this replica knows
	RevokeNow bool   `json:"revoke_now"`
}

// rotateRequest has a policy rotated soon.
func (d *Daemon) rotateRequest(w http.ResponseWriter, r *http.Request) {
	var body rotateBody
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(&body)
	if empty := errors.Is(err, io.EOF); err != nil && !empty || !empty && !errors.Is(dec.Decode(new(any)), io.EOF) {
		// What it is instead is not repeated: it may be a secret that was pasted into the wrong place.
		http.Error(w, `The body must be one JSON object like {"revoke_now": false, "reason": "why"}, with no other field, or empty.`, http.StatusBadRequest)
		return
	}
	if elevenlabs.LooksSecret(body.Reason) {
		http.Error(w, "The reason holds what looks like a secret, and would be logged; say why without it.", http.StatusBadRequest)
		return
	}
	name := r.PathValue("name")
	policies := d.rotator.Snapshot().Policies
	i := slices.IndexFunc(policies, func(p rotator.PolicyStatus) bool { return p.Policy.Name == name })
	if i < 0 {
		http.Error(w, "There is no policy of that name; /api/v1/policies lists them.", http.StatusNotFound)
		return
	}
	if err := d.rotator.Request(name, rotator.RotateOptions{Revoke: body.RevokeNow, Reason: body.Reason}); err != nil {
		http.Error(w, d.oneLine(err.Error()), http.StatusConflict)
		return
	}
	answer := rotateAnswer{Policy: name, Status: "requested", RevokeNow: body.RevokeNow}
	if c := policies[i].Current; c != nil {
		answer.KeyID = c.ID
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(answer) // an error means that the client has gone
}
