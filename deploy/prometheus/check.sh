#!/usr/bin/env bash
# Checks what Prometheus and Grafana are given: the scrape configuration, the alerts and their tests, that each alert
# has its page in the runbook, and that each query of the dashboard can be parsed. Needs promtool and jq.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in promtool jq; do
  command -v "$tool" >/dev/null || { echo "check.sh: $tool is not installed" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

promtool check config deploy/prometheus/prometheus.yml
promtool test rules deploy/prometheus/alerts_test.yaml

# An anchor of the runbook is its heading in lower case.
sed -n 's/^ *runbook_url: .*\/\(docs\/runbook\.md#.*\)/\1/p' deploy/prometheus/alerts.yaml >"$work/urls"
alerts=$(grep -c -e '- alert:' deploy/prometheus/alerts.yaml)
[ "$(wc -l <"$work/urls")" -eq "$alerts" ] || { echo "check.sh: not every alert has a runbook_url" >&2; exit 1; }
while IFS='#' read -r page anchor; do
  grep -qix "## $anchor" "$page" || { echo "check.sh: $page has no heading $anchor" >&2; exit 1; }
done <"$work/urls"

# promtool reads queries in rules only.
jq '{groups: [{name: "dashboard", rules: [[.panels[].targets[]?.expr] | to_entries[] | {record: "panel:query\(.key)", expr: .value}]}]}' \
  deploy/grafana/rekeyd.json >"$work/dashboard.yaml"
promtool check rules "$work/dashboard.yaml"
