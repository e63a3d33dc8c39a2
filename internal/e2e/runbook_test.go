package e2e

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const runbook = "../../docs/runbook.md"

type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	read(t, "../../deploy/prometheus/alerts.yaml", &file)
	var all []alert
	for _, g := range file.Groups {
		all = append(all, slices.DeleteFunc(g.Rules, func(a alert) bool { return a.Alert == "" })...) // without recording rules
	}
	if len(all) == 0 {
		t.Fatal("alerts.yaml has no alerts")
	}
	return all
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text(t, file)), into); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestEveryAlertIsComplete: what it must say, and that promtool sees it fire and be silent.
func TestEveryAlertIsComplete(t *testing.T) {
	t.Parallel()
	var file struct {
		Tests []struct {
			Rules []struct {
				Name   string `yaml:"alertname"`
				Expect []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	read(t, "../../deploy/prometheus/alerts_test.yaml", &file)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, c := range file.Tests {
		for _, r := range c.Rules {
			fires[r.Name] = fires[r.Name] || len(r.Expect) > 0
			silent[r.Name] = silent[r.Name] || len(r.Expect) == 0
		}
	}
	for _, a := range alerts(t) {
		switch {
		case !fires[a.Alert] || !silent[a.Alert]:
			t.Errorf("%s: alerts_test.yaml has no case in which it fires, or none in which it is silent", a.Alert)
		case !slices.Contains([]string{"warning", "critical"}, a.Labels["severity"]):
			t.Errorf("%s: severity %q", a.Alert, a.Labels["severity"])
		case a.Annotations["summary"] == "" || a.Annotations["description"] == "":
			t.Errorf("%s: no summary or no description", a.Alert)
		case regexp.MustCompile(`\bby \(`).MatchString(a.Expr):
			t.Errorf("%s: it mixes installations", a.Alert)
		case strings.Contains(a.Expr, "rekeyd:policy_info") && !strings.Contains(a.Expr, "max without (policy, ") && !strings.Contains(a.Annotations["summary"], "{{ $labels.policy }}"):
			t.Errorf("%s: the summary does not name the policy", a.Alert)
		}
		url, anchor, _ := strings.Cut(a.Annotations["runbook_url"], "#")
		if !strings.HasSuffix(url, "/docs/runbook.md") || anchor != strings.ToLower(a.Alert) || !strings.Contains(text(t, runbook), "\n## "+a.Alert+"\n") {
			t.Errorf("%s: runbook_url %s leads nowhere", a.Alert, a.Annotations["runbook_url"])
		}
	}
}

// TestTheRunbookIsTrue: its commands are those of the binary, its metrics exist, and its log messages are said.
func TestTheRunbookIsTrue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.policy("@every 24h")
	w.verb(0, "rotate", "tts-prod")
	book, metrics := text(t, runbook), text(t, "../../docs/metrics.md")
	advice := book
	for _, a := range alerts(t) {
		advice += a.Expr + a.Annotations["description"]
	}
	commands := regexp.MustCompile("`rekeyd ([^`]+)`").FindAllStringSubmatch(advice, -1)
	if len(commands) < 10 {
		t.Fatalf("only %d commands were found", len(commands))
	}
	ran := map[string]bool{}
	for _, c := range commands {
		line := strings.NewReplacer("POLICY", "tts-prod", "{{ $labels.policy }}", "tts-prod").Replace(c[1])
		if ran[line] {
			continue
		}
		ran[line] = true
		if status, _, stderr := w.command(w.environment(nil), strings.Fields(line)...); status == 2 || status < 0 {
			t.Errorf("rekeyd %s: exit status %d: %s", line, status, stderr)
		}
	}
	for _, m := range regexp.MustCompile(`\brekeyd_[a-z_]+`).FindAllString(advice+text(t, "../../deploy/grafana/rekeyd.json"), -1) {
		if !strings.Contains(metrics, "`"+strings.TrimSuffix(m, "_bucket")+"`") {
			t.Errorf("there is no metric %s", m)
		}
	}
	source := text(t, "../../sinks/vault_token.go")
	for _, m := range regexp.MustCompile("`(vault token cannot [^`]+)`").FindAllStringSubmatch(strings.ReplaceAll(book, "\n", " "), -1) {
		if !strings.Contains(source, `"`+m[1]+`"`) {
			t.Errorf("the log never says %q", m[1])
		}
	}
}
