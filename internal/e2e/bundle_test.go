package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unpacked is what a bundle holds; it is looked through for secrets at the end.
func (w *world) unpacked(archive []byte) map[string]string {
	w.t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		w.t.Fatal(err)
	}
	files := map[string]string{}
	for tarred := tar.NewReader(zipped); ; {
		header, err := tarred.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		var text []byte
		if err == nil {
			text, err = io.ReadAll(tarred)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if header.Mode != 0o600 {
			w.t.Errorf("%s unpacks with mode %o", header.Name, header.Mode)
		}
		files[strings.TrimPrefix(header.Name, "rekeyd-bundle/")] = string(text)
		w.heard(string(text))
	}
}

// TestABundle is taken beside a daemon, without it, and where secrets lie in its way.
func TestABundle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	change := map[string]string{"REKEYD_PPROF": "true", "REKEYD_RECONCILE_INTERVAL": "777ms"}
	d := w.start(change)
	change["REKEYD_LISTEN_ADDR"] = strings.TrimPrefix(d.url, "http://")
	env := w.environment(change)
	first := w.becomes("")
	w.verb(0, "rotate", "tts-prod", "--reason", "a drill")
	second := w.becomes(first)
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	bundle := func(args ...string) (int, string, string) {
		return w.command(env, append([]string{"debug", "bundle"}, args...)...)
	}

	status, stdout, stderr := bundle("-o", file)
	if status != 0 || !strings.HasPrefix(stdout, file+": no secret was found") {
		t.Fatalf("exit status %d\n%s%s", status, stdout, stderr)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	archive, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := w.unpacked(archive)
	for name, want := range map[string]string{
		"README.txt": "goroutines.txt ", "metrics.txt": "rekeyd_build_info{", "goroutines.txt": "rotator.(*Rotator).Run(", "policies.yaml": "name: tts-prod",
		"environment.txt": "REKEYD_ADMIN_TOKEN (set; its value is left out)\n", "versions.txt": "sink\tVault 1.", "status.json": second, "history.json": "a drill",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not say %q:\n%s", name, want, files[name])
		}
		if strings.HasSuffix(name, ".json") && !json.Valid([]byte(files[name])) {
			t.Errorf("%s is no JSON", name)
		}
	}
	w.says(files["environment.txt"], "REKEYD_RECONCILE_INTERVAL=777ms\n", "VAULT_TOKEN (set")
	if len(files) != 8 || strings.Contains(files["README.txt"], "LEFT OUT") || strings.Contains(files["README.txt"], "INCOMPLETE") {
		t.Errorf("%d files:\n%s", len(files), files["README.txt"])
	}
	if status, _, stderr := bundle("-o", file); status != 1 || !strings.Contains(stderr, "file exists") {
		t.Errorf("over the first: exit status %d: %s", status, stderr)
	}
	d.end()

	status, stdout, stderr = bundle()
	files = w.unpacked([]byte(stdout))
	w.says(files["README.txt"], "metrics: LEFT OUT: asking the daemon", "loopback listener: LEFT OUT: asking the daemon")
	if status != 0 || len(files) != 6 || !strings.Contains(files["status.json"], second) {
		t.Errorf("without the daemon: exit status %d, %d files\n%s", status, len(files), stderr)
	}

	w.plantSecrets(bundle)
}

// plantSecrets puts secrets where a person may have put them: nothing is written then, and the sentence names the place.
func (w *world) plantSecrets(bundle func(...string) (int, string, string)) {
	w.t.Helper()
	policies, err := os.ReadFile(w.policyFile)
	if err != nil {
		w.t.Fatal(err)
	}
	entry := "rekeyd/" + w.id + "/policies/tts-prod"
	ledger, _ := w.document(entry)
	record, _ := w.record()
	for name, c := range map[string]struct {
		plant func()
		where string
	}{
		"the admin token in a comment":         {func() { w.write(w.policyFile, string(policies)+"# "+w.adminToken+"\n") }, "policies.yaml"},
		"a stranger's key in a comment":        {func() { w.write(w.policyFile, string(policies)+"# sk_0123456789abcdef\n") }, "policies.yaml"},
		"an unusable policy file with a token": {func() { w.write(w.policyFile, "policies: hvs.0123456789abcdef\n") }, "policies.yaml"},
		"the current key in the words of a rotation": {func() {
			text, err := json.Marshal(ledger)
			if err != nil {
				w.t.Fatal(err)
			}
			changed := map[string]any{}
			secret, _ := record["api_key"].(string)
			if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("a drill"), []byte("was "+secret)), &changed); err != nil {
				w.t.Fatal(err)
			}
			w.put(entry, changed)
		}, "history.json"},
	} {
		w.write(w.policyFile, string(policies))
		c.plant()
		file := filepath.Join(w.t.TempDir(), "bundle.tar.gz")
		status, stdout, stderr := bundle("--output", file)
		if _, err := os.Stat(file); status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.where+" would hold a secret") || !errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("%s: exit status %d, %v\n%s%s", name, status, err, stdout, stderr)
		}
		if status, stdout, _ := bundle(); status != 1 || stdout != "" {
			w.t.Errorf("%s: to stdout: exit status %d, %d bytes", name, status, len(stdout))
		}
		w.put(entry, ledger)
	}
}

func (w *world) write(path, text string) {
	w.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// TestABundleOfADaemonThatKeepsToItself: goroutines are left out where profiles are off.
func TestABundleOfADaemonThatKeepsToItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	d := w.start(nil)
	status, stdout, stderr := w.command(w.environment(map[string]string{"REKEYD_LISTEN_ADDR": strings.TrimPrefix(d.url, "http://")}), "debug", "bundle")
	if status != 0 {
		t.Fatalf("exit status %d\n%s", status, stderr)
	}
	files := w.unpacked([]byte(stdout))
	w.says(files["README.txt"], "LEFT OUT: asking the daemon for /debug/pprof/goroutine?debug=2: HTTP 404")
	w.says(files["metrics.txt"], "rekeyd_build_info{")
	if _, has := files["goroutines.txt"]; has {
		t.Error("there are goroutines all the same")
	}
	d.end()
}
