package memkv_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

var ref = ledger.Ref{Mount: "secret", Path: "elevenlabs/a"}

func open(t *testing.T, s *memkv.Server) *sinks.Vault {
	t.Helper()
	v, err := sinks.NewVault(sinks.VaultOptions{Token: secret.New("root"), Transport: s})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTheRealClientInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memkv.New("root", "secret")
		s.SetTTL(time.Hour)
		v := open(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- v.Run(ctx) }()
		for range 100 {
			<-time.After(time.Hour)
			if err := v.Ready(ctx); err != nil {
				t.Fatal(err)
			}
		}
		at, _ := v.TokenExpiry()
		if left := time.Until(at); left <= 0 || left > time.Hour {
			t.Errorf("after a hundred hours the token lives another %s", left)
		}
		s.Revoke()
		<-time.After(time.Hour)
		if err := v.Check(ctx, ref); reason(err) != ledger.FailureSinkDenied {
			t.Errorf("with a revoked token: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTokenEndsWithoutRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memkv.New("root", "secret")
		s.SetTTL(time.Hour)
		v := open(t, s)
		<-time.After(time.Hour)
		_, err := v.Read(t.Context(), ref, 0)
		if reason(err) != ledger.FailureSinkDenied || !strings.Contains(err.Error(), "invalid token") {
			t.Errorf("with an ended token: %v", err)
		}
	})
}

func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memkv.New("root", "secret")
		var written []string
		s.OnWrite = func(path string, version int, data map[string]any) {
			written = append(written, fmt.Sprint(path, " ", version, " ", data["n"]))
		}
		var before, after error
		only := func(r *http.Request, err *error) error {
			if strings.Contains(r.URL.Path, "/data/") {
				return *err
			}
			return nil
		}
		s.Before(func(r *http.Request) error { return only(r, &before) })
		s.After(func(r *http.Request, _ *http.Response) error { return only(r, &after) })
		v := open(t, s)
		write := func(cas int) error {
			_, err := v.Write(t.Context(), ref, map[string]any{"n": cas + 1}, cas)
			return err
		}

		before = errors.New("cut on the way")
		if err := write(0); !maybe(err) {
			t.Errorf("a lost request: %v", err)
		}
		before = &memkv.Refusal{Status: 503, Errors: []string{"Vault is sealed"}}
		if err := write(0); reason(err) != ledger.FailureSinkSealed || maybe(err) {
			t.Errorf("a refusal: %v", err)
		}
		before, after = nil, errors.New("cut on the way back")
		if err := write(0); !maybe(err) {
			t.Errorf("a lost answer: %v", err)
		}
		after = nil
		if err := write(0); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("what had been applied: %v", err)
		}
		s.Before(func(*http.Request) error { <-time.After(time.Minute); return nil })
		if err := write(1); !maybe(err) || reason(err) != ledger.FailureSinkTimeout {
			t.Errorf("an answer that takes too long: %v", err)
		}
		s.Before(nil)
		if err := write(1); err != nil {
			t.Error(err)
		}
		if want := []string{"secret/elevenlabs/a 1 1", "secret/elevenlabs/a 2 2"}; !reflect.DeepEqual(written, want) {
			t.Errorf("written %q, want %q", written, want)
		}
	})
}

func TestFromOutside(t *testing.T) {
	s := memkv.New("root", "secret")
	s.OnWrite = func(path string, _ int, _ map[string]any) { t.Errorf("%s was not written through the API", path) }
	v := open(t, s)
	want := func(data map[string]any, version int) {
		t.Helper()
		doc, err := v.Read(t.Context(), ref, 0)
		if err != nil || doc.Version != version || !reflect.DeepEqual(doc.Fields(), data) {
			t.Errorf("read %v, %v; want %v in version %d", doc, err, data, version)
		}
		got, number := s.Get(ref.String(), 0)
		if number != version || !reflect.DeepEqual(got, data) {
			t.Errorf("got %v in version %d; want %v in version %d", got, number, data, version)
		}
	}
	put := func(n string, version int) {
		t.Helper()
		if got, err := s.Put(ref.String(), map[string]any{"n": n}); err != nil || got != version {
			t.Errorf("put version %d, %v", got, err)
		}
	}
	want(nil, 0)
	put("1", 1)
	snapshot := s.Snapshot()
	put("2", 2)
	s.SoftDelete(ref.String())
	want(nil, 2)
	put("3", 3)
	want(map[string]any{"n": "3"}, 3)
	if data, _ := s.Get(ref.String(), 1); data["n"] != "1" {
		t.Errorf("the first version is %v", data)
	}
	s.Restore(snapshot)
	want(map[string]any{"n": "1"}, 1)
	put("2", 2)
	s.Restore(snapshot) // what came after a restore is not in the snapshot
	want(map[string]any{"n": "1"}, 1)
	if paths := s.Paths(); !reflect.DeepEqual(paths, []string{ref.String()}) {
		t.Errorf("paths are %q", paths)
	}
	s.Delete(ref.String())
	want(nil, 0)
	s.Seal()
	if _, err := v.Read(t.Context(), ref, 0); reason(err) != ledger.FailureSinkSealed {
		t.Errorf("sealed: %v", err)
	}
	s.Unseal()
	want(nil, 0)
	s.Deny = func(path string) bool { return path == "secret/data/elevenlabs/a" }
	if _, err := v.Read(t.Context(), ref, 0); reason(err) != ledger.FailureSinkDenied || !strings.Contains(err.Error(), "grant read on secret/data/elevenlabs/a") {
		t.Errorf("denied: %v", err)
	}
}

func TestRefusesWhatItDoesNotModel(t *testing.T) {
	s := memkv.New("root", "secret")
	for _, op := range []operation{
		{"PUT", "secret/metadata/a", `{"max_versions":3}`}, {"PUT", "secret/config", `{"delete_version_after":"1s"}`},
		{"PATCH", "secret/data/a", `{}`}, {"GET", "secret/subkeys/a", ""}, {"GET", "secret/data/a/", ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), op.method, "http://memkv/v1/"+op.path, strings.NewReader(op.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Vault-Token", "root")
		if resp, err := s.RoundTrip(r); err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s %s was answered with %d", op.method, op.path, resp.StatusCode)
		}
	}
}

func reason(err error) ledger.Failure {
	var e *ledger.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Reason
}

func maybe(err error) bool {
	var e *ledger.Error
	return errors.As(err, &e) && e.MaybeApplied
}
