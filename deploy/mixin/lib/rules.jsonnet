// Rules and alerts in one file, as Prometheus loads it.
local mixin = import '../mixin.libsonnet';

'# Made by make mixin from deploy/mixin, which says why, and which has what can be configured.\n' +
std.manifestYamlDoc({ groups: mixin.prometheusRules.groups + mixin.prometheusAlerts.groups }, quote_keys=false) + '\n'
