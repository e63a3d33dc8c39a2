package elevensim

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

var (
	//go:embed answers/subscription.json
	subscriptionJSON string
	//go:embed answers/models.json
	modelsJSON string
)

// The handlers run with the lock held, after the key has been authorized for the operation.

func (s *Server) listServiceAccounts(*call, *Key) (any, *refusal) {
	list := wireAccountList{wireFuture: s.future()}
	if s.faults.MissingList == "service-accounts" {
		return list, nil
	}
	accounts := make([]wireAccount, 0, len(s.accounts))
	for _, a := range s.accounts {
		accounts = append(accounts, wireAccount{
			ID: a.ID, Name: a.Name, CreatedAtUnix: a.createdAt.Unix(), APIKeys: s.wireKeys(a),
			DefaultSharingGroups: []struct{}{}, wireFuture: s.future(),
		})
	}
	shuffle(s, accounts)
	list.ServiceAccounts = &accounts
	return list, nil
}

func (s *Server) createServiceAccount(c *call, _ *Key) (any, *refusal) {
	name, refused := readAccount(c)
	if refused != nil {
		return nil, refused
	}
	if limit := s.faults.AccountLimit; limit > 0 && len(s.accounts) >= limit {
		return nil, badRequest("max_service_accounts_reached", fmt.Sprintf(
			"The workspace has reached its maximum of %d service accounts.", limit), "")
	}
	a := &account{Account: Account{ID: "svcacc_" + s.hex(2)[:20], Name: name}, createdAt: s.now()}
	s.accounts = append(s.accounts, a)
	c.record.Account = a.ID
	return wireCreatedAccount{ID: a.ID, wireFuture: s.future()}, nil
}

func (s *Server) listAPIKeys(c *call, _ *Key) (any, *refusal) {
	a, refused := s.pathAccount(c)
	if refused != nil {
		return nil, refused
	}
	return wireKeyList{APIKeys: s.wireKeys(a), wireFuture: s.future()}, nil
}

func (s *Server) createAPIKey(c *call, by *Key) (any, *refusal) {
	p, refused := readCreate(c, &s.faults.Faults)
	if refused != nil {
		return nil, refused
	}
	a, refused := s.pathAccount(c)
	if refused != nil {
		return nil, refused
	}
	if limit := s.faults.KeyLimit; limit > 0 && len(a.live) >= limit {
		return nil, badRequest("max_api_keys_reached", fmt.Sprintf(
			"The service account has reached its maximum of %d API keys.", limit), "")
	}
	if s.faults.UniqueNames && slices.ContainsFunc(a.live, func(k *Key) bool { return k.Name == p.name.value }) {
		return nil, &refusal{status: http.StatusConflict, kind: "conflict", code: "name_taken", message: "There is an API key with this name."}
	}
	k := &Key{}
	p.apply(k)
	s.insert(a, k, by.ID)
	c.record.KeyID = k.ID
	created := wireCreatedKey{XiAPIKey: k.Secret, KeyID: k.ID, wireFuture: s.future()}
	if s.faults.NoKeyID {
		created.KeyID = ""
	}
	return created, nil
}

func (s *Server) updateAPIKey(c *call, by *Key) (any, *refusal) {
	p, refused := readUpdate(c, &s.faults.Faults)
	if refused != nil {
		return nil, refused
	}
	k, refused := s.pathKey(c)
	if refused != nil {
		return nil, refused
	}
	if s.faults.NoReenable && k.DisableReason != "" && p.enabled.value {
		return nil, forbidden("api_key_disabled", "This API key was disabled by ElevenLabs.")
	}
	s.remember(k)
	if p.apply(k) {
		s.changed(Patched, k, by.ID)
	}
	if p.enabled.set {
		s.setEnabled(k, p.enabled.value, "", by.ID)
	}
	return struct{}{}, nil
}

func (s *Server) deleteAPIKey(c *call, by *Key) (any, *refusal) {
	if k := s.keys[c.record.KeyID]; s.faults.IdempotentDelete && k != nil && k.Deleted() {
		return struct{}{}, nil
	}
	k, refused := s.pathKey(c)
	if refused != nil {
		return nil, refused
	}
	s.deleteKey(k, by.ID)
	return struct{}{}, nil
}

func (s *Server) disableOwnAPIKey(c *call, by *Key) (any, *refusal) {
	if f := checkSelf(c.query); f != nil {
		return nil, invalid(f)
	}
	if by.ThirdPartyDisable != nil && !*by.ThirdPartyDisable {
		return nil, forbidden("self_disable_not_allowed", "This API key may not be disabled by its holder.")
	}
	c.record.Account, c.record.KeyID = by.Account, by.ID
	s.setEnabled(by, false, "self_disabled", by.ID)
	return struct{}{}, nil
}

func checkSelf(query map[string][]string) []fieldError {
	loc := []string{"query", "api_key_name"}
	switch values := query["api_key_name"]; {
	case len(values) == 0:
		return []fieldError{{loc, "Field required", "missing"}}
	case len(values) > 1 || values[0] != "self":
		return []fieldError{{loc, "Input should be 'self'", "literal_error"}}
	}
	return nil
}

func (s *Server) getUser(_ *call, by *Key) (any, *refusal) {
	return map[string]any{
		"user_id":                           cmp.Or(by.Account, by.ID),
		"workspace_id":                      "workspace_simulated",
		"subscription":                      json.RawMessage(subscriptionJSON),
		"is_new_user":                       false,
		"can_use_delayed_payment_methods":   false,
		"is_onboarding_completed":           true,
		"is_onboarding_checklist_completed": true,
		"show_compliance_terms":             false,
		"is_api_key_hashed":                 true,
		"partnerstack_partner_default_link": nil,
		"created_at":                        by.CreatedAt.Unix(),
		"seat_type":                         "workspace_member",
	}, nil
}

// getVoice answers for a voice that is shared with the key's service account, or with the key itself.
func (s *Server) getVoice(c *call, by *Key) (any, *refusal) {
	id := c.record.Path[strings.LastIndexByte(c.record.Path, '/')+1:]
	shared := s.voices[id]
	if !slices.Contains(shared, by.ID) && !slices.Contains(shared, by.Account) {
		return nil, notFound("voice_not_found", "A voice with this voice_id does not exist.")
	}
	return map[string]any{"voice_id": id, "name": id, "category": "cloned"}, nil
}

func (s *Server) listModels(*call, *Key) (any, *refusal) {
	return json.RawMessage(modelsJSON), nil
}

func (s *Server) pathAccount(c *call) (*account, *refusal) {
	a := s.account(c.record.Account)
	if a == nil {
		return nil, notFound("service_account_not_found", "No such service account.")
	}
	return a, nil
}

func (s *Server) pathKey(c *call) (*Key, *refusal) {
	if _, refused := s.pathAccount(c); refused != nil {
		return nil, refused
	}
	k := s.keys[c.record.KeyID]
	if k == nil || k.Deleted() || k.Account != c.record.Account || s.now().Sub(k.CreatedAt) < time.Duration(s.faults.IDLag) {
		return nil, notFound("api_key_not_found", "No such API key.")
	}
	return k, nil
}

func invalid(fields []fieldError) *refusal {
	return &refusal{status: http.StatusUnprocessableEntity, fields: fields}
}
