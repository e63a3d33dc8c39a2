package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// past is what an earlier version left behind: the ledger, each record's versions, and the account's keys. Of the
// policies, one was in overlap and one in quarantine for ten years, one at the end of its overlap, one interrupted after
// its new key was made and before it was published.
type past struct {
	Keys    []elevensim.Key
	Ledger  map[string]map[string]any
	Records map[string][]map[string]any
}

const upgradedAccount = "svcacc_upgrade"

// inherit makes Vault and ElevenLabs as the earlier version left them, with its policies.
func (w *world) inherit() past {
	w.t.Helper()
	var p past
	text, err := os.ReadFile("testdata/earlier-version.json")
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.sim.Ask(http.MethodPost, "accounts", elevensim.Account{ID: upgradedAccount, Name: "upgrade"}, &struct{}{})
	for _, k := range p.Keys {
		w.sim.Ask(http.MethodPost, "accounts/"+upgradedAccount+"/keys", elevensim.KeySpec{ID: k.ID, Secret: k.Secret, Name: k.Name, Permissions: k.Permissions}, &struct{}{})
		if k.Disabled {
			w.sim.Ask(http.MethodPost, "keys/"+k.ID+"/disable", struct{}{}, &struct{}{})
		}
	}
	for path, entry := range p.Ledger {
		w.put("rekeyd/"+w.id+"/"+path, entry)
	}
	policies := "policies:\n"
	for name, versions := range p.Records {
		for _, v := range versions {
			w.put("elevenlabs/"+name, v)
		}
		times := map[string]string{"overlap": "overlap: 87000h, quarantine: 1h", "ending": "overlap: 1m, quarantine: 87000h",
			"quarantined": "overlap: 1s, quarantine: 87000h", "interrupted": "overlap: 1s, quarantine: 1s"}[name]
		policies += fmt.Sprintf("  - {name: %s, service_account: %s, schedule: '@every 87600h', permissions: [text_to_speech, models_read], %s, sink: {path: elevenlabs/%[1]s}}\n",
			name, upgradedAccount, times)
	}
	if err := os.WriteFile(w.policyFile, []byte(policies), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// whole is the id of the key in a policy's record, which must be its secret and work.
func (w *world) whole(policy string) (string, error) {
	record, _ := w.document("elevenlabs/" + policy)
	k := w.key(fmt.Sprint(record["key_id"]))
	if k.Disabled || k.Deleted() || k.Secret != record["api_key"] || record["team"] != "speech" {
		return "", fmt.Errorf("the record of %s has key %s, and its key is disabled (%t), deleted (%t) or another", policy, k.ID, k.Disabled, k.Deleted())
	}
	return k.ID, nil
}

// finished says what of the earlier version's work is not yet done.
func (p past) finished(w *world) error {
	former := func(policy string) string { return fmt.Sprint(p.Records[policy][0]["key_id"]) }
	published, err := w.whole("interrupted")
	lost := p.Keys[len(p.Keys)-1] // that was made and never published
	switch {
	case err != nil:
		return err
	case published == former("interrupted") || !w.gone(lost.ID) || !w.gone(former("interrupted")):
		return fmt.Errorf("the interrupted rotation was not done again: %s is published; of the old key and the lost one, these are gone: %t, %t",
			published, w.gone(former("interrupted")), w.gone(lost.ID))
	}
	if k := w.key(former("ending")); !k.Disabled || k.Deleted() {
		return fmt.Errorf("at the end of its overlap the old key is disabled: %t, deleted: %t", k.Disabled, k.Deleted())
	}
	return nil
}

// kept complains about what was touched of that which is not over for ten years.
func (p past) kept(w *world) {
	w.t.Helper()
	for _, policy := range []string{"overlap", "quarantined"} {
		versions := p.Records[policy]
		published, err := w.whole(policy)
		k := w.key(fmt.Sprint(versions[0]["key_id"]))
		if err != nil || published != versions[1]["key_id"] || k.Deleted() || k.Disabled != (policy == "quarantined") {
			w.t.Errorf("%s: %v; %s is published, and the old key is disabled: %t, deleted: %t", policy, err, published, k.Disabled, k.Deleted())
		}
	}
}

// content waits until the binary in use finds nothing wrong with any policy, and nothing to do.
func (w *world) content() {
	w.t.Helper()
	process.Eventually(w.t, 2*process.Patience, func() error {
		status, stdout, stderr := w.command(w.environment(nil), "status", "--json")
		var view struct {
			Policies []struct{ Name, State, Message string }
		}
		if err := json.Unmarshal([]byte(stdout), &view); err != nil || status != 0 || len(view.Policies) != 4 {
			return fmt.Errorf("status: exit status %d: %s%s", status, stdout, stderr)
		}
		for _, p := range view.Policies {
			if p.State != "ok" {
				return fmt.Errorf("%s is %s: %s", p.Name, p.State, p.Message)
			}
		}
		return nil
	})
}

// TestUpgradeAndRollback lets this version go on where an earlier one was killed, then an older one go on after this one,
// then this one again.
func TestUpgradeAndRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vaulttest.Start(t))
	p := w.inherit()
	d := w.start(nil)
	process.Eventually(t, 2*process.Patience, func() error { return p.finished(w) })
	p.kept(w)
	w.content()
	if status, _, stderr := w.command(w.environment(nil), "rollback", "quarantined"); status != 0 {
		t.Errorf("putting back a key that the earlier version retired: exit status %d: %s", status, stderr)
	}
	if id, err := w.whole("quarantined"); err != nil || id != p.Records["quarantined"][0]["key_id"] {
		t.Errorf("after the rollback %s is published (%v)", id, err)
	}
	d.end()

	older := olderVersion(t)
	w.binary = older
	w.goesOn("the older version")
	w.binary = common.Rekeyd
	w.goesOn("this version")
}

