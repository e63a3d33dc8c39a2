package config

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/rekeyd/rekeyd/internal/smallfile"
)

// combinations checks variables against each other, and values beyond words and bounds.
func (l *envLoader) combinations() {
	e := &l.env
	switch {
	case e.PolicyFile == "" && e.Policies == "":
		l.fault("REKEYD_POLICY_FILE", "is not set, and neither is REKEYD_POLICIES; set one of them to the policy file's path or its text")
	case e.PolicyFile != "" && e.Policies != "":
		l.fault("REKEYD_POLICY_FILE", "and REKEYD_POLICIES are both set; unset one of them")
	}
	for _, p := range []struct{ name, value string }{{"REKEYD_LEDGER_MOUNT", e.LedgerMount}, {"REKEYD_LEDGER_PATH", e.LedgerPath}} {
		if flaw := pathFlaw(p.value); flaw != "" {
			l.fault(p.name, "is %s, which %s; write a path such as rekeyd", quote(p.value), flaw)
		}
	}
	if !listenable(e.ListenAddr) {
		l.fault("REKEYD_LISTEN_ADDR", "is %s, which is not an address to listen on; write :9466 or 127.0.0.1:9466", quote(e.ListenAddr))
	}
	l.urls()
	l.files()
	if e.Sink == "vault" && !l.failed["REKEYD_SINK"] {
		l.vault()
	}
	switch {
	case e.EventsURL != "" && !e.EventsSecret.IsSet():
		l.fault("REKEYD_EVENTS_SECRET", "is not set, but REKEYD_EVENTS_URL is; set both or neither")
	case e.EventsURL == "" && e.EventsSecret.IsSet():
		l.fault("REKEYD_EVENTS_URL", "is not set, but REKEYD_EVENTS_SECRET is; set both or neither")
	}
}

// api is combinations, for LoadAPI.
func (l *envLoader) api() {
	if !l.env.APIKey.IsSet() && !l.failed["ELEVENLABS_API_KEY"] {
		l.fault("ELEVENLABS_API_KEY", "is not set; set it or ELEVENLABS_API_KEY_FILE, or REKEYD_POLICY_FILE to a file that has workspaces")
	}
	l.urls()
}

// maxAside bounds the other files without a secret: certificates and the web config.
const maxAside = 1 << 20

// files refuses a path that exists and is not a readable file. A missing file may appear later: Vault Agent writes a
// token, and the kubelet a service account's.
func (l *envLoader) files() {
	e := &l.env
	vault := e.Sink == "vault"
	for _, f := range []struct {
		name string
		path *string
		used bool
		most int
	}{
		{"REKEYD_WEB_CONFIG_FILE", &e.WebConfigFile, true, maxAside},
		{"VAULT_CACERT", &e.VaultCACert, vault, maxAside},
		{"VAULT_CLIENT_CERT", &e.VaultClientCert, vault, maxAside},
		{"VAULT_CLIENT_KEY", &e.VaultClientKey, vault, maxAside},
		{"REKEYD_VAULT_JWT_FILE", &e.VaultJWTFile, vault && (e.VaultAuth == "kubernetes" || e.VaultAuth == "jwt"), smallfile.Secret},
		{"REKEYD_VAULT_TOKEN_FILE", &e.VaultTokenFile, vault && e.VaultAuth == "token_file", smallfile.Secret},
	} {
		if !f.used || *f.path == "" {
			continue
		}
		_, err := smallfile.Read(context.Background(), *f.path, f.most)
		if errors.Is(err, smallfile.ErrNotRegular) || errors.Is(err, smallfile.ErrTooLarge) || err != nil && f.path == &e.WebConfigFile {
			l.fault(f.name, "is %s, which cannot be read: %v; correct the path or what is there", quote(*f.path), reason(err))
			*f.path = "" // one fault is enough
		}
	}
	l.fileDir()
}

// fileDir refuses a folder of the file sink to which other users can write.
func (l *envLoader) fileDir() {
	dir := l.env.FileDir
	info, err := os.Stat(dir)
	switch {
	case l.env.Sink != "file" || err != nil: // the first write makes it, or reports why it cannot
	case !info.IsDir():
		l.fault("REKEYD_FILE_DIR", "is %s, which is not a folder; write the path of one, which need not exist yet", quote(dir))
	case info.Mode().Perm()&0o022 != 0:
		l.fault("REKEYD_FILE_DIR", "is %s, a folder with mode %04o in which other users can replace keys; take their right to write (chmod go-w), or write the path of a folder that does not exist yet", quote(dir), info.Mode().Perm())
	}
}

