package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// examined runs the doctor; change is to the environment.
func (w *world) examined(status int, change map[string]string, words ...string) string {
	w.t.Helper()
	got, stdout, stderr := w.command(w.environment(change), "check", "--online")
	if got != status || status == 0 && stderr != "" || status == 1 && strings.Count(stderr, "\n") != 1 {
		w.t.Errorf("exit status %d, want %d\n%s%s", got, status, stdout, stderr)
	}
	w.says(stdout, words...)
	return stdout
}

func TestCheckOnlineOfAGoodSetup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	before := w.writes()
	said := w.examined(0, nil,
		"ok      vault: "+w.vault.Addr+" answers and is unsealed", "ok      token: valid", "ok      mount secret: a KV engine of version 2",
		"unknown mount secret: how long it keeps versions could not be seen", "ok      ledger secret/rekeyd/"+w.id, "ok      sink secret/"+w.sink(),
		"unknown sinks: ", "ok      workspace default: "+w.sim.URL+" answers, the admin key is accepted", "ok      account "+account+": exists")
	if n := strings.Count(said, "\n"); n != 9 {
		t.Errorf("%d lines:\n%s", n, said)
	}
	if w.writes() != before {
		t.Error("looking changed something")
	}
	w.verb(0, "rotate", "tts-prod")
	w.examined(0, nil, "keys: 1")
}

// TestCheckOnlineMeetsWhatTheFirstRunWould: it goes on after the first fault.
func TestCheckOnlineMeetsWhatTheFirstRunWould(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm(", adopt: key_nobody_knows")
	w.examined(1, nil, "ok      account "+account+": exists", "error   policy tts-prod: service account "+account+" has no key key_nobody_knows to adopt; its keys are: none")
	w.calm("")
	if _, err := w.root.KVv2("secret").Put(t.Context(), w.sink(), map[string]any{"api_key": "somebody else's"}); err != nil {
		t.Fatal(err)
	}
	w.examined(1, nil, "error   policy tts-prod: the ledger is empty and secret/"+w.sink()+" holds a value that belongs to no known key; service account "+account+" has no key to adopt, so remove api_key from the record")
}

// A cluster whose standbys answer reads: what follows is said. The real Vault stands behind what OpenBao says of itself.
func TestCheckOnlineOfStandbys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	there, err := url.Parse(w.vault.Addr)
	if err != nil {
		t.Fatal(err)
	}
	for version, says := range map[string]string{
		"2.4.4": "", "2.6.2": "warning standbys: they answer reads, which may lag, and return no index to ask for", "2.7.0": "ok      standbys: they answer reads, which may lag; what rests on a read asks",
	} {
		proxy := httputil.NewSingleHostReverseProxy(there)
		node := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/sys/health":
				_, _ = fmt.Fprintf(rw, `{"standby":true,"version":%q}`, version)
			case "/v1/sys/leader":
				_, _ = fmt.Fprint(rw, `{"ha_enabled":true,"is_self":false}`)
			default:
				proxy.ServeHTTP(rw, r)
			}
		}))
		said := w.examined(0, map[string]string{"VAULT_ADDR": node.URL}, "ok      vault: ", says)
		if says == "" && strings.Contains(said, "standbys") {
			t.Errorf("of %s it says\n%s", version, said)
		}
		node.Close()
	}
}

