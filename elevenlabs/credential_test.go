package elevenlabs

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// kept is a place where an admin key is kept.
type kept struct {
	mu    sync.Mutex
	key   string
	err   error
	reads int
}

func (k *kept) read(context.Context) (secret.Secret, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads++
	return secret.New(k.key), k.err
}

func TestCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &kept{key: "sk_the_first_key"}
		c := NewCredential(new(secret.Redactor))
		c.Use(time.Minute, k.read)
		want := func(get func(context.Context) (secret.Secret, error), key string, reads int, when string) {
			t.Helper()
			got, err := get(t.Context())
			if err != nil || got.Reveal() != key || k.reads != reads {
				t.Errorf("%s: another key than %s after %d reads, want %d (%v)", when, key, k.reads, reads, err)
			}
		}
		want(c.Get, "sk_the_first_key", 1, "at first")
		k.key = "sk_the_second_key"
		want(c.Get, "sk_the_first_key", 1, "within the minute")
		want(c.Reread, "sk_the_second_key", 2, "when asked to look")
		if c.redactor.Cut("sk_the_first_key") != "sk_the_first_key" || c.redactor.Cut("sk_the_second_key") == "sk_the_second_key" {
			t.Error("the redactor does not hold the key in use, or holds another")
		}
		k.key, k.err = "", errors.New("sealed")
		<-time.After(time.Minute) // in the bubble's time
		want(c.Get, "sk_the_second_key", 3, "while its place cannot be read")
		want(c.Get, "sk_the_second_key", 3, "a moment later")
		if _, err := c.Reread(t.Context()); err == nil {
			t.Error("what cannot be read was read")
		}
		k.key, k.err = "sk_the_third_key", nil
		<-time.After(time.Minute)
		want(c.Get, "sk_the_third_key", 5, "when it can be read again")
	})
}

// TestARefusedAdminKeyIsLookedForOnce counts what the remote sees: with another key in its place one call more, with
// the same none.
func TestARefusedAdminKeyIsLookedForOnce(t *testing.T) {
	t.Parallel()
	var seen []string
	good := "sk_the_second_key"
	remote := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("xi-api-key")
		seen = append(seen, key)
		if key != good {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"detail":{"code":"invalid_api_key","status":"invalid_api_key","message":"no"}}`))
			return
		}
		_, _ = w.Write([]byte(`{"service-accounts":[]}`))
	}))
	defer remote.Close()
	k := &kept{key: "sk_the_first_key"}
	cred := NewCredential(nil)
	cred.Use(time.Hour, k.read)
	c := newClient(t, remote.URL, func(o *Options) { o.Credential, o.Reread = cred.Get, cred.Reread })
	list := func(wantErr error, want ...string) {
		t.Helper()
		seen = nil
		if _, err := c.ServiceAccounts(t.Context()); !errors.Is(err, wantErr) || (wantErr == nil && err != nil) {
			t.Errorf("the list call: %v, want %v", err, wantErr)
		}
		if !slices.Equal(seen, want) {
			t.Errorf("the remote saw %d calls, want %d", len(seen), len(want))
		}
	}
	list(ErrInvalidKey, "sk_the_first_key")
	if k.reads != 2 {
		t.Errorf("the place was read %d times, want once at first and once for the refusal", k.reads)
	}
	k.key = good
	list(nil, "sk_the_first_key", good)
	list(nil, good)
	good, k.key = "sk_nobody_has", "sk_the_third_key"
	list(ErrInvalidKey, "sk_the_second_key", "sk_the_third_key")

	seen = nil // a key on trial is not the admin key: nothing is read again, nothing sent twice
	reads := k.reads
	if life, err := c.ProbeAdmin(t.Context(), secret.New("sk_on_trial")); life != Invalid || err != nil {
		t.Errorf("a dead key on trial is %v (%v)", life, err)
	}
	if len(seen) != 1 || k.reads != reads {
		t.Errorf("a trial made %d calls and %d reads", len(seen), k.reads-reads)
	}
}
