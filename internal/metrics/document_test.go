package metrics

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Run `go test ./internal/metrics -run MetricsDocument -update` after a change of the metrics.
var update = flag.Bool("update", false, "write docs/metrics.md")

const metricsDocument = "../../docs/metrics.md"

// TestMetricsDocument holds docs/metrics.md against what the registry has once everything happened.
func TestMetricsDocument(t *testing.T) {
	t.Parallel()
	m := New("v1", "abc")
	m.policies = &Collector{
		Lost: m.LostKeys, Expiry: func() (time.Time, bool) { return time.Unix(1, 0), true },
		Skew: skewed,
		Snapshot: func() rotator.Snapshot {
			return rotator.Snapshot{Policies: []rotator.PolicyStatus{busy("busy")}, Workspaces: []rotator.WorkspaceStatus{{Name: "default", LastReconcile: time.Unix(1, 0), LastTry: time.Unix(1, 0),
				Accounts: []elevenlabs.ServiceAccount{{ID: "svcacc", Keys: make([]elevenlabs.Key, 1)}}}}}
		},
	}
	m.Called("vault", "write", "200", time.Millisecond)
	want := document(t, m)
	if *update {
		if err := os.WriteFile(metricsDocument, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(metricsDocument); err != nil || string(have) != want {
		t.Errorf("docs/metrics.md is not what the registry has (%v); write it with: go test ./internal/metrics -run MetricsDocument -update", err)
	}
}

func document(t *testing.T, m *Metrics) string {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(scraped(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# Metrics

` + "`/metrics`" + ` has them in the Prometheus text format and OpenMetrics, beside those of a Go process; histograms are classic and native.
[runbook.md](runbook.md) has the alerts.

A policy's series appear when it is loaded and go when it is removed. Timestamps are seconds since 1970. Counters count what this
process did; the rest comes from the ledger, so it survives a restart, and replicas agree.

| metric | type | labels | meaning |
|---|---|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		f := families[name]
		if !strings.HasPrefix(name, "rekeyd_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), quoted(labels), f.GetHelp())
	}
	b.WriteString(`
A policy has at most 22 series, plus one for each reason for which a key of it was disabled and one for each problem. A workspace has
one for each of its service accounts.

## Values of labels

| label | values |
|---|---|
`)
	for _, row := range [][2]string{
		{"`result` of `rekeyd_rotations_total` and `rekeyd_rotation_duration_seconds`", quoted(values(families["rekeyd_rotations_total"], "result"))},
		{"`result` of `rekeyd_events_total`", quoted(values(families["rekeyd_events_total"], "result"))},
		{"`state` of `rekeyd_policy_state`", quoted(values(families["rekeyd_policy_state"], "state"))},
		{"`state` of `rekeyd_keys`", quoted(values(families["rekeyd_keys"], "state"))},
		{"`stage`", quoted(ledger.Stages())},
		{"`reason` of `rekeyd_rotation_failures_total`", quoted(ledger.Failures())},
		{"`reason` of `rekeyd_key_disabled_timestamp_seconds`", quoted(plan.DisableCauses())},
		{"`reason` of `rekeyd_policy_problem`", "those of `rekeyd_rotation_failures_total`, and " + quoted(slices.DeleteFunc(problemReasons(), isFailure))},
		{"`operation` with the target `elevenlabs`", quoted(operations(t, "../../elevenlabs/client.go"))},
		{"`operation` with the target `vault`", quoted(operations(t, "../../sinks/vault.go"))},
		{"`code`", "the HTTP status, `error` without an answer, `other` for a status that does not exist"},
	} {
		fmt.Fprintf(&b, "| %s | %s |\n", row[0], row[1])
	}
	return b.String()
}

// values is what a label of a metric has.
func values(f *dto.MetricFamily, label string) []string {
	var all []string
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == label && !slices.Contains(all, l.GetValue()) {
				all = append(all, l.GetValue())
			}
		}
	}
	return all
}

// operations is what a client tells of its calls.
func operations(t *testing.T, file string) []string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^\top[A-Z]\w+ += "(\w+)"$`).FindAllStringSubmatch(string(source), -1) {
		all = append(all, m[1])
	}
	if len(all) == 0 {
		t.Fatalf("%s names no operations", file)
	}
	return all
}

func quoted[S ~string](words []S) string {
	var marked []string
	for _, w := range words {
		marked = append(marked, "`"+string(w)+"`")
	}
	return strings.Join(marked, ", ")
}

// problemReasons is every value of the label: the faults and failures, and those of old keys.
func problemReasons() []string {
	all := []string{string(rotator.ProblemOldKeyInUse), string(rotator.ProblemNewKeyUnused), string(rotator.ProblemStillAccepted), string(rotator.ProblemProofMissing), string(rotator.ProblemKeyLimitNear),
		string(rotator.ProblemRetireFailing)}
	for _, f := range plan.Faults() {
		all = append(all, string(f))
	}
	for _, f := range ledger.Failures() {
		if !slices.Contains(all, string(f)) {
			all = append(all, string(f))
		}
	}
	return all
}

func isFailure(word string) bool { return ledger.Failure(word).Known() }
