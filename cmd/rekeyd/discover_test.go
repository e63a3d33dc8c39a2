package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// discovered is a world with keys made by hand, some of whose secrets are in records, and no policy file.
func discovered(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	delete(w.env, "REKEYD_POLICIES")
	add := func(account string, k elevensim.KeySpec) (id, secret string) {
		id, secret, err := w.sim.AddKey(account, k)
		if err != nil {
			t.Fatal(err)
		}
		return id, secret
	}
	put := func(path string, data map[string]any) {
		if _, err := w.kv.Put("secret/"+path, data); err != nil {
			t.Fatal(err)
		}
	}
	seven, limit, never := int64(7), int64(5000), false
	const head = "sk_0123456789abcdef0123456789abcdef01234567"
	_, secret := add("svcacc_a", elevensim.KeySpec{Name: "TTS, prod", Secret: head + "aaaa1111", Permissions: []string{"text_to_speech", "voices_read"}, AllowedIPs: []string{"203.0.113.0/24", "2001:db8::7"}, CharacterLimit: &limit, TTSConcurrency: &seven, ThirdPartyDisable: &never})
	put("elevenlabs/speech/prod", map[string]any{"token": secret, "team": "speech"})
	id, secret := add("svcacc_a", elevensim.KeySpec{Name: "batch", Secret: head + "bbbb2222", Permissions: []string{"text_to_speech"}})
	put("elevenlabs/batch", map[string]any{"api_key": secret, "key_id": id, "note": "a note of more than twenty-four characters"})
	put("elevenlabs/copy", map[string]any{"api_key": secret, "key_id": id})
	add("svcacc_a", elevensim.KeySpec{Name: "batch", Secret: head + "cccc3333"})
	add("svcacc_a", elevensim.KeySpec{Name: "twin", Secret: head + "dddd4444", Permissions: []string{"voices_read"}})
	_, secret = add("svcacc_a", elevensim.KeySpec{Name: "twin's twin", Secret: head[:30] + "0123456789ab" + "dddd4444", Permissions: []string{"voices_read"}})
	put("elevenlabs/twin", map[string]any{"api_key": secret})
	add("svcacc_b", elevensim.KeySpec{Name: "x\n  - name: evil\n    # \u2028\u202e", Secret: head + "eeee5555"})
	add("svcacc_b", elevensim.KeySpec{Name: "none at all", Secret: head + "ffff6666", Permissions: []string{}})
	add("svcacc_b", elevensim.KeySpec{Name: "newer", Secret: head + "abcd7777", Permissions: []string{"telepathy"}})
	add("svcacc_b", elevensim.KeySpec{Name: "rekeyd.zzzzzzzz.tts.0123456789", Secret: head + "abcd8888"})
	off, _ := add("svcacc_b", elevensim.KeySpec{Name: "off", Secret: head + "abcd9999"})
	if err := w.sim.DisableKey(off, ""); err != nil {
		t.Fatal(err)
	}
	return w
}

// checked is what rekeyd check says of a text.
func (w *world) checked(text string) (status int, stderr string) {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "policies.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	status, _, stderr = w.run("check", path)
	return status, strings.ReplaceAll(stderr, path, "FILE")
}

func TestDiscoverSession(t *testing.T) {
	t.Parallel()
	w := discovered(t)
	before := len(w.kv.Paths())
	text := w.must(0, "discover")
	w.golden("discover")
	if status, stderr := w.checked(text); status != 0 {
		t.Errorf("check says: exit status %d: %s", status, stderr)
	}
	if len(w.kv.Paths()) != before {
		t.Error("discover wrote to Vault")
	}
	for _, r := range w.sim.History() {
		if r.Method != "GET" {
			t.Errorf("discover sent %s %s", r.Method, r.Path)
		}
	}
	if strings.Contains(text, "\u202e") || strings.Contains(text, "\n  - name: evil") {
		t.Error("a key's name gets out of its comment")
	}
}

