// Package mixintest makes what Prometheus and Grafana are given from deploy/mixin, and holds it against that.
package mixintest

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/tools"
)

var update = flag.Bool("update", false, "format the mixin, and write what is made from it")

const (
	mixin     = "../../deploy/mixin"
	dashboard = "../../deploy/grafana/rekeyd.json"
)

// TestMixin holds what make mixin writes to what it is made from, and the mixin to jsonnetfmt.
func TestMixin(t *testing.T) {
	err := filepath.WalkDir(mixin, func(file string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(file, "sonnet") {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			same(t, file, run(t, string(text), "fmt"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "../../deploy/prometheus/alerts.yaml", run(t, "", "eval", mixin+"/lib/rules.jsonnet"))
	same(t, dashboard, run(t, "", "eval", mixin+"/lib/dashboard.jsonnet"))
}

func same(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("%s is not what make mixin writes (%v); it should be:\n%s", file, err, want)
	}
}

func run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := try(t, stdin, args...)
	if err != "" {
		t.Fatal(err)
	}
	return out
}

// try runs the tool. fault is what it says of its failure.
func try(t *testing.T, stdin string, args ...string) (out, fault string) {
	t.Helper()
	binary, err := tools.Program{Name: "mixin", What: "jsonnet and Grafana's types once: about a minute"}.Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", err.Error() + ": " + stderr.String()
	}
	return stdout.String(), ""
}

// TestDashboardTypes has the dashboard decoded strictly into the types that Grafana has for it.
func TestDashboardTypes(t *testing.T) {
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	run(t, string(text), "dashboard")
	for right, wrong := range map[string]string{
		`"refresh":`:     `"refreshes":`,     // of the dashboard
		`"description":`: `"descriptions":`,  // of a panel
		`"graphMode":`:   `"graphModus":`,    // of a kind of panel
		`"instant":`:     `"instantaneous":`, // of a query to Prometheus
	} {
		if _, fault := try(t, strings.Replace(string(text), right, wrong, 1), "dashboard"); !strings.Contains(fault, strings.Trim(wrong, `":`)) {
			t.Errorf("a field named %s is found out as %q", wrong, fault)
		}
	}
}

// TestConfiguration: every alert can be left out, and what is configured arrives.
func TestConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.jsonnet")
	path, err := filepath.Abs(mixin)
	if err != nil {
		t.Fatal(err)
	}
	mine := `local m = (import '` + path + `/mixin.libsonnet') + { _config+:: {
  rekeydSelector: 'cluster="c"',
  replicaLabels: ['host'],
  installationLabels: ['cluster'],
  policyLabels: ['team', 'cost_center'],
  runbookURLPattern: 'https://wiki.example/%s',
  alerts+: { RekeydDown: null, RekeydRotationOverdue+: { after: '2h', 'for': '1h', severity: 'page' } },
} };
std.manifestYamlDoc([m.prometheusRules, m.prometheusAlerts], quote_keys=false)`
	if err := os.WriteFile(file, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	got := run(t, "", "eval", file)
	readme, err := os.ReadFile(mixin + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(readme), "```jsonnet\n")
	example, _, _ = strings.Cut(example, "```")
	if err := os.WriteFile(file, []byte(strings.Replace(example, "'mixin.libsonnet'", "'"+path+"/mixin.libsonnet'", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if rules := run(t, "", "eval", file); strings.Contains(rules, "RekeydThrottled") || !strings.Contains(rules, "label_cost_center") {
		t.Errorf("the example of the README makes\n%s", rules)
	}
	for _, want := range []string{
		`topk without (workspace, label_team, label_cost_center) (1, count without (host) (`,
		`topk by (cluster, host, policy) (1, rekeyd_policy_info{cluster="c"})`,
		`time() - max without (host) (rekeyd_next_rotation_timestamp_seconds{cluster="c"}) > 7200`,
		`) * ignoring (workspace, label_team, label_cost_center) group_left (workspace, label_team, label_cost_center) rekeyd:policy_info`,
		`severity: "page"`, `for: "1h"`, `https://wiki.example/rekeydrotationoverdue`, "for at least 10 minutes",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
	for _, gone := range []string{"RekeydDown", "instance,", "namespace"} {
		if strings.Contains(got, gone) {
			t.Errorf("%s is still there:\n%s", gone, got)
		}
	}
}
