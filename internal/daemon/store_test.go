package daemon

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
)

// TestTokenExpiryIsShownOnceItIsKnown tells a token that never ends from one of which nothing is known.
func TestTokenExpiryIsShownOnceItIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	answer := make(chan struct{})
	vault := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-answer:
			_, _ = io.WriteString(rw, `{"data":{"ttl":0,"expire_time":null}}`)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(vault.Close)
	const series = "rekeyd_vault_token_expiry_timestamp_seconds"
	url, stop := w.run(w.build(map[string]string{"REKEYD_SINK": "vault", "VAULT_ADDR": vault.URL, "VAULT_TOKEN": "hvs.a-token-of-a-test"}, nil))
	metrics := func() string { _, text := ask(t, http.MethodGet, url+"/metrics", ""); return text }
	eventually(t, "metrics", func() bool { return strings.Contains(metrics(), "rekeyd_policies 1\n") })
	if strings.Contains(metrics(), series) {
		t.Error("the token's end is shown before anybody can know it")
	}
	close(answer)
	eventually(t, "a token that never ends", func() bool { return strings.Contains(metrics(), series+" +Inf\n") })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestThePageSaysWhatTheDaemonKnowsOfItself: that its Vault token ends, that its clock is wrong, and that events are lost.
func TestThePageSaysWhatTheDaemonKnowsOfItself(t *testing.T) {
	t.Parallel()
	says := func(url string, words ...string) {
		t.Helper()
		eventually(t, "on the page: "+strings.Join(words, ", "), func() bool {
			_, page := ask(t, http.MethodGet, url+"/", "")
			_, attention, _ := strings.Cut(page, `id="attention"`)
			attention, _, _ = strings.Cut(attention, "</section>")
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(attention, w) })
		})
	}
	vault := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		_, _ = io.WriteString(rw, `{"data":{"ttl":1,"expire_time":"then"}}`)
	}))
	t.Cleanup(vault.Close)
	w := newWorld(t)
	url, _ := w.run(w.build(map[string]string{"REKEYD_SINK": "vault", "VAULT_ADDR": vault.URL, "VAULT_TOKEN": "hvs.a-token-of-a-test"}, nil))
	says(url, "The Vault token ", "runbook.md#rekeydvaulttokenending", "behind that of Vault.", "runbook.md#rekeydclockskew")

	events := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(events.Close)
	w = newWorld(t)
	url, _ = w.run(w.build(map[string]string{"REKEYD_EVENTS_URL": events.URL, "REKEYD_EVENTS_SECRET": "secret-of-the-events"}, nil))
	says(url, "An event was given up ", "the receiver answers 404", "runbook.md#rekeydeventsnotdelivered")
}

func TestTheTokenOfAFileIsReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(w.Dir, "token")
	w.Write(path, "hvs.first\n")
	s, err := Load(w.Env(map[string]string{"REKEYD_SINK": "vault", "VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN_FILE": path}))
	if err != nil {
		t.Fatal(err)
	}
	o, err := vaultOptions(s, new(secret.Redactor))
	if err != nil || o.Token.Reveal() != "hvs.first" || o.Reread == nil {
		t.Fatalf("%v, the token is read again: %t", err, o.Reread != nil)
	}
	w.Write(path, "hvs.second\n")
	if token, err := o.Reread(); err != nil || token.Reveal() != "hvs.second" {
		t.Errorf("the file's new token was not read (%v)", err)
	}
}

// TestVaultClientTimeout: the variable of Vault's own clients bounds a call; without it, sinks' default does.
func TestVaultClientTimeout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  map[string]string
		want time.Duration
	}{
		"duration": {map[string]string{"VAULT_CLIENT_TIMEOUT": "1m30s"}, 90 * time.Second},
		"seconds":  {map[string]string{"VAULT_CLIENT_TIMEOUT": "7"}, 7 * time.Second},
		"OpenBao":  {map[string]string{"BAO_CLIENT_TIMEOUT": "3s"}, 3 * time.Second},
		"unset":    {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"REKEYD_SINK": "vault", "VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "hvs.token"}
			maps.Copy(env, c.env)
			s, err := Load(newWorld(t).Env(env))
			if err != nil {
				t.Fatal(err)
			}
			if o, err := vaultOptions(s, new(secret.Redactor)); err != nil || o.Timeout != c.want {
				t.Errorf("%v, %v", o.Timeout, err)
			}
		})
	}
}
