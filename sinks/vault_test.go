package sinks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/sinks"
)

// openVault makes a store on a real server; its log, at debug level, must never show the token.
func openVault(t *testing.T, s *vaulttest.Server, token string, change ...func(*sinks.VaultOptions)) *sinks.Vault {
	t.Helper()
	log := new(lockedBuffer)
	o := sinks.VaultOptions{
		Config: s.Config(), Token: elevenlabs.NewSecret(token),
		Logger: newLogger(log),
	}
	for _, f := range change {
		f(&o)
	}
	v, err := sinks.NewVault(o)
	must(t, err)
	t.Cleanup(func() {
		if token != "" && strings.Contains(log.String(), token) {
			t.Errorf("the log shows the token: %s", log)
		}
	})
	return v
}

func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// mountFixture makes a mount for one test.
func mountFixture(t *testing.T, s *vaulttest.Server, store rotator.Store, config map[string]any) fixture {
	t.Helper()
	mount := "kv-" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, t.Name())
	s.EnableKV(t, mount, 2, config)
	c := s.Client(t)
	return fixture{
		store: store, mount: mount,
		edit: func(t *testing.T, ref rotator.Ref, data map[string]any) {
			_, err := c.KVv2(ref.Mount).Put(t.Context(), ref.Path, data)
			must(t, err)
		},
		remove: func(t *testing.T, ref rotator.Ref) { must(t, c.KVv2(ref.Mount).Delete(t.Context(), ref.Path)) },
	}
}

func TestVault(t *testing.T) {
	s := vaulttest.Start(t)
	store := openVault(t, s, s.RootToken)
	on := func(config map[string]any) func(t *testing.T) fixture {
		return func(t *testing.T) fixture { return mountFixture(t, s, store, config) }
	}
	t.Run("contract", func(t *testing.T) { contract(t, on(nil)) })
	t.Run("contract with cas_required", func(t *testing.T) {
		contract(t, func(t *testing.T) fixture {
			f := on(nil)(t) // people's edits must not need it
			f.store = store
			_, err := s.Client(t).Logical().WriteWithContext(t.Context(), f.mount+"/config", map[string]any{"cas_required": true})
			must(t, err)
			f.edit = func(t *testing.T, ref rotator.Ref, data map[string]any) {
				kv, cas := s.Client(t).KVv2(ref.Mount), 0
				if now, err := kv.Get(t.Context(), ref.Path); err == nil {
					cas = now.VersionMetadata.Version
				}
				_, err := kv.Put(t.Context(), ref.Path, data, vaultapi.WithCheckAndSet(cas))
				must(t, err)
			}
			return f
		})
	})
	t.Run("contract with max_versions 1", func(t *testing.T) { contract(t, on(map[string]any{"max_versions": 1})) })

	for name, test := range map[string]func(*testing.T, *vaulttest.Server, fixture){
		"old versions":         testVaultOldVersions,
		"destroyed version":    testVaultDestroyed,
		"metadata deleted":     testVaultMetadataDeleted,
		"metadata alone":       testVaultMetadataAlone,
		"delete_version_after": testVaultExpiredVersion,
		"null data":            testVaultNullData,
		"mounts":               testVaultMounts,
		"denied":               testVaultDenied,
		"shipped policy":       testVaultShippedPolicy,
		"no token":             testVaultBadToken,
		"capabilities cached":  testVaultCapabilitiesCached,
		"observed":             testVaultObserved,
	} {
		t.Run(name, func(t *testing.T) { test(t, s, on(nil)(t)) })
	}
}

// TestVaultInMemory runs the contract over the stand-in that simulations use, as one more proof of its likeness.
func TestVaultInMemory(t *testing.T) {
	contract(t, func(t *testing.T) fixture {
		server := memkv.New("root", "secret")
		store, err := sinks.NewVault(sinks.VaultOptions{Token: elevenlabs.NewSecret("root"), Transport: server})
		must(t, err)
		return fixture{
			store: store, mount: "secret",
			edit: func(t *testing.T, ref rotator.Ref, data map[string]any) {
				_, err := server.Put(ref.String(), data)
				must(t, err)
			},
			remove: func(_ *testing.T, ref rotator.Ref) { server.SoftDelete(ref.String()) },
		}
	})
}

