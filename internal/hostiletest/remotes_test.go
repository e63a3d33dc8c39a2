package hostiletest

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/rekeyd/rekeyd/internal/hostile"
	"github.com/rekeyd/rekeyd/internal/process"
)

const (
	servedPolicy = `policies: [{name: tts-prod, service_account: svcacc_a, schedule: "@daily", permissions: all, sink: {path: app/tts}}]` + "\n"

	callTimeout = "1s"
)

// tryRemotes lets rekeyd meet every hostile server, in place of ElevenLabs and in place of Vault. It sends the canary as its
// credential.
func tryRemotes(t *testing.T, binaries process.Programs) row {
	r := row{family: "remotes"}
	var strayed atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	t.Cleanup(elsewhere.Close)
	for _, h := range hostile.Servers(elsewhere.URL) {
		for _, target := range []string{"ElevenLabs", "Vault"} {
			status, v := meet(t, binaries, h, target)
			switch {
			case strayed.Swap(0) > 0:
				v.wrong = "a redirect was followed"
			case status != 0 && status != 1 && v.wrong == "":
				v.wrong = fmt.Sprintf("exit status %d", status)
			}
			r.count(t, target+": "+h.Name, v)
		}
	}
	return r
}

func meet(t *testing.T, binaries process.Programs, h hostile.Server, target string) (status int, v verdict) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body) // before that, a server does not notice that the client goes
		r.Body = io.NopCloser(bytes.NewReader(text))
		h.Serve(w, r)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	defer s.Close()
	defer s.CloseClientConnections()
	dir := t.TempDir()
	file := filepath.Join(dir, "policies.yaml")
	if err := os.WriteFile(file, []byte(servedPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"HOME=" + dir, "REKEYD_POLICY_FILE=" + file, "REKEYD_API_TIMEOUT=" + callTimeout, "REKEYD_VERIFY_TIMEOUT=" + callTimeout,
		"ELEVENLABS_API_KEY=" + canary,
	}
	if target == "Vault" {
		env = append(env, "ELEVENLABS_BASE_URL=http://127.0.0.1:1", "VAULT_ADDR="+s.URL, "VAULT_TOKEN="+canary, "VAULT_CLIENT_TIMEOUT=1")
	} else {
		env = append(env, "ELEVENLABS_BASE_URL="+s.URL, "REKEYD_SINK=file", "REKEYD_FILE_DIR="+filepath.Join(dir, "data"))
	}
	status, _, v = run(t, binaries.Rekeyd, env, "check", "--online")
	return status, v
}
