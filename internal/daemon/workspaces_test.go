package daemon

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

func TestAdminKeyFromTheStore(t *testing.T) {
	t.Parallel()
	store, err := sinks.NewFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	redactor := new(secret.Redactor)
	at := ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "elevenlabs/admin"}, Field: "key"}
	synctest.Test(t, func(t *testing.T) {
		w := &workspaces{env: config.Env{ReconcileInterval: time.Minute}, store: store}
		c := elevenlabs.NewCredential(redactor)
		w.follow(c, "main", config.KeySource{Vault: &at})
		_, err := c.Get(t.Context())
		if err == nil || !strings.Contains(err.Error(), "workspace main") || !strings.Contains(err.Error(), "field key of secret/elevenlabs/admin") {
			t.Errorf("an absent key: %v", err)
		}
		for version, value := range []string{"sk_first_key", "sk_second_key"} { // the first with a newline that nobody meant
			if _, err := store.Write(t.Context(), at.Ref, map[string]any{"key": value + "\n"[version:]}, version); err != nil {
				t.Fatal(err)
			}
			if version > 0 {
				if key, err := c.Get(t.Context()); err != nil || key.Reveal() != "sk_first_key" {
					t.Errorf("the key is read for every request (%v)", err)
				}
				<-time.After(time.Minute) // in the bubble's time
			}
			if key, err := c.Get(t.Context()); err != nil || key.Reveal() != value {
				t.Errorf("got another key than %s (%v)", value, err)
			}
			if redactor.Cut(value) == value {
				t.Errorf("%s would not be cut out", value)
			}
		}
		if redactor.Cut("sk_first_key") != "sk_first_key" {
			t.Error("a key that is not in use any more is still held")
		}
	})
}

// TestClientsSurviveAReload keeps the rate budget, but takes a changed key at once.
func TestClientsSurviveAReload(t *testing.T) {
	t.Parallel()
	w := &workspaces{env: config.Env{APITimeout: time.Second, Concurrency: 1}, observe: func(string, string, string, time.Duration) {}}
	load := func(all ...config.Workspace) map[string]*elevenlabs.Client {
		next, err := w.plan(all)
		if err != nil {
			t.Fatal(err)
		}
		return w.commit(next, all)
	}
	key := func(s string) config.KeySource { return config.KeySource{Secret: config.SecretValue(s)} }
	first := load(config.Workspace{Name: "a", BaseURL: "http://127.0.0.1:1", APIKey: key("one")}, config.Workspace{Name: "b", BaseURL: "http://127.0.0.1:1", APIKey: key("b")})
	if k, err := w.current["a"].credential.Get(t.Context()); err != nil || k.Reveal() != "one" {
		t.Fatal(err)
	}
	second := load(config.Workspace{Name: "a", BaseURL: "http://127.0.0.1:1", APIKey: key("two")}, config.Workspace{Name: "b", BaseURL: "http://127.0.0.1:2", APIKey: key("b")})
	if first["a"] != second["a"] || first["b"] == second["b"] {
		t.Error("a client is kept if and only if its base URL is")
	}
	if k, err := w.current["a"].credential.Get(t.Context()); err != nil || k.Reveal() != "two" {
		t.Errorf("the old key is still used (%v)", err)
	}
	if _, err := w.plan([]config.Workspace{{Name: "bad", BaseURL: "ftp://x"}}); err == nil || !strings.Contains(err.Error(), "workspace bad") {
		t.Errorf("a base URL that cannot be: %v", err)
	}
	if second["a"] != w.current["a"].client {
		t.Error("a plan that failed changed something")
	}
}

func TestAdminKeyFileIsReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(w.Dir, "key")
	w.Write(path, "sk_from_a_file\n")
	synctest.Test(t, func(t *testing.T) {
		c := elevenlabs.NewCredential(nil)
		new(workspaces).follow(c, "main", config.KeySource{Secret: config.SecretFile(path)})
		for _, value := range []string{"sk_from_a_file", "sk_from_a_newer_file"} {
			w.Write(path, value+"\n")
			<-time.After(fileFor) // in the bubble's time
			if key, err := c.Get(t.Context()); err != nil || key.Reveal() != value {
				t.Errorf("got another key than %s (%v)", value, err)
			}
		}
	})
}
