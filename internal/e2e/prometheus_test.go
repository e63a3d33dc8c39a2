//go:build prometheus

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// prometheusPatience is for what takes several scrapes and evaluations.
const prometheusPatience = 90 * time.Second

// TestPrometheus lets a real Prometheus watch the real rekeyd through the shipped alerts and dashboard while the
// simulator misbehaves. Of the alerts only the times that they wait are shortened.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 24h")
	w.longOverlap()
	d := w.start(nil)
	w.settled("")
	checkMetrics(t, d)
	p := startPrometheus(t, strings.TrimPrefix(d.url, "http://"))
	p.until(`sum by (state) (rekeyd_policy_state == 1)`, "1")
	p.alerts()
	before := p.panels()
	delete(before, "Time left of the Vault token") // this one lives for a month: nothing renews it meanwhile
	w.sim.SetFaults(elevensim.Faults{UsagePerRequest: 1})
	old, _ := w.record()
	w.rotate(d)
	p.until(`rekeyd_keys{state="overlap"}`, "1")
	process.Eventually(t, prometheusPatience, func() error {
		process.Request(t, http.MethodGet, w.sim.URL+"/v1/models", fmt.Sprint("xi-api-key: ", old["api_key"]), "")
		if d.metric(`rekeyd_retiring_key_in_use{policy="tts-prod"}`) != "1" {
			return errors.New("the old key is used, and rekeyd does not say so")
		}
		return nil
	})
	d.Signal(syscall.SIGHUP)

	w.sim.SetFaults(elevensim.Faults{UsagePerRequest: 1, Rules: []elevensim.Rule{{Kind: elevensim.Status, Status: http.StatusUnauthorized, Code: "invalid_api_key"}}})
	w.rotate(d)
	p.alerts("RekeydAdminKeyRefused tts-prod", "RekeydRotationFailing tts-prod")
	p.changed(before)
	w.sim.SetFaults(elevensim.Faults{})
	p.alerts()

	record, _ := w.record()
	w.put(w.sink(), map[string]any{"api_key": "somebody else's", "key_id": "theirs"})
	p.alerts("RekeydRecordChanged tts-prod", "RekeydRotationFailing tts-prod")
	w.put(w.sink(), record)
	p.alerts()

	d.Kill()
	p.alerts("RekeydDown ")
}

// longOverlap gives the policy a limit, and its old keys a life that Prometheus can see.
func (w *world) longOverlap() {
	w.t.Helper()
	text, err := os.ReadFile(w.policyFile)
	if err == nil {
		err = os.WriteFile(w.policyFile, []byte(strings.Replace(string(text), "overlap: 1s", "overlap: 3h\n    max_age: 48h", 1)), 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// rotate asks for a rotation as an operator would.
func (w *world) rotate(d *rekeyd) {
	w.t.Helper()
	if status, body := process.Request(w.t, http.MethodPost, d.url+"/api/v1/policies/tts-prod/rotate", "Authorization: Bearer "+w.adminToken, ""); status/100 != 2 {
		w.t.Fatalf("asking for a rotation: HTTP %d: %s", status, body)
	}
}

func checkMetrics(t *testing.T, d *rekeyd) {
	t.Helper()
	_, text := d.get("/metrics")
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "rekeyd_") {
		t.Errorf("promtool check metrics: %v:\n%s", err, out)
	}
}

type prometheusServer struct {
	t   *testing.T
	url string
}

func startPrometheus(t *testing.T, target string) prometheusServer {
	t.Helper()
	dir := t.TempDir()
	rules, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	quick := regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAllString(string(rules), "$1 2s")
	quick = strings.ReplaceAll(quick, "[5m]", "[5s]")
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [alerts.yaml]\n"+
		"scrape_configs: [{job_name: rekeyd, static_configs: [{targets: [%q]}]}]\n", target)
	for name, text := range map[string]string{"alerts.yaml": quick, "prometheus.yml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not installed; this test needs Debian's package of that name")
	}
	process.Start(t, nil, binary, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	return prometheusServer{t, "http://" + address}
}

// freeAddress is one of loopback that nobody listens on yet.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // only to learn a free port
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// get asks Prometheus; its answer's data goes into data.
func (p prometheusServer) get(path string, data any) error {
	status, body := process.Request(p.t, http.MethodGet, p.url+path, "", "")
	if status != http.StatusOK {
		return fmt.Errorf("%s: HTTP %d: %s", path, status, body)
	}
	return json.Unmarshal([]byte(body), &struct{ Data any }{data})
}

// panels asks every query of the dashboard, with no clock in it, and returns what each panel shows.
func (p prometheusServer) panels() map[string]string {
	p.t.Helper()
	var dashboard struct {
		Panels []struct {
			Type, Title, Description string
			Targets                  []struct{ Expr string }
		}
	}
	text, err := os.ReadFile("../../deploy/grafana/rekeyd.json")
	if err == nil {
		err = json.Unmarshal(text, &dashboard)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	shown := map[string]string{}
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" && panel.Description == "" {
			p.t.Errorf("panel %q has no description", panel.Title)
		}
		for _, target := range panel.Targets {
			if strings.Contains(target.Expr, "vector(0)") {
				p.t.Errorf("panel %q invents a value", panel.Title)
			}
			var data struct {
				Result []struct {
					Metric map[string]string
					Value  [2]any
				}
			}
			query := strings.NewReplacer("$policy", ".*", "time()", "scalar(vector(1))").Replace(target.Expr)
			if err := p.get("/api/v1/query?query="+url.QueryEscape(query), &data); err != nil {
				p.t.Errorf("panel %q: %v", panel.Title, err)
			}
			for _, r := range data.Result {
				shown[panel.Title] += fmt.Sprintln(r.Metric, r.Value[1])
			}
			shown[panel.Title] += "\n"
		}
	}
	return shown
}

// changed waits until every panel has shown something else than before.
func (p prometheusServer) changed(before map[string]string) {
	p.t.Helper()
	process.Eventually(p.t, prometheusPatience, func() error {
		for title, now := range p.panels() {
			if now != before[title] {
				delete(before, title)
			}
		}
		if len(before) > 0 {
			return fmt.Errorf("these panels show what they showed before: %v", before)
		}
		return nil
	})
}

// until waits for the value of a query's only series.
func (p prometheusServer) until(query, value string) {
	p.t.Helper()
	process.Eventually(p.t, prometheusPatience, func() error {
		var data struct{ Result []struct{ Value [2]any } }
		if err := p.get("/api/v1/query?query="+url.QueryEscape(query), &data); err != nil {
			return err
		}
		if len(data.Result) != 1 || data.Result[0].Value[1] != value {
			return fmt.Errorf("%s is %v, want %s", query, data.Result, value)
		}
		return nil
	})
}

// alerts waits until these alerts fire, written as name and policy, and no other.
func (p prometheusServer) alerts(want ...string) {
	p.t.Helper()
	process.Eventually(p.t, prometheusPatience, func() error {
		var data struct {
			Alerts []struct {
				Labels map[string]string
				State  string
			}
		}
		if err := p.get("/api/v1/alerts", &data); err != nil {
			return err
		}
		fire := map[string]bool{}
		for _, a := range data.Alerts {
			if a.State == "firing" {
				fire[a.Labels["alertname"]+" "+a.Labels["policy"]] = true
			}
		}
		for _, name := range want {
			if !fire[name] {
				return fmt.Errorf("%q does not fire, but %v", name, fire)
			}
		}
		if len(fire) != len(want) {
			return fmt.Errorf("%v fire, want %v", fire, want)
		}
		return nil
	})
}
