// Package metrics exposes rekeyd's state to Prometheus.
package metrics

import (
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/rekeyd/rekeyd/internal/events"
	"github.com/rekeyd/rekeyd/internal/outbox"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/sinks"
)

// Metrics holds the metrics that are counted as events happen. Those of policies are made at scrape time (collector.go).
type Metrics struct {
	Registry *prometheus.Registry
	policies *Collector // nil: not watched yet

	failures   *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	calls      *prometheus.CounterVec
	callTimes  *prometheus.HistogramVec
	Events     *prometheus.CounterVec
	reloadOK   prometheus.Gauge
	reloadTime prometheus.Gauge

	mu   sync.Mutex
	lost map[string]int // lost keys deleted, by workspace
}

// New registers the metrics, with every series that must exist before its first increase.
func New(version, revision string) *Metrics {
	r := prometheus.NewRegistry()
	m := &Metrics{
		Registry:   r,
		failures:   counters("rekeyd_rotation_failures_total", "Rotations and retirements that failed, by the stage and the reason.", "stage", "reason"),
		durations:  histograms("rekeyd_rotation_duration_seconds", "How long rotations took, from the claim to the commit or the failure.", []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}, "result"),
		calls:      counters("rekeyd_requests_total", "Requests to remote parties.", "target", "operation", "code"),
		callTimes:  histograms("rekeyd_request_duration_seconds", "How long requests to remote parties took.", []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 15}, "target", "operation", "code"),
		Events:     counters("rekeyd_events_total", "Events for REKEYD_EVENTS_URL, by result: delivered, failed after the last try, or dropped from a full queue.", "result"),
		reloadOK:   gauge("rekeyd_config_last_reload_successful", "Whether the last attempt to load the policies succeeded."),
		reloadTime: gauge("rekeyd_config_last_reload_success_timestamp_seconds", "When the policies in force were loaded."),
		lost:       map[string]int{},
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rekeyd_build_info", Help: "The running build; the value is always 1."},
		[]string{"version", "revision", "goversion"})
	build.WithLabelValues(version, revision, runtime.Version()).Set(1)
	r.MustRegister(m.failures, m.durations, m.calls, m.callTimes, m.Events, m.reloadOK, m.reloadTime, build,
		collectors.NewGoCollector(), newProcessCollector())
	m.prepare()
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// histograms are classic and native.
func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}, labels)
}

// prepare creates series before their first increase, so that rate() sees it.
func (m *Metrics) prepare() {
	for _, stage := range ledger.Stages() {
		for _, failure := range ledger.Failures() {
			m.failures.WithLabelValues(string(stage), string(failure))
		}
	}
	m.durations.WithLabelValues(succeeded)
	m.durations.WithLabelValues(failed)
	for _, result := range events.Results() {
		m.Events.WithLabelValues(result)
	}
}

const (
	succeeded = "success"
	failed    = "failure"
)

// Watch adds the series that are made at scrape time.
func (m *Metrics) Watch(snapshot func() rotator.Snapshot, skew func() rotator.Skew, vault *sinks.Vault) {
	var expiry func() (time.Time, bool)
	if vault != nil {
		expiry = vault.TokenExpiry
	}
	m.policies = &Collector{Snapshot: snapshot, Skew: skew, Expiry: expiry, Lost: m.LostKeys}
}

// Happened counts a state change.
func (m *Metrics) Happened(e rotator.Event) {
	switch e.Type {
	case rotator.EventRotated:
		m.durations.WithLabelValues(succeeded).Observe(e.Duration.Seconds())
	case rotator.EventFailed:
		m.failures.WithLabelValues(string(e.Stage), plan.Word(e.Reason)).Inc()
		m.durations.WithLabelValues(failed).Observe(e.Duration.Seconds())
	case rotator.EventRetireError:
		m.failures.WithLabelValues(string(e.Stage), plan.Word(e.Reason)).Inc()
	case rotator.EventLostDeleted:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lost[e.Workspace]++
	}
}

// LostKeys returns how many lost keys of the workspace this process has deleted.
func (m *Metrics) LostKeys(workspace string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost[workspace]
}

// Called counts a request to a remote party.
func (m *Metrics) Called(target, operation, code string, d time.Duration) {
	code = knownCode(code)
	m.calls.WithLabelValues(target, operation, code).Inc()
	m.callTimes.WithLabelValues(target, operation, code).Observe(d.Seconds())
}

// knownCode prevents series of statuses that do not exist.
func knownCode(code string) string {
	if n, err := strconv.Atoi(code); err == nil && http.StatusText(n) == "" {
		return "other"
	}
	return code
}

// Reloaded records the result of loading the policies.
func (m *Metrics) Reloaded(ok bool) {
	if !ok {
		m.reloadOK.Set(0)
		return
	}
	m.reloadOK.Set(1)
	m.reloadTime.Set(seconds(time.Now()))
}

// Handler serves GET /metrics. It makes one answer at a time.
func (m *Metrics) Handler() http.Handler {
	return promhttp.InstrumentMetricHandler(m.Registry, outbox.New(1).Wrap(outbox.Compressed(http.HandlerFunc(m.serve))))
}

func (m *Metrics) serve(w http.ResponseWriter, r *http.Request) {
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
	w.Header().Set("Content-Type", string(format))
	encoder := expfmt.NewEncoder(w, format.WithEscapingScheme(model.NoEscaping)) // no name needs it, and it would copy each family
	err := m.each(encoder.Encode)
	if end, ok := encoder.(expfmt.Closer); ok && err == nil {
		err = end.Close() // the last line of OpenMetrics
	}
	if err != nil {
		http.Error(w, "The metrics cannot be read: "+err.Error(), http.StatusInternalServerError)
	}
}

// each calls do with each family that has a series. The family is valid until do returns.
func (m *Metrics) each(do func(*dto.MetricFamily) error) error {
	families, err := m.Registry.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if err := do(f); err != nil {
			return err
		}
	}
	if m.policies == nil {
		return nil
	}
	return m.policies.each(do)
}
