package hostiletest

import (
	"fmt"
	"strings"
)

// configInputs are configurations of which none may do harm, accepted or refused. Base URLs are a family of their own.
func configInputs() []input {
	inputs := []input{{Name: "nothing"}}
	for _, part := range [][]input{texts(), policyFields(), workspaceInputs(), variableInputs(), fileInputs()} {
		inputs = append(inputs, part...)
	}
	return inputs
}

// basis is an environment to which a policy file is all that lacks.
func basis(more ...string) map[string]string {
	env := map[string]string{"REKEYD_SINK": "file", "ELEVENLABS_API_KEY": "sk_admin_of_a_test"}
	for _, entry := range more {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

const onePolicy = "policies:\n- {name: a, service_account: svcacc_a, sink: {path: elevenlabs/a}, schedule: '@daily', permissions: all}\n"

// texts are policy files that are none.
func texts() []input {
	var inputs []input
	for name, text := range map[string]string{
		"NUL": "\x00\x01", "an escape": "\x1b[2Jpolicies: []", "UTF-16": "\xff\xfep\x00", "Latin-1": "# caf\xe9", "a byte order mark": "\xef\xbb\xbf" + onePolicy,
		"C1": "policies: \"\u009b2J\"", "bidi": "policies: \"\u202e\"", "line separators": "policies:\u2028- a", "a lone CR": "policies:\r- a",
		"10 MB of comments": strings.Repeat("# 0123456\n", 1_000_000), "8 MiB on one line": "a: " + strings.Repeat("x", 8<<20-4), "a million brackets": strings.Repeat("[", 1_000_000),
		"a million dashes": strings.Repeat("- ", 1_000_000), "9,000 brackets": strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000), "colons": strings.Repeat(": ", 100_000),
		"100,000 unknown fields": strings.Repeat("a: 1\n", 100_000), "100,000 empty policies": "policies:\n" + strings.Repeat("- {}\n", 100_000),
		"100,000 anchors": "policies:\n" + strings.Repeat("- &a a\n- *a\n", 100_000), "nine lols": lols(), "an alias of itself": "policies: &a [*a]", "a merge of itself": "a: &a {<<: *a}", "a merge of a list": "a: &a [b]\npolicies:\n- {<<: *a}", "merges that double": doublingMerges(), "many profiles": "profiles:\n" + strings.Repeat("  a: {}\n", 100_000), "a pasted profile": "profiles: {" + canary + ": {}}",
		"an alias without anchor": "policies: *x", "a pasted alias": "policies: *" + canary, "a pasted tag": "policies: !" + canary + " a", "a pasted anchor": "policies: &" + canary + " [*" + canary + "]",
		"a pasted field": canary + ": a", "only a secret": canary, "a local tag": "policies: !!python/object/apply:os.system [id]", "a binary tag": "policies: !!binary aGk=",
		"a Go template": "policies: {{ env \"HOME\" }}", "an include": "policies: !include /etc/passwd", "two documents": onePolicy + "---\n" + onePolicy,
		"JSON": `{"policies":[{"name":"a"}]}`, "a directive": "%YAML 9.9\n---\n" + onePolicy, "a tab": "policies:\n\t- a", "an open quote": "policies: \"", "an open block": "policies: |",
		"a number": "42", "null": "~", "a date": "2026-01-01", "a script": "#!/bin/sh\nrm -rf /\n", "XML": "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>",
		"many long names": "policies:\n" + strings.Repeat("- {name: "+strings.Repeat("x", 1000)+"}\n", 2000), "a deep mapping": strings.Repeat("{a: ", 5_000) + strings.Repeat("}", 5_000),
		"one long key": strings.Repeat("k", 100_000) + ": a", "a complex key": "? [a, b]\n: c", "a key that is null": "~: a", "a key that is a mapping": "{a: b}: c", "the same key": "policies: []\npolicies: []",
		"policies as a mapping": "policies: {a: b}", "policies as text": "policies: a", "an empty list": "policies: []", "the merge key": "policies: [{<<: {name: a}}]", "a set": "policies: !!set {a, b}",
	} {
		inputs = append(inputs, input{Name: "text: " + name, Env: basis(), Policies: text})
	}
	return inputs
}

// doublingMerges has mappings each of which merges the one before it twice.
func doublingMerges() string {
	text := "profiles:\n  p0: &m0 {a: 1, b: 2}\n"
	for i := 1; i < 200; i++ {
		text += fmt.Sprintf("  p%d: &m%[1]d {<<: [*m%d, *m%[2]d], c%[1]d: 1}\n", i, i-1)
	}
	return text
}

// lols unfold to 10^9 words.
func lols() string {
	text := "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
	for i := 1; i < 9; i++ {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return text + "policies: *a8\n"
}

// policyFields has hostile values in each field of a policy.
func policyFields() []input {
	values := map[string]string{
		"a secret": canary, "a secret in a path": "team/" + canary + "/x", "nothing": "''", "null": "~", "a number": "1e999", "a negative": "-1", "a list": "[[], {}]", "a mapping": "{a: {b: c}}",
		"a long text": strings.Repeat("x", 100_000), "parents": "../../../etc/passwd", "absolute": "/etc/passwd", "controls": `"a\nb\e[31m\u202e\u009b"`, "a command": "'$(id);`id`|id'",
		"a format": "'%s%n%!d(x)'", "a tag": "!" + canary + " a", "an overflow": "9223372036854775808", "a long time": "2562047h47m16.854775807s", "blanks": "'   '",
	}
	var inputs []input
	for _, field := range strings.Fields("name service_account sink workspace schedule timezone splay window group max_age permissions allowed_ips character_limit tts_concurrency_limit dubbing_concurrency_limit music_concurrency_limit third_party_disable_allowed overlap quarantine wait_until_idle verify on_drift mode labels profile adopt unknown") {
		for name, value := range values {
			lines := []string{"name: a", "service_account: svcacc_a", "sink: {path: elevenlabs/a}", "schedule: '@daily'", "permissions: all"}
			text := "policies:\n- " + field + ": " + value + "\n"
			for _, line := range lines {
				if !strings.HasPrefix(line, field+":") {
					text += "  " + line + "\n"
				}
			}
			inputs = append(inputs, input{Name: "policy: " + field + " is " + name, Env: basis(), Policies: text})
		}
	}
	for _, field := range []string{"mount", "path", "field"} {
		for name, value := range values {
			sink := map[string]string{"path": "elevenlabs/a"}
			sink[field] = value
			text := "{"
			for f, v := range sink {
				text += f + ": " + v + ", "
			}
			inputs = append(inputs, input{Name: "sink: " + field + " is " + name, Env: basis(), Policies: strings.Replace(onePolicy, "{path: elevenlabs/a}", text+"}", 1)})
		}
	}
	for name, schedule := range map[string]string{
		"never": "0 0 30 2 *", "seconds": "* * * * * *", "every ns": "@every 1ns", "every 0": "@every 0s", "every negative": "@every -1h", "a huge step": "*/999999999 * * * *", "a huge range": "0-4294967296 * * * *",
		"a zone inside": "TZ= 0 0 * * *", "a zone that leaves": "CRON_TZ=../../etc/passwd @daily", "many commas": strings.Repeat("1,", 50_000) + "1 * * * *", "a lone star": "*", "too often": "* * * * *", "at reboot": "@reboot",
	} {
		inputs = append(inputs, input{Name: "schedule: " + name, Env: basis(), Policies: strings.Replace(onePolicy, "'@daily'", "'"+schedule+"'", 1)})
	}
	return inputs
}

// workspaceInputs has hostile values where admin keys are said to be.
func workspaceInputs() []input {
	var inputs []input
	for name, key := range map[string]string{
		"the key itself": canary, "the key as a file": "{file: " + canary + "}", "the key as a variable": "{env: " + canary + "}", "the key as a path": "{vault: {path: " + canary + "}}",
		"the key as a mount": "{vault: {path: a, mount: " + canary + "}}", "the key as a field": "{vault: {path: a, field: " + canary + "}}", "the key as a name": "{" + canary + ": a}", "the key as a tag": "!" + canary + " {file: a}",
		"the key as an alias": "*" + canary, "another variable": "{env: VAULT_TOKEN}", "the home": "{env: HOME}", "a folder": "{file: /}", "endless zeros": "{file: /dev/zero}", "random bytes": "{file: /dev/urandom}",
		"a terminal": "{file: /dev/tty}", "nothing there": "{file: /nowhere/at/all}", "stderr": "{file: /proc/self/fd/2}", "stdin": "{file: /dev/stdin}", "its own memory": "{file: /proc/self/mem}", "its environment": "{file: /proc/self/environ}",
		"the kernel's log": "{file: /proc/kmsg}", "many words": "{file: /etc/passwd}", "empty": "{file: /dev/null}", "two places": "{file: /a, env: ELEVENLABS_API_KEY}", "no place": "{}", "a long path": "{file: /" + strings.Repeat("x/", 50_000) + "}",
		"controls": `{file: "/a\n\e[31m"}`, "a URL": "{file: 'https://example.com/key'}",
	} {
		inputs = append(inputs, input{Name: "api_key: " + name, Env: basis(), Policies: "workspaces: [{name: default, api_key: " + key + "}]\n" + onePolicy})
	}
	for _, name := range []string{canary, "''", "../x", strings.Repeat("x", 100_000), `"\n"`, "[]"} {
		inputs = append(inputs, input{Name: fmt.Sprintf("workspace named %.30q", name), Env: basis(), Policies: "workspaces: [{name: " + name + ", api_key: {env: ELEVENLABS_API_KEY}}]\n" + onePolicy})
	}
	return inputs
}

// baseURLs would send the admin key elsewhere, or are no URL.
func baseURLs() []input {
	var inputs []input
	for _, url := range []string{
		"https://evil.example", "http://api.elevenlabs.io", "https://api.elevenlabs.io.evil.example", "https://evil.example/api.elevenlabs.io", "https://evil.example?https://api.elevenlabs.io",
		"https://evil.example#api.elevenlabs.io", "https://api.elevenlabs.io@evil.example", "https://me:" + canary + "@api.elevenlabs.io", "https://" + canary + "@api.elevenlabs.io", "https://api.elevenlabs.io:8443",
		"https://api.elevenlabs.io:99999", "https://api.elevenlabs.io:0", "https://api.elevenlabs.io:-1", "https://api.elevenlabs.io:", "https://api.elevenlabs.io:443:443", "https://API.ELEVENLABS.IO", "https://api.elevenlabs.io.",
		"https://xn--pi-elevenlabs-io", "https://\u0430pi.elevenlabs.io", "https://api.elevenlabs.io\\@evil.example", "https://api.elevenlabs.io%2f@evil.example", "https://api.elevenlabs.io%00.evil.example",
		"https://*", "https://*.elevenlabs.io", "https://", "https:///v1", "https:api.elevenlabs.io", "//api.elevenlabs.io", "api.elevenlabs.io", "ftp://api.elevenlabs.io", "file:///etc/passwd", "javascript:alert(1)", "unix:///run/x.sock", "data:text/plain,x",
		"http://127.0.0.1", "http://127.0.0.1:70000", "http://127.1", "http://0177.0.0.1", "http://2130706433", "http://0x7f000001", "http://0.0.0.0", "http://[::]", "http://[::1]", "http://[::1%25eth0]", "http://[::ffff:127.0.0.1]", "http://[::ffff:169.254.169.254]",
		"http://169.254.169.254/latest/meta-data", "http://metadata.google.internal", "http://localhost", "http://LOCALHOST:1", "http://localhost.evil.example", "http://localhost@evil.example", "http://evil.example:80@localhost", "https://api.us.elevenlabs.io", "https://api.ru.elevenlabs.io",
		"https://api.elevenlabs.io/../../", "https://api.elevenlabs.io/%2e%2e/", "https://api.elevenlabs.io?key=" + canary, "https://" + canary + ".example", "https://api.elevenlabs.io/" + canary, "https://" + strings.Repeat("a.", 50_000) + "example",
	} {
		inputs = append(inputs, input{Name: fmt.Sprintf("base URL %.60q", url), Env: basis(), Policies: "workspaces: [{name: default, api_key: {env: ELEVENLABS_API_KEY}, base_url: '" + url + "'}]\n" + onePolicy})
	}
	return inputs
}

// variableInputs has hostile values in each variable that is no secret.
func variableInputs() []input {
	values := map[string]string{
		"a secret": canary, "controls": "a\n\x1b[31m\u202e", "long": strings.Repeat("x", 30_000), "parents": "../../../etc", "1 ns": "1ns", "too much": "99999999999h", "negative": "-1", "not a number": "NaN", "no UTF-8": "\xff\xfe", "a format": "%s%n",
	}
	var inputs []input
	for _, name := range strings.Fields(`REKEYD_SINK REKEYD_FILE_DIR REKEYD_LEDGER_MOUNT REKEYD_LEDGER_PATH REKEYD_LISTEN_ADDR REKEYD_WEB_CONFIG_FILE REKEYD_STATUS_PAGE REKEYD_RECONCILE_INTERVAL
		REKEYD_RESYNC_INTERVAL REKEYD_CONCURRENCY REKEYD_API_RATE REKEYD_API_TIMEOUT REKEYD_ALLOWED_API_ORIGINS REKEYD_MIN_INTERVAL REKEYD_MAX_ROTATIONS_PER_HOUR REKEYD_CLAIM_TTL REKEYD_VERIFY_TIMEOUT REKEYD_SHUTDOWN_TIMEOUT
		REKEYD_LOG_LEVEL REKEYD_LOG_FORMAT REKEYD_ALLOW_UNKNOWN_PERMISSIONS ELEVENLABS_API_KEY_FILE REKEYD_ADMIN_TOKEN_FILE REKEYD_EVENTS_SECRET_FILE REKEYD_VAULT_AUTH`) {
		for what, value := range values {
			inputs = append(inputs, input{Name: name + ": " + what, Env: without(basis(name+"="+value), name), Policies: onePolicy})
		}
	}
	for what, value := range map[string]string{"a port above all": "127.0.0.1:65536", "no port": "127.0.0.1", "a name with a blank": "a b:1", "a socket": "unix:///run/x"} {
		inputs = append(inputs, input{Name: "REKEYD_LISTEN_ADDR: " + what, Env: basis("REKEYD_LISTEN_ADDR=" + value), Policies: onePolicy})
	}
	for _, url := range []string{"http://*", "https://*", "https://a:99999", "https://me:" + canary + "@a", "ftp://a", "https://a/path", "https://a,,https://b", " ", "https://a b"} {
		for _, name := range []string{"REKEYD_ALLOWED_API_ORIGINS", "ELEVENLABS_BASE_URL", "REKEYD_EVENTS_URL", "VAULT_ADDR"} {
			inputs = append(inputs, input{Name: name + ": " + url, Env: basis(name+"="+url, "REKEYD_EVENTS_SECRET=x"), Policies: onePolicy})
		}
	}
	return inputs
}

// without leaves out the variable beside which its _FILE must not be.
func without(env map[string]string, name string) map[string]string {
	if plain, isFile := strings.CutSuffix(name, "_FILE"); isFile {
		delete(env, plain)
	}
	return env
}

// fileInputs has what is no small file in every place of one.
func fileInputs() []input {
	var inputs []input
	for _, path := range []string{"/", "/dev/zero", "/dev/urandom", "/dev/tty", "/dev/null", "/proc/self/fd/2", "/dev/stdin", "/proc/kmsg", "/proc/self/mem", "/nowhere", canary} {
		for _, name := range strings.Fields("ELEVENLABS_API_KEY_FILE REKEYD_ADMIN_TOKEN_FILE REKEYD_WEB_CONFIG_FILE") {
			inputs = append(inputs, input{Name: name + " is " + path, Env: without(basis(name+"="+path), name), Policies: onePolicy})
		}
		inputs = append(inputs, input{Name: "REKEYD_POLICY_FILE is " + path, Env: basis("REKEYD_POLICY_FILE=" + path)})
		for name, auth := range map[string]string{"VAULT_TOKEN_FILE": "token", "REKEYD_VAULT_TOKEN_FILE": "token_file", "REKEYD_VAULT_JWT_FILE": "jwt", "REKEYD_VAULT_SECRET_ID_FILE": "approle", "VAULT_CACERT": "token", "VAULT_CLIENT_KEY": "cert"} {
			inputs = append(inputs, input{Name: name + " is " + path, Policies: onePolicy,
				Env: basis(name+"="+path, "REKEYD_SINK=vault", "VAULT_ADDR=http://127.0.0.1:1", "REKEYD_VAULT_AUTH="+auth, "REKEYD_VAULT_ROLE=r", "REKEYD_VAULT_ROLE_ID=r")})
		}
	}
	return inputs
}