func (l *envLoader) urls() {
	e := &l.env
	if _, flaw := parseBase(e.BaseURL); flaw != "" {
		l.fault("ELEVENLABS_BASE_URL", "%s", flaw)
	}
	for i, o := range e.AllowedAPIOrigins {
		o = strings.TrimSpace(o)
		e.AllowedAPIOrigins[i] = o
		if flaw := originFlaw(o); flaw != "" {
			l.fault("REKEYD_ALLOWED_API_ORIGINS", "has an entry (number %d) that %s", i+1, flaw)
		}
	}
	if u, err := url.Parse(e.EventsURL); e.EventsURL != "" && (err != nil || u.Host == "" || u.User != nil || hostFlaw(u) != "" || u.Scheme != "https" && u.Scheme != "http") {
		l.fault("REKEYD_EVENTS_URL", "is not an http or https URL without a user name; write one such as https://events.example.com/rekeyd")
	}
	if u, err := url.Parse(e.VaultAddr); e.VaultAddr != "" && (err != nil || !slices.Contains([]string{"https", "http", "unix"}, u.Scheme) || u.Host+u.Path == "" || u.User != nil || hostFlaw(u) != "") {
		l.fault("VAULT_ADDR", "is not Vault's address; write a URL such as https://vault.example.com:8200")
	}
}

// Warnings returns settings that are allowed but probably mistakes.
func (e Env) Warnings() []Fault {
	var warnings []Fault
	for _, v := range []struct {
		name, url, what string
		used            bool
	}{
		{"VAULT_ADDR", e.VaultAddr, "the Vault token and every secret", e.Sink == "vault"},
		{"REKEYD_EVENTS_URL", e.EventsURL, "what happens to keys", true},
	} {
		if u, err := url.Parse(v.url); v.used && err == nil && u.Scheme == "http" && !loopback(u) {
			warnings = append(warnings, Fault{Text: v.name + " begins with http:// and is not loopback: " + v.what + " can be read on the network; use https://"})
		}
	}
	if e.Sink == "vault" && e.VaultSkipVerify {
		warnings = append(warnings, Fault{Text: "VAULT_SKIP_VERIFY is true: an attacker on the network can impersonate Vault and read the token and every secret; use VAULT_CACERT"})
	}
	if token, err := e.AdminToken.Get(context.Background()); err == nil && e.AdminToken.IsSet() && len(token.Reveal()) < longToken {
		warnings = append(warnings, Fault{Text: fmt.Sprintf("REKEYD_ADMIN_TOKEN is shorter than %d characters: it can be guessed; make a longer one", longToken)})
	}
	return warnings
}

// longToken is how many characters of an admin token are not warned about.
const longToken = 16

// vault checks that the chosen auth method has what it needs.
func (l *envLoader) vault() {
	e := &l.env
	if e.VaultAddr == "" {
		l.fault("VAULT_ADDR", "is not set, but REKEYD_SINK is vault; set it to Vault's URL, or set REKEYD_SINK to file to keep secrets in files")
	}
	if l.failed["REKEYD_VAULT_AUTH"] {
		return
	}
	for _, n := range e.vaultNeeds() {
		if !n.met && !l.failed[n.name] {
			l.fault(n.name, "is not set, but REKEYD_VAULT_AUTH is %s; set %s, or choose another method", e.VaultAuth, n.advice)
		}
	}
}

// need is a variable that an auth method requires.
type need struct {
	name   string
	met    bool
	advice string
}

func (e Env) vaultNeeds() []need {
	switch e.VaultAuth {
	case "token":
		return []need{{"VAULT_TOKEN", e.VaultToken.IsSet(), "it or VAULT_TOKEN_FILE"}}
	case "token_file":
		return []need{{"REKEYD_VAULT_TOKEN_FILE", e.VaultTokenFile != "", "it to the token's path"}}
	case "approle":
		return []need{
			{"REKEYD_VAULT_ROLE_ID", e.VaultRoleID != "", "it to the role id"},
			{"REKEYD_VAULT_SECRET_ID", e.VaultSecretID.IsSet() || e.VaultSecretIDWrapped.IsSet(), "it or REKEYD_VAULT_SECRET_ID_WRAPPED"},
		}
	case "kubernetes", "jwt":
		return []need{{"REKEYD_VAULT_ROLE", e.VaultRole != "", "it to the role's name"}}
	}
	return []need{
		{"VAULT_CLIENT_CERT", e.VaultClientCert != "", "it to the client certificate's path"},
		{"VAULT_CLIENT_KEY", e.VaultClientKey != "", "it to the private key's path"},
	}
}

func listenable(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	n, numErr := strconv.ParseUint(port, 10, 16)
	return err == nil && numErr == nil && fmt.Sprint(n) == port && !strings.ContainsAny(host, " /")
}
