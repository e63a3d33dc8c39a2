{
  _config+:: {
    // Of rekeyd's series, beside their names; as in 'cluster="prod"'. Empty: all.
    rekeydSelector: '',

    // Of the scrape, for what rekeyd does not say itself: that it is up, its memory and its CPU.
    jobSelector: 'job="rekeyd"',

    // What replicas of one installation differ in. All other labels stay on the alerts.
    replicaLabels: ['instance', 'pod'],

    // What the dashboard tells installations apart by, and policies of the same name with them. Add what else your Prometheus sets.
    installationLabels: ['cluster', 'namespace', 'job'],

    // Labels of policies that alerts carry, so that Alertmanager can route by them. An alert of a policy without such a label
    // has none.
    policyLabels: ['team'],

    // Where a person reads what to do; %s is the alert's name in lower case.
    runbookURLPattern: 'https://github.com/rekeyd/rekeyd/blob/main/docs/runbook.md#%s',

    // How long each alert waits, its severity, and what it compares with, each duration with one unit. An alert that is null is
    // left out.
    alerts: {
      RekeydRotationFailing: { 'for': '10m', severity: 'warning' },
      RekeydKeyTooOld: { 'for': '5m', severity: 'critical' },
      RekeydRotationOverdue: { 'for': '10m', severity: 'warning', after: '30m' },
      RekeydNoFirstKey: { 'for': '15m', severity: 'warning' },
      RekeydThrottled: { 'for': '30m', severity: 'warning' },
      RekeydKeyLimit: { 'for': '5m', severity: 'warning' },
      RekeydKeyLimitNear: { 'for': '5m', severity: 'warning' },
      // Of a workspace, and of a service account; null is no limit. A workspace has 20 service accounts by default and up to 100 on
      // request; one that has more than the limit evidently has a higher one. ElevenLabs publishes no limit of the keys of a
      // service account.
      RekeydWorkspaceLimitNear: { 'for': '1h', severity: 'warning', part: 0.9, accounts: 20, keys: null },
      RekeydKeyDisabled: { 'for': '2m', severity: 'critical', within: '1h' },
      RekeydLeakStorm: { 'for': '1m', severity: 'critical' },
      RekeydKeyVanished: { 'for': '5m', severity: 'critical' },
      RekeydAdminKeyRefused: { 'for': '5m', severity: 'critical' },
      RekeydRecordChanged: { 'for': '5m', severity: 'critical' },
      RekeydReplicasDisagree: { 'for': '10m', severity: 'warning' },
      RekeydOldKeyInUse: { 'for': '5m', severity: 'warning' },
      RekeydOldKeyAccepted: { 'for': '1h', severity: 'warning' },
      RekeydProofMissing: { 'for': '1h', severity: 'warning' },
      RekeydRetirementFailing: { 'for': '10m', severity: 'warning' },
      RekeydDrift: { 'for': '15m', severity: 'warning' },
      RekeydLostKeys: { 'for': '30m', severity: 'warning' },
      RekeydReloadFailed: { 'for': '5m', severity: 'warning' },
      RekeydSinkDown: { 'for': '5m', severity: 'critical' },
      RekeydWorkspaceDown: { 'for': '10m', severity: 'warning' },
      // Longer than any sensible REKEYD_RECONCILE_INTERVAL; raise it with that.
      RekeydLoopStalled: { 'for': '5m', severity: 'critical', after: '30m' },
      // rekeyd begins no scheduled rotation at five minutes.
      RekeydClockSkew: { 'for': '5m', severity: 'warning', after: '2m' },
      RekeydEventsNotDelivered: { 'for': '1m', severity: 'warning', within: '15m' },
      RekeydVaultTokenEnding: { 'for': '1m', severity: 'critical' },
      RekeydDown: { 'for': '10m', severity: 'critical' },
    },

    dashboard: {
      uid: 'rekeyd',
      title: 'rekeyd',
      tags: ['rekeyd-mixin'],
      // The data source that is chosen at first: all that match.
      datasource: 'default',
      datasourceRegex: '',
      refresh: '1m',
      from: 'now-6h',
    },
  },
}
