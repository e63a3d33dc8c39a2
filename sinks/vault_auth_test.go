package sinks_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// credential is a secret that a test replaces, as a person or an agent does in a file.
type credential struct {
	mu    sync.Mutex
	value string
	asked int
}

func (c *credential) set(value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value = value
}

func (c *credential) get() (secret.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.value == "" {
		return secret.Secret{}, os.ErrNotExist
	}
	return secret.New(c.value), nil
}

func (c *credential) askedFor() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// authServer is a Vault on which a policy named rekeyd gives what rekeyd needs.
type authServer struct {
	*vaulttest.Server
	t    *testing.T
	root *vaultapi.Client
}

func newAuthServer(t *testing.T, s *vaulttest.Server) *authServer {
	t.Helper()
	a := &authServer{s, t, s.Client(t)}
	must(t, a.root.Sys().PutPolicyWithContext(t.Context(), "rekeyd", tokenPolicy))
	return a
}

func (a *authServer) enable(method, mount string) {
	a.t.Helper()
	must(a.t, a.root.Sys().EnableAuthWithOptionsWithContext(a.t.Context(), mount, &vaultapi.EnableAuthOptions{Type: method}))
}

func (a *authServer) write(path string, data map[string]any) map[string]any {
	a.t.Helper()
	s, err := a.root.Logical().WriteWithContext(a.t.Context(), path, data)
	must(a.t, err)
	if s == nil {
		return nil
	}
	return s.Data
}

// appRole makes a role on a mount of its own and returns its role id.
func (a *authServer) appRole(mount string, settings map[string]any) (roleID string) {
	a.t.Helper()
	a.enable("approle", mount)
	role := map[string]any{"token_policies": "rekeyd", "token_no_default_policy": true, "token_ttl": "1h"}
	for k, v := range settings {
		role[k] = v
	}
	a.write("auth/"+mount+"/role/rekeyd", role)
	s, err := a.root.Logical().ReadWithContext(a.t.Context(), "auth/"+mount+"/role/rekeyd/role-id")
	must(a.t, err)
	return s.Data["role_id"].(string)
}

func (a *authServer) secretID(mount string) string {
	a.t.Helper()
	return a.write("auth/"+mount+"/role/rekeyd/secret-id", nil)["secret_id"].(string)
}

func (a *authServer) open(login sinks.Login, more ...func(*sinks.VaultOptions)) *sinks.Vault {
	a.t.Helper()
	return openVault(a.t, a.Server, "", append(more, func(o *sinks.VaultOptions) { o.Login = login })...)
}

// works writes and reads a document, without Run: as a command does.
func works(t *testing.T, v *sinks.Vault) {
	t.Helper()
	ref := ledger.Ref{Mount: "secret", Path: "auth/" + strings.ReplaceAll(t.Name(), "/", "-")}
	doc, err := v.Read(t.Context(), ref, 0)
	must(t, err)
	_, err = v.Write(t.Context(), ref, map[string]any{"a": "b"}, doc.Version)
	must(t, err)
}

func TestVaultAuthMethods(t *testing.T) {
	a := newAuthServer(t, vaulttest.Start(t))
	t.Run("token", func(t *testing.T) {
		file := &credential{value: a.Token(t, tokenPolicy)}
		v := a.open(sinks.TokenLogin(file.get), func(o *sinks.VaultOptions) { o.Reread = file.get })
		works(t, v)
		runToken(t, v)
		next := a.Token(t, tokenPolicy)
		must(t, a.root.Auth().Token().RevokeOrphanWithContext(t.Context(), file.value))
		file.set(next) // as Vault Agent does
		eventually(t, "the token of the file is followed", func() bool { return v.Ready(t.Context()) == nil })
		works(t, v)
	})
	t.Run("approle", func(t *testing.T) {
		role, id := a.appRole("machines", nil), &credential{}
		id.set(a.secretID("machines"))
		works(t, a.open(sinks.AppRoleLogin("machines", role, id.get)))
	})
	t.Run("jwt", func(t *testing.T) {
		a.enable("jwt", "workloads")
		key, public := ecKey(t)
		a.write("auth/workloads/config", map[string]any{"jwt_validation_pubkeys": public})
		a.write("auth/workloads/role/rekeyd", map[string]any{"role_type": "jwt", "bound_audiences": "vault", "user_claim": "sub", "token_policies": "rekeyd"})
		jwt := &credential{value: signed(t, key, "vault")}
		works(t, a.open(sinks.JWTLogin("workloads", "rekeyd", jwt.get)))
		jwt.set(signed(t, key, "somebody else"))
		err := a.open(sinks.JWTLogin("workloads", "rekeyd", jwt.get)).Ready(t.Context())
		if e := asError(t, err); e.Reason != ledger.FailureSinkDenied || !e.Outage || !strings.Contains(err.Error(), "audience") {
			t.Errorf("a token for somebody else: %v", err)
		}
	})
}