func testVaultOldVersions(t *testing.T, s *vaulttest.Server, f fixture) {
	for v := range 4 {
		wantWrite(t, f, "a", map[string]any{"n": fmt.Sprint(v + 1)}, v)
	}
	kv := s.Client(t).KVv2(f.mount)
	must(t, kv.DeleteVersions(t.Context(), "a", []int{2}))
	must(t, kv.Destroy(t.Context(), "a", []int{3}))
	for version, want := range map[int]any{1: "1", 2: nil, 3: nil, 4: "4"} {
		doc, err := f.store.Read(t.Context(), f.ref("a"), version)
		if err != nil || doc.Version != version || doc.Data["n"] != want {
			t.Errorf("version %d: %v, %v; want %v", version, doc, err, want)
		}
	}
}

func testVaultDestroyed(t *testing.T, s *vaulttest.Server, f fixture) {
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 1)
	must(t, s.Client(t).KVv2(f.mount).Destroy(t.Context(), "a", []int{2}))
	wantDoc(t, f, "a", nil, 2)
	wantConflict(t, f, "a", 0)
	wantWrite(t, f, "a", map[string]any{"n": "3"}, 2)
}

func testVaultMetadataDeleted(t *testing.T, s *vaulttest.Server, f fixture) {
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	must(t, s.Client(t).KVv2(f.mount).DeleteMetadata(t.Context(), "a"))
	wantDoc(t, f, "a", nil, 0)
	wantConflict(t, f, "a", 1)
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
}

func testVaultMetadataAlone(t *testing.T, s *vaulttest.Server, f fixture) {
	must(t, s.Client(t).KVv2(f.mount).PutMetadata(t.Context(), "a", vaultapi.KVMetadataPutInput{CustomMetadata: map[string]any{"team": "x"}}))
	wantDoc(t, f, "a", nil, 0)
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
}

func testVaultExpiredVersion(t *testing.T, s *vaulttest.Server, f fixture) {
	_, err := s.Client(t).Logical().WriteWithContext(t.Context(), f.mount+"/config", map[string]any{"delete_version_after": "1s"})
	must(t, err)
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	eventually(t, "the version ends", func() bool {
		doc, err := f.store.Read(t.Context(), f.ref("a"), 0)
		return err == nil && doc.Data == nil && doc.Version == 1
	})
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 1)
}

func testVaultNullData(t *testing.T, s *vaulttest.Server, f fixture) {
	_, err := s.Client(t).Logical().WriteBytesWithContext(t.Context(), f.mount+"/data/a", []byte(`{"data":null}`))
	must(t, err)
	_, err = f.store.Read(t.Context(), f.ref("a"), 0)
	wantError(t, err, wanted{reason: rotator.ReasonSinkError, says: "version 1 holds no JSON object"})
}

func testVaultMounts(t *testing.T, s *vaulttest.Server, f fixture) {
	s.EnableKV(t, "old", 1, nil)
	_, err := s.Client(t).Logical().WriteWithContext(t.Context(), "old/data/there", map[string]any{"x": "y"})
	must(t, err)
	for mount, want := range map[string]wanted{
		"old":            {reason: rotator.ReasonSinkNotKV2, says: "neither check-and-set nor versions", advice: "vault kv enable-versioning old"},
		"cubbyhole":      {reason: rotator.ReasonSinkNotKV2, says: `type "cubbyhole"`, advice: "KV version 2"},
		"nowhere":        {reason: rotator.ReasonSinkNoMount, says: "no mount nowhere", advice: "(nowhere)"},
		f.mount + "/sub": {reason: rotator.ReasonSinkNoMount, says: "but " + f.mount + "/", advice: "into the path"},
	} {
		ref := rotator.Ref{Mount: mount, Path: "a"}
		_, err := f.store.Read(t.Context(), ref, 0)
		wantError(t, err, want)
		_, err = f.store.Write(t.Context(), ref, map[string]any{"x": "y"}, 0)
		wantError(t, err, want)
		_, err = f.store.List(t.Context(), ref)
		wantError(t, err, want)
		wantError(t, f.store.Check(t.Context(), ref), want)
	}
	_, err = f.store.Read(t.Context(), rotator.Ref{Mount: "old", Path: "there"}, 0)
	wantError(t, err, wanted{reason: rotator.ReasonSinkNotKV2})
	if got, err := s.Client(t).Logical().ReadWithContext(t.Context(), "old/data/a"); err != nil || got != nil {
		t.Errorf("a version 1 mount was written to: %v, %v", got, err)
	}
}

