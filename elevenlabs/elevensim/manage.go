package elevensim

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Manage serves the methods of Server below /_sim/:
//
//	GET    /_sim/state                   accounts with their keys and secrets
//	GET    /_sim/history                 requests
//	GET    /_sim/faults                  what is set
//	PUT    /_sim/faults                  replace them; {} for none
//	POST   /_sim/reset                   forget the history, restart the counters of faults
//	POST   /_sim/accounts                add {id, name}
//	DELETE /_sim/accounts/{id}
//	POST   /_sim/accounts/{id}/keys      add a KeySpec as another writer would; answers {id, secret}
//	POST   /_sim/keys/{id}/disable       {reason}
//	POST   /_sim/keys/{id}/enable
//	POST   /_sim/keys/{id}/usage         {credits}
//	DELETE /_sim/keys/{id}
//	POST   /_sim/voices/{id}             {with}: an account or a key
//
// It shows secrets and asks for no credential, so it belongs on a loopback listener only.
func (s *Server) Manage() http.Handler {
	mux := http.NewServeMux()
	id := func(f func(string) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { reply(w, struct{}{}, f(r.PathValue("id"))) }
	}
	mux.HandleFunc("GET /_sim/state", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.State(), nil) })
	mux.HandleFunc("GET /_sim/history", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.History(), nil) })
	mux.HandleFunc("GET /_sim/faults", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Faults(), nil) })
	mux.HandleFunc("PUT /_sim/faults", withBody(func(_ string, f Faults) (any, error) { return f, s.SetFaults(f) }))
	mux.HandleFunc("POST /_sim/reset", id(func(string) error { s.Reset(); return nil }))
	mux.HandleFunc("POST /_sim/accounts", withBody(func(_ string, a Account) (any, error) { return a, s.AddAccount(a) }))
	mux.HandleFunc("DELETE /_sim/accounts/{id}", id(s.RemoveAccount))
	mux.HandleFunc("POST /_sim/accounts/{id}/keys", withBody(s.manageAddKey))
	mux.HandleFunc("POST /_sim/keys/{id}/disable", withBody(func(id string, b struct{ Reason string }) (any, error) {
		return struct{}{}, s.DisableKey(id, b.Reason)
	}))
	mux.HandleFunc("POST /_sim/keys/{id}/enable", id(s.EnableKey))
	mux.HandleFunc("POST /_sim/keys/{id}/usage", withBody(func(id string, b struct{ Credits int64 }) (any, error) {
		return struct{}{}, s.AddUsage(id, b.Credits)
	}))
	mux.HandleFunc("POST /_sim/voices/{id}", withBody(func(id string, b struct{ With string }) (any, error) {
		s.ShareVoice(id, b.With)
		return struct{}{}, nil
	}))
	mux.HandleFunc("DELETE /_sim/keys/{id}", id(s.DeleteKey))
	return mux
}

func (s *Server) manageAddKey(account string, spec KeySpec) (any, error) {
	id, secret, err := s.AddKey(account, spec)
	return map[string]string{"id": id, "secret": secret}, err
}

// withBody decodes a T strictly and passes it on with the id from the path.
func withBody[T any](f func(id string, body T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body T
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&body); err != nil {
			reply(w, nil, fmt.Errorf("reading the request: %w", err))
			return
		}
		value, err := f(r.PathValue("id"), body)
		reply(w, value, err)
	}
}

func reply(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		value = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(value) // an error means that the client has gone
}
