// Pieces of PromQL, for a configuration.
function(c) {
  local join(all) = std.join(', ', std.filter(function(s) s != '', all)),

  // One of rekeyd's series, by its name without the prefix.
  series(name, matchers=''):: 'rekeyd_' + name + (local m = join([c.rekeydSelector, matchers]); if m == '' then '' else '{%s}' % m),

  // What becomes of the replicas of an installation: one series, without these labels either.
  replicas(op, expr, also=[]):: '%s without (%s) (%s)' % [op, join(c.replicaLabels + also), expr],

  // What identifies a policy among all that Prometheus knows.
  policyKey:: join(c.installationLabels + ['policy']),

  policyLabels:: ['label_' + l for l in c.policyLabels],

  // Gives a policy's series its workspace and its labels.
  infoLabels:: ['workspace'] + self.policyLabels,
  withInfo(expr)::
    '(\n  %s\n) * ignoring (%s) group_left (%s) rekeyd:policy_info' %
    [std.strReplace(std.rstripChars(expr, '\n'), '\n', '\n  '), join(self.infoLabels), join(self.infoLabels)],
}