func testVaultDenied(t *testing.T, s *vaulttest.Server, f fixture) {
	s.EnableKV(t, "den", 2, nil)
	token := s.Token(t, `
		path "den/data/read" { capabilities = ["read"] }
		path "den/data/create" { capabilities = ["create", "read"] }
		path "sys/capabilities-self" { capabilities = ["update"] }`)
	f.store, f.mount = openVault(t, s, token), "den"
	if _, err := f.store.Read(t.Context(), f.ref("read"), 0); err != nil {
		t.Error(err)
	}
	_, err := f.store.Read(t.Context(), f.ref("none"), 0)
	wantError(t, err, wanted{reason: rotator.ReasonSinkDenied, says: "reading den/none", advice: "grant read on den/data/none"})
	_, err = f.store.Write(t.Context(), f.ref("read"), nil, 0)
	wantError(t, err, wanted{reason: rotator.ReasonSinkDenied, says: "permission denied", advice: "grant create, update on den/data/read"})
	wantWrite(t, f, "create", map[string]any{"n": "1"}, 0)
	_, err = f.store.Write(t.Context(), f.ref("create"), nil, 1)
	wantError(t, err, wanted{reason: rotator.ReasonSinkDenied, advice: "grant update on den/data/create"})
	_, err = f.store.List(t.Context(), f.ref("sub"))
	wantError(t, err, wanted{reason: rotator.ReasonSinkDenied, advice: "grant list on den/metadata/sub/"})
	wantError(t, f.store.Check(t.Context(), f.ref("read"), f.ref("none")), wanted{reason: rotator.ReasonSinkDenied,
		advice: "grant create, update on den/data/read; create, read, update on den/data/none"})
	var many []rotator.Ref
	for i := range 8 {
		many = append(many, f.ref(fmt.Sprint("x", i)))
	}
	wantError(t, f.store.Check(t.Context(), many...), wanted{reason: rotator.ReasonSinkDenied, advice: "den/data/x4; the same for 3 more"})

	parameters := s.Token(t, `
		path "den/data/*" { capabilities = ["create", "read", "update"]
			denied_parameters = { "data" = [] } }
		path "sys/capabilities-self" { capabilities = ["update"] }`)
	_, err = openVault(t, s, parameters).Write(t.Context(), f.ref("p"), nil, 0)
	wantError(t, err, wanted{reason: rotator.ReasonSinkDenied, advice: "limits parameters on den/data/p"})
}

// testVaultShippedPolicy does all that rekeyd does with the policy as shipped, and then shows that each grant in it is
// needed.
func testVaultShippedPolicy(t *testing.T, s *vaulttest.Server, _ fixture) {
	text, err := os.ReadFile("../deploy/vault/policy.hcl")
	must(t, err)
	policy := string(text)
	must(t, useEverything(t, s, s.Token(t, policy)))
	grants := regexp.MustCompile(`(?s)path "[^"]+" \{.*?\n\}`).FindAllString(policy, -1)
	if len(grants) != 6 {
		t.Errorf("found %d grants", len(grants))
	}
	for _, grant := range grants {
		if err := useEverything(t, s, s.Token(t, strings.Replace(policy, grant, "", 1))); err == nil {
			t.Errorf("this is not needed: %s", grant)
		}
	}
	v := openVault(t, s, s.Token(t, policy))
	for _, path := range []string{"other", "rekeyd", "elevenlabs"} {
		ref := rotator.Ref{Mount: "secret", Path: path}
		wantError(t, v.Check(t.Context(), ref), wanted{reason: rotator.ReasonSinkDenied, advice: "on secret/data/" + path})
	}
}

