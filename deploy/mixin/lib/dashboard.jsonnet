std.manifestJsonEx((import '../mixin.libsonnet').grafanaDashboards['rekeyd.json'], '  ') + '\n'
