//go:build prometheus

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// inTrouble is a policy for each thing that can go wrong, with what it has of its own.
func inTrouble() map[string]string {
	return map[string]string{
		"calm": "", "leaked": "", "disabled": "", "changed": "", "used": "", "lost": "", "differing": "",
		"drifting": "on_drift: report", "stuck": "overlap: 1s", "accepted": "overlap: 1s, quarantine: 1h", "unproven": "overlap: 1s, quarantine: 1h", "crowded": "overlap: 1s, quarantine: 1h",
		"refused": "workspace: second", "full": "",
		"failing": `schedule: "@every 10s", overlap: 2s, max_age: 20s`, "hanging": `schedule: "@every 10s", overlap: 2s`,
	}
}

// troubled is a world of two replicas with those policies.
type troubled struct {
	*world
	first, second *rekeyd
	change        map[string]string // of the first one's environment
	theirs        string            // policies of the second replica
	token         string            // file of its Vault token
	adminKeyFile  string            // of the second workspace
	rules         map[string]elevensim.Rule
	lag           elevensim.Duration // for which ElevenLabs goes on accepting disabled keys
}

func newTroubled(t *testing.T) *troubled {
	t.Helper()
	dir := t.TempDir()
	w := &troubled{world: newWorld(t, common.vault), rules: map[string]elevensim.Rule{},
		theirs: filepath.Join(dir, "policies.yaml"), token: filepath.Join(dir, "token"), adminKeyFile: filepath.Join(dir, "admin-key")}
	second := common.StartSimulator(t, w.adminKey, 2, "svcacc_refused")
	var b strings.Builder
	fmt.Fprintf(&b, `workspaces:
  - {name: default, base_url: %q, api_key: {env: ELEVENLABS_API_KEY}}
  - {name: second, base_url: %q, api_key: {file: %q}}
defaults: {schedule: "@every 24h", permissions: [text_to_speech, models_read], overlap: 30m, quarantine: 1s, character_limit: 1000}
policies:
`, w.sim.URL, second.URL, w.adminKeyFile)
	for _, name := range slices.Sorted(maps.Keys(inTrouble())) {
		fmt.Fprintf(&b, "  - {name: %s, service_account: svcacc_%s, sink: {path: %s}, %s}\n", name, name, w.sinkOf(name), inTrouble()[name])
		if name != "refused" {
			w.sim.Ask(http.MethodPost, "accounts", elevensim.Account{ID: "svcacc_" + name, Name: name}, &struct{}{})
		}
	}
	w.write(w.policyFile, b.String())
	w.write(w.theirs, b.String())
	w.write(w.token, w.vaultToken)
	w.write(w.adminKeyFile, w.adminKey)
	w.setRule("", elevensim.Rule{})
	events := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(events.Close)
	change := map[string]string{"REKEYD_EVENTS_URL": events.URL, "REKEYD_EVENTS_SECRET": "secret-of-the-events", "REKEYD_MAX_ROTATIONS_PER_HOUR": "10000", "REKEYD_CLAIM_TTL": "2m"}
	w.first, w.change = w.start(change), maps.Clone(change)
	maps.Copy(change, map[string]string{"REKEYD_POLICY_FILE": w.theirs, "VAULT_TOKEN": "", "REKEYD_VAULT_AUTH": "token_file", "REKEYD_VAULT_TOKEN_FILE": w.token})
	w.second = w.start(change)
	return w
}

// restart starts the first replica again, where it was.
func (w *troubled) restart() {
	w.t.Helper()
	w.change["REKEYD_LISTEN_ADDR"] = strings.TrimPrefix(w.first.url, "http://")
	w.first = w.start(w.change)
}

// edit replaces part of a file and returns what undoes that.
func (w *troubled) edit(file, old, text string) (undo func()) {
	w.t.Helper()
	whole, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(whole), old) {
		w.t.Fatalf("%s: no %s: %v", file, old, err)
	}
	w.write(file, strings.Replace(string(whole), old, text, 1))
	return func() { w.write(file, string(whole)) }
}

func (w *troubled) sinkOf(policy string) string { return "elevenlabs/" + w.id + "/" + policy }

