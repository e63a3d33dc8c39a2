package daemon

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/sinks"
)

func TestHealthIsThatOfTheLoopAndNotOfRemotes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(nil, nil)
	const limit = time.Minute + 15*time.Second + 5*100*time.Millisecond
	failing := func() bool { return d.rotator.Snapshot().Workspaces[0].Err != nil }
	tried := func() time.Time { return d.rotator.Snapshot().Workspaces[0].LastTry }
	if err := d.alive(time.Now().Add(time.Hour)); err != nil {
		t.Errorf("before the first listing: %v", err)
	}
	url, stop := w.run(d)
	eventually(t, "a listing", func() bool { return !tried().IsZero() })
	if status, body := ask(t, http.MethodGet, url+"/healthz", ""); status != http.StatusOK || body != "ok\n" {
		t.Errorf("HTTP %d %s", status, body)
	}
	if err := w.Sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an outage of ElevenLabs", failing)
	if status, _ := ask(t, http.MethodGet, url+"/healthz", ""); status != http.StatusOK {
		t.Errorf("HTTP %d in an outage, which no restart would end", status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !failing() {
		t.Fatal("the outage is over")
	}
	if err := d.alive(tried().Add(limit)); err != nil {
		t.Errorf("in the outage: %v", err)
	}
	if d.alive(tried().Add(limit+time.Second)) == nil {
		t.Error("a loop that stands still hides behind an outage")
	}
}

func TestReadinessSaysWhyNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.build(map[string]string{"REKEYD_SINK": "vault", "VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "hvs.a-token-of-a-test"}, nil)
	url, _ := w.run(d)
	var body string
	eventually(t, "not ready", func() bool {
		var status int
		status, body = ask(t, http.MethodGet, url+"/readyz", "")
		return status == http.StatusServiceUnavailable
	})
	if strings.Count(body, "\n") != 1 || !strings.Contains(body, "check VAULT_ADDR") {
		t.Errorf("the reason is %q", body)
	}
	if err := askVault(t.Context(), d.vault); err == nil {
		t.Error("a Vault that does not answer is ready")
	}
}

// TestAVaultThatHangsIsNamed: a probe ends in time, with a sentence.
func TestAVaultThatHangsIsNamed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(server.Close)
	config := vaultapi.DefaultConfig()
	config.Address = server.URL
	vault, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.a-token-of-a-test")})
	if err != nil {
		t.Fatal(err)
	}
	if err := askVault(t.Context(), vault); err == nil || !strings.HasPrefix(err.Error(), "no answer from Vault within 2s") {
		t.Errorf("a Vault that hangs: %v", err)
	}
}
