package sinks

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Source returns the current credential. Each login calls it, and so uses a credential that was replaced in its file.
type Source func() (secret.Secret, error)

// TokenLogin uses a token from another program, such as Vault Agent's token file.
func TokenLogin(token Source) Login {
	return func(context.Context, *vaultapi.Client) (*vaultapi.Secret, error) {
		t, err := take("the Vault token", token)
		if err != nil {
			return nil, err
		}
		return &vaultapi.Secret{Auth: &vaultapi.SecretAuth{ClientToken: t.Reveal()}}, nil
	}
}

// AppRoleLogin logs in with a role id and a secret id.
func AppRoleLogin(mount, roleID string, secretID Source) Login {
	return loginWith(mount, "the secret id", secretID, func(id string) map[string]any { return map[string]any{"role_id": roleID, "secret_id": id} })
}

// loginWith sends the body that has the credential to the login path of an auth method.
func loginWith(mount, what string, credential Source, body func(credential string) map[string]any) Login {
	return func(ctx context.Context, c *vaultapi.Client) (*vaultapi.Secret, error) {
		s, err := take(what, credential)
		if err != nil {
			return nil, err
		}
		return c.Logical().WriteWithContext(ctx, "auth/"+mount+"/login", body(s.Reveal()))
	}
}

// WrappedAppRoleLogin logs in with a role id and a wrapped secret id. The first login unwraps it, once, and keeps it in
// memory and in the redactor. A new wrapping token in the same place is unwrapped again. used is called after each unwrapping: no other
// process can use that token any more.
func WrappedAppRoleLogin(mount, roleID string, wrapped Source, redactor *secret.Redactor, used func()) Login {
	u := &unwrapping{mount: mount, redactor: redactor, used: used}
	return func(ctx context.Context, c *vaultapi.Client) (*vaultapi.Secret, error) {
		token, err := take("the wrapped secret id", wrapped)
		if err != nil {
			return nil, err
		}
		id, err := u.secretID(ctx, c, token)
		if err != nil {
			return nil, err
		}
		return AppRoleLogin(mount, roleID, func() (secret.Secret, error) { return id, nil })(ctx, c)
	}
}

// KubernetesLogin logs in with the token of the pod's service account, which the kubelet replaces regularly.
func KubernetesLogin(mount, role string, jwt Source) Login {
	return loginWith(mount, "the service account's token", jwt, func(token string) map[string]any { return map[string]any{"role": role, "jwt": token} })
}

// JWTLogin logs in with a JWT from another issuer.
func JWTLogin(mount, role string, jwt Source) Login {
	return loginWith(mount, "the JWT", jwt, func(token string) map[string]any { return map[string]any{"role": role, "jwt": token} })
}

// CertLogin logs in with the client certificate of the TLS connection. Without a role, Vault finds a matching one.
func CertLogin(mount, role string) Login {
	return func(ctx context.Context, c *vaultapi.Client) (*vaultapi.Secret, error) {
		body := map[string]any{}
		if role != "" {
			body["name"] = role
		}
		return c.Logical().WriteWithContext(ctx, "auth/"+mount+"/login", body)
	}
}

func take(what string, source Source) (secret.Secret, error) {
	s, err := source()
	if err == nil && s.IsZero() {
		err = errors.New("there is none")
	}
	if err != nil { // an outage: no call to Vault can be made
		return s, &ledger.Error{Op: "taking " + what, Reason: ledger.FailureSinkDenied, Outage: true, Err: err, Advice: "put the credential there; rekeyd reads it again"}
	}
	return s, nil
}

// unwrapping is a secret id in a wrapping token.
type unwrapping struct {
	mount    string
	redactor *secret.Redactor
	used     func()

	mu     sync.Mutex
	token  secret.Secret // the wrapping token of id or failed
	id     secret.Secret
	failed error // the token is unusable, and another try cannot help
	lost   bool  // an answer may have been lost, so this process may have used the token itself
}

func (u *unwrapping) secretID(ctx context.Context, c *vaultapi.Client, token secret.Secret) (secret.Secret, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if token.Reveal() != u.token.Reveal() {
		u.token, u.id, u.failed, u.lost = token, secret.Secret{}, nil, false
	}
	if !u.id.IsZero() || u.failed != nil {
		return u.id, u.failed
	}
	if err := u.checkOrigin(ctx, c); err != nil {
		return secret.Secret{}, err
	}
	s, err := c.Logical().UnwrapWithContext(ctx, token.Reveal())
	if refused(err) {
		return secret.Secret{}, u.alarm("another process may have unwrapped it")
	}
	if err != nil {
		u.lost = true
		return secret.Secret{}, err
	}
	u.used()
	id, _ := s.Data["secret_id"].(string)
	if id == "" {
		return secret.Secret{}, u.alarm("it does not contain a secret id")
	}
	u.id = secret.New(id)
	u.redactor.Add(u.id) // for the life of the process
	return u.id, nil
}

// checkOrigin asks Vault where the token comes from: an attacker may have unwrapped it and wrapped another value.
func (u *unwrapping) checkOrigin(ctx context.Context, c *vaultapi.Client) error {
	s, err := c.Logical().WriteWithContext(ctx, "sys/wrapping/lookup", map[string]any{"token": u.token.Reveal()})
	switch {
	case refused(err):
		return u.alarm("another process may have unwrapped it")
	case err != nil:
		return err
	case s == nil:
		return errors.New("the answer is empty")
	}
	path, _ := s.Data["creation_path"].(string)
	if !strings.HasPrefix(path, "auth/"+u.mount+"/") || !strings.HasSuffix(path, "/secret-id") {
		return u.alarm("it was created outside the auth method approle and may have been exchanged")
	}
	return nil
}

// alarm gives the token up.
func (u *unwrapping) alarm(what string) error {
	err := "the wrapping token is not valid or was used already: " + what
	if u.lost {
		err += ", or Vault's answer to an earlier attempt of this process was lost"
	}
	u.failed = &ledger.Error{Op: "unwrapping the secret id", Reason: ledger.FailureSinkWrapping, Outage: true, Err: errors.New(err),
		Advice: "treat this as a security incident: destroy the role's secret ids, find out who used the token, and issue a new one"}
	return u.failed
}

// refused reports whether Vault understood the request and refused it.
func refused(err error) bool {
	said, ok := errors.AsType[*vaultapi.ResponseError](err)
	return ok && (said.StatusCode == http.StatusBadRequest || said.StatusCode == http.StatusForbidden)
}
