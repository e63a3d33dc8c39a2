package sinks_test

import (
	"context"
	"errors"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

func TestVaultIsLookedAt(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.EnableKV(t, "short", 2, map[string]any{"max_versions": 2, "delete_version_after": "36h"})
	s.EnableKV(t, "old", 1, nil)
	all := openVault(t, s, s.RootToken)
	ref := ledger.Ref{Mount: "short", Path: "a/b"}
	if r, seen, err := all.MountRetention(t.Context(), "short"); err != nil || !seen || r != (sinks.Retention{MaxVersions: 2, DeleteAfter: 36 * time.Hour}) {
		t.Errorf("the mount: %+v, seen %t: %v", r, seen, err)
	}
	if r, seen, err := all.Retention(t.Context(), ref); err != nil || !seen || r != (sinks.Retention{}) {
		t.Errorf("a document that does not exist: %+v, seen %t: %v", r, seen, err)
	}
	must(t, s.Client(t).KVv2("short").PutMetadata(t.Context(), "a/b", vaultapi.KVMetadataPutInput{MaxVersions: 1, DeleteVersionAfter: time.Hour}))
	if r, seen, err := all.Retention(t.Context(), ref); err != nil || !seen || r != (sinks.Retention{MaxVersions: 1, DeleteAfter: time.Hour}) {
		t.Errorf("a document: %+v, seen %t: %v", r, seen, err)
	}
	if expiry, _, err := all.LookUp(t.Context()); err != nil || !expiry.IsZero() {
		t.Errorf("the root token ends %s: %v", expiry, err)
	}
	must(t, all.CheckMount(t.Context(), "short"))
	if e := (*ledger.Error)(nil); !errors.As(all.CheckMount(t.Context(), "old"), &e) || e.Reason != ledger.FailureSinkNotKV2 {
		t.Errorf("KV version 1: %v", e)
	}

	little := openVault(t, s, s.Token(t, `path "auth/token/lookup-self" { capabilities = ["read"] }`, func(r *vaultapi.TokenCreateRequest) { r.TTL = "1h" }))
	for _, path := range []string{"config", "document"} {
		look := little.Retention
		if path == "config" {
			look = func(ctx context.Context, ref ledger.Ref) (sinks.Retention, bool, error) {
				return little.MountRetention(ctx, ref.Mount)
			}
		}
		if _, seen, err := look(t.Context(), ref); err != nil || seen {
			t.Errorf("%s without the right: seen %t: %v", path, seen, err)
		}
	}
	if expiry, _, err := little.LookUp(t.Context()); err != nil || time.Until(expiry) > time.Hour || time.Until(expiry) < 50*time.Minute {
		t.Errorf("the token ends %s: %v", expiry, err)
	}
	if version, sealed, err := little.Seal(t.Context()); err != nil || sealed || version == "" {
		t.Errorf("Vault %q, sealed %t: %v", version, sealed, err)
	}
	s.Seal(t)
	if _, sealed, err := little.Seal(t.Context()); err != nil || !sealed {
		t.Errorf("sealed %t: %v", sealed, err)
	}
	s.Kill()
	if e := (*ledger.Error)(nil); !errors.As(errOf(little.Seal(t.Context())), &e) || e.Reason != ledger.FailureSinkUnreachable {
		t.Errorf("without Vault: %v", e)
	}
}

func errOf(_ string, _ bool, err error) error { return err }
