package web

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// TestABadWebConfigIsNotQuoted names files that are something else, or have a secret in the wrong place.
func TestABadWebConfigIsNotQuoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(w.Dir, "web.yml")
	for _, c := range []struct{ text, want string }{
		{"sk_0123456789abcdef\n", "line 1"},
		{"basic_auth_users: sk_0123456789abcdef\n", "line 1"},
		{"\nsk_0123456789abcdef: 1\nsk_fedcba: {}\n", "line 2, 3"},
		{"a: b: sk_0123456789abcdef\n", "describes"},
		{"tls_server_config: {cert_file: none.pem, key_file: none.key}\n", "none.pem"},
		{"basic_auth_users: {ops: sk_0123456789abcdef}\n", "crypto/bcrypt"},
		{strings.Repeat("sk_0123456789abcdef\n", 100), "line"},
	} {
		w.Write(file, c.text)
		err := CheckConfig(file)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sk_") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", c.text, err)
		}
	}
}

func TestAWebConfigThatTurnsBadIsNotLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(w.Dir, "web.yml")
	w.Write(file, "http_server_config: {http2: false}\n")
	url, _ := w.run(w.build(map[string]string{"REKEYD_WEB_CONFIG_FILE": file}))
	up(t, url)
	w.Write(file, "sk_0123456789abcdef: 1\n")
	if status, body, _ := ask(t, url+"/metrics", ""); status != http.StatusInternalServerError || strings.Contains(body, "sk_") {
		t.Errorf("HTTP %d %s", status, body)
	}
	if w.Log.Count("sk_0123456789abcdef") > 0 || w.Log.Count("Unable to parse configuration") != 1 {
		t.Error("the file is quoted in the log, or its fault is not there")
	}
}
