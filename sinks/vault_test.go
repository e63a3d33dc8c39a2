package sinks_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

// openVault makes a store on a real server; its log, at debug level, must never show the token.
func openVault(t *testing.T, s *vaulttest.Server, token string, change ...func(*sinks.VaultOptions)) *sinks.Vault {
	t.Helper()
	log := new(lockedBuffer)
	o := sinks.VaultOptions{
		Config: s.Config(), Token: secret.New(token), Timeout: time.Minute, // 35 MB on a busy machine take more than 10 s
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
func mountFixture(t *testing.T, s *vaulttest.Server, store ledger.Store, config map[string]any) fixture {
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
		edit: func(t *testing.T, ref ledger.Ref, data map[string]any) {
			_, err := c.KVv2(ref.Mount).Put(t.Context(), ref.Path, data)
			must(t, err)
		},
		remove: func(t *testing.T, ref ledger.Ref) { must(t, c.KVv2(ref.Mount).Delete(t.Context(), ref.Path)) },
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
			f.edit = func(t *testing.T, ref ledger.Ref, data map[string]any) {
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
		"capabilities ahead":   testVaultCapabilitiesAhead,
		"observed":             testVaultObserved,
	} {
		t.Run(name, func(t *testing.T) { test(t, s, on(nil)(t)) })
	}
}

// TestVaultInMemory runs the contract over the stand-in that simulations use, as one more proof of its likeness.
func TestVaultInMemory(t *testing.T) {
	contract(t, func(t *testing.T) fixture {
		server := memkv.New("root", "secret")
		store, err := sinks.NewVault(sinks.VaultOptions{Token: secret.New("root"), Transport: server})
		must(t, err)
		return fixture{
			store: store, mount: "secret",
			edit: func(t *testing.T, ref ledger.Ref, data map[string]any) {
				_, err := server.Put(ref.String(), data)
				must(t, err)
			},
			remove: func(_ *testing.T, ref ledger.Ref) { server.SoftDelete(ref.String()) },
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
		if err != nil || doc.Version != version || doc.Fields()["n"] != want {
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
		return err == nil && doc.JSON == nil && doc.Version == 1
	})
	wantWrite(t, f, "a", map[string]any{"n": "2"}, 1)
}

func testVaultNullData(t *testing.T, s *vaulttest.Server, f fixture) {
	_, err := s.Client(t).Logical().WriteBytesWithContext(t.Context(), f.mount+"/data/a", []byte(`{"data":null}`))
	must(t, err)
	_, err = f.store.Read(t.Context(), f.ref("a"), 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkError, says: "version 1 is not a JSON object"})
}

func testVaultMounts(t *testing.T, s *vaulttest.Server, f fixture) {
	s.EnableKV(t, "old", 1, nil)
	_, err := s.Client(t).Logical().WriteWithContext(t.Context(), "old/data/there", map[string]any{"x": "y"})
	must(t, err)
	for mount, want := range map[string]wanted{
		"old":            {reason: ledger.FailureSinkNotKV2, says: "neither check-and-set nor versions", advice: "vault kv enable-versioning old"},
		"cubbyhole":      {reason: ledger.FailureSinkNotKV2, says: `type "cubbyhole"`, advice: "KV version 2"},
		"nowhere":        {reason: ledger.FailureSinkNoMount, says: "no mount nowhere", advice: "(nowhere)"},
		f.mount + "/sub": {reason: ledger.FailureSinkNoMount, says: "but " + f.mount + "/", advice: "into the path"},
	} {
		ref := ledger.Ref{Mount: mount, Path: "a"}
		_, err := f.store.Read(t.Context(), ref, 0)
		wantError(t, err, want)
		_, err = f.store.Write(t.Context(), ref, map[string]any{"x": "y"}, 0)
		wantError(t, err, want)
		_, err = f.store.List(t.Context(), ref)
		wantError(t, err, want)
		wantError(t, f.store.Check(t.Context(), ref), want)
	}
	_, err = f.store.Read(t.Context(), ledger.Ref{Mount: "old", Path: "there"}, 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkNotKV2})
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
	wantError(t, err, wanted{reason: ledger.FailureSinkDenied, says: "reading den/none", advice: "grant read on den/data/none"})
	_, err = f.store.Write(t.Context(), f.ref("read"), nil, 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkDenied, says: "permission denied", advice: "grant create, update on den/data/read"})
	wantWrite(t, f, "create", map[string]any{"n": "1"}, 0)
	_, err = f.store.Write(t.Context(), f.ref("create"), nil, 1)
	wantError(t, err, wanted{reason: ledger.FailureSinkDenied, advice: "grant update on den/data/create"})
	_, err = f.store.List(t.Context(), f.ref("sub"))
	wantError(t, err, wanted{reason: ledger.FailureSinkDenied, advice: "grant list on den/metadata/sub/"})
	wantError(t, f.store.Check(t.Context(), f.ref("read"), f.ref("none")), wanted{reason: ledger.FailureSinkDenied,
		advice: "grant create, update on den/data/read; create, read, update on den/data/none"})
	var many []ledger.Ref
	for i := range 8 {
		many = append(many, f.ref(fmt.Sprint("x", i)))
	}
	wantError(t, f.store.Check(t.Context(), many...), wanted{reason: ledger.FailureSinkDenied, advice: "den/data/x4; the same for 3 more"})

	parameters := s.Token(t, `
		path "den/data/*" { capabilities = ["create", "read", "update"]
			denied_parameters = { "data" = [] } }
		path "sys/capabilities-self" { capabilities = ["update"] }`)
	_, err = openVault(t, s, parameters).Write(t.Context(), f.ref("p"), nil, 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkDenied, advice: "limits parameters on den/data/p"})
}