func asError(t *testing.T, err error) *ledger.Error {
	t.Helper()
	var e *ledger.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is not a *rotator.Error", err)
	}
	return e
}

func TestVaultCertLogin(t *testing.T) {
	a := newAuthServer(t, vaulttest.StartTLS(t))
	a.enable("cert", "devices")
	certFile, keyFile, pemText := clientCertificate(t)
	a.write("auth/devices/certs/rekeyd", map[string]any{"certificate": pemText, "token_policies": "rekeyd"})
	with := func(tls vaultapi.TLSConfig) func(*sinks.VaultOptions) {
		tls.CACert = a.CACert
		return func(o *sinks.VaultOptions) { must(t, o.Config.ConfigureTLS(&tls)) }
	}
	works(t, a.open(sinks.CertLogin("devices", "rekeyd"), with(vaultapi.TLSConfig{ClientCert: certFile, ClientKey: keyFile})))
	err := a.open(sinks.CertLogin("devices", "rekeyd"), with(vaultapi.TLSConfig{})).Ready(t.Context())
	if e := asError(t, err); e.Reason != ledger.FailureSinkDenied {
		t.Errorf("without a certificate: %v", err)
	}
}

// A wrapped secret id is unwrapped once, however often the process logs in with it.
func TestVaultWrappedSecretID(t *testing.T) {
	a := newAuthServer(t, vaulttest.Start(t))
	role := a.appRole("approle", map[string]any{"token_ttl": "5s", "token_max_ttl": "5s"})
	wrap := func(path string) string {
		c, err := a.root.Clone()
		must(t, err)
		c.SetToken(a.RootToken)
		c.SetWrappingLookupFunc(func(string, string) string { return "5m" })
		s, err := c.Logical().WriteWithContext(t.Context(), path, map[string]any{"secret_id": "not one"})
		must(t, err)
		return s.WrapInfo.Token
	}
	const generate = "auth/approle/role/rekeyd/secret-id"
	var unwrapped atomic.Int32
	login := func(c *credential) sinks.Login {
		return sinks.WrappedAppRoleLogin("approle", role, c.get, new(secret.Redactor), func() { unwrapped.Add(1) })
	}

	good := &credential{value: wrap(generate)}
	v := a.open(login(good))
	runToken(t, v)
	eventually(t, "a first token", func() bool { return v.Ready(t.Context()) == nil })
	first, _ := v.TokenExpiry()
	eventually(t, "a second token, since the first one's life is over", func() bool {
		at, ok := v.TokenExpiry()
		return ok && at.Sub(first) > time.Second
	})
	// Tokens live so briefly that on a busy machine a call may meet one that has just ended.
	eventually(t, "the second token works", func() bool { return v.Ready(t.Context()) == nil })

	log := new(lockedBuffer)
	used := &credential{value: good.value}
	thief := a.open(login(used), withLog(log))
	runToken(t, thief)
	err := thief.Ready(t.Context())
	if e := asError(t, err); e.Reason != ledger.FailureSinkWrapping || !strings.Contains(err.Error(), "another process may have unwrapped it") || !strings.Contains(err.Error(), "security incident") {
		t.Errorf("a used wrapping token: %v", err)
	}
	eventually(t, "the alarm is logged", func() bool { return strings.Contains(log.String(), "security incident") })
	if n := strings.Count(log.String(), "security incident"); n != 1 || strings.Contains(log.String(), used.value) {
		t.Errorf("%d alarms in the log, or it shows the token:\n%s", n, log)
	}
	fresh := a.open(login(&credential{value: wrap(generate)})) // of its own: a wrapping token is good for one
	eventually(t, "a fresh wrapping token works", func() bool { return fresh.Ready(t.Context()) == nil })

	exchanged := a.open(login(&credential{value: wrap("sys/wrapping/wrap")}))
	if err := exchanged.Ready(t.Context()); asError(t, err).Reason != ledger.FailureSinkWrapping || !strings.Contains(err.Error(), "exchanged") {
		t.Errorf("a token that wraps something else: %v", err)
	}
	if n := unwrapped.Load(); n != 2 { // the good one and the fresh one
		t.Errorf("%d secret ids are said to be used up", n)
	}
}

