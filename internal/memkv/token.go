package memkv

import (
	"net/http"
	"time"
)

// token is the server's only one. With ttl 0 it is a root token: it never ends and cannot be renewed.
type token struct {
	value   string
	ttl     time.Duration
	issued  time.Time
	expiry  time.Time
	renewed time.Time
	revoked bool
}

func (t *token) check(given string) error {
	switch {
	case given == "":
		return refuse(http.StatusForbidden, "permission denied")
	case given != t.value, t.revoked, t.ttl > 0 && !time.Now().Before(t.expiry):
		return refuse(http.StatusForbidden, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	}
	return nil
}

func (t *token) policies() []string {
	if t.ttl == 0 {
		return []string{"root"}
	}
	return []string{"test"}
}

func (t *token) lookup() answer {
	data := map[string]any{
		"accessor": "memkv", "creation_time": t.issued.Unix(), "creation_ttl": int(t.ttl / time.Second), "display_name": "token",
		"entity_id": "", "expire_time": nil, "explicit_max_ttl": 0, "id": t.value, "issue_time": stamp(t.issued), "meta": nil,
		"num_uses": 0, "orphan": true, "path": "auth/token/create", "policies": t.policies(),
		"renewable": t.ttl > 0, "ttl": 0, "type": "service",
	}
	if t.ttl > 0 {
		data["ttl"], data["expire_time"] = int(time.Until(t.expiry)/time.Second), stamp(t.expiry)
	}
	if !t.renewed.IsZero() {
		data["last_renewal"], data["last_renewal_time"] = stamp(t.renewed), t.renewed.Unix()
	}
	return answer{status: http.StatusOK, kind: "token", data: data}
}

func (t *token) renew() (answer, error) {
	if t.ttl == 0 {
		return answer{}, refuse(http.StatusBadRequest, "lease is not renewable")
	}
	t.renewed = time.Now()
	t.expiry = t.renewed.Add(t.ttl)
	return answer{status: http.StatusOK, kind: "token", auth: map[string]any{
		"client_token": t.value, "accessor": "memkv", "policies": t.policies(), "token_policies": t.policies(), "metadata": nil,
		"lease_duration": int(t.ttl / time.Second), "renewable": true, "entity_id": "", "token_type": "service", "orphan": true,
		"mfa_requirement": nil, "num_uses": 0,
	}}, nil
}
