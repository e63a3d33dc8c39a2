package web

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/process"
)

func TestHealthy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.certificate()
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, guarded := filepath.Join(w.Dir, "tls.yml"), filepath.Join(w.Dir, "auth.yml")
	w.Write(encrypted, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n")
	w.Write(guarded, "basic_auth_users: {ops: '"+string(hash)+"'}\n")
	for _, c := range []struct{ file, answer string }{
		{"", "ok"}, {encrypted, "ok"}, {guarded, "listening, and demands a password"},
	} {
		d := w.build(map[string]string{"REKEYD_WEB_CONFIG_FILE": c.file})
		_, stop := w.run(d)
		env := d.env
		_, port, _ := net.SplitHostPort(d.listener.Addr().String())
		for _, host := range []string{"", "0.0.0.0", "[::]", "127.0.0.1"} {
			env.ListenAddr = host + ":" + port
			process.Eventually(t, process.Patience, func() error {
				answer, err := Healthy(t.Context(), env)
				if err == nil && answer != c.answer {
					t.Errorf("%s with %s says %q, want %q", env.ListenAddr, c.file, answer, c.answer)
				}
				return err
			})
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if answer, err := Healthy(t.Context(), env); err == nil {
			t.Errorf("a daemon that has stopped says %q", answer)
		}
	}
}

// TestHealthyPassesOnWhy has a server in place of a daemon whose loop stands still.
func TestHealthyPassesOnWhy(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no attempt: "+r.URL.Path, http.StatusServiceUnavailable)
	}))
	defer server.Close()
	_, err := Healthy(t.Context(), config.Env{ListenAddr: strings.TrimPrefix(server.URL, "http://")})
	if err == nil || err.Error() != "asking the daemon: HTTP 503: no attempt: /healthz" {
		t.Errorf("the error is %v", err)
	}
}
