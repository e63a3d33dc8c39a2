{
  local c = $._config,
  local q = (import '../lib/promql.libsonnet')(c),
  local info = std.join(', ', q.infoLabels),
  local target = std.join(', ', c.installationLabels + c.replicaLabels + ['policy']),

  prometheusRules+:: {
    groups+: [{
      name: 'rekeyd.rules',
      rules: [{
        // The workspace of each policy, for which alertmanager.yml inhibits, and the labels that alerts carry; those of most
        // replicas, if they disagree. They are joined to another series of the same policy and target, which lacks the policy's
        // other labels and has every label of the target. Where targets of two installations differ in labels that are not
        // configured only, and say different things of a policy, its alerts have neither: whose they are is not known.
        record: 'rekeyd:policy_info',
        expr: |||
          topk without (%(info)s) (1, count without (%(replicas)s) (
            %(any)s
              * on (%(target)s) group_left (%(info)s)
            topk by (%(target)s) (1, %(series)s)
            unless on (%(target)s)
            count by (%(target)s) (count by (%(target)s, %(info)s) (%(series)s)) > 1
            or on (%(target)s)
            %(any)s
          )) > bool 0
        ||| % {
          any: q.series('retiring_key_in_use'),
          info: info,
          replicas: std.join(', ', c.replicaLabels),
          series: q.series('policy_info'),
          target: target,
        },
      }],
    }],
  },
}
