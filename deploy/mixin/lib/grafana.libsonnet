// Pieces of a Grafana dashboard, for a configuration.
function(c) {
  local datasource = { type: 'prometheus', uid: '${datasource}' },
  local query(expr, legend, more) = { datasource: datasource, expr: expr, legendFormat: legend } + more,
  local instant = { instant: true },

  local panel(type, title, description, unit, w, h, targets) = {
    type: type,
    title: title,
    description: description,
    datasource: datasource,
    gridPos: { w: w, h: h },
    fieldConfig: { defaults: { unit: unit, noValue: 'none' }, overrides: [] },
    targets: [targets[i] { refId: std.char(65 + i) } for i in std.range(0, std.length(targets) - 1)],
  },
  local threshold(color, value) = { fieldConfig+: { defaults+: { thresholds+: { steps+: [{ color: color, value: value }] } } } },
  local green = { fieldConfig+: { defaults+: { color: { mode: 'thresholds' }, thresholds: { mode: 'absolute', steps: [{ color: 'green', value: null }] } } } },
  local last = { calcs: ['lastNotNull'], values: false, fields: '' },

  legend(labels):: std.join(' ', ['{{%s}}' % l for l in labels]),

  stat(title, description, expr, legend, unit, w):: panel('stat', title, description, unit, w, 5, [query(expr, legend, instant)]) + green + {
    options: {
      graphMode: 'none',
      colorMode: 'value',
      justifyMode: 'auto',
      textMode: 'auto',
      wideLayout: true,
      showPercentChange: false,
      percentChangeColorMode: 'standard',
      orientation: 'auto',
      reduceOptions: last,
    },
  },

  gauge(title, description, expr, legend, unit, w):: panel('gauge', title, description, unit, w, 5, [query(expr, legend, instant)]) + green + {
    fieldConfig+: { defaults+: { min: 0, max: 1 } },
    options: { showThresholdLabels: false, showThresholdMarkers: true, sizing: 'auto', minVizWidth: 75, minVizHeight: 75, orientation: 'auto', reduceOptions: last },
  },

  timeseries(title, description, expr, legend, unit, w):: panel('timeseries', title, description, unit, w, 8, [query(expr, legend, {})]) + {
    options: {
      legend: { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] },
      tooltip: { mode: 'multi', sort: 'desc' },
    },
  },

  timeline(title, description, expr, legend, w):: panel('state-timeline', title, description, 'none', w, 8, [query(expr, legend, {})]) + {
    options: {
      showValue: 'never',
      rowHeight: 0.9,
      mergeValues: true,
      legend: { displayMode: 'list', placement: 'bottom', showLegend: false, calcs: [] },
      tooltip: { mode: 'single', sort: 'none' },
    },
  },

  table(title, description, expr, unit, w, h=8, ascending=false):: panel('table', title, description, unit, w, h, [query(expr, '', instant { format: 'table' })]) + green + {
    options: { frameIndex: 0, showHeader: true, cellHeight: 'sm', sortBy: [{ displayName: 'Value', desc: !ascending }] },
    transformations: [{ id: 'organize', options: { excludeByName: { Time: true, __name__: true } } }],
  },

  // From a value on, the colour; or below it, and green from there on.
  from(color, value):: threshold(color, value),
  below(color, value):: { fieldConfig+: { defaults+: { color: { mode: 'thresholds' }, thresholds: { mode: 'absolute', steps: [{ color: color, value: null }, { color: 'green', value: value }] } } } },

  // One more query of the same panel.
  also(expr, legend):: { targets+: [query(expr, legend, { refId: 'B' })] },

  link(title, url):: {
    title: title,
    url: url,
    type: 'link',
    icon: 'external link',
    tooltip: title,
    tags: [],
    asDropdown: false,
    targetBlank: true,
    includeVars: false,
    keepTime: false,
  },
  runbook(alert):: { links: [$.link('Runbook', c.runbookURLPattern % std.asciiLower(alert))] },

  annotation(name, color, expr, text):: {
    name: name,
    datasource: datasource,
    enable: true,
    iconColor: color,
    expr: '(%s) * 1000' % expr,
    useValueForTime: true,
    step: '1m',
    titleFormat: name,
    textFormat: text,
  },

  datasource:: {
    name: 'datasource',
    label: 'Data source',
    type: 'datasource',
    query: 'prometheus',
    regex: c.dashboard.datasourceRegex,
    current: { text: c.dashboard.datasource, value: c.dashboard.datasource },
  },

  variable(name, series, label):: {
    name: name,
    label: std.asciiUpper(name[0]) + name[1:],
    type: 'query',
    datasource: datasource,
    query: { query: 'label_values(%s, %s)' % [series, label], refId: name },
    includeAll: true,
    multi: true,
    allValue: '.*',
    current: { text: 'All', value: '$__all' },
    refresh: 2,
    sort: 1,
  },

  // Places panels from left to right and from top to bottom, and numbers them.
  rows(all)::
    local place(state, panel) =
      local wraps = state.x + panel.gridPos.w > 24;
      local x = if wraps then 0 else state.x;
      local y = if wraps then state.y + state.h else state.y;
      {
        x: x + panel.gridPos.w,
        y: y,
        h: panel.gridPos.h,
        panels: state.panels + [panel { id: std.length(state.panels) + 1, gridPos+: { x: x, y: y } }],
      };
    local header(title) = { type: 'row', title: title, collapsed: false, panels: [], gridPos: { w: 24, h: 1 } };
    std.foldl(place, std.flattenArrays([[header(row[0])] + row[1] for row in all]), { x: 0, y: 0, h: 0, panels: [] }).panels,
}
