//go:build prometheus

package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/rekeyd/rekeyd/internal/process"
)

// prometheusPatience is for what takes several scrapes and evaluations.
const prometheusPatience = 90 * time.Second

// TestPrometheus lets a real Prometheus watch two replicas of the real rekeyd through the shipped alerts and dashboard
// while the simulator, Vault, people and the replicas themselves misbehave. A real Alertmanager sends that each alert fired, and
// that it ended.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	w := newTroubled(t)
	checkMetrics(t, w.first)
	n := new(notifications)
	configuration, _ := startAlertmanager(t, n, 100*time.Millisecond)
	p := startPrometheus(t, configuration, w.first, w.second)
	p.until(`count(rekeyd_policy_state{state="ok"} == 1)`, fmt.Sprint(2*len(inTrouble())))
	p.alerts()
	panels := p.panels()
	for _, still := range []string{"Policies", "Policy", "Oldest key", "Vault"} { // nothing here changes them
		if strings.TrimSpace(panels[still]) == "" {
			t.Errorf("panel %q is empty", still)
		}
		delete(panels, still)
	}
	faults := w.faults()
	told := heard(faults)
	p.watch(faults, panels)
	p.alerts()
	n.sendsAll(t, told...)
	checkMetrics(t, w.first)
	w.first.Kill()
	w.second.Kill()
	p.alerts("RekeydDown ")
	w.restart()
	n.sendsAll(t, down)
}

const down = "RekeydDown"

// TestPrometheusSeesEveryAlert: there is none that no other test has fire, and end, with a notification of both.
func TestPrometheusSeesEveryAlert(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{down: true}
	for _, a := range append(heard((&troubled{world: new(world), first: new(rekeyd), second: new(rekeyd)}).faults()), outages("")...) {
		name, _, _ := strings.Cut(a, " ")
		seen[name] = true
	}
	for _, a := range alerts(t) {
		if !seen[a.Alert] {
			t.Errorf("no test sees %s fire and end", a.Alert)
		}
	}
}

func checkMetrics(t *testing.T, d *rekeyd) {
	t.Helper()
	_, text := d.get("/metrics")
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v:\n%s", err, out)
	}
}

type prometheusServer struct {
	t   *testing.T
	url string
}

// haste is how much faster time runs in the rules that this Prometheus is given.
const haste = 120

// hasten divides each duration in the rules (how long an alert waits, how far a query looks back) and each number of three
// digits or more that something is compared with, all of which are seconds; a clock is as wrong as ever. Nothing else is changed.
func hasten(t *testing.T, rules string) string {
	t.Helper()
	rules = regexp.MustCompile(`(for: "|\[|offset )\d+[mhd]`).ReplaceAllStringFunc(rules, func(s string) string {
		at := strings.LastIndexAny(s, ` ["`) + 1
		d, err := model.ParseDuration(s[at:])
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s%dms", s[:at], time.Duration(d).Milliseconds()/haste)
	})
	return regexp.MustCompile(`(abs\(\w+\) )?([<>]|bool) \d{3,}\b`).ReplaceAllStringFunc(rules, func(s string) string {
		if strings.HasPrefix(s, "abs") {
			return s
		}
		operator, number, _ := strings.Cut(s, " ")
		seconds, err := strconv.ParseFloat(number, 64)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(operator, " ", seconds/haste)
	})
}

// startPrometheus starts one that watches the replicas, each world's in a namespace of its own; more is added to its
// configuration.
func startPrometheus(t *testing.T, more string, replicas ...*rekeyd) prometheusServer {
	t.Helper()
	dir := t.TempDir()
	rules, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, r := range replicas {
		targets = append(targets, fmt.Sprintf("{targets: [%q], labels: {namespace: %s}}", strings.TrimPrefix(r.url, "http://"), r.w.id))
	}
	quick := hasten(t, string(rules))
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [alerts.yaml]\n"+
		"scrape_configs: [{job_name: rekeyd, static_configs: [%s]}]\n%s", strings.Join(targets, ", "), more)
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

// dashboard is what has queries in the one that is shipped.
type dashboard struct {
	Panels []struct {
		Type, Title, Description string
		Targets                  []struct{ Expr string }
	}
	Annotations struct{ List []struct{ Name, Expr string } }
	Templating  struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
}

