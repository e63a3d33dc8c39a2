//go:build prometheus

package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestPrometheusKeepsInstallationsApart: of two installations whose policies and workspaces have the same names, one has every
// outage. Its alerts fire and resolve, none of the other fires, and each panel of the dashboard shows both.
func TestPrometheusKeepsInstallationsApart(t *testing.T) {
	t.Parallel()
	receiver, clock := new(atomic.Bool), new(atomic.Bool) // in order
	receiver.Store(true)
	clock.Store(true)
	events := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !receiver.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(events.Close)

	w := newWorld(t, vaulttest.StartPersistent(t))
	second := common.StartSimulator(t, w.adminKey, 2, "svcacc_vanished", "svcacc_throttled", account)
	target, err := url.Parse(second.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		if !clock.Load() {
			r.Header.Set("Date", time.Now().Add(-10*time.Minute).UTC().Format(http.TimeFormat))
		}
		return nil
	}
	slow := httptest.NewServer(proxy)
	t.Cleanup(slow.Close)
	third := common.StartSimulator(t, w.adminKey, 4, account)
	w.policyFileOf(slow.URL, third.URL)
	d := w.start(map[string]string{"REKEYD_EVENTS_URL": events.URL, "REKEYD_EVENTS_SECRET": "secret-of-the-events", "REKEYD_MAX_ROTATIONS_PER_HOUR": "3"})

	other := newWorld(t, common.vault)
	otherSecond := common.StartSimulator(t, other.adminKey, 3, "svcacc_vanished", "svcacc_throttled", account)
	other.policyFileOf(otherSecond.URL, common.StartSimulator(t, other.adminKey, 5, account).URL)
	d2 := other.start(map[string]string{"REKEYD_EVENTS_URL": events.URL, "REKEYD_EVENTS_SECRET": "secret-of-the-events"})

	n := new(notifications)
	configuration, _ := startAlertmanager(t, n, 100*time.Millisecond)
	p := startPrometheus(t, configuration, d, d2)
	p.until(`count(rekeyd_policy_state{state="ok"} == 1)`, "8")
	p.resolved(other.id)

	// What begins, and what ends it.
	w.sim.Ask(http.MethodPost, "accounts", elevensim.Account{ID: "svcacc_keyless", Name: "keyless"}, &struct{}{})
	w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Status: http.StatusForbidden, Code: "no", Operation: "createAPIKey", Account: "svcacc_keyless"}}})
	second.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500, Operation: "getUser"}, {Kind: elevensim.Status500, Operation: "listModels"}}})
	third.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500}}})
	_, vanished := w.publishedOf("vanished")
	second.Ask(http.MethodDelete, "keys/"+vanished, nil, &struct{}{})
	text, err := os.ReadFile(w.policyFile)
	if err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("  - {name: keyless, service_account: svcacc_keyless, sink: {path: elevenlabs/%[1]s/keyless}}\n"+
		"  - {name: throttled, workspace: second, service_account: svcacc_throttled, sink: {path: elevenlabs/%[1]s/throttled}}\n"+
		"  - {name: spare, workspace: second, service_account: %[2]s, sink: {path: elevenlabs/%[1]s/spare}}\n", w.id, account)
	w.write(w.policyFile, string(text)+more)
	clock.Store(false)
	receiver.Store(false)
	for range 4 { // three are replaced
		_, id := w.publishedOf("storm")
		w.disable(id, "exposed_publicly")
		process.Eventually(t, process.Patience, func() error {
			if _, now := w.publishedOf("storm"); now == id && !strings.Contains(p.problems(), "leak_storm") {
				return fmt.Errorf("the record still holds %s", id)
			}
			return nil
		})
	}
	all := outages(strings.TrimPrefix(d.url, "http://"))
	p.fires(w.id, all[1:]...)
	p.resolved(other.id)
	const troubles = "Problems, Failures in the last hour, Disabled keys, annotation Leaks and disabled keys" // which the other one has none of
	for panel, shown := range p.panels() {
		if !strings.Contains(shown, "namespace:"+w.id) || !strings.Contains(shown, "namespace:"+other.id) && !strings.Contains(troubles, panel) {
			t.Errorf("panel %q does not show both %s and %s:\n%s", panel, w.id, other.id, shown)
		}
	}

	namespaces := []string{w.id, other.id}
	slices.Sort(namespaces)
	want := map[string]string{"cluster": "", "namespace": strings.Join(namespaces, " "), "job": "rekeyd", "workspace": "default second third", "team": "speech",
		"policy": "calm keyless spare storm throttled unlisted vanished"}
	if choices := p.variables(); !maps.Equal(choices, want) {
		t.Errorf("the dashboard offers %v, want %v", choices, want)
	}

	receiver.Store(true)
	clock.Store(true)
	w.sim.SetFaults(elevensim.Faults{})
	second.SetFaults(elevensim.Faults{})
	third.SetFaults(elevensim.Faults{})
	w.write(w.policyFile, string(text))
	for _, policy := range []string{"storm", "vanished"} {
		process.Request(t, http.MethodPost, d.url+"/api/v1/policies/"+policy+"/rotate", "Authorization: Bearer "+w.adminToken, `{"revoke_now": true}`)
	}
	p.resolved(w.id)

	w.vault.Seal(t)
	p.fires(w.id, all[0])
	p.resolved(other.id)
	w.vault.Unseal(t)
	p.resolved(w.id)
	n.sendsAll(t, all...)
}

