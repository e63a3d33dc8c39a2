package main

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/rotator"
)

// found runs `rekeyd leaked` with this on stdin.
func (w *world) found(status int, stdin string, flags ...string) string {
	w.t.Helper()
	w.typed = stdin
	return w.must(status, append([]string{"leaked"}, flags...)...)
}

func TestLeakedSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "tts-prod", "dubbing")
	w.must(0, "rotate", "tts-prod")
	keys := w.sim.State()[0].Keys
	w.found(0, "  "+keys[1].Secret+"\r\n\n")
	w.found(0, keys[0].Secret)
	w.found(0, "sk_admin_of_a_test")
	w.found(1, "sk_of_others_0123456789")
	w.found(1, "sk_admin_of_a_test", "--rotate")
	w.found(1, "sk_of_others_0123456789", "--rotate", "-o", "json")
	w.found(0, keys[0].Secret, "--rotate")
	w.found(0, keys[0].Secret, "--rotate")
	w.found(0, keys[1].Secret, "-o", "json")
	w.found(0, w.sim.State()[0].Keys[2].Secret, "--rotate", "-o", "json")
	for _, stdin := range []string{"", " \n", keys[0].Secret + "\n" + keys[1].Secret + "\n", strings.Repeat("a", 1025), strings.Repeat("sk_a", 1<<20)} {
		w.found(2, stdin)
	}
	w.found(2, "", "sk_found_in_a_log")
	w.found(2, "", "--", "two", "words")
	w.env["REKEYD_POLICIES"] = twoPolicies[:strings.Index(twoPolicies, "  - {name: dubbing")]
	w.found(1, w.sim.State()[1].Keys[0].Secret, "--rotate")
	w.tty, w.env["NO_COLOR"] = true, "1"
	w.found(0, "\t"+keys[0].Secret+"\nthis is not read")
	if strings.Contains(w.log.String(), keys[0].Secret) {
		t.Error("the secret is in the log")
	}
	w.golden("leaked")
}

// TestLeakedJSON has the names that scripts rely on.
func TestLeakedJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "tts-prod")
	k := w.sim.State()[0].Keys[0]
	for stdin, want := range map[string]map[string]any{
		k.Secret:             {"known": true, "policy": "tts-prod", "state": "current", "workspace": "default", "key_id": k.ID, "works": "yes"},
		"sk_admin_of_a_test": {"known": true, "policy": "", "state": "admin", "workspace": "default", "works": "yes"},
		"another":            {"known": false, "policy": "", "state": ""},
	} {
		status := exitDone
		if want["known"] == false {
			status = exitFailed
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(w.found(status, stdin, "--json")), &got); err != nil || !maps.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
}

// TestTheLedgerCannotBeRead is neither known nor unknown: an error says what was not read.
func TestTheLedgerCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env["VAULT_ADDR"] = "http://127.0.0.1:1"
	w.typed = "sk_of_others_0123456789"
	status, stdout, stderr := w.run("leaked")
	if status != exitFailed || strings.Contains(stdout, "no key of this installation") || !strings.Contains(stderr, "rekeyd: error: looking for the secret: reading the ledger: ") || strings.Contains(stderr, "sk_of") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
	w.found(0, "sk_admin_of_a_test") // this one can be known without Vault
}

// TestStdinThatNeverEnds does not keep an interrupt waiting.
func TestStdinThatNeverEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in, out := io.Pipe()
	defer func() { _ = out.Close() }()
	var said strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	a := app{lookuper: envconfig.MapLookuper(w.env), stdin: in, stdout: &said, stderr: &said}
	if status := a.run(ctx, []string{"leaked"}); status != exitFailed || !strings.Contains(said.String(), "reading the secret from stdin") {
		t.Errorf("exit status %d: %s", status, said.String())
	}
}

func TestLeakTexts(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]rotator.Leak{
		"unknown: no key of this installation has the secret":          {},
		"admin: the admin key of workspace w: rejected":                {Known: true, Policy: "admin", State: rotator.LeakAdmin, Workspace: "w", Works: rotator.WorksNo},
		"tts: the current key, in workspace w: unknown":                {Known: true, Policy: "tts", State: rotator.LeakCurrent, Workspace: "w", Works: rotator.WorksUnknown},
		"tts: key key_a in quarantine, in workspace w: works":          {Known: true, Policy: "tts", State: rotator.LeakQuarantine, Workspace: "w", KeyID: "key_a", Works: rotator.WorksYes},
		"the admin key of workspace w, which no policy rotates: works": {Known: true, State: rotator.LeakAdmin, Workspace: "w", Works: rotator.WorksYes},
	} {
		if got := leakText(l); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