func dashboardOf(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(text(t, "../../deploy/grafana/rekeyd.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// everything is a query with all of each variable.
func everything(query string) string {
	return regexp.MustCompile(`\$\w+`).ReplaceAllString(strings.ReplaceAll(query, "[$__rate_interval]", "[1m]"), ".*")
}

// panels asks every query of the dashboard, with no clock in it, and returns what each panel and each annotation shows.
func (p prometheusServer) panels() map[string]string {
	p.t.Helper()
	shown := map[string]string{}
	ask := func(title, expr string) {
		if strings.Contains(expr, "vector(0)") {
			p.t.Errorf("%q invents a value", title)
		}
		var data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
		query := everything(strings.ReplaceAll(expr, "time()", "scalar(vector(1))"))
		if err := p.get("/api/v1/query?query="+url.QueryEscape(query), &data); err != nil {
			p.t.Errorf("%q: %v", title, err)
		}
		for _, r := range data.Result {
			shown[title] += fmt.Sprintln(r.Metric, r.Value[1])
		}
		shown[title] += "\n"
	}
	d := dashboardOf(p.t)
	for _, panel := range d.Panels {
		if panel.Type != "row" && panel.Description == "" {
			p.t.Errorf("panel %q has no description", panel.Title)
		}
		for _, target := range panel.Targets {
			ask(panel.Title, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		ask("annotation "+a.Name, a.Expr)
	}
	return shown
}

// variables asks for the choices of each variable of the dashboard, as Grafana does.
func (p prometheusServer) variables() map[string]string {
	p.t.Helper()
	choices := map[string]string{}
	for _, v := range dashboardOf(p.t).Templating.List {
		if v.Type == "datasource" {
			continue
		}
		query, _ := v.Query.(map[string]any)
		parts := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(fmt.Sprint(query["query"]))
		if parts == nil {
			p.t.Errorf("variable %s is not one of a label's values: %v", v.Name, v.Query)
			continue
		}
		var values []string
		if err := p.get("/api/v1/label/"+parts[2]+"/values?match[]="+url.QueryEscape(everything(parts[1])), &values); err != nil {
			p.t.Errorf("variable %s: %v", v.Name, err)
		}
		slices.Sort(values)
		choices[v.Name] = strings.Join(values, " ")
	}
	return choices
}

// fault is something that goes wrong: the alerts that must fire, what makes it so, and what mends it.
type fault struct {
	alerts []string
	begin  func() (end func())
}

// watch has all faults begin, mends each as soon as its alerts fire, and waits until each panel has shown something else
// than before. An alert that belongs to none of the faults fails the test.
func (p prometheusServer) watch(faults []fault, panels map[string]string) {
	p.t.Helper()
	missing, expected, end := map[string]bool{}, map[string]bool{}, map[string]func(){}
	for _, f := range faults {
		end[f.alerts[0]] = f.begin()
		for _, a := range f.alerts {
			missing[a], expected[a] = true, true
		}
	}
	process.Eventually(p.t, prometheusPatience, func() error {
		for a := range p.firing() {
			if delete(missing, a); !expected[a] {
				p.t.Errorf("%q fires", a)
			}
		}
		faults = slices.DeleteFunc(faults, func(f fault) bool {
			fired := !slices.ContainsFunc(f.alerts, func(a string) bool { return missing[a] })
			if fired {
				end[f.alerts[0]]()
			}
			return fired
		})
		for title, now := range p.panels() {
			if now != panels[title] {
				delete(panels, title)
			}
		}
		if len(faults) > 0 || len(panels) > 0 {
			return fmt.Errorf("these alerts have not fired: %v; these panels show what they showed before: %v", missing, panels)
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

// firing is the alerts that fire, written as name and policy, workspace or instance.
func (p prometheusServer) firing() map[string]bool {
	p.t.Helper()
	fire := map[string]bool{}
	for a := range strings.Lines(p.firingIn("")) {
		fire[strings.TrimSuffix(a, "\n")] = true
	}
	return fire
}

// firingIn is those of one installation, or of all, one a line.
func (p prometheusServer) firingIn(namespace string) string {
	p.t.Helper()
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	if err := p.get("/api/v1/alerts", &data); err != nil {
		p.t.Error(err)
	}
	var fire strings.Builder
	for _, a := range data.Alerts {
		if a.State == "firing" && (namespace == "" || namespace == a.Labels["namespace"]) {
			fmt.Fprintln(&fire, alertName(a.Labels))
		}
	}
	return fire.String()
}

func alertName(labels map[string]string) string {
	return labels["alertname"] + " " + cmp.Or(labels["policy"], labels["workspace"], labels["instance"])
}

// alerts waits until these alerts fire and no other.
func (p prometheusServer) alerts(want ...string) {
	p.t.Helper()
	process.Eventually(p.t, prometheusPatience, func() error {
		if fire := slices.Sorted(maps.Keys(p.firing())); !slices.Equal(fire, want) {
			return fmt.Errorf("%v fire, want %v", fire, want)
		}
		return nil
	})
}