func useEverything(t *testing.T, s *vaulttest.Server, token string) error {
	v, ctx := openVault(t, s, token), t.Context()
	record, entry := rotator.Ref{Mount: "secret", Path: "elevenlabs/tts/prod"}, rotator.Ref{Mount: "secret", Path: "rekeyd/policies/tts"}
	errs := []error{v.Ready(ctx), v.Check(ctx, record, entry)}
	for _, ref := range []rotator.Ref{record, entry} {
		doc, err := v.Read(ctx, ref, 0)
		errs = append(errs, err)
		for n := range 2 { // a create, then an update
			_, err = v.Write(ctx, ref, map[string]any{"n": "1"}, doc.Version+n)
			errs = append(errs, err)
		}
		_, err = v.Read(ctx, ref, 1)
		errs = append(errs, err)
	}
	_, err := v.List(ctx, rotator.Ref{Mount: "secret", Path: "rekeyd/policies"})
	errs = append(errs, err)
	c := s.Client(t)
	c.SetToken(token)
	_, err = c.Auth().Token().RenewSelfWithContext(ctx, 0)
	return errors.Join(append(errs, err)...)
}

func testVaultBadToken(t *testing.T, s *vaulttest.Server, f fixture) {
	token := s.Token(t, `path "`+f.mount+`/*" { capabilities = ["create", "read", "update", "list"] }`)
	v := openVault(t, s, token)
	f.store = v
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	refused := wanted{reason: rotator.ReasonSinkDenied, outage: true, says: "permission denied", advice: "deploy/vault/policy.hcl"}
	wantError(t, f.store.Check(t.Context(), f.ref("a")), refused) // it has no right to ask

	must(t, s.Client(t).Auth().Token().RevokeTreeWithContext(t.Context(), token))
	refused.says = "invalid token"
	_, err := f.store.Read(t.Context(), f.ref("a"), 0)
	wantError(t, err, refused)
	_, err = f.store.Write(t.Context(), f.ref("a"), nil, 1)
	wantError(t, err, refused)
	_, err = f.store.List(t.Context(), f.ref("a"))
	wantError(t, err, refused)
	wantError(t, f.store.Check(t.Context(), f.ref("b")), refused)
	wantError(t, v.Ready(t.Context()), refused)
}

func testVaultCapabilitiesCached(t *testing.T, s *vaulttest.Server, f fixture) {
	var checks, all int
	c := s.Client(t)
	must(t, c.Sys().PutPolicyWithContext(t.Context(), "changing", `
		path "`+f.mount+`/*" { capabilities = ["create", "read", "update", "list"] }
		path "sys/capabilities-self" { capabilities = ["update"] }`))
	secret, err := c.Auth().Token().CreateWithContext(t.Context(), &vaultapi.TokenCreateRequest{Policies: []string{"changing"}, NoDefaultPolicy: true})
	must(t, err)
	v := openVault(t, s, secret.Auth.ClientToken, func(o *sinks.VaultOptions) {
		o.Observe = func(operation, _ string, _ time.Duration) {
			all++
			if operation == "check" {
				checks++
			}
		}
	})
	f.store = v
	must(t, v.Check(t.Context(), f.ref("a"), f.ref("b")))
	if checks != 2 { // capabilities of both, and the mount
		t.Errorf("the first check took %d calls", checks)
	}
	must(t, v.Check(t.Context(), f.ref("a")))
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	if checks != 2 || all != 3 {
		t.Errorf("a cached check and a write made it %d checks of %d calls", checks, all)
	}
	must(t, c.Sys().PutPolicyWithContext(t.Context(), "changing", `
		path "`+f.mount+`/data/b" { capabilities = ["create", "read", "update"] }
		path "sys/capabilities-self" { capabilities = ["update"] }`))
	must(t, v.Check(t.Context(), f.ref("a"))) // it cannot know yet
	_, err = v.Write(t.Context(), f.ref("a"), nil, 1)
	wantError(t, err, wanted{reason: rotator.ReasonSinkDenied})
	wantError(t, v.Check(t.Context(), f.ref("a")), wanted{reason: rotator.ReasonSinkDenied, advice: "create, read, update on " + f.mount + "/data/a"})
}