func TestCheckOnlineOfVault(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	hcl, err := os.ReadFile("../../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	w.examined(1, map[string]string{"VAULT_ADDR": "http://127.0.0.1:1"}, "error   vault: ", "check VAULT_ADDR", "ok      account "+account)
	w.examined(1, map[string]string{"VAULT_TOKEN": "hvs.of-another-vault"}, "ok      vault: ", "error   token: ", "neither expired nor revoked")
	short := func(r *vaultapi.TokenCreateRequest) { r.TTL, r.Renewable = "2h", new(bool) }
	w.examined(0, map[string]string{"VAULT_TOKEN": w.vault.Token(t, string(hcl), short)}, "warning token: valid, but it ends 20", "in 1h59m, and cannot be renewed")

	narrow := strings.Replace(string(hcl), `path "secret/data/elevenlabs/*" {
  capabilities = ["create", "read", "update"]`, `path "secret/data/elevenlabs/*" {
  capabilities = ["read"]`, 1)
	w.examined(1, map[string]string{"VAULT_TOKEN": w.vault.Token(t, narrow)},
		"ok      ledger secret/rekeyd/"+w.id, "error   sink secret/"+w.sink()+": ", "grant create, update on secret/data/"+w.sink())
	narrow = strings.Replace(string(hcl), `capabilities = ["list"]`, `capabilities = ["deny"]`, 1)
	w.examined(1, map[string]string{"VAULT_TOKEN": w.vault.Token(t, narrow)}, "error   ledger secret/rekeyd/"+w.id+": ", "grant list on")

	kv1, forgetful := w.id+"-v1", w.id+"-v2"
	w.vault.EnableKV(t, kv1, 1, nil)
	w.calmAt(kv1)
	w.examined(1, map[string]string{"VAULT_TOKEN": w.vault.RootToken}, "error   mount "+kv1+": ", "kv enable-versioning")
	w.vault.EnableKV(t, forgetful, 2, map[string]any{"max_versions": 2, "delete_version_after": "72h"})
	w.calmAt(forgetful)
	w.examined(0, map[string]string{"VAULT_TOKEN": w.vault.RootToken}, "warning mount "+forgetful+": delete_version_after is 72h0m0s",
		"warning mount "+forgetful+": max_versions is 2", "ok      sink "+forgetful+"/")
	if err := w.root.KVv2("secret").PutMetadata(t.Context(), w.sink(), vaultapi.KVMetadataPutInput{MaxVersions: 1}); err != nil {
		t.Fatal(err)
	}
	w.calm("")
	w.examined(0, map[string]string{"VAULT_TOKEN": w.vault.RootToken}, "warning sink secret/"+w.sink()+": max_versions is 1")
}

// calmAt has the policy publish in another mount.
func (w *world) calmAt(mount string) {
	w.t.Helper()
	w.calm("")
	w.rewrite("sink: {path:", "sink: {mount: "+mount+", path:")
}

func TestCheckOnlineOfASealedVault(t *testing.T) {
	t.Parallel()
	vault := vaulttest.Start(t)
	w := newWorld(t, vault)
	w.calm("")
	vault.Seal(t)
	w.examined(1, nil, "error   vault: "+vault.Addr+" answers and is sealed; unseal it", "ok      account "+account)
}

func TestCheckOnlineOfElevenLabs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	w.examined(1, map[string]string{"ELEVENLABS_API_KEY": "sk_of_another_workspace"}, "error   workspace default: ", "invalid_api_key", "put a working admin key where")
	w.examined(1, map[string]string{"ELEVENLABS_BASE_URL": "http://127.0.0.1:1"}, "error   workspace default: http://127.0.0.1:1: ", "check base_url")
	w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: "listServiceAccounts", Status: http.StatusUnauthorized, Code: "missing_permissions", Message: "No."}}})
	w.examined(1, nil, "error   workspace default: ", "give the admin key the permission service_account_write")
	w.sim.SetFaults(elevensim.Faults{})
	w.rewrite(account, "svcacc_typo")
	w.examined(1, nil, "error   account svcacc_typo: workspace default has no such service account, named by tts-prod; it has: "+account+" ("+account+")")
	status, stdout, _ := w.command(w.environment(nil), "check", "--online", "--json")
	if status != 1 || !strings.Contains(stdout, `"level": "error"`) {
		t.Errorf("exit status %d: %s", status, stdout)
	}
	if status, _, _ := w.command(w.environment(map[string]string{"VAULT_ADDR": ""}), "check", "--online"); status != 2 {
		t.Errorf("wrong configuration: exit status %d", status)
	}
}