// A token whose life ends is replaced in time, one that is revoked at once, and the secret id may change meanwhile.
func TestVaultAppRoleTokensAreReplaced(t *testing.T) {
	a := newAuthServer(t, vaulttest.StartPersistent(t))
	role, id := a.appRole("approle", map[string]any{"token_ttl": "6s", "token_max_ttl": "12s", "token_type": "service"}), &credential{}
	id.set(a.secretID("approle"))
	v := a.open(sinks.AppRoleLogin("approle", role, id.get))
	runToken(t, v)
	eventually(t, "a token", func() bool { return v.Ready(t.Context()) == nil })
	id.set(a.secretID("approle"))
	asked := id.askedFor()
	eventually(t, "a login with the new secret id", func() bool { return id.askedFor() > asked })
	works(t, v)

	accessors, err := a.root.Logical().ListWithContext(t.Context(), "auth/token/accessors")
	must(t, err)
	for _, accessor := range accessors.Data["keys"].([]any) {
		if s, err := a.root.Auth().Token().LookupAccessorWithContext(t.Context(), fmt.Sprint(accessor)); err == nil && s.Data["path"] == "auth/approle/login" {
			must(t, a.root.Auth().Token().RevokeAccessorWithContext(t.Context(), fmt.Sprint(accessor)))
		}
	}
	ref := ledger.Ref{Mount: "secret", Path: "revoked"}
	if _, err := v.Read(t.Context(), ref, 0); asError(t, err).Reason != ledger.FailureSinkDenied {
		t.Errorf("with a revoked token: %v", err)
	}
	eventually(t, "a token in the place of the revoked one", func() bool { _, err := v.Read(t.Context(), ref, 0); return err == nil })
}

// Every call, the login's too, says which namespace it is for.
func TestVaultNamespace(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	v, _ := stub(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.URL.Path+" "+r.Header.Get("X-Vault-Namespace")] = true
		mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/login") {
			_, _ = io.WriteString(w, `{"auth":{"client_token":"hvs.of-the-namespace","lease_duration":60,"renewable":false}}`)
			return
		}
		_, _ = io.WriteString(w, `{"data":{"ttl":60,"data":{},"metadata":{"version":1}}}`)
	}, func(o *sinks.VaultOptions) {
		o.Token, o.Namespace = secret.Secret{}, "team/audio"
		o.Login = sinks.KubernetesLogin("cluster-7", "rekeyd", (&credential{value: "jwt-of-the-pod"}).get)
	})
	_, err := v.Read(t.Context(), ledger.Ref{Mount: "secret", Path: "x"}, 0)
	must(t, err)
	for _, want := range []string{"/v1/auth/cluster-7/login team/audio", "/v1/secret/data/x team/audio"} {
		if !seen[want] {
			t.Errorf("no call %q in %v", want, seen)
		}
	}
}

// A login that cannot even begin says what is missing, and is tried again when it is there.
func TestVaultCredentialMissing(t *testing.T) {
	a := newAuthServer(t, vaulttest.Start(t))
	role, id := a.appRole("approle", nil), &credential{}
	v := a.open(sinks.AppRoleLogin("approle", role, id.get))
	err := v.Ready(t.Context())
	if e := asError(t, err); !e.Outage || e.Reason != ledger.FailureSinkDenied || !strings.Contains(err.Error(), "taking the secret id") {
		t.Errorf("without a secret id: %v", err)
	}
}

func ecKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// signed returns a JWT (RFC 7519) for an audience, signed with ES256.
func signed(t *testing.T, key *ecdsa.PrivateKey, audience string) string {
	t.Helper()
	part := func(v any) string {
		text, err := json.Marshal(v)
		must(t, err)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	now := time.Now()
	text := part(map[string]string{"alg": "ES256", "typ": "JWT"}) + "." +
		part(map[string]any{"sub": "rekeyd", "aud": audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()})
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	must(t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// clientCertificate makes a certificate that signs itself.
func clientCertificate(t *testing.T) (certFile, keyFile, text string) {
	t.Helper()
	key, _ := ecKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rekeyd"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	text = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	must(t, os.WriteFile(certFile, []byte(text), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return certFile, keyFile, text
}
