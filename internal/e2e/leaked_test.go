package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// leaked runs `rekeyd leaked` with this on stdin, which must end with this status; it returns what it said.
func (w *world) leaked(status int, stdin string, change map[string]string, args ...string) string {
	w.t.Helper()
	p := process.StartReading(w.t, strings.NewReader(stdin), w.environment(change), w.binary, append([]string{"leaked"}, args...)...)
	w.said = append(w.said, &p.Stdout, &p.Stderr)
	if got := p.Wait(); got != status {
		w.t.Fatalf("rekeyd leaked %v: exit status %d, want %d\n%s%s", args, got, status, p.Stdout.String(), p.Stderr.String())
	}
	return p.Stdout.String() + complaints(p.Stderr.String())
}

// rejected fails the test if ElevenLabs accepts the secret.
func (w *world) rejected(value string) {
	w.t.Helper()
	if status, body := process.Request(w.t, http.MethodGet, w.sim.URL+"/v1/models", "xi-api-key: "+value, ""); status != http.StatusUnauthorized {
		w.t.Errorf("the leaked secret still works: HTTP %d %s", status, body)
	}
}

// unspelled looks for secrets, in each spelling that is cut out of the log, in all that was said.
func (w *world) unspelled(values ...string) {
	w.t.Helper()
	r := new(secret.Redactor)
	for _, value := range values {
		r.Add(secret.New(value))
	}
	for _, k := range w.sim.Keys() {
		r.Add(secret.New(k.Secret))
	}
	for _, said := range w.said {
		if text := said.String(); r.Cut(text) != text {
			w.t.Errorf("a secret is spelled in:\n%s", text)
		}
	}
}

func (w *world) value() string {
	w.t.Helper()
	record, _ := w.record()
	value, _ := record["api_key"].(string)
	return value
}

const ofOthers = "sk_0f0e0d0c0b0a09080706050403020100ffeeddccbbaa9988"

// TestLeakedByTheBinary is the path of three in the morning, with the daemon down, then up.
func TestLeakedByTheBinary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	w.verb(0, "rotate", "tts-prod")
	first := w.value()
	w.verb(0, "rotate", "tts-prod")
	second, id := w.value(), w.current()
	before := w.writes()
	w.says(w.leaked(0, second, nil), "tts-prod: the current key "+id+", in workspace default: works\n")
	w.says(w.leaked(0, "\n \t"+second+" \r\n\n", nil, "--json"), `"known": true`, `"policy": "tts-prod"`, `"state": "current"`, `"works": "yes"`)
	w.says(w.leaked(0, first, nil), "in overlap", ": works\n")
	w.says(w.leaked(0, w.adminKey+"\n", nil), "the admin key of workspace default, which no policy rotates: works\n")
	w.says(w.leaked(1, ofOthers, nil), "unknown: ")
	w.says(w.leaked(1, ofOthers, nil, "--rotate", "--json"), `"known": false`)
	w.says(w.leaked(1, w.adminKey, nil, "--rotate"), "no policy rotates the admin key of workspace default")
	w.says(w.leaked(2, strings.Repeat(second, 200_000), nil), "stdin has more than 16384 bytes") // 10 MB
	w.says(w.leaked(2, "", nil), "the secret is empty")
	w.says(w.leaked(2, first+"\n"+second, nil, "--rotate"), "white space in it")
	w.says(w.leaked(2, "", nil, ofOthers), "stdin only")
	w.says(w.leaked(2, "", nil, "--rotate="+ofOthers), "--rotate")
	if w.writes() != before {
		t.Error("without a known secret and --rotate, something was written")
	}
	for _, r := range w.sim.History() {
		if r.CredentialKind == "unknown" {
			t.Errorf("%s %s carried an unknown secret", r.Method, r.Path)
		}
	}

	w.says(w.leaked(0, first, nil, "--rotate"), "and no older key works: disabled ", id, "; the reported secret is rejected\n")
	w.rejected(first)
	w.rejected(second)
	third := w.current()
	w.says(w.leaked(0, second, nil), id+" in quarantine, in workspace default: rejected\n")
	w.says(w.leaked(0, second, nil, "--rotate"), "not rotated")
	if w.current() != third {
		t.Error("a report of a dead key took the current one from its readers")
	}

	d := w.start(nil)
	stolen := w.value()
	w.says(w.leaked(0, stolen, nil, "--rotate", "-o", "json"), `"state": "current"`, `"works": "no"`, `"rotation": "done"`)
	w.rejected(stolen)
	fourth := w.current()

	report := func(value string, rotate bool) (answer map[string]any) {
		body, err := json.Marshal(map[string]any{"secret": value, "rotate": rotate})
		if err != nil {
			t.Fatal(err)
		}
		process.Eventually(t, process.Patience, func() error {
			status, text := process.Request(t, http.MethodPost, d.url+"/api/v1/leaked", "Authorization: Bearer "+w.adminToken, string(body))
			w.heard(text)
			if status != http.StatusOK {
				return fmt.Errorf("HTTP %d %s", status, text)
			}
			return json.Unmarshal([]byte(text), &answer)
		})
		return answer
	}
	if a := report(ofOthers, true); a["known"] != false {
		t.Errorf("an unknown secret: %v", a)
	}
	if a := report(w.adminKey, false); a["state"] != "admin" {
		t.Errorf("the admin key: %v", a)
	}
	published := w.value()
	process.Eventually(t, process.Patience, func() error { // a command published it, and a listing shows the daemon that
		if a := report(published, false); a["state"] != "current" || a["works"] != "yes" {
			return fmt.Errorf("the current key: %v", a)
		}
		return nil
	})
	if a := report(published, true); a["rotation"] != "requested" {
		t.Errorf("the current key: %v", a)
	}
	w.becomes(fourth)
	process.Eventually(t, process.Patience, func() error {
		if a := report(published, true); a["state"] != "quarantine" || a["works"] != "no" || a["rotation"] != "not_needed" {
			return fmt.Errorf("after the rotation: %v", a)
		}
		return nil
	})
	w.rejected(published)
	d.end()
	w.unspelled(ofOthers, w.adminKey)
}

