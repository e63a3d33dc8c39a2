package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pasted are secrets as people paste them where a name, an id or a path belongs.
func pasted() []string {
	return []string{
		"sk_0123456789abcdef0123456789abcdef0123456789abcdef", "sk_verysecret", "hvs.CAESIJ0verysecretverysecret0123456789abcdef",
		"hvb.AAAAAQverysecretverysecret", "s.verysecretverysecretAAAA", "ghp_verysecretverysecretverysecret00", "glpat-verysecretverysecret",
		"xoxb-1234567890-verysecret", "AKIAVERYSECRET000000", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ2ZXJ5c2VjcmV0In0.verysecret",
	}
}

// TestAPastedSecretIsRefusedAndNotRepeated has every place of a policy file where something else belongs.
func TestAPastedSecretIsRefusedAndNotRepeated(t *testing.T) {
	places := []string{
		"policies:\n- name: a\n  adopt: %s", "policies:\n- name: %s", "policies:\n- service_account: %s", "policies:\n- sink: {path: %s}",
		"policies:\n- sink: {path: elevenlabs/%s/x}", "policies:\n- sink: {path: a, mount: %s}", "policies:\n- sink: {path: a, field: %s}",
		"policies:\n- profile: %s", "profiles: {%s: {}}", "profiles: {a: %s}", "profiles: {a: {%s: b}}", "policies:\n- {<<: %s}", "policies:\n- {<<: [!%s {a: b}]}", "policies:\n- {<<: &a {%s: b}}\n- *a",
		"policies:\n- labels: {team: %s}", "policies:\n- labels: {%s: team}", "policies:\n- labels: %s", "policies:\n- labels: {team: {%s: x}}", "defaults: {labels: {team: [%s]}}",
		"policies:\n- sink: {path: a, field: api_key, %s: x}", "policies:\n- workspace: %s", "policies:\n- group: %s", "policies:\n- mode: %s", "policies:\n- schedule: %s",
		"policies:\n- timezone: %s", "policies:\n- permissions: [%s]", "policies:\n- allowed_ips: [%s]", "policies:\n- overlap: %s",
		"policies:\n- tts_concurrency_limit: %s", "policies:\n- third_party_disable_allowed: %s",
		"policies:\n- %s: x", "policies: %s", "%s: x", "%s", "policies:\n- !%s a", "policies:\n- *%s", "policies:\n- name: *%s", "policies:\n- &%s {name: a}\n- *%[1]s",
		"policies:\n- name: !%s a", "policies: [name: %s, !", "workspaces:\n- name: %s", "workspaces:\n- {name: a, api_key: %s}", "workspaces:\n- {name: a, api_key: {file: %s}}",
		"workspaces:\n- {name: a, api_key: {env: %s}}", "workspaces:\n- {name: a, api_key: {vault: {path: %s}}}", "workspaces:\n- {name: a, api_key: {vault: {path: a, mount: %s}}}",
		"workspaces:\n- {name: a, api_key: {vault: {path: a, field: %s}}}", "workspaces:\n- {name: a, api_key: {%s: a}}", "workspaces:\n- {name: a, base_url: %s}",
		"workspaces:\n- {name: a, base_url: \"https://%s@api.elevenlabs.io\"}", "workspaces:\n- {name: a, base_url: \"https://me:%s@api.elevenlabs.io\"}",
		"workspaces:\n- {name: a, base_url: \"https://%s\"}", "workspaces:\n- {name: a, base_url: \"https://api.elevenlabs.io?%s\"}",
	}
	for _, secret := range pasted() {
		for _, place := range places {
			text := fmt.Sprintf(place, secret)
			lookup := environment(text)
			env, err := LoadEnv(lookup)
			if err != nil {
				t.Fatal(err)
			}
			_, err = LoadPolicies(t.Context(), env.Source(), env, lookup)
			if err == nil {
				t.Errorf("accepted:\n%s", text)
			} else if said := strings.ToLower(err.Error()); strings.Contains(said, "verysecret") || strings.Contains(said, "0123456789abcdef") {
				t.Errorf("%s\nis repeated: %v", text, err)
			}
		}
	}
	// A well-formed value of another kind is refused for what it looks like.
	_, err := load(t, with("adopt: sk_0123456789abcdef0123456789abcdef"))
	if err == nil || !strings.HasSuffix(err.Error(), `policy "a": adopt looks like a secret, which no policy file may hold; write key_0a1b2c, and replace that secret if others could read it here`) {
		t.Error(err)
	}
	// What a person may well choose is none.
	for _, line := range []string{"adopt: sk-1", "sink: {path: team/sk_admin}", "service_account: svcacc_sk_0123456789abcdef", "adopt: task_0123456789abcdef0123"} {
		if _, err := load(t, with(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestAPastedSecretInAVariableIsNotRepeated(t *testing.T) {
	for _, secret := range pasted() {
		for _, v := range variables() {
			for _, name := range v.names() {
				if name == v.name && v.secret() || v.name == "REKEYD_POLICIES" || v.name == "REKEYD_EVENTS_URL" || v.sensitive {
					continue // where it belongs, or a URL
				}
				_, err := LoadEnv(least(map[string]string{"REKEYD_SINK": "file", v.name: "", name: secret}))
				if err == nil {
					t.Errorf("%s=%s is accepted", name, secret)
				} else if strings.Contains(strings.ToLower(err.Error()), "verysecret") || strings.Contains(err.Error(), "0123456789abcdef") {
					t.Errorf("%s=%s is repeated: %v", name, secret, err)
				}
			}
		}
	}
}

// TestFilesThatAreNoFiles has in every place of a file what never ends, blocks its reader, or is too much.
func TestFilesThatAreNoFiles(t *testing.T) {
	dir := t.TempDir()
	fifo, large, enormous := filepath.Join(dir, "fifo"), filepath.Join(dir, "large"), filepath.Join(dir, "enormous")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, size := range map[string]int{large: 64<<10 + 1, enormous: 8<<20 + 1} {
		if err := os.WriteFile(path, []byte(strings.Repeat("k", size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	odd := map[string]string{"/dev/zero": "it is a device, not a regular file", fifo: "it is a FIFO, not a regular file", dir: "it is a folder, not a regular file",
		large: "the file is too large: it has more than 64 KiB"}
	for path, why := range odd {
		want := " cannot be read: " + path + ": " + why + "; correct the path or what is there"
		_, err := load(t, "workspaces: [{name: default, api_key: {file: "+path+"}}]\n"+with())
		if err == nil || err.Error() != `REKEYD_POLICIES:1:46: workspace "default": api_key.file`+want {
			t.Errorf("api_key.file: %v", err)
		}
		_, err = load(t, "workspaces: [{name: default, api_key: {env: ELEVENLABS_X}}]\n"+with(), "ELEVENLABS_X_FILE="+path)
		if err == nil || !strings.Contains(err.Error(), "ELEVENLABS_X, which"+want) {
			t.Errorf("api_key.env: %v", err)
		}
		for _, v := range variables() {
			if !v.secret() {
				continue
			}
			_, err := LoadEnv(least(map[string]string{v.name: "", v.name + "_FILE": path}))
			if err == nil || !strings.Contains(err.Error(), v.name+"_FILE"+want) {
				t.Errorf("%s_FILE: %v", v.name, err)
			}
		}
		for name, auth := range map[string]string{"REKEYD_VAULT_JWT_FILE": "jwt", "REKEYD_VAULT_TOKEN_FILE": "token_file"} {
			_, err := LoadEnv(least(map[string]string{"REKEYD_VAULT_AUTH": auth, "REKEYD_VAULT_ROLE": "r", name: path}))
			if err == nil || !strings.Contains(err.Error(), name+fmt.Sprintf(" is %q, which cannot be read: ", path)+why) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	delete(odd, large)
	odd[enormous] = "the file is too large: it has more than 1 MiB"
	for path, why := range odd {
		for _, name := range []string{"REKEYD_WEB_CONFIG_FILE", "VAULT_CACERT", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"} {
			_, err := LoadEnv(least(map[string]string{name: path}))
			if err == nil || !strings.Contains(err.Error(), name+fmt.Sprintf(" is %q, which cannot be read: ", path)+why) {
				t.Errorf("%s: %v", name, err)
			}
		}
		want := path + ": the policy file cannot be read: " + why + "; correct REKEYD_POLICY_FILE or the file's permissions"
		if path == enormous {
			want = path + ": the policy file is larger than 8 MiB; split it between several instances of rekeyd"
		}
		if _, err := LoadPolicies(t.Context(), Source{Path: path}, Env{}, environment("")); err == nil || err.Error() != want {
			t.Errorf("policy file: %v", err)
		}
	}
}

// TestALongPathIsNotRepeatedWhole: a line of an error stays one that can be read.
func TestALongPathIsNotRepeatedWhole(t *testing.T) {
	long := "/" + strings.Repeat("x/", 50_000)
	_, err := load(t, "workspaces: [{name: default, api_key: {file: "+long+"}}]\n"+with())
	if err == nil || len(err.Error()) > 500 {
		t.Errorf("api_key.file: %.300v", err)
	}
	if _, err := LoadPolicies(t.Context(), Source{Path: long}, Env{}, environment("")); err == nil || len(err.Error()) > 500 {
		t.Errorf("policy file: %.300v", err)
	}
	for _, v := range variables() {
		for _, name := range v.names() {
			if name == v.name && v.secret() || v.name == "REKEYD_POLICIES" {
				continue
			}
			if _, err := LoadEnv(least(map[string]string{v.name: "", name: long})); err != nil && len(err.Error()) > 800 {
				t.Errorf("%s: %.300v", name, err)
			}
		}
	}
}

// TestEveryNumberIsBounded tries each number and duration beyond both of its ends.
func TestEveryNumberIsBounded(t *testing.T) {
	tried := 0
	for _, v := range variables() {
		var outside []string
		switch v.kind {
		case "a duration":
			outside = []string{"1ns", "0s", "-1s", "2562047h47m16.854775807s", (time.Duration(v.min) - 1).String(), (time.Duration(v.max) + time.Second).String()}
		case "a whole number", "a number":
			outside = []string{"0", "-1", "1e300", "NaN", "Inf", fmt.Sprint(v.max + 1)}
		default:
			continue
		}
		for _, value := range outside {
			tried++
			if _, err := LoadEnv(least(map[string]string{v.name: value})); err == nil || !strings.Contains(err.Error(), v.name+` is "`+value+`", which is `) {
				t.Errorf("%s=%s: %v", v.name, value, err)
			}
		}
	}
	if tried < 60 {
		t.Errorf("only %d values were tried", tried)
	}
}

func TestHostsAndPortsThatCannotBe(t *testing.T) {
	for value, why := range map[string]string{
		"https://api.example.com:65536": "has a port that is not from 1 to 65535", "https://api.example.com:99999": "has a port that is not from 1 to 65535",
		"http://127.0.0.1:0": "has a port that is not from 1 to 65535", "https://*": "has a host that is neither a name nor an address",
		"https://*.example.com": "has a host that is neither a name nor an address", "https://a b": "is not a URL", "https://exa!mple.com": "has a host that is neither a name nor an address",
	} {
		for _, name := range []string{"REKEYD_ALLOWED_API_ORIGINS", "ELEVENLABS_BASE_URL", "VAULT_ADDR", "REKEYD_EVENTS_URL"} {
			_, err := LoadEnv(least(map[string]string{name: value, "REKEYD_EVENTS_SECRET": "x"}))
			if err == nil || strings.HasPrefix(name, "REKEYD_A") && !strings.Contains(err.Error(), why) {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
		if _, err := load(t, "workspaces: [{name: default, base_url: \""+value+"\", api_key: {env: ELEVENLABS_API_KEY}}]\n"+with()); err == nil {
			t.Errorf("base_url %s is accepted", value)
		}
	}
	for _, value := range []string{"https://api.example.com:65535", "http://127.0.0.1:1", "http://[::1]:80", "https://a_b.example.com."} {
		if _, err := LoadEnv(least(map[string]string{"REKEYD_ALLOWED_API_ORIGINS": value})); err != nil {
			t.Error(err)
		}
	}
}

func TestAFolderThatOthersWriteIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	check := func() error {
		_, err := LoadEnv(least(map[string]string{"REKEYD_SINK": "file", "REKEYD_FILE_DIR": dir}))
		return err
	}
	if err := check(); err != nil {
		t.Errorf("a folder that is yet to be made: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for mode, refused := range map[os.FileMode]bool{0o700: false, 0o750: false, 0o755: false, 0o777: true, 0o770: true, 0o702: true} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := check(); (err != nil) != refused || refused && !strings.Contains(err.Error(), fmt.Sprintf("REKEYD_FILE_DIR is %q, a folder with mode %04o", dir, mode)) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	dir = filepath.Join(dir, "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(); err == nil || !strings.Contains(err.Error(), "which is not a folder") {
		t.Errorf("a file: %v", err)
	}
}

func TestPathsThatVaultCompletesAreWarnedAbout(t *testing.T) {
	for path, meant := range map[string]string{"data/a": "a", "metadata/a/b": "a/b", "secret/a": "a", "secret/data/a": "a", "data/metadata/secret/a/data": "a/data", "database/a": "", "secrets/a": "", "a/data/b": ""} {
		c, err := load(t, with("sink: {path: "+path+"}"))
		if err != nil {
			t.Fatal(err)
		}
		if got := Faults(c.Warnings).Error(); (meant != "") != strings.Contains(got, fmt.Sprintf("write %q if you mean", meant)) || meant == "" && got != "" {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestASyntaxErrorNamesItsLine has the errors for which the parser names none.
func TestASyntaxErrorNamesItsLine(t *testing.T) {
	for _, text := range []string{"policies: [", "\"", "{", "a: b: c", "policies: *x", "%", "- a\nb", "a: 'b", "@", "? [", "- *a", "&", "!<", "key: |x"} {
		_, err := load(t, text)
		if err == nil || !strings.HasPrefix(err.Error(), "REKEYD_POLICIES:1:") && !strings.HasPrefix(err.Error(), "REKEYD_POLICIES:2:") || strings.Contains(err.Error(), "deeply") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
