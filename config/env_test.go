package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"
)

// least is an environment without fault.
func least(more map[string]string) envconfig.Lookuper {
	env := map[string]string{
		"REKEYD_POLICY_FILE": "/etc/rekeyd/policies.yaml", "ELEVENLABS_API_KEY": "sk_verysecret",
		"VAULT_ADDR": "https://vault.example.com:8200", "VAULT_TOKEN": "hvs.verysecret",
	}
	for name, value := range more {
		env[name] = value
	}
	return envconfig.MapLookuper(env)
}

func TestEnvDefaults(t *testing.T) {
	env, err := LoadEnv(least(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := Env{
		PolicyFile: "/etc/rekeyd/policies.yaml", Sink: "vault", FileDir: "./rekeyd-data",
		LedgerMount: "secret", LedgerPath: "rekeyd", ListenAddr: ":9466", StatusPage: "auto",
		ReconcileInterval: time.Minute, ResyncInterval: 15 * time.Minute, Concurrency: 8, APIRate: 5,
		APITimeout: 15 * time.Second, MinInterval: time.Hour, MaxRotationsPerHour: 100, ClaimTTL: 2 * time.Minute,
		VerifyTimeout: 30 * time.Second, ShutdownTimeout: 25 * time.Second, LogLevel: "info",
		APIKey: env.APIKey, BaseURL: "https://api.elevenlabs.io",
		VaultAddr: "https://vault.example.com:8200", VaultToken: env.VaultToken, VaultAuth: "token",
		VaultJWTFile: "/var/run/secrets/kubernetes.io/serviceaccount/token",
	}
	if !reflect.DeepEqual(env, want) {
		t.Errorf("got  %+v\nwant %+v", env, want)
	}
	if key, err := env.APIKey.Get(t.Context()); err != nil || key.Reveal() != "sk_verysecret" {
		t.Errorf("API key: %v", err)
	}
}

func TestEnvValues(t *testing.T) {
	env, err := LoadEnv(least(map[string]string{
		"REKEYD_ALLOWED_API_ORIGINS": "https://a.example.com, http://127.0.0.1:8642", "REKEYD_API_RATE": "0.5",
		"REKEYD_ALLOW_UNKNOWN_PERMISSIONS": "true", "REKEYD_CLAIM_TTL": "1s", "REKEYD_LOG_LEVEL": "",
		"REKEYD_VAULT_AUTH": "kubernetes", "REKEYD_VAULT_ROLE": "rekeyd",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(env.AllowedAPIOrigins, []string{"https://a.example.com", "http://127.0.0.1:8642"}) ||
		env.APIRate != 0.5 || !env.AllowUnknownPermissions || env.ClaimTTL != time.Second ||
		env.LogLevel != "info" || env.VaultAuthMount != "kubernetes" {
		t.Errorf("got %+v", env)
	}
}

// TestOpenBaosNames count where Vault's are not set, for each variable that OpenBao's client knows by another name.
func TestOpenBaosNames(t *testing.T) {
	env := map[string]string{"REKEYD_POLICY_FILE": "/p.yaml", "ELEVENLABS_API_KEY": "sk_verysecret"}
	baos := map[string]string{}
	for _, name := range baoNames() {
		baos[name] = "testdata/" + strings.ToLower(strings.TrimPrefix(name, "BAO_"))
	}
	baos["BAO_ADDR"], baos["BAO_SKIP_VERIFY"] = "https://bao.example.com:8200", "true"
	for name, value := range baos {
		env[name] = value
	}
	got, err := LoadEnv(envconfig.MapLookuper(env))
	if err != nil {
		t.Fatal(err)
	}
	token, err := got.VaultToken.Get(t.Context())
	if err != nil || token.Reveal() != "testdata/token" || got.VaultAddr != "https://bao.example.com:8200" || got.VaultNamespace != "testdata/namespace" ||
		got.VaultCACert != "testdata/cacert" || got.VaultCAPath != "testdata/capath" || got.VaultClientCert != "testdata/client_cert" ||
		got.VaultClientKey != "testdata/client_key" || got.VaultTLSServerName != "testdata/tls_server_name" || !got.VaultSkipVerify || len(baos) != 9 {
		t.Errorf("%v gives %+v (%v)", baos, got, err)
	}

	// Vault's name wins, and so does the file of a token.
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("of-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env["VAULT_ADDR"], env["VAULT_TOKEN_FILE"] = "https://vault.example.com:8200", file
	if got, err = LoadEnv(envconfig.MapLookuper(env)); err != nil {
		t.Fatal(err)
	}
	if token, err := got.VaultToken.Get(t.Context()); err != nil || token.Reveal() != "of-the-file" || got.VaultAddr != "https://vault.example.com:8200" {
		t.Errorf("with Vault's names: %s, %v", got.VaultAddr, err)
	}
	delete(env, "VAULT_TOKEN_FILE")
	env["BAO_TOKEN_FILE"], env["BAO_CACERT"] = file, "/dev/null"
	said := loadFaults(t, env)
	for _, want := range []string{"BAO_TOKEN and BAO_TOKEN_FILE are both set", "BAO_CACERT is \"/dev/null\""} {
		if !strings.Contains(said, want) {
			t.Errorf("the fault does not name what was set: %s", said)
		}
	}
}

// TestEnvAllWrong gives every variable that can be wrong a wrong value, at once.
func TestEnvAllWrong(t *testing.T) {
	env := map[string]string{
		"REKEYD_POLICY_FILE": "a", "REKEYD_POLICIES": "b", "REKEYD_LEDGER_MOUNT": "secret/", "REKEYD_LEDGER_PATH": "../rekeyd",
		"REKEYD_SINK": "valt", "REKEYD_LISTEN_ADDR": "9466", "REKEYD_ADMIN_TOKEN": " ", "REKEYD_STATUS_PAGE": "yes",
		"REKEYD_RECONCILE_INTERVAL": "60", "REKEYD_RESYNC_INTERVAL": "-1m", "REKEYD_CONCURRENCY": "0",
		"REKEYD_API_RATE": "NaN", "REKEYD_API_TIMEOUT": "0s", "REKEYD_MIN_INTERVAL": "hourly", "REKEYD_MAX_ROTATIONS_PER_HOUR": "1e3",
		"REKEYD_CLAIM_TTL": "10ms", "REKEYD_VERIFY_TIMEOUT": "1d", "REKEYD_SHUTDOWN_TIMEOUT": "-0s", "REKEYD_LOG_LEVEL": "warning",
		"REKEYD_LOG_FORMAT": "logfmt", "REKEYD_ALLOW_UNKNOWN_PERMISSIONS": "maybe", "ELEVENLABS_API_KEY": "sk_very secret",
		"ELEVENLABS_BASE_URL": "https://me:verysecret@api.elevenlabs.io", "VAULT_ADDR": "vault:verysecret",
		"REKEYD_ALLOWED_API_ORIGINS": "https://a.example.com/v1,b.example.com", "VAULT_TOKEN": "hvs.verysecret\n",
		"VAULT_SKIP_VERIFY": "2", "REKEYD_VAULT_AUTH": "Token", "REKEYD_VAULT_SECRET_ID_FILE": "testdata/missing",
		"REKEYD_VAULT_SECRET_ID_WRAPPED": "verysecret", "REKEYD_VAULT_SECRET_ID_WRAPPED_FILE": "/x",
		"REKEYD_EVENTS_URL": "verysecret.example.com/hook",
	}
	checkGolden(t, "testdata/env_wrong.txt", loadFaults(t, env))
}

// TestEnvCombinations has what is wrong only together.
func TestEnvCombinations(t *testing.T) {
	cases := []map[string]string{
		{},
		{"REKEYD_SINK": "vault", "REKEYD_POLICIES": "x"},
		{"REKEYD_SINK": "file", "REKEYD_POLICIES": "x", "REKEYD_EVENTS_URL": "https://x.example.com"},
		{"REKEYD_SINK": "file", "REKEYD_POLICIES": "x", "REKEYD_EVENTS_SECRET": "verysecret"},
		{"VAULT_ADDR": "http://v", "REKEYD_POLICIES": "x", "REKEYD_VAULT_AUTH": "token_file"},
		{"VAULT_ADDR": "http://v", "REKEYD_POLICIES": "x", "REKEYD_VAULT_AUTH": "approle"},
		{"VAULT_ADDR": "http://v", "REKEYD_POLICIES": "x", "REKEYD_VAULT_AUTH": "kubernetes"},
		{"VAULT_ADDR": "http://v", "REKEYD_POLICIES": "x", "REKEYD_VAULT_AUTH": "jwt"},
		{"VAULT_ADDR": "http://v", "REKEYD_POLICIES": "x", "REKEYD_VAULT_AUTH": "cert"},
		{"VAULT_ADDR": "http://v", "REKEYD_POLICIES": "x", "VAULT_TOKEN": "verysecret", "VAULT_TOKEN_FILE": "/x"},
		{"VAULT_ADDR": "http://v", "REKEYD_POLICIES": "x", "VAULT_TOKEN_FILE": "testdata/missing"},
	}
	var said strings.Builder
	for _, env := range cases {
		fmt.Fprintf(&said, "%v\n%s\n\n", env, loadFaults(t, env))
	}
	checkGolden(t, "testdata/env_combinations.txt", strings.ReplaceAll(said.String(), "verysecret", "SECRET"))
}

func loadFaults(t *testing.T, env map[string]string) string {
	t.Helper()
	_, err := LoadEnv(envconfig.MapLookuper(env))
	if err == nil {
		t.Fatalf("%v: accepted", env)
	}
	if strings.Contains(err.Error(), "verysecret") {
		t.Errorf("the error shows a secret: %v", err)
	}
	return err.Error()
}

func checkGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got+"\n" != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestUnknownVariables(t *testing.T) {
	got := UnknownVariables([]string{"BAO_ADDR=https://b", "BAO_TOKEN=t", "VAULT_TOKEN=t", "BAO_NAMESPACE=n", "VAULT_NAMESPACE=", "BAO_RAW=1", "VAULT_ADDR=https://v", "REKEYD_SINK=file", "REKEYD_CONCURENCY=3", "REKEYD_ADMIN_TOKEN_FILE=/x", "REKEYD_COLOUR=red", "PATH=/bin", "odd"})
	want := Faults{
		{Text: "BAO_ADDR has no effect, because VAULT_ADDR is set; unset one of them"},
		{Text: "REKEYD_CONCURENCY is not a variable of rekeyd and has no effect; did you mean REKEYD_CONCURRENCY?"},
		{Text: "REKEYD_COLOUR is not a variable of rekeyd and has no effect; see rekeyd help env"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%v\nwant:\n%v", Faults(got), want)
	}
}

func TestSecretSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{"a": "a", "a\n": "a", "a\r\n": "a", "a\n\n": "a\n", " a": " a"} {
		write(text)
		if got, err := SecretFile(path).Get(t.Context()); err != nil || got.Reveal() != want {
			t.Errorf("%q: got %q, %v", text, got.Reveal(), err)
		}
	}
	write("\n")
	if _, err := SecretFile(path).Get(t.Context()); err == nil || !strings.Contains(err.Error(), path+": the file is empty") {
		t.Errorf("empty file: %v", err)
	}

	write("first-token-of-all\n")
	env, err := LoadEnv(least(map[string]string{"REKEYD_ADMIN_TOKEN_FILE": path}))
	if err != nil {
		t.Fatal(err)
	}
	write("second-token-of-all\n")
	if got, err := env.AdminToken.Get(t.Context()); err != nil || got.Reveal() != "second-token-of-all" || env.AdminToken.Path() != path {
		t.Errorf("after a change: %q, %v", got.Reveal(), err)
	}
	if s := fmt.Sprintf("%v %+v %#v", env.APIKey, env, SecretValue("sk_verysecret")); strings.Contains(s, "verysecret") {
		t.Errorf("a verb of fmt shows a secret: %s", s)
	}
}

func TestHelp(t *testing.T) {
	var text strings.Builder
	if err := WriteHelp(&text); err != nil {
		t.Fatal(err)
	}
	for _, v := range variables() {
		if v.help == "" || v.name == "" {
			t.Errorf("%s has no help or name", v.field.Name)
		}
		for _, name := range v.names() {
			if !strings.Contains(text.String(), name) {
				t.Errorf("help lacks %s", name)
			}
		}
	}
}

func TestEnvWarnings(t *testing.T) {
	for addr, warned := range map[string]bool{
		"http://vault.example.com:8200": true, "http://10.0.0.7:8200": true, "https://vault.example.com:8200": false,
		"http://127.0.0.1:8200": false, "http://localhost:8200": false, "http://[::1]:8200": false,
	} {
		if got := (Env{Sink: "vault", VaultAddr: addr}).Warnings(); (len(got) == 1) != warned {
			t.Errorf("%s: %v", addr, got)
		}
		if got := (Env{Sink: "file", VaultAddr: addr}).Warnings(); len(got) > 0 {
			t.Errorf("%s, which is not used: %v", addr, got)
		}
	}
	if got := (Env{Sink: "vault", VaultAddr: "https://vault.example.com", VaultSkipVerify: true}).Warnings(); len(got) != 1 {
		t.Errorf("a certificate that nobody looks at: %v", got)
	}
	for token, warned := range map[string]bool{"secret": true, "fifteen-letters": true, "sixteen-letters-": false} {
		env, err := LoadEnv(least(map[string]string{"REKEYD_ADMIN_TOKEN": token}))
		if got := env.Warnings(); err != nil || (len(got) == 1) != warned || strings.Contains(fmt.Sprint(got), token) {
			t.Errorf("the admin token %q: %v, %v", token, got, err)
		}
	}
	for _, token := range []string{" ", "\t", "a secret"} {
		if _, err := LoadEnv(least(map[string]string{"REKEYD_ADMIN_TOKEN": token})); err == nil {
			t.Errorf("the admin token %q is accepted", token)
		}
	}
}