func testVaultObserved(t *testing.T, s *vaulttest.Server, f fixture) {
	var got []string
	v := openVault(t, s, s.RootToken, func(o *sinks.VaultOptions) {
		o.Observe = func(operation, code string, d time.Duration) {
			if d <= 0 {
				t.Errorf("%s took %s", operation, d)
			}
			got = append(got, operation+" "+code)
		}
	})
	f.store = v
	wantDoc(t, f, "a", nil, 0)
	wantWrite(t, f, "a", nil, 0)
	wantConflict(t, f, "a", 0)
	_, err := v.List(t.Context(), f.ref("a"))
	must(t, err)
	must(t, v.Ready(t.Context()))
	must(t, v.Ready(t.Context()))
	want := "read 404, check 200, write 200, write 400, list 404, lookup 200"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("observed %s\nwant     %s", text, want)
	}
}

func TestVaultSealedAndGone(t *testing.T) {
	s := vaulttest.StartPersistent(t)
	v := openVault(t, s, s.RootToken)
	f := fixture{store: v, mount: "secret"}
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	all := func(want wanted) {
		t.Helper()
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, want)
		_, err = v.Write(t.Context(), f.ref("a"), nil, 1)
		wantError(t, err, want)
		_, err = v.List(t.Context(), f.ref("a"))
		wantError(t, err, want)
		wantError(t, v.Check(t.Context(), f.ref("unseen")), want)
	}
	s.Seal(t)
	all(wanted{reason: rotator.ReasonSinkSealed, outage: true, says: "Vault is sealed", advice: "unseal Vault"})
	wantError(t, v.Ready(t.Context()), wanted{reason: rotator.ReasonSinkSealed, outage: true})
	s.Unseal(t)
	wantDoc(t, f, "a", map[string]any{"n": "1"}, 1)
	s.Kill()
	// Connections to the dead process may still be in the pool: the first write on one cannot know.
	eventually(t, "every connection is found to be dead", func() bool {
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		return err != nil && strings.Contains(err.Error(), "refused")
	})
	all(wanted{reason: rotator.ReasonSinkUnreachable, outage: true, says: "refused", advice: "check VAULT_ADDR"})
	s.Restart(t)
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 1)
}

// stub answers as a test wants, where the real Vault will not.
func stub(t *testing.T, serve http.HandlerFunc, change ...func(*sinks.VaultOptions)) (*sinks.Vault, fixture) {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	config := vaultapi.DefaultConfig()
	config.Address = server.URL
	o := sinks.VaultOptions{Config: config, Token: elevenlabs.NewSecret("hvs.stub"), Timeout: 200 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	v, err := sinks.NewVault(o)
	must(t, err)
	return v, fixture{store: v, mount: "secret"}
}

const isKV2 = `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`

// stubWrite lets the mount be found and answers everything else as serve does.
func stubWrite(t *testing.T, serve http.HandlerFunc, change ...func(*sinks.VaultOptions)) (*sinks.Vault, fixture) {
	t.Helper()
	return stub(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
			_, _ = io.WriteString(w, isKV2)
			return
		}
		serve(w, r)
	}, change...)
}