// testVaultShippedPolicy does all that rekeyd does with the policy as shipped, and then shows that each grant in it is
// needed.
func testVaultShippedPolicy(t *testing.T, s *vaulttest.Server, _ fixture) {
	text, err := os.ReadFile("../deploy/vault/policy.hcl")
	must(t, err)
	policy := string(text)
	must(t, useEverything(t, s, s.Token(t, policy)))
	grants := regexp.MustCompile(`(?s)path "[^"]+" \{.*?\n\}`).FindAllString(policy, -1)
	if len(grants) != 7 {
		t.Errorf("found %d grants", len(grants))
	}
	for _, grant := range grants {
		if err := useEverything(t, s, s.Token(t, strings.Replace(policy, grant, "", 1))); err == nil {
			t.Errorf("this is not needed: %s", grant)
		}
	}
	v := openVault(t, s, s.Token(t, policy))
	for _, path := range []string{"other", "rekeyd", "elevenlabs", "elevenlabs-admin/studio"} {
		ref := ledger.Ref{Mount: "secret", Path: path}
		wantError(t, v.Check(t.Context(), ref), wanted{reason: ledger.FailureSinkDenied, advice: "on secret/data/" + path})
	}
}

func useEverything(t *testing.T, s *vaulttest.Server, token string) error {
	v, ctx := openVault(t, s, token), t.Context()
	record, entry := ledger.Ref{Mount: "secret", Path: "elevenlabs/tts/prod"}, ledger.Ref{Mount: "secret", Path: "rekeyd/policies/tts"}
	errs := []error{v.Ready(ctx), v.Check(ctx, record, entry)}
	for _, ref := range []ledger.Ref{record, entry} {
		doc, err := v.Read(ctx, ref, 0)
		errs = append(errs, err)
		for n := range 2 { // a create, then an update
			_, err = v.Write(ctx, ref, map[string]any{"n": "1"}, doc.Version+n)
			errs = append(errs, err)
		}
		_, err = v.Read(ctx, ref, 1)
		errs = append(errs, err)
	}
	_, err := v.List(ctx, ledger.Ref{Mount: "secret", Path: "rekeyd/policies"})
	_, adminErr := v.Read(ctx, ledger.Ref{Mount: "secret", Path: "elevenlabs-admin/studio"}, 0)
	errs = append(errs, err, adminErr)
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
	refused := wanted{reason: ledger.FailureSinkDenied, outage: true, says: "permission denied", advice: "deploy/vault/policy.hcl"}
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
	wantError(t, err, wanted{reason: ledger.FailureSinkDenied})
	wantError(t, v.Check(t.Context(), f.ref("a")), wanted{reason: ledger.FailureSinkDenied, advice: "create, read, update on " + f.mount + "/data/a"})
}

// What is expected is asked about in few calls, and refuses only its own document.
func testVaultCapabilitiesAhead(t *testing.T, s *vaulttest.Server, f fixture) {
	checks := 0
	token := s.Token(t, `
		path "`+f.mount+`/*" { capabilities = ["create", "read", "update", "list"] }
		path "`+f.mount+`/data/doc150" { capabilities = ["read"] }
		path "sys/capabilities-self" { capabilities = ["update"] }`)
	v := openVault(t, s, token, func(o *sinks.VaultOptions) {
		o.Observe = func(operation, _ string, _ time.Duration) {
			if operation == "check" {
				checks++
			}
		}
	})
	var refs []ledger.Ref
	for i := range 300 {
		refs = append(refs, f.ref(fmt.Sprintf("doc%d", i)))
	}
	v.Expect(slices.Values(append(refs, ledger.Ref{Mount: f.mount, Path: "../odd"})))
	for i, ref := range refs {
		if i != 150 {
			must(t, v.Check(t.Context(), ref))
		}
	}
	if checks != 4 { // three of up to 128 documents each, and the mount
		t.Errorf("300 documents took %d calls", checks)
	}
	wantError(t, v.Check(t.Context(), refs[150]), wanted{reason: ledger.FailureSinkDenied, advice: "create, update on " + f.mount + "/data/doc150"})
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

// eventually polls, for what only time brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
