package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// queries are the commands of docs/max-age.md, by the language of their block.
func queries(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/max-age.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		blocks[m[1]] = m[2]
	}
	return blocks
}

// TestTheAuditorsQueries runs what docs/max-age.md shows on what rekeyd really says, and on what would be a breach.
func TestTheAuditorsQueries(t *testing.T) {
	t.Parallel()
	w, d, old := cared(t, ", max_age: 30h")
	w.verb(0, "rotate", "tts-prod")
	status := w.verb(0, "status", "--json")
	ask := func(input string) string {
		cmd := exec.CommandContext(t.Context(), "jq", "-r", queries(t)["jq"])
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("jq: %v\n%s", err, out)
		}
		return string(out)
	}
	if got := ask(status); got != "" {
		t.Errorf("in order, and yet: %s", got)
	}
	for _, id := range []string{old, w.current()} {
		if !strings.Contains(status, id) {
			t.Errorf("the status lacks key %s", id)
		}
	}
	late := regexp.MustCompile(`("max_age_ends": ")[^"]*`).ReplaceAllString(status, "${1}2026-01-01T00:00:00Z")
	if got := ask(late); strings.Count(got, "tts-prod") != 2 || !strings.Contains(got, old) {
		t.Errorf("both enabled keys are too old: %q", got)
	}
	if got := ask(`{"policies": [], "unmanaged": []}`); got != "" {
		t.Errorf("no policies: %q", got)
	}
	w.auditable(t, d)
	d.end()
}

// auditable checks what the page says about the record.
func (w *world) auditable(t *testing.T, d *rekeyd) {
	t.Helper()
	record, _ := w.record()
	command := queries(t)["sh"]
	for _, field := range regexp.MustCompile(`-field=(\w+)`).FindAllStringSubmatch(command, -1) {
		if record[field[1]] == nil {
			t.Errorf("the record has no %s", field[1])
		}
	}
	for _, series := range regexp.MustCompile(`rekeyd_\w+`).FindAllString(queries(t)["promql"], -1) {
		if d.metric(series+`{policy="tts-prod"}`) == "" {
			t.Errorf("there is no %s", series)
		}
	}
}

// TestTheAuditorsPromQL has Prometheus evaluate the page's query for a key that is too old and one that is not.
func TestTheAuditorsPromQL(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is needed: install prometheus")
	}
	query := strings.TrimSpace(queries(t)["promql"])
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