// outages are the alerts of those: first that of Vault, which stops all others.
func outages(instance string) []string {
	return []string{"RekeydSinkDown", "RekeydNoFirstKey keyless", "RekeydKeyVanished vanished", "RekeydLeakStorm storm", "RekeydThrottled", "RekeydEventsNotDelivered",
		"RekeydClockSkew " + instance, "RekeydWorkspaceDown third", "RekeydLoopStalled third"}
}

// policyFileOf writes four policies in three workspaces, with a team.
func (w *world) policyFileOf(second, third string) {
	w.write(w.policyFile, fmt.Sprintf(`workspaces:
  - {name: default, base_url: %q, api_key: {env: ELEVENLABS_API_KEY}}
  - {name: second, base_url: %q, api_key: {env: ELEVENLABS_API_KEY}}
  - {name: third, base_url: %q, api_key: {env: ELEVENLABS_API_KEY}}
defaults: {schedule: "@every 24h", permissions: [text_to_speech, models_read], overlap: 1s, quarantine: 1s, max_age: 25h, labels: {team: speech, env: test}}
policies:
  - {name: storm, service_account: %[4]s, sink: {path: elevenlabs/%[5]s/storm}}
  - {name: vanished, workspace: second, service_account: svcacc_vanished, sink: {path: elevenlabs/%[5]s/vanished}}
  - {name: calm, workspace: second, service_account: svcacc_throttled, sink: {path: elevenlabs/%[5]s/calm}}
  - {name: unlisted, workspace: third, service_account: %[4]s, sink: {path: elevenlabs/%[5]s/unlisted}}
`, w.sim.URL, second, third, account, w.id))
}

func (w *world) publishedOf(policy string) (record map[string]any, id string) {
	record, _ = w.document("elevenlabs/" + w.id + "/" + policy)
	id, _ = record["key_id"].(string)
	return record, id
}

func (p prometheusServer) problems() string {
	var data any
	if err := p.get("/api/v1/query?query=rekeyd_policy_problem", &data); err != nil {
		p.t.Error(err)
	}
	return fmt.Sprint(data)
}

// fires waits until these alerts of an installation fire, beside others.
func (p prometheusServer) fires(namespace string, alerts ...string) {
	p.t.Helper()
	process.Eventually(p.t, prometheusPatience, func() error {
		now := p.firingIn(namespace)
		for _, a := range alerts {
			if !strings.Contains(now, a) {
				return fmt.Errorf("%s does not fire, of\n%s", a, now)
			}
		}
		return nil
	})
}

// resolved waits until no alert of an installation fires.
func (p prometheusServer) resolved(namespace string) {
	p.t.Helper()
	process.Eventually(p.t, prometheusPatience, func() error {
		if now := p.firingIn(namespace); now != "" {
			return fmt.Errorf("these fire:\n%s", now)
		}
		return nil
	})
}
