package web

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
)

// leakWithin bounds a request about a secret: one entry is read, and ElevenLabs asked once.
const leakWithin = 10 * time.Second

// leakedBody is the body of POST /api/v1/leaked.
type leakedBody struct {
	Secret string `json:"secret"`
	Rotate bool   `json:"rotate"`
}

// leaked serves POST /api/v1/leaked: whose key is a secret that a scanner found, does it still work, and make it stop. Nothing
// of the body is logged or repeated.
func (s *Server) leaked(w http.ResponseWriter, r *http.Request) {
	var body leakedBody
	if err := decodeBody(r, &body); err != nil {
		refuseBody(w, err, `The body must be one JSON object like {"secret": "what was found", "rotate": false}, with no other field.`)
		return
	}
	found, err := rotator.ParseLeaked(body.Secret)
	if err != nil {
		http.Error(w, "The body cannot be used: "+err.Error()+".", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), leakWithin)
	defer cancel()
	l, err := s.cfg.Rotator.LeakedHere(ctx, found)
	if err != nil {
		http.Error(w, "The secret was not found, but "+s.oneLine(err)+"; ask again later, or use rekeyd leaked.", http.StatusServiceUnavailable)
		return
	}
	if l.Known {
		s.cfg.Logger.Warn("key reported as leaked", "policy", l.Policy, "state", l.State, "workspace", l.Workspace, "key_id", l.KeyID, "works", l.Works)
	}
	if l.Known && body.Rotate {
		if l, err = s.cfg.Rotator.RequestEnd(l); err != nil {
			http.Error(w, "The secret is known, but no rotation was begun: "+s.oneLine(err)+".", http.StatusConflict)
			return
		}
	}
	text, err := json.Marshal(l)
	s.send(w, "application/json", string(text)+"\n", err)
}
