package web

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
)

// policies serves GET /api/v1/policies.
func (s *Server) policies(w http.ResponseWriter, _ *http.Request) {
	s.sendJSON(w, ViewOf(s.snapshot()))
}

// reload serves POST /-/reload.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	n, err := s.cfg.Reload(r.Context())
	if err != nil {
		http.Error(w, s.cfg.Redactor.Cut(err.Error()), http.StatusUnprocessableEntity)
		return
	}
	_, _ = fmt.Fprintf(w, "reloaded %d policies\n", n) // fails when the client is gone
}

// rotateBody is the body of POST /api/v1/policies/{name}/rotate. An empty one asks for an ordinary rotation.
type rotateBody struct {
	RevokeNow bool   `json:"revoke_now"`
	Reason    string `json:"reason"`
}

// rotateAnswer confirms the request. Once it is done, /api/v1/policies shows another key.
type rotateAnswer struct {
	Policy    string `json:"policy"`
	Status    string `json:"status"`           // requested
	KeyID     string `json:"key_id,omitempty"` // the current key, as this replica knows it
	RevokeNow bool   `json:"revoke_now"`
}

// decodeBody decodes a body of one JSON object. The error is io.EOF for an empty one.
func decodeBody(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err //nolint:wrapcheck // it is not shown
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return cmp.Or(err, errors.New("there is more after the object"))
	}
	return nil
}

// refuseBody does not quote the body, which may be a secret pasted into the wrong place.
func refuseBody(w http.ResponseWriter, err error, want string) {
	if errors.As(err, new(*http.MaxBytesError)) {
		http.Error(w, fmt.Sprintf("The body is longer than %d bytes.", maxRequest), http.StatusRequestEntityTooLarge)
		return
	}
	http.Error(w, want, http.StatusBadRequest)
}

// rotate serves POST /api/v1/policies/{name}/rotate: the rotator takes the request up soon.
func (s *Server) rotate(w http.ResponseWriter, r *http.Request) {
	var body rotateBody
	if err := decodeBody(r, &body); err != nil && !errors.Is(err, io.EOF) {
		refuseBody(w, err, `The body must be one JSON object like {"revoke_now": false, "reason": "why"}, with no other field, or empty.`)
		return
	}
	if elevenlabs.LooksSecret(body.Reason) {
		http.Error(w, "The reason holds what looks like a secret, and would be logged; say why without it.", http.StatusBadRequest)
		return
	}
	name := r.PathValue("name")
	policies := s.cfg.Rotator.Snapshot().Policies
	i := slices.IndexFunc(policies, func(p rotator.PolicyStatus) bool { return p.Policy.Name == name })
	if i < 0 {
		http.Error(w, noPolicy, http.StatusNotFound)
		return
	}
	if err := s.cfg.Rotator.Request(name, rotator.RotateOptions{Revoke: body.RevokeNow, Reason: body.Reason}); err != nil {
		http.Error(w, s.oneLine(err), http.StatusConflict)
		return
	}
	answer := rotateAnswer{Policy: name, Status: "requested", RevokeNow: body.RevokeNow}
	if c := policies[i].Current; c != nil {
		answer.KeyID = c.ID
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(answer) // fails when the client is gone
}