func TestVaultAnswers(t *testing.T) {
	down := rotator.ReasonSinkUnreachable
	for name, c := range map[string]struct {
		status      int
		body        string
		read, write wanted
	}{
		"rate limit": {429, `{"errors":["request path \"x\": rate limit quota exceeded"]}`,
			wanted{reason: rotator.ReasonSinkRateLimited, outage: true, says: "429: request path"}, wanted{reason: rotator.ReasonSinkRateLimited, outage: true}},
		"internal error": {500, `{"errors":["1 error occurred:\n\t* storage\n\n"]}`,
			wanted{reason: rotator.ReasonSinkError, says: "500: 1 error occurred: * storage;"}, wanted{reason: rotator.ReasonSinkError, maybe: true}},
		"no active node": {500, `{"errors":["local node not active but active cluster node not found"]}`,
			wanted{reason: rotator.ReasonSinkStandby, outage: true}, wanted{reason: rotator.ReasonSinkStandby, outage: true}},
		"bad gateway": {502, `<html>hvs.stub`,
			wanted{reason: down, outage: true, says: "answers 502;"}, wanted{reason: down, outage: true, maybe: true}},
		"sealed":  {503, `{"errors":["Vault is sealed"]}`, wanted{reason: rotator.ReasonSinkSealed, outage: true}, wanted{reason: rotator.ReasonSinkSealed, outage: true}},
		"standby": {472, ``, wanted{reason: rotator.ReasonSinkStandby, outage: true}, wanted{reason: rotator.ReasonSinkStandby, outage: true}},
		"behind":  {412, `{"errors":["required index state not present"]}`, wanted{reason: rotator.ReasonSinkStandby, outage: true}, wanted{reason: rotator.ReasonSinkStandby, outage: true}},
		"too large": {413, `{"errors":["http: request body too large"]}`,
			wanted{reason: rotator.ReasonSinkTooLarge}, wanted{reason: rotator.ReasonSinkTooLarge, says: "too large"}},
		"long string": {500, `{"errors":["JSON string value exceeds allowed length"]}`,
			wanted{reason: rotator.ReasonSinkTooLarge}, wanted{reason: rotator.ReasonSinkTooLarge}},
		"other 400": {400, `{"errors":["check-and-set parameter required for this call"]}`,
			wanted{reason: rotator.ReasonSinkError}, wanted{reason: rotator.ReasonSinkError, says: "required"}},
		"not JSON": {200, `hello hvs.stub`,
			wanted{reason: rotator.ReasonSinkError, says: "not the JSON"}, wanted{reason: rotator.ReasonSinkError, maybe: true}},
		"other JSON": {200, `{"data":{"keys":3}}`,
			wanted{reason: rotator.ReasonSinkError}, wanted{reason: rotator.ReasonSinkError, maybe: true}},
		"no content": {204, ``, wanted{reason: rotator.ReasonSinkError}, wanted{reason: rotator.ReasonSinkError, maybe: true}},
		"a list": {200, `{"data":{"data":[1],"metadata":{"version":3}}}`,
			wanted{reason: rotator.ReasonSinkError, says: "version 3 holds no JSON object"}, wanted{reason: rotator.ReasonSinkError, maybe: true}},
		"talkative": {500, `{"errors":["` + strings.Repeat("hvs.stub ", 200) + `"]}`,
			wanted{reason: rotator.ReasonSinkError, says: "…"}, wanted{reason: rotator.ReasonSinkError, maybe: true}},
	} {
		t.Run(name, func(t *testing.T) {
			_, f := stubWrite(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := f.store.Read(t.Context(), f.ref("a"), 0)
			wantError(t, err, c.read)
			if err != nil && len([]rune(err.Error())) > 500 {
				t.Errorf("%d characters: %v", len(err.Error()), err)
			}
			_, err = f.store.Write(t.Context(), f.ref("a"), nil, 0)
			wantError(t, err, c.write)
		})
	}
}

func TestVaultFollowsNoRedirect(t *testing.T) {
	var elsewhere int
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		v, f := stubWrite(t, http.RedirectHandler(other.URL, status).ServeHTTP,
			func(o *sinks.VaultOptions) { o.Config.HttpClient.CheckRedirect = nil })
		want := wanted{reason: rotator.ReasonSinkStandby, outage: true, advice: "active node"}
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, want)
		_, err = v.Write(t.Context(), f.ref("a"), nil, 0)
		wantError(t, err, want)
		wantError(t, v.Ready(t.Context()), want)
	}
	if elsewhere > 0 {
		t.Errorf("%d requests followed a redirect", elsewhere)
	}
}

func TestVaultNamespaceAndEnvironment(t *testing.T) {
	t.Setenv("VAULT_NAMESPACE", "from-the-environment")
	t.Setenv("VAULT_TOKEN", "hvs.from-the-environment")
	for _, namespace := range []string{"", "team/a"} {
		v, f := stub(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("X-Vault-Namespace"); got != namespace {
				t.Errorf("%s in namespace %q, want %q", r.URL, got, namespace)
			}
			if got := r.Header.Get("X-Vault-Token"); got != "hvs.stub" {
				t.Errorf("%s with another token", r.URL)
			}
			_, _ = io.WriteString(w, isKV2)
		}, func(o *sinks.VaultOptions) { o.Namespace = namespace })
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, wanted{reason: rotator.ReasonSinkError})
	}
}

// cutter applies a request and loses its answer, or loses the request.
type cutter struct {
	http.RoundTripper
	before, after, body error
}