// setRule has the simulator break an operation in a policy's account; the zero rule mends it.
func (w *troubled) setRule(policy string, r elevensim.Rule) {
	w.t.Helper()
	delete(w.rules, policy)
	if r.Kind != "" {
		r.Account = "svcacc_" + policy
		w.rules[policy] = r
	}
	w.sim.SetFaults(elevensim.Faults{UsagePerRequest: 1, DisableLag: w.lag, Rules: slices.Collect(maps.Values(w.rules))})
}

// published is the record of a policy, with the id of its key.
func (w *troubled) published(policy string) (record map[string]any, id string) {
	w.t.Helper()
	record, _ = w.document(w.sinkOf(policy))
	id, _ = record["key_id"].(string)
	return record, id
}

// rotate asks for a rotation as an operator would.
func (w *troubled) rotate(policy string) {
	w.t.Helper()
	if status, body := process.Request(w.t, http.MethodPost, w.first.url+"/api/v1/policies/"+policy+"/rotate", "Authorization: Bearer "+w.adminToken, ""); status/100 != 2 {
		w.t.Fatalf("asking for a rotation: HTTP %d: %s", status, body)
	}
}

// limit changes the character_limit of a policy's key at ElevenLabs, as a person would.
func (w *troubled) limit(policy string, to int) {
	w.t.Helper()
	_, id := w.published(policy)
	body := fmt.Sprintf(`{"is_enabled": "no_update", "name": %q, "permissions": "no_update", "character_limit": %d}`, w.key(id).Name, to)
	path := w.sim.URL + "/v1/service-accounts/svcacc_" + policy + "/api-keys/" + id
	if status, answer := process.Request(w.t, http.MethodPatch, path, "xi-api-key: "+w.adminKey, body); status != http.StatusOK {
		w.t.Fatalf("changing a key: HTTP %d: %s", status, answer)
	}
}

// replace rotates a policy and waits until its old key is disabled.
func (w *troubled) replace(policy string) (id string) {
	w.t.Helper()
	_, id = w.published(policy)
	w.rotate(policy)
	process.Eventually(w.t, process.Patience, func() error {
		if !w.key(id).Disabled {
			return fmt.Errorf("key %s is enabled", id)
		}
		return nil
	})
	return id
}

// useOld rotates a policy and goes on with its old key until stop.
func (w *troubled) useOld(policy string) (stop func()) {
	w.t.Helper()
	record, _ := w.published(policy)
	w.rotate(policy)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			process.Request(w.t, http.MethodGet, w.sim.URL+"/v1/models", fmt.Sprint("xi-api-key: ", record["api_key"]), "")
			<-tick.C
		}
	}()
	return func() { cancel(); <-done }
}

