// Several replicas may run: a policy's state is taken from all of them, and the newest view counts. Every other label stays, so
// that policies of the same name in two clusters, namespaces or jobs are two.
{
  local c = $._config,
  local limits = c.alerts,
  local q = (import '../lib/promql.libsonnet')(c),

  // A policy's problem, as one replica at least sees it.
  local problem(reasons) = q.replicas('max', q.series('policy_problem', 'reason=~"%s"' % reasons), ['reason']),
  // The same within the last five minutes: a state can turn to "rotating" for the length of each retry.
  local lately(series) = 'max_over_time(%s[5m])' % series,
  local problemLately(reasons) = q.replicas('max', lately(q.series('policy_problem', 'reason=~"%s"' % reasons)), ['reason']),
  local state(s) = q.replicas('max', q.series('policy_state', 'state="%s"' % s), ['state']),

  // '10m' is 10 minutes, '1h' an hour, and 600 and 3600 seconds.
  local number(duration) = std.parseInt(duration[:std.length(duration) - 1]),
  local unit(duration) = { s: ['a ', 'second', 1], m: ['a ', 'minute', 60], h: ['an ', 'hour', 3600], d: ['a ', 'day', 86400] }[duration[std.length(duration) - 1]],
  local last(duration) = if number(duration) == 1 then unit(duration)[1] else '%d %ss' % [number(duration), unit(duration)[1]],
  local words(duration) = (if number(duration) == 1 then unit(duration)[0] else '') + last(duration),
  local seconds(duration) = number(duration) * unit(duration)[2],

  // What each alert of the configuration asks and says. In the words, %(lasted)s is how long it waits.
  local alerts = {
    // Where readers are cut off, another alert says so.
    RekeydRotationFailing: {
      expr: q.withInfo(|||
        %s == 1
        unless
        %s == 1
      ||| % [
        q.replicas('max', lately(q.series('policy_state', 'state=~"failing|error"')), ['state']),
        problemLately('key_disabled|trial_ended|subscription_downgrade|leak_storm|key_vanished'),
      ]),
      summary: 'rekeyd cannot rotate the key of policy {{ $labels.policy }}',
      description: 'Policy {{ $labels.policy }} has been failing or in error for at least %(lasted)s. rekeyd leaves the published key as it is. `rekeyd status {{ $labels.policy }}` says why.',
    },

    RekeydKeyTooOld: {
      expr: q.withInfo(|||
        time() - %s
          > %s
        unless
        %s == 1
      ||| % [
        q.replicas('max', q.series('key_created_timestamp_seconds')),
        q.replicas('max', q.series('key_max_age_seconds')),
        state('paused'),
      ]),
      summary: 'the key of policy {{ $labels.policy }} is older than its max_age',
      description: "The published key of policy {{ $labels.policy }} is {{ $value | humanizeDuration }} old, which is more than the policy's max_age.",
    },

    // The next rotation is +Inf where nothing will be due, so a paused or manual policy is never overdue.
    RekeydRotationOverdue: {
      expr: q.withInfo('time() - %s > %d' % [q.replicas('max', q.series('next_rotation_timestamp_seconds')), seconds(limits.RekeydRotationOverdue.after)]),
      summary: 'the rotation of policy {{ $labels.policy }} is overdue',
      description: 'The rotation of policy {{ $labels.policy }} was due {{ $value | humanizeDuration }} ago.',
    },

    // Before its ledger or record could be read, a policy is not known to have no key.
    RekeydNoFirstKey: {
      expr: q.withInfo(|||
        %s == 0
        unless
        %s == 1
        unless
        %s
      ||| % [q.replicas('max', q.series('keys', 'state="current"'), ['state']), state('paused'), problem('sink_.+|ledger_invalid')]),
      summary: 'policy {{ $labels.policy }} has no key',
      description: 'For at least %(lasted)s, rekeyd has neither made nor adopted a key for policy {{ $labels.policy }}, so its readers find nothing, or a value that rekeyd does not look after. `rekeyd status {{ $labels.policy }}` says why.',
    },

    // It goes on as the hour passes; many policies at the limit take longer.
    RekeydThrottled: {
      expr: q.withInfo('%s == 1' % state('throttled')),
      summary: 'the rotation of policy {{ $labels.policy }} waits for the hourly limit',
      description: 'The rotation of policy {{ $labels.policy }} has waited for at least %(lasted)s, since its workspace has used up REKEYD_MAX_ROTATIONS_PER_HOUR.',
    },

    // rekeyd has already ended a quarantine early where it could.
    RekeydKeyLimit: {
      expr: q.withInfo('%s == 1' % problemLately('key_limit')),
      summary: 'the service account of policy {{ $labels.policy }} has no room for another key',
      description: 'ElevenLabs refuses a new key for policy {{ $labels.policy }}, since its service account has as many as it may. The published key keeps working, and is not rotated before others are deleted.',
    },

    // Until a rotation finds room by itself. ElevenLabs does not say how near the limit is.
    RekeydKeyLimitNear: {
      expr: q.withInfo('%s == 1' % problem('key_limit_near')),
      summary: 'the service account of policy {{ $labels.policy }} had room for another key only once an old one was deleted early',
      description: 'The last rotation of policy {{ $labels.policy }} found its service account full. rekeyd deleted its oldest disabled key before the quarantine ended, and nothing else that it may delete is left, so the next rotation may fail.',
    },

    RekeydWorkspaceLimitNear: {
      local limit = limits.RekeydWorkspaceLimitNear,
      local keys = q.replicas('max', q.series('service_account_keys')),
      local near(expr, most) = if most == null then [] else ['%s >= %d <= %d' % [expr, std.ceil(limit.part * most), most]],
      expr: std.join('\nor\n', near('count without (service_account) (%s)' % keys, limit.accounts) + near(keys, limit.keys)),
      summary: 'workspace {{ $labels.workspace }} is near a limit of ElevenLabs',
      description: 'Workspace {{ $labels.workspace }} has {{ $value }} {{ with $labels.service_account }}keys in service account {{ . }}{{ else }}service accounts{{ end }}, and the limit is near.',
    },

    // A key can be disabled while rekeyd is down, so the alert looks at the time and not for an increase.
    RekeydKeyDisabled: {
      expr: q.withInfo(|||
        %s
        or
        %s == 1
      ||| % [
        problem('key_disabled|trial_ended|subscription_downgrade'),
        q.replicas('max', 'time() - %s < bool %d' % [q.series('key_disabled_timestamp_seconds'), seconds(limits.RekeydKeyDisabled.within)], ['reason']),
      ]),
      summary: 'the key of policy {{ $labels.policy }} was disabled by ElevenLabs or by a person',
      description: 'The published key of policy {{ $labels.policy }} is disabled, or was within the last %(within)s: readers of a disabled key are cut off. rekeyd replaces a leaked key by itself, which readers must read, and leaves alone one that a person disabled.',
    },

    RekeydLeakStorm: {
      expr: q.withInfo('%s == 1' % problem('leak_storm')),
      summary: 'the key of policy {{ $labels.policy }} leaks again and again, and its readers are cut off',
      description: 'ElevenLabs has disabled the published key of policy {{ $labels.policy }} after several leak rotations within an hour. Its readers are cut off, and rekeyd makes no further key before the leak is found: `rekeyd rotate {{ $labels.policy }}`.',
    },

    // rekeyd replaces a key that is proven to be gone; this one is not.
    RekeydKeyVanished: {
      expr: q.withInfo('%s == 1' % problemLately('key_vanished')),
      summary: 'the key of policy {{ $labels.policy }} is not listed any more, and its readers may be cut off',
      description: 'ElevenLabs does not list the published key of policy {{ $labels.policy }}, and nothing proves that it is gone. If it is, its readers are cut off until `rekeyd rotate {{ $labels.policy }}`.',
    },

    // One alert for a workspace, whatever number of policies it has.
    RekeydAdminKeyRefused: {
      expr: 'max without (%s) (\n  %s\n)' % [
        std.join(', ', ['policy'] + q.policyLabels),
        std.strReplace(q.withInfo('%s == 1' % problemLately('admin_key_refused|missing_permissions')), '\n', '\n  '),
      ],
      summary: 'ElevenLabs refuses the admin key of workspace {{ $labels.workspace }}',
      description: 'ElevenLabs refuses the admin key of workspace {{ $labels.workspace }}, or does not let it manage keys. None of its policies can rotate; published keys keep working.',
    },

    RekeydRecordChanged: {
      expr: q.withInfo('%s == 1' % problemLately('record_changed|sink_conflict')),
      summary: 'the record of policy {{ $labels.policy }} in Vault was changed outside rekeyd',
      description: 'The record of policy {{ $labels.policy }} in Vault holds a value that rekeyd did not write. rekeyd does not overwrite it: a person must decide.',
    },

    RekeydReplicasDisagree: {
      expr: q.withInfo('%s == 1' % problemLately('replicas_disagree')),
      summary: 'the replicas of rekeyd have different versions of policy {{ $labels.policy }}',
      description: 'The replicas of rekeyd have had different versions of policy {{ $labels.policy }} for at least %(lasted)s.',
    },

    // rekeyd says so in the last hour of an overlap, when every reader should have the new key.
    RekeydOldKeyInUse: {
      expr: q.withInfo('%s == 1' % problem('old_key_in_use')),
      summary: 'the old key of policy {{ $labels.policy }} is still in use, and its overlap ends within the hour',
      description: 'Something still uses an old key of policy {{ $labels.policy }}, which will be disabled within the hour unless the policy waits until it is idle. `rekeyd status {{ $labels.policy }}` says when.',
    },

    // A disabled key must be refused; the next rotation, or the end of the quarantine, does not wait for that.
    RekeydOldKeyAccepted: {
      expr: q.withInfo('%s == 1' % problem('still_accepted')),
      summary: 'ElevenLabs still accepts a disabled key of policy {{ $labels.policy }}',
      description: 'ElevenLabs has accepted a disabled key of policy {{ $labels.policy }} for at least %(lasted)s. `rekeyd status {{ $labels.policy }}` names it.',
    },

    // Until the key is deleted at the end of its quarantine. The file sink keeps no former secret to try, and does not alert.
    RekeydProofMissing: {
      expr: q.withInfo('%s == 1' % problem('proof_missing')),
      summary: 'nothing shows that ElevenLabs refuses a disabled key of policy {{ $labels.policy }}',
      description: 'A key of policy {{ $labels.policy }} has been disabled for at least %(lasted)s, and its secret could not be tried, or the answer was not clear. `rekeyd history {{ $labels.policy }}` says which.',
    },

    // The replica that retires the key knows first, the others when they read the ledger again: so all must say it.
    RekeydRetirementFailing: {
      expr: q.withInfo('%s == %s' % [
        q.replicas('count', q.series('policy_problem', 'reason="retire_failing"'), ['reason']),
        q.replicas('count', q.series('drift')),
      ]),
      summary: 'an old key of policy {{ $labels.policy }} cannot be disabled or deleted',
      description: 'rekeyd has failed at least twice in a row to disable or delete a key of policy {{ $labels.policy }}: an old one, or one that a failed rotation left behind. The published key is not affected.',
    },

    RekeydDrift: {
      expr: q.withInfo('%s > 0' % q.replicas('min', q.series('drift'))),
      summary: 'the settings of the key of policy {{ $labels.policy }} differ from the policy',
      description: '{{ $value }} settings of the key of policy {{ $labels.policy }} have differed from the policy for at least %(lasted)s. `rekeyd status {{ $labels.policy }}` names them.',
    },

    // A key that is being created is not lost, but a replica may list it before it reads the ledger again.
    RekeydLostKeys: {
      expr: q.withInfo('%s > 0' % q.replicas('min', q.series('keys', 'state="lost"'), ['state'])),
      summary: 'policy {{ $labels.policy }} has keys whose secret is stored nowhere',
      description: 'For at least %(lasted)s, policy {{ $labels.policy }} has had keys whose secret is stored nowhere (now {{ $value }}). The ledger does not know them, so rekeyd leaves them alone; `rekeyd prune {{ $labels.policy }}` lists and deletes them.',
    },

    RekeydReloadFailed: {
      expr: '%s == 0' % q.series('config_last_reload_successful'),
      summary: 'rekeyd at {{ $labels.instance }} could not load its policies',
      description: 'The policy file of rekeyd at {{ $labels.instance }} is wrong or cannot be read. The policies loaded before stay in force.',
    },

    // rekeyd asks once per REKEYD_RECONCILE_INTERVAL, whether anything is due or not. One replica that gets through is enough.
    RekeydSinkDown: {
      expr: '%s == 0' % q.replicas('max', q.series('sink_up')),
      summary: 'rekeyd cannot use Vault, so no policy rotates',
      description: 'For at least %(lasted)s, no replica of rekeyd could read its ledger: Vault is sealed, cannot be reached or refuses the token. No key rotates, and a leaked one is not replaced.',
    },

    RekeydWorkspaceDown: {
      expr: '%s == 0' % q.replicas('max', q.series('workspace_up')),
      summary: 'rekeyd cannot use workspace {{ $labels.workspace }}',
      description: 'For at least %(lasted)s, no replica of rekeyd could list workspace {{ $labels.workspace }}, so none of its policies can rotate.',
    },

    // A workspace that has not been listed since the start has no such time; there the start counts.
    RekeydLoopStalled: {
      local listed = q.replicas('max', q.series('last_reconcile_timestamp_seconds')),
      expr: |||
        time() - %(listed)s > %(after)d
        or
        (
          time() - %(started)s > %(after)d
          unless
          %(listed)s
        )
      ||| % {
        after: seconds(limits.RekeydLoopStalled.after),
        listed: listed,
        started: q.replicas('max', q.series('lost_keys_deleted_total') + ' * 0 + ignoring (workspace) group_left () process_start_time_seconds'),
      },
      summary: 'no replica of rekeyd has listed workspace {{ $labels.workspace }} for %(after)s',
      description: 'Workspace {{ $labels.workspace }} has not been listed for {{ $value | humanizeDuration }}, so none of its policies can rotate.',
    },

    // Each host has its own clock.
    RekeydClockSkew: {
      expr: 'abs(%s) > %d' % [q.series('clock_skew_seconds'), seconds(limits.RekeydClockSkew.after)],
      summary: 'the clock of rekeyd at {{ $labels.instance }} is wrong',
      description: "The clock of rekeyd's host at {{ $labels.instance }} differs from that of {{ $labels.target }} by {{ $value | humanizeDuration }}. While it differs from both ElevenLabs and Vault by more than five minutes, this instance begins no scheduled rotation.",
    },

    RekeydEventsNotDelivered: {
      expr: '%s > 0' % q.replicas('sum', 'increase(%s[%s])' % [q.series('events_total', 'result=~"failed|dropped"'), limits.RekeydEventsNotDelivered.within], ['result']),
      summary: 'rekeyd cannot deliver events',
      description: 'Within the last %(within)s, events could not be delivered to REKEYD_EVENTS_URL, or were dropped from a full queue. They are not sent again.',
    },

    // rekeyd renews its token at about two thirds of its remaining life: one that has not moved for U has at least
    // 0.4 U left, unless renewing fails. Hence two minutes for any token, a quarter of an hour for one that has not
    // moved for 45 minutes, a day for one that has not moved for three.
    RekeydVaultTokenEnding: {
      local expiry = q.series('vault_token_expiry_timestamp_seconds'),
      local unmoved(left, since) =
        '(\n  %(e)s - time() < %(left)d\n  and abs(%(e)s - %(e)s offset %(since)s) < 60\n)' % { e: expiry, left: left, since: since },
      expr: '%s - time() < 120\nor\n%s\nor\n%s\n' % [expiry, unmoved(900, '45m'), unmoved(86400, '3d')],
      summary: 'the Vault token of rekeyd at {{ $labels.instance }} is about to end',
      description: 'The Vault token of rekeyd at {{ $labels.instance }} ends in {{ $value | humanizeDuration }} and is not being renewed. Without it no policy can rotate.',
    },

    // One replica is enough, so it counts when none is left. absent() also sees that all targets are gone.
    RekeydDown: {
      expr: |||
        %s == 0
        or
        absent(up{%s})
      ||| % [q.replicas('max', 'up{%s}' % c.jobSelector), c.jobSelector],
      summary: 'no rekeyd is running, so no policy rotates',
      description: 'Prometheus has reached no instance of rekeyd for %(lasted)s. Published keys keep working, but none is rotated or retired.',
    },
  },

  local alert(name) = {
    local limit = limits[name],
    local text = alerts[name],
    local said = {
      lasted: words(limit['for']),
      after: words(limit.after),
      within: last(limit.within),
    },
    alert: name,
    expr: std.rstripChars(text.expr, '\n') + '\n',
    'for': limit['for'],
    labels: { severity: limit.severity },
    annotations: {
      summary: text.summary % said,
      description: text.description % said,
      runbook_url: c.runbookURLPattern % std.asciiLower(name),
    },
  },

  prometheusAlerts+:: {
    groups+: [{
      name: 'rekeyd',
      rules: [alert(name) for name in std.objectFields(limits) if limits[name] != null],
    }],
  },
}
