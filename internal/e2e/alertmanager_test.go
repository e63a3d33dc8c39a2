//go:build prometheus

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
)

// notifications is what Alertmanager sends: each with the alerts in it.
type notifications struct {
	mu   sync.Mutex
	sent []string
}

func alertOf(namespace, name, workspace, policy string) string {
	return strings.TrimSpace(namespace + " " + name + " " + workspace + " " + policy)
}

func (n *notifications) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var body struct {
		Alerts []struct{ Labels map[string]string }
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	var all []string
	for _, a := range body.Alerts {
		all = append(all, alertOf(a.Labels["namespace"], a.Labels["alertname"], a.Labels["workspace"], a.Labels["policy"]))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		all = append(all, err.Error())
	}
	n.sent = append(n.sent, strings.Join(all, ", "))
}

func (n *notifications) sorted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(slices.Values(n.sent))
}

// TestPrometheusSendsOneNotificationOfARefusedAdminKey: 66 policies stop, and say so; a policy of another
// workspace is heard, and one of another installation, whose workspace and policy have the same names.
func TestPrometheusSendsOneNotificationOfARefusedAdminKey(t *testing.T) {
	t.Parallel()
	const policies = 66
	w := newWorld(t, common.vault)
	second := common.StartSimulator(t, w.adminKey, 2, "svcacc_second")
	adminKeyFile := filepath.Join(t.TempDir(), "admin-key")
	w.write(adminKeyFile, w.adminKey)
	var b strings.Builder
	fmt.Fprintf(&b, `workspaces:
  - {name: default, base_url: %q, api_key: {env: ELEVENLABS_API_KEY}}
  - {name: second, base_url: %q, api_key: {file: %q}}
defaults: {schedule: "@every 24h", permissions: [text_to_speech, models_read], overlap: 1s, quarantine: 1s, character_limit: 1000}
policies:
  - {name: elsewhere, service_account: %s, sink: {path: elevenlabs/%s/elsewhere}}
`, w.sim.URL, second.URL, adminKeyFile, account, w.id)
	for i := range policies {
		fmt.Fprintf(&b, "  - {name: p%02d, workspace: second, service_account: svcacc_second, schedule: %q, max_age: 2m, sink: {path: elevenlabs/%s/p%02d}}\n", i, "@every 1m", w.id, i)
	}
	w.write(w.policyFile, b.String())
	d := w.start(map[string]string{"REKEYD_MAX_ROTATIONS_PER_HOUR": "10000", "REKEYD_CLAIM_TTL": "2m"})
	other := newWorld(t, common.vault)
	other.write(other.policyFile, fmt.Sprintf(`workspaces: [{name: second, base_url: %q, api_key: {env: ELEVENLABS_API_KEY}}]
policies: [{name: p00, workspace: second, service_account: %s, schedule: "@every 24h", permissions: [models_read], sink: {path: elevenlabs/%s/p00}}]
`, other.sim.URL, account, other.id))
	d2 := other.start(nil)
	process.Eventually(t, prometheusPatience, func() error {
		_, text := d.get("/metrics")
		if _, text2 := d2.get("/metrics"); strings.Count(text+text2, `,state="current"} 1`) != policies+2 {
			return errors.New("not every policy has a key")
		}
		return nil
	})
	w.write(adminKeyFile, "sk_of_nobody")
	w.put("elevenlabs/"+w.id+"/elsewhere", map[string]any{"api_key": "by hand"})
	other.put("elevenlabs/"+other.id+"/p00", map[string]any{"api_key": "by hand"})

	n := new(notifications)
	p := startPrometheus(t, startAlertmanager(t, n), d, d2)
	p.until(`sum(up)`, "2")
	// Both p00 are one name here. The keys become too old half a minute after everything else fires.
	fire := map[string]int{"RekeydAdminKeyRefused": 1, "RekeydRotationFailing": policies + 1, "RekeydKeyTooOld": policies,
		"RekeydRecordChanged": 2, "RekeydLoopStalled": 1, "RekeydWorkspaceDown": 1}
	process.Eventually(t, 3*time.Minute, func() error {
		count := map[string]int{}
		for a := range p.firing() {
			name, _, _ := strings.Cut(a, " ")
			count[name]++
		}
		for name, want := range fire {
			if count[name] != want || len(n.sorted()) < 5 {
				return fmt.Errorf("%v fire, want at least %v; notifications: %q", count, fire, n.sorted())
			}
		}
		return nil
	})
	want := []string{
		alertOf(w.id, "RekeydAdminKeyRefused", "second", ""),
		alertOf(w.id, "RekeydRecordChanged", "default", "elsewhere"), alertOf(w.id, "RekeydRotationFailing", "default", "elsewhere"),
		alertOf(other.id, "RekeydRecordChanged", "second", "p00"), alertOf(other.id, "RekeydRotationFailing", "second", "p00"),
	}
	slices.Sort(want)
	if got := n.sorted(); !slices.Equal(got, want) {
		t.Errorf("notifications %q, want %q", got, want)
	}
}

// groupWait is as much of what alertmanager.yml has as the haste of the rules asks for, and some scrapes.
const groupWait = 5 * time.Second

// startAlertmanager starts one with the configuration that is shipped and a receiver of the test's own. It returns what
// Prometheus needs to know of it.
func startAlertmanager(t *testing.T, receiver http.Handler) (configuration string) {
	t.Helper()
	server := httptest.NewServer(receiver)
	t.Cleanup(server.Close)
	binary, _ := alertmanagerTools(t)
	dir, address := t.TempDir(), freeAddress(t)
	shipped := text(t, "../../deploy/prometheus/alertmanager.yml")
	config := strings.NewReplacer("http://localhost:9095/", server.URL, "group_wait: 30s", "group_wait: "+groupWait.String()).Replace(shipped)
	if err := os.WriteFile(filepath.Join(dir, "alertmanager.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	process.Start(t, nil, binary, "--config.file="+filepath.Join(dir, "alertmanager.yml"), "--storage.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--cluster.listen-address=")
	return fmt.Sprintf("alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}\n", address)
}