func (c cutter) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/sys/") {
		return c.RoundTripper.RoundTrip(r)
	}
	if c.before != nil {
		return nil, c.before
	}
	resp, err := c.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if c.after != nil {
		_ = resp.Body.Close()
		return nil, c.after
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(resp.Body, 10), failing{c.body}), resp.Body}
	return resp, nil
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestVaultLostAnswers(t *testing.T) {
	s := vaulttest.Start(t)
	direct := fixture{store: openVault(t, s, s.RootToken), mount: "secret"}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("connection refused")}
	for name, c := range map[string]struct {
		cut         cutter
		read, write wanted
		applied     bool
	}{
		"never dialled": {cutter{before: refused},
			wanted{reason: rotator.ReasonSinkUnreachable, outage: true}, wanted{reason: rotator.ReasonSinkUnreachable, outage: true}, false},
		"lost on the way": {cutter{before: io.ErrUnexpectedEOF},
			wanted{reason: rotator.ReasonSinkUnreachable, outage: true}, wanted{reason: rotator.ReasonSinkUnreachable, outage: true, maybe: true}, false},
		"lost on the way back": {cutter{after: io.EOF},
			wanted{reason: rotator.ReasonSinkUnreachable, outage: true}, wanted{reason: rotator.ReasonSinkUnreachable, outage: true, maybe: true}, true},
		"cut short": {cutter{body: io.ErrUnexpectedEOF},
			wanted{reason: rotator.ReasonSinkError}, wanted{reason: rotator.ReasonSinkError, maybe: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := strings.ReplaceAll(name, " ", "-")
			c.cut.RoundTripper = new(http.Transport)
			f := fixture{store: openVault(t, s, s.RootToken, func(o *sinks.VaultOptions) { o.Transport = c.cut }), mount: "secret"}
			_, err := f.store.Write(t.Context(), f.ref(path), map[string]any{"n": "1"}, 0)
			wantError(t, err, c.write)
			_, err = f.store.Read(t.Context(), f.ref(path), 0)
			wantError(t, err, c.read)
			if c.applied {
				wantDoc(t, direct, path, map[string]any{"n": "1"}, 1)
			} else {
				wantDoc(t, direct, path, nil, 0)
			}
		})
	}
}

func TestVaultTimeoutAndCancel(t *testing.T) {
	arrived, done := make(chan struct{}, 9), make(chan struct{})
	v, f := stubWrite(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-done })
	t.Cleanup(func() { close(done) }) // before the server is closed, which waits for its handlers
	_, err := v.Read(t.Context(), f.ref("a"), 0)
	wantError(t, err, wanted{reason: rotator.ReasonSinkUnreachable, outage: true, says: "no answer within 200ms"})
	_, err = v.Write(t.Context(), f.ref("a"), nil, 0)
	wantError(t, err, wanted{reason: rotator.ReasonSinkUnreachable, outage: true, maybe: true})
	<-arrived
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err = v.Write(ctx, f.ref("a"), nil, 0)
	wantError(t, err, wanted{reason: rotator.ReasonSinkUnreachable, maybe: true, says: "context canceled"})
}

func TestVaultTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, address := range []string{server.URL, strings.Replace(server.URL, "https", "http", 1), strings.Replace(plain.URL, "http", "https", 1)} {
		v, f := stub(t, nil, func(o *sinks.VaultOptions) {
			o.Config.Address = address
			o.Timeout = 10 * time.Second
		})
		_, err := v.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, wanted{reason: rotator.ReasonSinkTLS, outage: true, advice: "VAULT_CACERT"})
		_, err = v.Write(t.Context(), f.ref("a"), nil, 0)
		wantError(t, err, wanted{reason: rotator.ReasonSinkTLS, outage: true})
	}
}

func TestNewVaultRefuses(t *testing.T) {
	if _, err := sinks.NewVault(sinks.VaultOptions{}); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without a token: %v", err)
	}
	config := vaultapi.DefaultConfig()
	config.Address = "http://[::1"
	if _, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: elevenlabs.NewSecret("hvs.stub")}); err == nil {
		t.Error("an address that is none was accepted")
	}
	t.Setenv("VAULT_CLIENT_TIMEOUT", "soon")
	if _, err := sinks.VaultConfig(); err == nil || !strings.Contains(err.Error(), "VAULT_CLIENT_TIMEOUT") {
		t.Errorf("a broken environment: %v", err)
	}
}

// eventually polls, for what only time brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