// TestDiscoverWithoutVault: the first file of a user who has only an admin key.
func TestDiscoverWithoutVault(t *testing.T) {
	t.Parallel()
	w := discovered(t)
	delete(w.env, "VAULT_ADDR")
	status, text, stderr := w.run("discover")
	if status != 0 || strings.Contains(text, "    adopt:") || !strings.Contains(stderr, "VAULT_ADDR is not set, so records and ledger were not read") {
		t.Errorf("exit status %d: %s%s", status, stderr, text)
	}
	if status, said := w.checked(text); status != 0 {
		t.Errorf("exit status %d: %s", status, said)
	}
	w.must(2, "discover", "--workspace", "e u")
	w.must(2, "discover", "--workspace", "sk_0123456789abcdef0123456789abcdef0123456789abcdef")
	w.must(2, "discover", "--prefix", "/")
	w.env["REKEYD_POLICIES"] = text
	w.must(2, "discover", "--workspace", "eu")
}

// TestDiscoverNamesAWorkspace: of several workspaces, before any file knows them.
func TestDiscoverNamesAWorkspace(t *testing.T) {
	t.Parallel()
	w := discovered(t)
	text := w.must(0, "discover", "--workspace", "eu")
	for _, want := range []string{"# Workspace eu as it is: ", "\n  - name: eu\n    base_url: ", "\n  workspace: eu\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%.900s", want, text)
		}
	}
	if status, said := w.checked(text); status != 0 {
		t.Errorf("exit status %d: %s", status, said)
	}
}

// TestDiscoverWhatMayBeSeen: a folder that may not be listed hides its records, and no others.
func TestDiscoverWhatMayBeSeen(t *testing.T) {
	t.Parallel()
	w := discovered(t)
	w.kv.Before(func(r *http.Request) error {
		if strings.Contains(r.URL.Path, "metadata/elevenlabs/speech") {
			return errors.New("not for you")
		}
		return nil
	})
	status, text, stderr := w.run("discover")
	if status != 0 || !strings.Contains(text, "of which 1 was found") || !strings.Contains(text, "\n# Not known: not all records could be read: listing secret/elevenlabs/speech") || !strings.Contains(stderr, "warning: not all records could be read") {
		t.Errorf("exit status %d: %s%.900s", status, stderr, text)
	}
}

// TestDiscoverAnEmptyWorkspace: policies for first keys are proposed in comments, and work once these are taken away.
func TestDiscoverAnEmptyWorkspace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	delete(w.env, "REKEYD_POLICIES")
	status, text, stderr := w.run("discover")
	if status != 0 || !strings.Contains(stderr, "none of its 2 service accounts has an enabled key") || !strings.Contains(stderr, "take the # from") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	w.env["REKEYD_POLICIES"] = regexp.MustCompile(`(?m)^  # ( *(- name|service_account|permissions|sink): )`).ReplaceAllString(text, "  $1")
	w.must(0, "check")
	w.must(3, "plan")
	w.must(0, "rotate", "--all")
	if out := w.must(0, "status"); strings.Count(out, "  ok  ") != 2 {
		t.Errorf("%s\n%s", out, w.env["REKEYD_POLICIES"])
	}
	for _, a := range w.sim.State() {
		if err := w.sim.RemoveAccount(a.ID); err != nil {
			t.Fatal(err)
		}
	}
	delete(w.env, "REKEYD_POLICIES")
	w.must(1, "discover")
}

// TestTheFirstHour is what docs/start.md says for keys that are in no record.
func TestTheFirstHour(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	delete(w.env, "REKEYD_POLICIES")
	if _, _, err := w.sim.AddKey("svcacc_a", elevensim.KeySpec{Name: "by hand"}); err != nil {
		t.Fatal(err)
	}
	text := w.must(0, "discover")
	w.env["REKEYD_POLICIES"] = text
	w.must(0, "check")
	w.must(0, "plan")
	w.env["REKEYD_POLICIES"] = strings.Replace(text, "    mode: paused # adopt", "    # adopt", 1)
	w.must(3, "plan")
	w.must(0, "rotate", "by-hand")
	if out := w.must(0, "status"); !strings.Contains(out, "\nby-hand  ok ") {
		t.Errorf("%s", out)
	}
}

