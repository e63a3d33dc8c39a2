package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

func busy(name string) rotator.PolicyStatus {
	at := time.Date(2026, 3, 1, 12, 0, 0, 500_000_000, time.UTC)
	return rotator.PolicyStatus{
		Policy: &plan.Policy{Name: name, Workspace: "default", ServiceAccount: "svcacc", Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "elevenlabs/" + name}}, MaxAge: time.Hour}, Outlook: plan.Outlook{State: plan.StateFailing, NextDue: at, Drift: []string{"allowed_ips"}}, LastRotation: at,
		Current: &ledger.KeyRef{ID: "k", Hash: "hash-of-a-secret", Created: at}, Keys: plan.KeyCounts{Current: 1, Overlap: 2, Quarantine: 3, Lost: 4, Foreign: 5},
		InUse: true, Successes: 6, Failures: 7, Disabled: map[plan.DisableCause]time.Time{plan.DisabledExposed: at},
		ThirdPartyDisable: elevenlabs.Some(false),
		Failure:           &ledger.LastFailure{Stage: ledger.StageCreate, Reason: ledger.FailureKeyLimit},
		Retiring:          []ledger.Retiring{{State: ledger.InOverlap, Until: at.Add(time.Hour)}, {State: ledger.InOverlap, Until: at, Tries: 2}},
	}
}

// skewed is a host whose clock is ahead of one workspace, far behind another, and behind Vault.
func skewed() rotator.Skew {
	store := -1500 * time.Millisecond
	return rotator.Skew{Store: &store, Workspaces: map[string]time.Duration{"default": time.Second, "refused": -time.Minute}}
}