// faults is what goes wrong: by the provider, by people, in Vault, between the replicas.
func (w *troubled) faults() []fault {
	instance := func(r *rekeyd) string { return strings.TrimPrefix(r.url, "http://") }
	return []fault{
		{[]string{"RekeydKeyDisabled leaked"}, func() func() {
			_, id := w.published("leaked")
			w.disable(id, "exposed_publicly")
			return func() {} // rekeyd replaces it
		}},
		{[]string{"RekeydKeyDisabled disabled"}, func() func() {
			_, id := w.published("disabled")
			w.disable(id, "")
			return func() { w.sim.Ask(http.MethodPost, "keys/"+id+"/enable", nil, &struct{}{}) }
		}},
		{[]string{"RekeydRecordChanged changed", "RekeydRotationFailing changed"}, func() func() {
			record, _ := w.published("changed")
			w.put(w.sinkOf("changed"), map[string]any{"api_key": "somebody else's", "key_id": "theirs"})
			return func() { w.put(w.sinkOf("changed"), record) }
		}},
		{[]string{"RekeydKeyLimitNear crowded"}, func() func() { // before a disabled key is accepted
			w.replace("crowded")
			w.setRule("crowded", elevensim.Rule{Kind: elevensim.Status, Status: http.StatusBadRequest, Code: "max_api_keys_reached", Operation: "createAPIKey", Count: 1})
			w.replace("crowded")
			return func() {
				w.setRule("crowded", elevensim.Rule{})
				w.sim.Ask(http.MethodDelete, "keys/"+w.replace("crowded"), nil, &struct{}{}) // or it is accepted
			}
		}},
		{[]string{"RekeydKeyLimit full", "RekeydRotationFailing full"}, func() func() {
			w.setRule("full", elevensim.Rule{Kind: elevensim.Status, Status: http.StatusBadRequest, Code: "max_api_keys_reached", Operation: "createAPIKey"})
			w.rotate("full")
			return func() { w.setRule("full", elevensim.Rule{}); w.rotate("full") }
		}},
		{[]string{"RekeydOldKeyInUse used"}, func() func() { return w.useOld("used") }},
		{[]string{"RekeydLostKeys lost"}, func() func() {
			record, _ := w.published("lost")
			name, _ := record["key_name"].(string)
			id, _ := w.sim.AddKey("svcacc_lost", name[:strings.LastIndex(name, ".")]+".ofaclone00")
			return func() { w.sim.Ask(http.MethodDelete, "keys/"+id, nil, &struct{}{}) }
		}},
		{[]string{"RekeydDrift drifting"}, func() func() {
			w.limit("drifting", 7)
			return func() { w.limit("drifting", 1000) }
		}},
		{[]string{"RekeydRetirementFailing stuck"}, func() func() {
			w.setRule("stuck", elevensim.Rule{Kind: elevensim.Status500, Operation: "updateAPIKey"})
			w.rotate("stuck")
			return func() { w.setRule("stuck", elevensim.Rule{}) }
		}},
		{[]string{"RekeydOldKeyAccepted accepted"}, func() func() {
			w.lag = elevensim.Duration(time.Hour)
			w.setRule("accepted", elevensim.Rule{})
			w.rotate("accepted")
			return func() { w.lag = 0; w.setRule("accepted", elevensim.Rule{}) }
		}},
		{[]string{"RekeydProofMissing unproven"}, func() func() {
			_, id := w.published("unproven")
			if err := w.root.KVv2("secret").PutMetadata(w.t.Context(), w.sinkOf("unproven"), vaultapi.KVMetadataPutInput{MaxVersions: 1}); err != nil {
				w.t.Fatal(err)
			}
			w.rotate("unproven")
			return func() { w.sim.Ask(http.MethodDelete, "keys/"+id, nil, &struct{}{}) }
		}},
		{[]string{"RekeydWorkspaceLimitNear default"}, func() func() {
			add := func(from, to int) {
				for i := from; i <= to; i++ {
					id := fmt.Sprintf("svcacc_more_%d", i)
					w.sim.Ask(http.MethodPost, "accounts", elevensim.Account{ID: id, Name: id}, &struct{}{})
				}
			}
			add(len(inTrouble())+1, 18) // there is one that no policy names, and one is of the second workspace
			return func() { add(19, 21) }
		}},
		{[]string{"RekeydRotationFailing failing", "RekeydKeyTooOld failing"}, func() func() {
			w.setRule("failing", elevensim.Rule{Kind: elevensim.Status, Status: http.StatusForbidden, Code: "forbidden", Operation: "createAPIKey"})
			return func() { w.setRule("failing", elevensim.Rule{}); w.rotate("failing") }
		}},
		{[]string{"RekeydRotationOverdue hanging"}, func() func() {
			w.setRule("hanging", elevensim.Rule{Kind: elevensim.Hang, Operation: "createAPIKey"})
			return func() { w.setRule("hanging", elevensim.Rule{}) }
		}},
		{[]string{"RekeydAdminKeyRefused second", "RekeydLoopStalled second", "RekeydWorkspaceDown second"}, func() func() {
			return w.edit(w.adminKeyFile, w.adminKey, "sk_of_nobody")
		}},
		{[]string{"RekeydReplicasDisagree differing", "RekeydRotationFailing differing"}, func() func() {
			return w.edit(w.theirs, "name: differing,", "name: differing, character_limit: 2000,")
		}},
		{[]string{"RekeydReloadFailed " + instance(w.first)}, func() func() { return w.edit(w.policyFile, "policies:", "polices:") }},
		{[]string{"RekeydVaultTokenEnding " + instance(w.second)}, func() func() {
			ending := w.vault.Token(w.t, policyHCL(w.t), func(r *vaultapi.TokenCreateRequest) {
				r.TTL, r.Renewable = "40s", new(bool)
			})
			return w.edit(w.token, w.vaultToken, ending)
		}},
	}
}

// heard is the alerts of faults that no other alert inhibits.
func heard(faults []fault) (all []string) {
	for _, f := range faults {
		for _, a := range f.alerts {
			if a != "RekeydLoopStalled second" && a != "RekeydWorkspaceDown second" {
				all = append(all, a)
			}
		}
	}
	return all
}