// TestDiscoverLeavesOutWhatRekeydHas: keys that it made, and those that it adopted; and names and paths that are taken.
func TestDiscoverLeavesOutWhatRekeydHas(t *testing.T) {
	t.Parallel()
	w := newLabelled(t)
	w.must(0, "rotate", "tts-prod", "dubbing")
	w.must(0, "rotate", "tts-prod")
	if _, _, err := w.sim.AddKey("svcacc_b", elevensim.KeySpec{Name: "Dubbing"}); err != nil {
		t.Fatal(err)
	}
	text := w.must(0, "discover", "--workspace", "eu", "--prefix", "app")
	for _, want := range []string{
		"\n  - name: studio-dubbing\n", "path: app/studio-dubbing", "rekeyd already has ", "(policy tts-prod)", "(policy dubbing)", "workspace: eu", "of which 0 were found",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if n := strings.Count(text, "- name: "); n != 2 { // a workspace and a policy
		t.Errorf("%d names in\n%s", n, text)
	}
	if status, said := w.checked(text); status != 0 {
		t.Errorf("exit status %d: %s", status, said)
	}
}

// FuzzDiscover: whatever accounts and keys are called, the file is valid, and has the policies that it says.
func FuzzDiscover(f *testing.F) {
	f.Add("svcacc_a", "Speech", "key_1", "tts", "...09c5", "text_to_speech")
	f.Add("a: b", "#\n- x", "{}", "true", "'", "\"")
	f.Add("null", "\u2028", "1e3", "rekeyd.x", "%s", "all")
	f.Fuzz(func(t *testing.T, account, name, key, keyName, hint, permission string) {
		k := elevenlabs.Key{ID: key, Name: keyName, Hint: hint, Settings: elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: []string{permission}}}}
		d := &daemon.Discovery{Workspace: "default", Accounts: []elevenlabs.ServiceAccount{{ID: account, Name: name, Keys: []elevenlabs.Key{k}}}, Keys: map[string]*daemon.DiscoveredKey{key: {}}}
		text, proposed := propose(t.Context(), d, ledger.Ref{Mount: "secret", Path: "elevenlabs"})
		c, err := config.CheckPolicies(t.Context(), config.Source{Text: text})
		if proposed == 0 {
			return
		}
		if err != nil || len(c.Policies) != proposed {
			t.Fatalf("%v in\n%s", err, text)
		}
		if got := c.Policies[0]; got.ServiceAccount != account {
			t.Errorf("account %q became %q", account, got.ServiceAccount)
		}
	})
}

// TestDiscoverWithFiles: the folder of the file sink is looked at where it exists, and not made.
func TestDiscoverWithFiles(t *testing.T) {
	t.Parallel()
	w := discovered(t)
	dir := filepath.Join(t.TempDir(), "data")
	w.env["REKEYD_SINK"], w.env["REKEYD_FILE_DIR"] = "file", dir
	w.must(0, "discover")
	if _, err := os.Stat(dir); err == nil {
		t.Error("discover made the folder")
	}
	key := w.sim.State()[0].Keys[0]
	if err := os.MkdirAll(filepath.Join(dir, "secret", "elevenlabs"), 0o700); err != nil {
		t.Fatal(err)
	}
	record := `{"api_key":"` + key.Secret + `","key_id":"` + key.ID + `"}`
	if err := os.WriteFile(filepath.Join(dir, "secret", "elevenlabs", "a.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, text, stderr := w.run("discover"); !strings.Contains(text, "of which 1 was found") {
		t.Errorf("%s%.600s", stderr, text)
	}
}