func scraped(t *testing.T, m *Metrics) string {
	t.Helper()
	var text bytes.Buffer
	err := m.each(func(f *dto.MetricFamily) error {
		_, err := expfmt.MetricFamilyToText(&text, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := New("v1", "abc")
	shown := rotator.Snapshot{
		Policies: []rotator.PolicyStatus{busy("busy"), {Policy: &plan.Policy{Name: "new", Labels: map[string]string{"team": "Søk \"1\"", "_stage": "prod"}}, Outlook: plan.Outlook{State: plan.StateDue}},
			{Policy: &plan.Policy{Name: "fine", Workspace: "refused"}, Outlook: plan.Outlook{State: plan.StateOK}, Unswept: 2}, {Policy: &plan.Policy{Name: "allowed"}, ThirdPartyDisable: elevenlabs.Some(true)},
			{Policy: &plan.Policy{Name: "unlimited"}, ThirdPartyDisable: elevenlabs.None[bool]()}, {Policy: &plan.Policy{Name: "paused", Workspace: "refused"}, Outlook: plan.Outlook{State: plan.StatePaused}}},
		Workspaces: []rotator.WorkspaceStatus{{Name: "default", LastReconcile: time.Unix(1, 0), LastTry: time.Unix(1, 0), Accounts: []elevenlabs.ServiceAccount{{ID: "svcacc", Keys: make([]elevenlabs.Key, 15)}}}, {Name: "silent", Err: errors.New("down"), LastTry: time.Unix(1, 0)}, {Name: "unasked"}, {Name: "refused", LastTry: time.Unix(1, 0), Err: fmt.Errorf("listing: %w", elevenlabs.ErrInvalidKey)}},
	}
	m.Watch(func() rotator.Snapshot { return shown }, skewed, nil)
	m.Reloaded(true)
	m.Happened(rotator.Event{Type: rotator.EventRotated, Duration: time.Second})
	m.Happened(rotator.Event{Type: rotator.EventFailed, Stage: ledger.StageCreate, Reason: ledger.FailureKeyLimit})
	m.Happened(rotator.Event{Type: rotator.EventRetireError, Stage: ledger.StageRetire, Reason: ledger.FailureAPIError})
	m.Happened(rotator.Event{Type: rotator.EventLostDeleted, Workspace: "default"})
	m.Called("elevenlabs", "list", "200", time.Millisecond)
	m.Called("vault", "write", "799", time.Millisecond)
	m.Called("vault", "write", "error", time.Millisecond)
	text := scraped(t, m)
	for _, line := range []string{
		`rekeyd_rotations_total{policy="busy",result="success"} 6`,
		`rekeyd_rotations_total{policy="busy",result="failure"} 7`,
		`rekeyd_rotations_total{policy="new",result="success"} 0`,
		`rekeyd_rotation_failures_total{reason="key_limit",stage="create"} 1`,
		`rekeyd_rotation_failures_total{reason="api_error",stage="retire"} 1`,
		`rekeyd_rotation_failures_total{reason="sink_sealed",stage="publish"} 0`,
		`rekeyd_rotation_duration_seconds_count{result="success"} 1`,
		`rekeyd_rotation_duration_seconds_count{result="failure"} 1`,
		`rekeyd_last_rotation_timestamp_seconds{policy="busy"} 1.7723664005e+09`,
		`rekeyd_next_rotation_timestamp_seconds{policy="busy"} 1.7723664005e+09`,
		`rekeyd_next_rotation_timestamp_seconds{policy="new"} +Inf`,
		`rekeyd_third_party_disable_allowed{policy="busy"} 0`,
		`rekeyd_third_party_disable_allowed{policy="allowed"} 1`,
		`rekeyd_key_created_timestamp_seconds{policy="busy"} 1.7723664005e+09`,
		`rekeyd_key_max_age_seconds{policy="busy"} 3600`,
		`rekeyd_keys{policy="busy",state="current"} 1`,
		`rekeyd_keys{policy="busy",state="overlap"} 2`,
		`rekeyd_keys{policy="busy",state="quarantine"} 3`,
		`rekeyd_keys{policy="busy",state="lost"} 4`,
		`rekeyd_keys{policy="busy",state="foreign"} 5`,
		`rekeyd_policy_state{policy="busy",state="failing"} 1`,
		`rekeyd_policy_state{policy="busy",state="ok"} 0`,
		`rekeyd_retiring_key_in_use{policy="busy"} 1`,
		`rekeyd_drift{policy="busy"} 1`,
		`rekeyd_key_disabled_timestamp_seconds{policy="busy",reason="exposed_publicly"} 1.7723664005e+09`,
		`rekeyd_policy_problem{policy="busy",reason="key_limit"} 1`,
		`rekeyd_policy_problem{policy="busy",reason="old_key_in_use"} 1`,
		`rekeyd_policy_problem{policy="busy",reason="retire_failing"} 1`,
		`rekeyd_lost_keys_deleted_total{workspace="default"} 1`,
		`rekeyd_lost_keys_deleted_total{workspace="silent"} 0`,
		`rekeyd_last_reconcile_timestamp_seconds{workspace="default"} 1`,
		`rekeyd_requests_total{code="200",operation="list",target="elevenlabs"} 1`,
		`rekeyd_requests_total{code="other",operation="write",target="vault"} 1`,
		`rekeyd_requests_total{code="error",operation="write",target="vault"} 1`,
		`rekeyd_request_duration_seconds_count{code="200",operation="list",target="elevenlabs"} 1`,
		`rekeyd_policy_info{policy="busy",service_account="svcacc",sink="secret/elevenlabs/busy",workspace="default"} 1`,
		`rekeyd_policy_info{label__stage="prod",label_team="Søk \"1\"",policy="new",service_account="",sink="/",workspace=""} 1`,
		`rekeyd_sink_up 1`,
		`rekeyd_workspace_up{workspace="default"} 1`,
		`rekeyd_service_account_keys{service_account="svcacc",workspace="default"} 15`,
		`rekeyd_workspace_up{workspace="silent"} 0`,
		`rekeyd_workspace_up{workspace="refused"} 0`,
		`rekeyd_clock_skew_seconds{target="elevenlabs"} -60`,
		`rekeyd_clock_skew_seconds{target="vault"} -1.5`,
		`rekeyd_config_last_reload_successful 1`,
		`rekeyd_policies 6`,
		`rekeyd_policy_problem{policy="fine",reason="admin_key_refused"} 1`,
		`rekeyd_policy_problem{policy="fine",reason="retire_failing"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if !regexp.MustCompile(`rekeyd_build_info\{goversion="go[^"]+",revision="abc",version="v1"\} 1`).MatchString(text) {
		t.Error("no build info")
	}
	for _, absent := range []string{`last_rotation_timestamp_seconds{policy="new"`, `key_max_age_seconds{policy="new"`, `reconcile_timestamp_seconds{workspace="silent"`, "vault_token_expiry", `workspace_up{workspace="unasked"`, `third_party_disable_allowed{policy="new"`, `third_party_disable_allowed{policy="unlimited"`, `policy_problem{policy="new"`, `policy_problem{policy="paused"`, "hash-of"} {
		if strings.Contains(text, absent) {
			t.Errorf("%s is there", absent)
		}
	}
	if n := strings.Count(text, `{policy="busy"`); n != 22+1+3 { // one more for a key that was disabled, and for each of its problems
		t.Errorf("%d series for a policy", n)
	}
	shown.StoreDown = errors.New("sealed")
	if !strings.Contains(scraped(t, m), "rekeyd_sink_up 0\n") {
		t.Error("the sink is up although it is sealed")
	}
	shown.Policies = shown.Policies[1:]
	if strings.Contains(scraped(t, m), `policy="busy"`) {
		t.Error("series of a removed policy stay")
	}
	lint(t, text)
}

func lint(t *testing.T, text string) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "rekeyd_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// TestEverySeriesOfAFailureExistsBefore is what makes an alert on its increase possible.
func TestEverySeriesOfAFailureExistsBefore(t *testing.T) {
	t.Parallel()
	text := scraped(t, New("v1", "abc"))
	want := len(ledger.Stages()) * len(ledger.Failures())
	if n := strings.Count(text, "rekeyd_rotation_failures_total{"); n != want {
		t.Errorf("%d series, want %d", n, want)
	}
}

// watching returns metrics of so many policies with these labels.
func watching(policies int, labels map[string]string) *Metrics {
	var s rotator.Snapshot
	for i := range policies {
		p := busy(fmt.Sprintf("policy-%05d", i))
		p.Policy.Labels = labels
		s.Policies = append(s.Policies, p)
	}
	m := New("v1", "abc")
	m.Watch(func() rotator.Snapshot { return s }, skewed, nil)
	return m
}

func ask(tb testing.TB, m *Metrics, accept string) *httptest.ResponseRecorder {
	tb.Helper()
	answer := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", accept)
	m.Handler().ServeHTTP(answer, req)
	return answer
}

// TestFormats: each format that Prometheus may ask for is complete, and has the registry's families and those of policies.
func TestFormats(t *testing.T) {
	t.Parallel()
	m := watching(3, nil)
	text := ask(t, m, "").Body.String()
	for _, family := range []string{"go_goroutines", "rekeyd_keys"} {
		if n := strings.Count(text, "# TYPE "+family+" "); n != 1 {
			t.Errorf("as text, %s begins %d times", family, n)
		}
	}
	if open := ask(t, m, "application/openmetrics-text; version=1.0.0").Body.String(); !strings.Contains(open, "# TYPE rekeyd_rotations counter\n") ||
		!strings.Contains(open, `rekeyd_rotations_total{policy="policy-00002",result="success"} 6.0`+"\n") || !strings.HasSuffix(open, "\n# EOF\n") {
		t.Errorf("as OpenMetrics: …%s", open[max(len(open)-300, 0):])
	}
	answer := ask(t, m, "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")
	found := map[string]int{}
	decoder := expfmt.NewDecoder(answer.Body, expfmt.ResponseFormat(answer.Header()))
	for {
		var f dto.MetricFamily
		err := decoder.Decode(&f)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[f.GetName()] += len(f.GetMetric())
	}
	if found["go_goroutines"] != 1 || found["rekeyd_keys"] != 3*5 || found["rekeyd_policies"] != 1 {
		t.Errorf("as protobuf: %v", found)
	}
}

// TestAnAnswerWithoutMetrics is none of half of them.
func TestAnAnswerWithoutMetrics(t *testing.T) {
	t.Parallel()
	m := watching(1, nil)
	m.Registry.MustRegister(broken{})
	if got := ask(t, m, ""); got.Code != http.StatusInternalServerError || !strings.Contains(got.Body.String(), "it is broken") || strings.Contains(got.Body.String(), "rekeyd_") {
		t.Errorf("%d: %s", got.Code, got.Body)
	}
}

type broken struct{}

func (broken) Describe(chan<- *prometheus.Desc) {}

func (broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "", nil, nil), errors.New("it is broken"))
}

func scrapeZipped(tb testing.TB, m *Metrics) {
	tb.Helper()
	answer := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept-Encoding", "gzip")
	m.Handler().ServeHTTP(answer, req)
	if answer.Code != http.StatusOK {
		tb.Fatal(answer.Code)
	}
}

func TestAScrapeAllocatesNoMoreThanItDid(t *testing.T) {
	const policies, most = 1000, 40 // allocations a policy; the race detector adds a third
	each := func(labels map[string]string) float64 {
		m := watching(policies, labels)
		return testing.AllocsPerRun(5, func() { scrapeZipped(t, m) }) / policies
	}
	if got := each(nil); got > most {
		t.Errorf("%.1f allocations a policy, at most %d are expected", got, most)
	}
	labels := map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6", "g": "7", "h": "8"}
	if got := each(labels); got > 2*most {
		t.Errorf("%.1f allocations a policy with eight labels, at most %d are expected", got, 2*most)
	}
}

// BenchmarkScrape is one scrape of 10,000 policies, compressed as Prometheus asks for it; the budget is 2 s of CPU.
func BenchmarkScrape(b *testing.B) {
	m := watching(10_000, nil)
	b.ReportAllocs()
	for b.Loop() {
		scrapeZipped(b, m)
	}
}
