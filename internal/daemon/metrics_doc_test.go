package daemon

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
)

// Run `go test ./internal/daemon -run MetricsDocument -update` after a change of the metrics.
var update = flag.Bool("update", false, "write docs/metrics.md")

const metricsDocument = "../../docs/metrics.md"

// TestMetricsDocument holds docs/metrics.md against what the registry has once everything happened.
func TestMetricsDocument(t *testing.T) {
	t.Parallel()
	m := newMetrics("v1", "abc")
	m.registry.MustRegister(newCollector(
		func() rotator.Snapshot {
			return rotator.Snapshot{Policies: []rotator.PolicyStatus{busy("busy")}, Workspaces: []rotator.WorkspaceStatus{{Name: "default", LastReconcile: time.Unix(1, 0)}}}
		},
		func() (time.Time, bool) { return time.Unix(1, 0), true }, m.lostKeys))
	m.called("vault", "write", "200", time.Millisecond)
	want := document(t, m)
	if *update {
		if err := os.WriteFile(metricsDocument, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(metricsDocument); err != nil || string(have) != want {
		t.Errorf("docs/metrics.md is not what the registry has (%v); write it with: go test ./internal/daemon -run MetricsDocument -update", err)
	}
}

func document(t *testing.T, m *metrics) string {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# Metrics

At ` + "`/metrics`" + `, in the Prometheus text format and in OpenMetrics; histograms are classic and native. This page is made
from the registry. Beside these there are the usual ones of a Go process (` + "`go_`, `process_`, `promhttp_`" + `).

The series of a policy appear when it is loaded and go when it is removed. Timestamps are seconds since 1970, with
fractions. Counters count what this process did; the rest comes from the ledger, so it survives a restart, and all
replicas say the same once they have looked. [runbook.md](runbook.md) says what to do about the alerts made of them.

| metric | type | labels | meaning |
|---|---|---|---|
`)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "rekeyd_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), quoted(labels), f.GetHelp())
	}
	b.WriteString("\n## Values of labels\n\n| label | values |\n|---|---|\n")
	fmt.Fprintf(&b, "| `state` of `rekeyd_policy_state` | %s |\n", quoted(rotator.States()))
	fmt.Fprintf(&b, "| `stage` | %s |\n", quoted(rotator.Stages()))
	fmt.Fprintf(&b, "| `reason` of `rekeyd_rotation_failures_total` | %s |\n", quoted(rotator.FailureReasons()))
	return b.String()
}

func quoted[S ~string](words []S) string {
	var marked []string
	for _, w := range words {
		marked = append(marked, "`"+string(w)+"`")
	}
	return strings.Join(marked, ", ")
}
