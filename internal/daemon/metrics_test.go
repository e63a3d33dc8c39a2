package daemon

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestMetricsOfARunningDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url, _ := w.run(w.build(nil, nil))
	var text string
	eventually(t, "a rotation", func() bool {
		_, text = ask(t, http.MethodGet, url+"/metrics", "")
		return strings.Contains(text, `rekeyd_rotations_total{policy="tts-prod",result="success"} 1`)
	})
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "rekeyd_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	secrets := []string{adminKey, adminToken}
	for _, k := range w.Sim.State()[0].Keys {
		secrets = append(secrets, k.Secret)
	}
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Error("a secret is in a label or a help text")
		}
	}
	for _, name := range []string{"go_goroutines", "process_start_time_seconds", "rekeyd_requests_total", "rekeyd_sink_up 1", `rekeyd_workspace_up{workspace="default"} 1`, `rekeyd_clock_skew_seconds{target="elevenlabs"}`} {
		if !strings.Contains(text, name) {
			t.Errorf("no %s", name)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") {
		t.Errorf("OpenMetrics was asked for and %s came", kind)
	}
}
