package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/internal/daemon"
)

// TestCheckOfFilesNeedsNoEnvironment: neither variables nor what they name, in any workspace.
func TestCheckOfFilesNeedsNoEnvironment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain.yaml", twoPolicies)
	spaces := write("spaces.yaml", `workspaces:
- {name: a, api_key: {env: ELEVENLABS_A}}
- {name: b, api_key: {file: /nonexistent}}
- {name: c, api_key: {vault: {path: admin}}}
policies:
- {name: a, workspace: a, service_account: s, schedule: "@daily", permissions: all, sink: {path: a}}
- {name: b, workspace: b, service_account: s, schedule: "@daily", permissions: all, sink: {path: data/b}}
`)
	wrong := write("wrong.yaml", strings.Replace(twoPolicies, "@every 36h", "@every 30m", 1)+"  - {name: c, overlap: 1d}\n")
	check := func(files ...string) (int, string, string) {
		var out, errs bytes.Buffer
		a := app{lookuper: envconfig.LookuperFunc(func(name string) (string, bool) {
			t.Errorf("variable %s is looked up", name)
			return "", false
		}), stdin: strings.NewReader(""), stdout: &out, stderr: &errs, environ: []string{"REKEYD_SINKK=vault"}}
		status := a.run(t.Context(), append([]string{"check"}, files...))
		return status, strings.ReplaceAll(out.String(), dir+"/", ""), strings.ReplaceAll(errs.String(), dir+"/", "")
	}
	status, out, errs := check(plain, spaces)
	if status != 0 || out != "ok: plain.yaml: 2 policies in 1 workspace\nok: spaces.yaml: 2 policies in 3 workspaces\n" || !strings.HasPrefix(errs, `rekeyd: warning: spaces.yaml:7:98: policy "b": sink.path is "data/b"`) {
		t.Errorf("exit status %d: %s%s", status, out, errs)
	}
	status, out, errs = check(wrong, plain, filepath.Join(dir, "none.yaml"), dir)
	if status != 2 || out != "ok: plain.yaml: 2 policies in 1 workspace\n" {
		t.Errorf("exit status %d: %s", status, out)
	}
	for _, fault := range []string{
		`wrong.yaml:3:58: policy "dubbing": schedule "@every 30m" fires every 30m at its closest, more often than REKEYD_MIN_INTERVAL (1h) allows`,
		`wrong.yaml:4:24: policy "c": overlap is "1d", which is not a duration; write 24h`,
		"none.yaml: the policy file cannot be read: no such file or directory; correct the path or the file's permissions", "it is a folder, not a regular file",
	} {
		if !strings.Contains(errs, fault) {
			t.Errorf("no %q in\n%s", fault, errs)
		}
	}
}

// TestCheckAsADocument has what is wrong and what is warned about too, each with its place.
func TestCheckAsADocument(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	text := strings.Replace(twoPolicies, "@every 36h", "@every 30m", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(env map[string]string, args ...string) (status int, findings []daemon.Finding) {
		var out, errs bytes.Buffer
		a := app{lookuper: envconfig.MapLookuper(env), stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
		status = a.run(t.Context(), append([]string{"check", "-o", "json"}, args...))
		if err := json.Unmarshal(out.Bytes(), &findings); err != nil {
			t.Fatalf("%v: %s%s", err, out.String(), errs.String())
		}
		return status, findings
	}
	status, findings := check(nil, file)
	if status != 2 || len(findings) != 2 || findings[0].Level != daemon.LevelError || findings[0].Subject != file+":3:58" ||
		!strings.HasPrefix(findings[0].Text, `policy "dubbing": schedule "@every 30m" fires`) {
		t.Errorf("exit status %d: %+v", status, findings)
	}
	status, findings = check(map[string]string{"REKEYD_POLICY_FILE": file, "REKEYD_RECONCILE_INTERVAL": "soon"})
	if status != 2 || len(findings) == 0 || findings[0].Level != daemon.LevelError || !strings.Contains(findings[0].Text, "REKEYD_RECONCILE_INTERVAL") {
		t.Errorf("exit status %d: %+v", status, findings)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(twoPolicies, "path: app/tts", "path: data/tts", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	status, findings = check(nil, file)
	if status != 0 || len(findings) != 2 || findings[0].Level != daemon.LevelWarning || findings[1].Level != daemon.LevelOK {
		t.Errorf("exit status %d: %+v", status, findings)
	}
}
