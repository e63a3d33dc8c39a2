#!/usr/bin/env bash
# Checks what Prometheus, Alertmanager and Grafana are given: the scrape configuration, the alerts and their tests, the
# inhibitions, and that each query of the dashboard can be parsed. Needs promtool, amtool and jq.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in promtool amtool jq; do
  command -v "$tool" >/dev/null || { echo "check.sh: $tool is not installed" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

promtool check config deploy/prometheus/prometheus.yml
promtool test rules deploy/prometheus/alerts_test.yaml
amtool check-config deploy/prometheus/alertmanager.yml deploy/prometheus/alertmanager-*.yaml

# promtool reads queries in rules only.
jq '{groups: [{name: "dashboard", rules: [[(.panels[].targets[]?, .annotations.list[]).expr] | to_entries[]
  | {record: "panel:query\(.key)", expr: .value | gsub("\\$__rate_interval"; "5m")}]}]}' \
  deploy/grafana/rekeyd.json >"$work/dashboard.yaml"
promtool check rules "$work/dashboard.yaml"