// TestALeakedAdminKeyByTheBinary has a policy that rotates the admin key.
func TestALeakedAdminKeyByTheBinary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	path := "elevenlabs/" + w.id + "/admin"
	id, stolen := w.sim.AddKey(account, "by hand")
	w.put(path, map[string]any{"api_key": stolen, "key_id": id})
	w.policies(fmt.Sprintf(`workspaces:
  - {name: default, base_url: %q, api_key: {vault: {path: %s}}}
policies:
  - {name: admin, service_account: %s, schedule: "@every 24h", permissions: [service_account_write], overlap: 1h, quarantine: 1h, sink: {path: %s}}
`, w.sim.URL, path, account, path))
	change := map[string]string{"ELEVENLABS_API_KEY": ""}
	d := w.start(change)
	process.Eventually(t, process.Patience, func() error {
		if _, body := d.get("/api/v1/policies"); !strings.Contains(body, id) || !strings.Contains(body, `"state": "ok"`) {
			return errors.New("the key is not adopted: " + body)
		}
		return nil
	})
	w.says(w.leaked(0, stolen, change), "admin: the admin key of workspace default: works\n")
	w.says(w.leaked(0, stolen, change, "--rotate"), "admin: rotated", "the reported secret is rejected\n")
	w.rejected(stolen)
	w.says(w.leaked(0, stolen, change), id+" in quarantine", ": rejected\n")
	process.Eventually(t, process.Patience, func() error {
		if said := d.workspaceError("default"); said != "" {
			return errors.New(said)
		}
		return nil
	})
	w.readAdmin(path)()
	d.end()
	w.unspelled()
}

// TestALeakWhileVaultIsDown: the daemon still says whose key it is, from what it holds.
func TestALeakWhileVaultIsDown(t *testing.T) {
	t.Parallel()
	vault := vaulttest.StartPersistent(t)
	w := newWorld(t, vault)
	w.calm("")
	d := w.start(nil)
	id := w.becomes("")
	value := w.value()
	report := func(value string) (int, string) {
		status, text := process.Request(t, http.MethodPost, d.url+"/api/v1/leaked", "Authorization: Bearer "+w.adminToken, `{"secret": "`+value+`"}`)
		w.heard(text)
		return status, text
	}
	process.Eventually(t, process.Patience, func() error {
		if status, text := report(value); status != http.StatusOK || !strings.Contains(text, id) {
			return fmt.Errorf("HTTP %d %s", status, text)
		}
		return nil
	})
	vault.Kill()
	begun := time.Now()
	if status, text := report(value); status != http.StatusOK || !strings.Contains(text, `"state":"current"`) || !strings.Contains(text, `"works":"yes"`) {
		t.Errorf("a known secret: HTTP %d %s", status, text)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the answer took %s", took)
	}
	if status, text := report(ofOthers); status != http.StatusOK || !strings.Contains(text, `"known":false`) {
		t.Errorf("an unknown secret: HTTP %d %s", status, text)
	}
	w.says(w.leaked(1, value, nil), "rekeyd: error: looking for the secret: reading the ledger: ")
	w.unspelled(ofOthers)
}
