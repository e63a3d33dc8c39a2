package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// TestTheAuditorsPromQL has Prometheus evaluate the page's query for a key that is too old and one that is not.
func TestTheAuditorsPromQL(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is needed: install prometheus")
	}
	query := strings.TrimSpace(example(t, "audit.md", "rekeyd_key_max_age_seconds"))
	file := filepath.Join(t.TempDir(), "test.yaml")
	text := `evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'rekeyd_key_created_timestamp_seconds{policy="old"}', values: '0x20'}
      - {series: 'rekeyd_key_max_age_seconds{policy="old"}', values: '300x20'}
      - {series: 'rekeyd_key_created_timestamp_seconds{policy="new"}', values: '0x20'}
      - {series: 'rekeyd_key_max_age_seconds{policy="new"}', values: '3000x20'}
    promql_expr_test:
      - expr: '` + query + `'
        eval_time: 10m
        exp_samples: [{labels: '{policy="old"}', value: 600}]
`
	if err := os.WriteFile(file, bytes.TrimSpace([]byte(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// byAge returns keys in the order in which they were made.
func byAge(keys []elevensim.Key) []elevensim.Key {
	slices.SortFunc(keys, func(a, b elevensim.Key) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return keys
}
