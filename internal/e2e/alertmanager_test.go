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

// notifications is what Alertmanager sends: each with the alerts in it, those that fire and those that ended.
type notifications struct {
	mu             sync.Mutex
	sent, resolved []string
	fired, ended   map[string]bool // alerts, in whichever notification
}

func alertOf(namespace, name, workspace, policy string) string {
	return strings.TrimSpace(namespace + " " + name + " " + workspace + " " + policy)
}

func (n *notifications) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var body struct {
		Status string
		Alerts []struct {
			Status string
			Labels map[string]string
		}
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for _, a := range body.Alerts {
		all = append(all, alertOf(a.Labels["namespace"], a.Labels["alertname"], a.Labels["workspace"], a.Labels["policy"]))
		if n.fired == nil {
			n.fired, n.ended = map[string]bool{}, map[string]bool{}
		}
		name := alertName(a.Labels)
		if n.fired[name] = true; a.Status == "resolved" {
			n.ended[name] = true
		}
	}
	if err != nil {
		all = append(all, err.Error())
	}
	into := &n.sent
	if body.Status == "resolved" {
		into = &n.resolved
	}
	*into = append(*into, strings.Join(all, ", "))
}

// sendsAll waits until notifications said of each alert that it fires, and that it ended. One is written as
// [prometheusServer.firing] does, or as its name alone.
func (n *notifications) sendsAll(t *testing.T, alerts ...string) {
	t.Helper()
	said := func(in map[string]bool, alert string) bool {
		for a := range in {
			if name, _, _ := strings.Cut(a, " "); a == alert || name == alert {
				return true
			}
		}
		return false
	}
	process.Eventually(t, prometheusPatience, func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, a := range alerts {
			if !said(n.fired, a) || !said(n.ended, a) {
				return fmt.Errorf("Alertmanager did not send that %s fires and that it ended, but %v and %v", a, n.fired, n.ended)
			}
		}
		return nil
	})
}

func (n *notifications) sorted() (sent, resolved []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(slices.Values(n.sent)), slices.Sorted(slices.Values(n.resolved))
}

// TestPrometheusSendsOneNotificationOfARefusedAdminKey: 66 policies stop, and say so; a policy of another
// workspace is heard, and one of another installation, whose workspace and policy have the same names. Each notification is
// followed by that of its end once all is mended, and by nothing else.
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
	mend := []func(){w.byHand("elevenlabs/" + w.id + "/elsewhere"), other.byHand("elevenlabs/" + other.id + "/p00"), func() { w.write(adminKeyFile, w.adminKey) }}

	n := new(notifications)
	configuration, alertmanager := startAlertmanager(t, n, groupWait)
	p := startPrometheus(t, configuration, d, d2)
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
			if sent, _ := n.sorted(); count[name] != want || len(sent) < 5 {
				return fmt.Errorf("%v fire, want at least %v; notifications: %q", count, fire, sent)
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
	if sent, resolved := n.sorted(); !slices.Equal(sent, want) || len(resolved) > 0 {
		t.Errorf("notifications %q, want %q; of ends %q", sent, want, resolved)
	}
	for _, m := range mend {
		m()
	}
	process.Eventually(t, 3*time.Minute, func() error {
		_, left := process.Request(t, http.MethodGet, alertmanager+"/api/v2/alerts", "", "") // what was inhibited too
		if _, resolved := n.sorted(); len(resolved) < len(want) || strings.TrimSpace(left) != "[]" {
			return fmt.Errorf("notifications of ends %q, want %q; Alertmanager still has %s", resolved, want, left)
		}
		return nil
	})
	if sent, resolved := n.sorted(); !slices.Equal(sent, want) || !slices.Equal(resolved, want) {
		t.Errorf("once all is mended: notifications %q, of ends %q, want %q for both", sent, resolved, want)
	}
}

// byHand has a person overwrite a record; mend puts back what was there.
func (w *world) byHand(path string) (mend func()) {
	w.t.Helper()
	was, _ := w.document(path)
	w.put(path, map[string]any{"api_key": "by hand"})
	return func() { w.put(path, was) }
}

// groupWait is as much of what alertmanager.yml has as the haste of the rules asks for, and some scrapes.
const groupWait = 5 * time.Second

// startAlertmanager starts one with the configuration that is shipped, shorter waits and a receiver of the test's own. It returns
// what Prometheus needs to know of it.
func startAlertmanager(t *testing.T, receiver http.Handler, wait time.Duration) (configuration, url string) {
	t.Helper()
	server := httptest.NewServer(receiver)
	t.Cleanup(server.Close)
	binary, _ := alertmanagerTools(t)
	dir, address := t.TempDir(), freeAddress(t)
	shipped := text(t, "../../deploy/prometheus/alertmanager.yml")
	config := strings.NewReplacer("http://localhost:9095/", server.URL, "group_wait: 30s", fmt.Sprintf("group_wait: %s\n  group_interval: %s", wait, wait)).Replace(shipped)
	if err := os.WriteFile(filepath.Join(dir, "alertmanager.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	process.Start(t, nil, binary, "--config.file="+filepath.Join(dir, "alertmanager.yml"), "--storage.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--cluster.listen-address=")
	return fmt.Sprintf("alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}\n", address), "http://" + address
}