// goesOn rotates by command and in the daemon.
func (w *world) goesOn(who string) {
	w.t.Helper()
	before, err := w.whole("overlap")
	if err != nil {
		w.t.Fatal(err)
	}
	d := w.start(nil)
	w.content()
	if status, _, stderr := w.command(w.environment(nil), "rotate", "overlap"); status != 0 {
		w.t.Errorf("%s cannot rotate: exit status %d: %s", who, status, stderr)
	}
	after, err := w.whole("overlap")
	if err != nil || after == before {
		w.t.Errorf("%s did not rotate: %s is published (%v)", who, after, err)
	}
	w.content()
	if status := d.Stop(); status != 0 {
		w.t.Errorf("%s: exit status %d: %s", who, status, d.Stderr.String())
	}
}

// olderVersion builds the oldest version that knows the ledger's present schema and can rotate on request.
func olderVersion(t *testing.T) string {
	t.Helper()
	const commit = "9c3ed1b1038b61cd394c861156f93163526a661c"
	git := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "git", args...).Output()
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(out))
	}
	if got := git("cat-file", "-t", commit); got != "commit" {
		if git("rev-parse", "--is-shallow-repository") == "false" {
			t.Fatalf("the history is whole and lacks %s: %s", commit, got)
		}
		t.Skip("without the history there is no older version to go back to; the rest of the test passed")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "older-rekeyd")
	script := `git -C "$(git rev-parse --show-toplevel)" archive ` + commit + ` | tar -x -C "$0" && cd "$0" && go build -trimpath -buildvcs=false -o "$1" ./cmd/rekeyd`
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", script, dir, binary).CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v: %s", commit, err, out)
	}
	return binary
}

// TestALedgerOfANewerVersionIsRefused has one entry of a schema to come. That policy is in error and nothing is done about
// it; the others go on.
func TestALedgerOfANewerVersionIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vaulttest.Start(t))
	p := w.inherit()
	entry := p.Ledger["policies/interrupted"]
	entry["schema"], entry["of_a_version_to_come"] = 3, map[string]any{"what": "nobody knows"}
	path := "rekeyd/" + w.id + "/policies/interrupted"
	w.put(path, entry)
	_, version := w.document(path)
	d := w.start(nil)
	process.Eventually(t, 2*process.Patience, func() error {
		if k := w.key(fmt.Sprint(p.Records["ending"][0]["key_id"])); !k.Disabled {
			return fmt.Errorf("a policy beside it stands still: its old key is not disabled")
		}
		if d.metric(`rekeyd_policy_state{policy="interrupted",state="error"}`) != "1" {
			return fmt.Errorf("the policy is not in error")
		}
		return nil
	})
	const sentence = "its schema is 3 and this build knows 2; run the version of rekeyd that wrote it, or a newer one"
	for _, c := range []struct {
		args   []string
		status int
	}{{[]string{"status", "interrupted"}, 0}, {[]string{"plan", "interrupted"}, 0}, {[]string{"rotate", "interrupted"}, 1}, {[]string{"rollback", "interrupted"}, 1}} {
		status, stdout, stderr := w.command(w.environment(nil), c.args...)
		if status != c.status || !strings.Contains(stdout+stderr, sentence) {
			t.Errorf("%v: exit status %d, and not the sentence: %s%s", c.args, status, stdout, stderr)
		}
	}
	d.end()
	if _, now := w.document(path); now != version {
		t.Errorf("the entry was written: version %d, and was %d", now, version)
	}
	if _, now := w.document("elevenlabs/interrupted"); now != 1 {
		t.Errorf("the record was written: version %d", now)
	}
	if keys := w.sim.Keys(); len(keys) != len(p.Keys) {
		t.Errorf("there are %d keys, and were %d", len(keys), len(p.Keys))
	}
}
