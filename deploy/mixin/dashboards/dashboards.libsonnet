// An overview (are all keys healthy, what is due, what is old), a view of policies, the remote services, the daemon. What is
// counted is counted within an installation: each has its own line, tile or row.
{
  local c = $._config,
  local q = (import '../lib/promql.libsonnet')(c),
  local g = (import '../lib/grafana.libsonnet')(c),

  // What is selected at the top: of installations, of their policies, of their workspaces.
  local chosen = std.join(', ', ['%s=~"$%s"' % [l, l] for l in c.installationLabels]),
  local chosenPolicies = chosen + ', policy=~"$policy"',
  local chosenInfo = std.join(', ', [chosenPolicies, 'workspace=~"$workspace"'] + ['label_%s=~"$%s"' % [l, l] for l in c.policyLabels]),
  local all(name, matchers='') = q.series(name, std.join(', ', [chosen] + std.filter(function(m) m != '', [matchers]))),

  // A policy's series, as the replicas see it; of the chosen workspaces and teams, which only rekeyd_policy_info knows.
  local policies(name, matchers='', also=[], op='max') =
    '%s and on (%s) %s' % [
      q.replicas(op, q.series(name, std.join(', ', [chosenPolicies] + std.filter(function(m) m != '', [matchers]))), also),
      q.policyKey,
      q.series('policy_info', chosenInfo),
    ],
  local count(expr) = 'sum without (policy) (%s)' % expr,
  local inState(states) = count(policies('policy_state', 'state=~"%s"' % states, ['state'])),
  local age = 'time() - (%s)' % policies('key_created_timestamp_seconds'),
  local part = '(%s) / on (%s) group_left () (%s)' % [age, q.policyKey, q.replicas('max', q.series('key_max_age_seconds', chosenPolicies))],

  local installation = g.legend(c.installationLabels),
  local policy = g.legend(c.installationLabels + ['policy']),

  local overview = [
    g.stat('Policies', 'Policies in force.', 'count without (policy) (%s)' % policies('policy_state', 'state="ok"', ['state']), installation, 'none', 4) +
    g.runbook('RekeydReloadFailed'),
    g.stat('In trouble', 'Policies that are failing or need a decision.', inState('failing|error'), installation, 'none', 4) +
    g.from('red', 1) + g.runbook('RekeydRotationFailing'),
    g.stat('Due', 'Policies that are due, being rotated, or wait for the hourly limit.', inState('due|rotating|throttled'), installation, 'none', 4) +
    g.runbook('RekeydRotationOverdue'),
    g.stat('Oldest key', 'Age of the oldest published key.', 'max without (policy) (%s)' % age, installation, 's', 4) +
    g.runbook('RekeydKeyTooOld'),
    g.gauge('Oldest key against its limit', 'Age of a key as a part of its max_age, of the policy that is nearest to it. At 100 % an alert fires.', 'max without (policy) (%s)' % part, installation, 'percentunit', 4) +
    g.from('orange', 0.9) + g.from('red', 1) + g.runbook('RekeydKeyTooOld'),
    g.stat('Vault', 'Whether rekeyd can use it, so far as any replica can.', q.replicas('max', all('sink_up')), installation, 'bool_on_off', 4) +
    g.below('red', 1) + g.runbook('RekeydSinkDown'),
    g.timeseries('Policies by state', 'How many policies are in each state. failing and error need attention, error a decision.', count(policies('policy_state')), installation + ' {{state}}', 'none', 12),
    g.timeseries('Failures in the last hour', 'Of all policies, rotations and retirements alike, by stage and reason.', 'sum without (%s) (increase(%s[1h])) > 0' % [std.join(', ', c.replicaLabels), all('rotation_failures_total')], installation + ' {{stage}} {{reason}}', 'none', 12) +
    g.runbook('RekeydRotationFailing'),
    g.table('Problems', 'Each policy in trouble, and why. The runbook says what to do.', policies('policy_problem'), 'none', 8) +
    g.runbook('RekeydRotationFailing'),
    g.table('Next rotations', 'When each policy is due. One for which nothing will be due (paused, manual) is not shown.', '(%s) * 1000 < Inf' % policies('next_rotation_timestamp_seconds'), 'dateTimeFromNow', 8, ascending=true) +
    g.runbook('RekeydRotationOverdue'),
    g.table('Key age as a part of max_age', 'Oldest first. A policy without max_age is not shown.', part, 'percentunit', 8) +
    g.from('orange', 0.9) + g.from('red', 1) + g.runbook('RekeydKeyTooOld'),
  ],

  local view = [
    g.table('Policy', 'Where keys and records are, and the labels.', q.series('policy_info', chosenInfo), 'none', 24, 5) +
    g.runbook('RekeydRotationFailing'),
    g.timeline('State', 'The state that each policy was in.', '(%s) == 1' % policies('policy_state'), policy + ' {{state}}', 12) +
    g.runbook('RekeydRotationFailing'),
    g.timeseries('Key age and limit', "Age of the published key, and the policy's max_age where it has one.", age, policy, 's', 12) +
    g.also(policies('key_max_age_seconds'), policy + ' max_age') + g.runbook('RekeydKeyTooOld'),
    g.timeseries('Rotations in the last hour', 'By result, as counted by the processes that run now.', 'increase(%s[1h])' % q.series('rotations_total', chosenPolicies) + ' and on (%s) %s' % [q.policyKey, q.series('policy_info', chosenInfo)], policy + ' {{result}} {{instance}}', 'none', 12) +
    g.runbook('RekeydRotationFailing'),
    g.timeseries('Keys', 'current and overlap are enabled, quarantine is disabled. The secret of a lost key is stored nowhere.', policies('keys', 'state!="foreign"'), policy + ' {{state}}', 'none', 12) +
    g.runbook('RekeydLostKeys'),
    g.timeseries('Old key in use', '1 while something still uses an old key. It should be 0 before the overlap ends.', policies('retiring_key_in_use'), policy, 'none', 8) +
    g.runbook('RekeydOldKeyInUse'),
    g.timeseries('Drift', 'Settings of the published key that differ from the policy. 0 is good; rekeyd status names them.', policies('drift', op='min'), policy, 'none', 8) +
    g.runbook('RekeydDrift'),
    g.timeseries('Disabled keys', 'How long ago a published key was last seen disabled by ElevenLabs or by a person, and why.', 'time() - (%s)' % policies('key_disabled_timestamp_seconds'), policy + ' {{reason}}', 's', 8) +
    g.runbook('RekeydKeyDisabled'),
  ],

  local remotes = [
    g.timeseries('Requests', 'To ElevenLabs and Vault, by status code. error means that there was no answer.', 'sum without (%s) (rate(%s[$__rate_interval]))' % [std.join(', ', c.replicaLabels + ['operation']), all('requests_total')], installation + ' {{target}} {{code}}', 'reqps', 8),
    g.timeseries('Request time, 99th percentile', 'How long ElevenLabs and Vault take to answer.', 'histogram_quantile(0.99, sum without (%s) (rate(%s[$__rate_interval])))' % [std.join(', ', c.replicaLabels + ['operation', 'code']), all('request_duration_seconds_bucket')], installation + ' {{target}}', 's', 8),
    g.timeseries('Clock skew', "How far each instance's clock is ahead of the remotes.", all('clock_skew_seconds'), '{{instance}} {{target}}', 's', 8) +
    g.runbook('RekeydClockSkew'),
    g.stat('Workspaces', 'Whether each can be used, so far as any replica can.', q.replicas('max', all('workspace_up', 'workspace=~"$workspace"')), installation + ' {{workspace}}', 'bool_on_off', 6) +
    g.below('red', 1) + g.runbook('RekeydWorkspaceDown'),
    g.stat('Last listing', 'How long ago each workspace was listed, by any replica.', 'time() - ' + q.replicas('max', all('last_reconcile_timestamp_seconds', 'workspace=~"$workspace"')), installation + ' {{workspace}}', 's', 6) +
    g.from('orange', 600) + g.from('red', 1800) + g.runbook('RekeydLoopStalled'),
    g.stat('Time left of the Vault token', 'Of each instance. A token that never ends is not shown.', '(%s < Inf) - time()' % all('vault_token_expiry_timestamp_seconds'), '{{instance}}', 's', 6) +
    g.below('red', 120) + g.runbook('RekeydVaultTokenEnding'),
    g.timeseries('Events in the last hour', 'For REKEYD_EVENTS_URL, by result.', 'sum without (%s) (increase(%s[1h]))' % [std.join(', ', c.replicaLabels), all('events_total')], installation + ' {{result}}', 'none', 6) +
    g.runbook('RekeydEventsNotDelivered'),
  ],

  local daemon = [
    g.stat('Policies loaded', 'How long ago each instance loaded the policies that are in force.', 'time() - ' + all('config_last_reload_success_timestamp_seconds'), '{{instance}}', 's', 6) +
    g.runbook('RekeydReloadFailed'),
    g.timeseries('Rotation time, 95th percentile', 'From the claim to the commit or the failure.', 'histogram_quantile(0.95, sum without (%s) (increase(%s[1h])))' % [std.join(', ', c.replicaLabels), all('rotation_duration_seconds_bucket')], installation + ' {{result}}', 's', 6),
    g.timeseries('Memory', 'Resident memory of each instance.', 'process_resident_memory_bytes{%s, %s}' % [c.jobSelector, chosen], '{{instance}}', 'bytes', 6),
    g.timeseries('CPU', 'Cores that each instance uses.', 'rate(process_cpu_seconds_total{%s, %s}[$__rate_interval])' % [c.jobSelector, chosen], '{{instance}}', 'none', 6),
  ],

  grafanaDashboards+:: {
    'rekeyd.json': {
      uid: c.dashboard.uid,
      title: c.dashboard.title,
      description: 'Rotation of ElevenLabs API keys: what is healthy, due, old, and in trouble.',
      tags: c.dashboard.tags,
      timezone: 'browser',
      schemaVersion: 39,
      editable: true,
      graphTooltip: 1,
      refresh: c.dashboard.refresh,
      time: { from: c.dashboard.from, to: 'now' },
      links: [g.link('Runbook', std.split(c.runbookURLPattern, '#')[0])],
      annotations: {
        list: [
          g.annotation('Rotations', 'green', policies('last_rotation_timestamp_seconds'), policy + ' rotated'),
          g.annotation('Leaks and disabled keys', 'red', policies('key_disabled_timestamp_seconds'), policy + ' {{reason}}'),
        ],
      },
      templating: {
        list: [g.datasource] + [
          local before = c.installationLabels[:i];
          g.variable(c.installationLabels[i], q.series('build_info', std.join(', ', ['%s=~"$%s"' % [l, l] for l in before])), c.installationLabels[i])
          for i in std.range(0, std.length(c.installationLabels) - 1)
        ] + [
          g.variable('workspace', all('policy_info'), 'workspace'),
        ] + [
          g.variable(l, all('policy_info', 'workspace=~"$workspace"'), 'label_' + l)
          for l in c.policyLabels
        ] + [
          g.variable('policy', q.series('policy_info', std.join(', ', [chosen, 'workspace=~"$workspace"'] + ['label_%s=~"$%s"' % [l, l] for l in c.policyLabels])), 'policy'),
        ],
      },
      panels: g.rows([['Overview', overview], ['Each policy', view], ['Remote services', remotes], ['Daemon', daemon]]),
    },
  },
}
