package config

import (
	"slices"

	"github.com/rekeyd/rekeyd/rotator/plan"
)

// adminPlace is the field of a record that holds a workspace's admin key.
type adminPlace struct {
	workspace *workspace
	field     string
}

const manageAccounts = "service_account_write"

// adminKey detects a policy that publishes where a workspace reads its admin key, and refuses settings that would leave
// that workspace without a working one.
func (l *loader) adminKey(p *policy, out *plan.Policy) {
	places := l.adminKeys[out.Sink.String()]
	if len(places) == 0 {
		return
	}
	place, prefix := places[0], p.prefix()
	for _, other := range places[1:] {
		if other.field == place.field {
			l.fault(p.Sink.Path.node, "%ssink.path is %s, where both %s and %s read their admin key; give each workspace its own path", prefix, quote(out.Sink.String()), place.workspace.Who, other.workspace.Who)
			return
		}
	}
	if i := slices.IndexFunc(places, func(a adminPlace) bool { return a.field == out.Sink.Field }); i >= 0 {
		place = places[i]
	}
	where := "sink " + quote(out.Sink.String()) + " is where " + place.workspace.Who + " reads its admin key"
	if place.field != out.Sink.Field {
		l.fault(p.Sink.Field.where(p.Sink.Path.node), "%ssink.field is %s, but %s, from another field; write that of its api_key.vault, or another path", prefix, quote(out.Sink.Field), where)
		return
	}
	out.AdminOf = place.workspace.Name.Value
	if out.Workspace != out.AdminOf {
		l.fault(p.Workspace.where(p.Node), "%sworkspace is %s, but %s; write workspace: %s, or another path", prefix, quote(out.Workspace), where, out.AdminOf)
	}
	if !out.Verify {
		l.fault(p.Verify.where(p.Node), "%sverify is \"off\", but %s; write auto", prefix, where)
	}
	if s := out.Settings.Permissions; p.Permissions.given() && !s.All && !slices.Contains(s.Names, manageAccounts) {
		l.fault(p.Permissions.where(p.Node), "%spermissions is %q, without %s, but %s; add %s, or write all", prefix, s.Names, manageAccounts, where, manageAccounts)
	}
}

// adminOverlap requires an overlap in which every replica reads the new admin key.
func (l *loader) adminOverlap(p *policy, out *plan.Policy) {
	if least := 2 * l.env.ReconcileInterval; out.AdminOf != "" && out.Overlap < least {
		l.fault(p.Overlap.where(p.Node), "%soverlap is %s, but this is the admin key of workspace %s, and REKEYD_RECONCILE_INTERVAL is %s; write an overlap of at least %s, in which every replica reads the new key",
			p.prefix(), FormatDuration(out.Overlap), out.AdminOf, FormatDuration(l.env.ReconcileInterval), FormatDuration(least))
	}
}
