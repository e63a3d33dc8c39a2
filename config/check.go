package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// resolve applies the defaults of a sink.
func (s sink) resolve() ledger.Sink {
	return ledger.Sink{Ref: ledger.Ref{Mount: s.Mount.or("secret"), Path: s.Path.Value}, Field: s.Field.or("api_key")}
}

// sink checks where a policy publishes. Mounts may nest, so paths are compared together with their mount.
func (l *loader) sink(p *policy, out *plan.Policy) {
	ref := out.Sink
	if !p.Sink.Path.given() {
		return
	}
	full, ledger := ref.String(), l.env.Ledger().String()
	if full == ledger || strings.HasPrefix(full, ledger+"/") {
		l.fault(p.Sink.Path.node, "%ssink.path is %s, which is under the ledger's prefix %s; write another path, or move the ledger with REKEYD_LEDGER_PATH", p.prefix(), quote(full), quote(ledger))
	}
	l.adminKey(p, out)
	if rest := withoutAdded(ref.Ref); rest != ref.Path {
		l.warn(p, p.Sink.Path, "sink.path is %s, but Vault adds %s itself; write %s if you mean that record", quote(ref.Path), strings.TrimSuffix(ref.Path, rest), quote(rest))
	}
	l.unique(l.sinks, p.Sink.Path, "sink.path", full, p)
}

// withoutAdded is the path without what Vault's API has before it, as in secret/data/PATH.
func withoutAdded(ref ledger.Ref) string {
	for rest := ref.Path; ; {
		before := rest
		for _, added := range []string{"data/", "metadata/", ref.Mount + "/"} {
			rest = strings.TrimPrefix(rest, added)
		}
		if rest == before {
			return rest
		}
	}
}

func (l *loader) warn(p *policy, at at[string], format string, args ...any) {
	n := at.where(p.Node)
	l.config.Warnings = append(l.config.Warnings, Fault{l.file, n.Line, n.Column, p.prefix() + fmt.Sprintf(format, args...)})
}

// prefixes turns addresses into ranges, without duplicates.
func (l *loader) prefixes(p *policy) []netip.Prefix {
	var out []netip.Prefix
	seen := map[netip.Prefix]bool{}
	for _, text := range p.AllowedIPs.Value {
		if l.full() {
			break
		}
		prefix, flaw := parsePrefix(text.Value)
		switch {
		case flaw != "":
			l.fault(text.node, "%sallowed_ips holds %s, which %s", p.prefix(), quote(text.Value), flaw)
		case !seen[prefix]:
			seen[prefix] = true
			out = append(out, prefix)
		}
	}
	return out
}

const maxProbes = 10

// probes checks the paths to probe, and drops duplicates.
func (l *loader) probes(p *policy) []string {
	var out []string
	for _, path := range p.Probes.Value {
		switch {
		case strings.Contains(path.Value, ".."):
			l.fault(path.node, "%sprobes holds %s, which has ..; write the whole path", p.prefix(), quote(path.Value))
		case !slices.Contains(out, path.Value):
			out = append(out, path.Value)
		}
	}
	if len(out) > maxProbes {
		l.fault(p.Probes.node, "%sprobes has %d paths; write at most %d", p.prefix(), len(out), maxProbes)
	}
	return out
}

// parsePrefix reads an address or a range. IPv4 written as IPv6 (::ffff:192.0.2.1) becomes IPv4.
func parsePrefix(text string) (netip.Prefix, string) {
	if strings.Contains(text, "%") {
		return netip.Prefix{}, "has a zone; write the address without % and what follows"
	}
	prefix, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return netip.Prefix{}, "is neither an IP address nor a CIDR range; write one such as 203.0.113.0/24 or 2001:db8::7"
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, "is a range of IPv4 written as IPv6; write it as IPv4"
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	if fixed := prefix.Masked(); fixed != prefix {
		return netip.Prefix{}, "has bits set beyond its length; write " + fixed.String() + ", or " + prefix.Addr().String() + " for the one address"
	}
	return prefix, ""
}

// longestDuration keeps sums of durations from overflowing.
const longestDuration = 10 * 365 * 24 * time.Hour

func (l *loader) durations(p *policy) {
	for name, d := range map[string]at[time.Duration]{
		"splay": p.Splay, "window": p.Window, "max_age": p.MaxAge, "overlap": p.Overlap,
		"quarantine": p.Quarantine, "wait_until_idle": p.WaitUntilIdle, "wait_until_used": p.WaitUntilUsed,
	} {
		if d.given() && d.Value > longestDuration {
			l.fault(d.node, "%s%s is %s, which is more than %s; write less", p.prefix(), name, FormatDuration(d.Value), FormatDuration(longestDuration))
		}
	}
}

// timing is a schedule with its gaps, or its parse error.
type timing struct {
	schedule          schedule.Schedule
	shortest, longest time.Duration
	err               error
}

// timing parses the policy's schedule, once per expression and zone. Without a timezone, the expression's prefix sets
// the zone.
func (l *loader) timing(p *policy) (timing, bool) {
	if !p.Schedule.given() {
		return timing{}, false
	}
	key := [2]string{p.Schedule.Value, p.Timezone.Value}
	t, ok := l.timings[key]
	if !ok {
		t.schedule, t.err = l.parser.Parse(key[0], key[1])
		if t.err == nil {
			t.shortest, t.longest = l.gaps.Of(t.schedule)
		}
		l.timings[key] = t
	}
	if t.err != nil {
		l.scheduleFault(p, t.err)
		return t, false
	}
	if t.shortest < l.env.MinInterval {
		l.fault(p.Schedule.node, "%sschedule %s fires every %s at its closest, more often than REKEYD_MIN_INTERVAL (%s) allows; write a slower schedule or lower the limit",
			p.prefix(), quote(p.Schedule.Value), FormatDuration(t.shortest), FormatDuration(l.env.MinInterval))
	}
	return t, true
}

// scheduleFault reports each part of a schedule's error at the field at fault.
func (l *loader) scheduleFault(p *policy, err error) {
	parts := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		parts = joined.Unwrap()
	}
	for _, part := range parts {
		n := p.Schedule.node
		if f, ok := errors.AsType[*schedule.Error](part); ok && f.Field == "timezone" {
			n = p.Timezone.where(n)
		}
		l.fault(n, "%s%v", p.prefix(), part)
	}
}

// relations checks the durations of a policy against each other.
func (l *loader) relations(p *policy, out *plan.Policy, t timing) {
	if out.Overlap >= t.shortest {
		l.fault(p.Overlap.where(p.Node), "%soverlap is %s, but schedule %s fires every %[4]s at its closest; write an overlap of less than %[4]s", p.prefix(), FormatDuration(out.Overlap), quote(p.Schedule.Value), FormatDuration(t.shortest))
	}
	if out.Splay >= t.shortest {
		l.fault(p.Splay.where(p.Node), "%ssplay is %s, but schedule %s fires every %[4]s at its closest; write a splay of less than %[4]s", p.prefix(), FormatDuration(out.Splay), quote(p.Schedule.Value), FormatDuration(t.shortest))
	}
	least := t.longest + out.Splay + out.Overlap + out.LongestWait()
	if out.MaxAge > 0 && out.MaxAge < least {
		l.fault(p.MaxAge.where(p.Node), "%smax_age is %s, but schedule %s leaves up to %s between runs, to which splay %s, overlap %s and %s %s are added; write a max_age of at least %s",
			p.prefix(), FormatDuration(out.MaxAge), quote(p.Schedule.Value), FormatDuration(t.longest), FormatDuration(out.Splay), FormatDuration(out.Overlap), longestWait(out), FormatDuration(out.LongestWait()), FormatDuration(least))
	}
	if p.CharacterLimit.given() {
		n := max(1, int(31*24*time.Hour/t.shortest))
		l.warn(p, at[string]{node: p.CharacterLimit.node}, "character_limit is %d a month for each key, and every rotation brings a new key: up to %d rotations a month allow %d times as much",
			p.CharacterLimit.Value, n, n+1)
	}
	if out.Group != "" {
		l.members[out.Group] = append(l.members[out.Group], groupMember{p, out.Overlap + out.LongestWait(), t.shortest, out.MaxAge - least})
	}
}

func longestWait(p *plan.Policy) string {
	if p.WaitUntilUsed > p.WaitUntilIdle {
		return "wait_until_used"
	}
	return "wait_until_idle"
}

// groupMember is a policy's demand on its group: to hold it for busy, once every gap.
type groupMember struct {
	policy    *policy
	busy, gap time.Duration
	spare     time.Duration // how long its run can wait before max_age makes it bypass the group
}

// warnGroup warns about a max_age that makes a member bypass its group in normal operation.
func (l *loader) warnGroup(m groupMember, name string, lacks time.Duration) {
	p := m.policy
	l.warn(p, at[string]{node: p.MaxAge.node}, "max_age is %s, which does not wait for group %s: keys of the group may change in one overlap; write a max_age of at least %s, so that this policy can wait for the others",
		FormatDuration(p.MaxAge.Value), quote(name), FormatDuration(p.MaxAge.Value+lacks))
}

// groups refuses groups whose members cannot all have their turn: only one at a time is between claim and end of
// overlap, so all turns together must fit into the shortest gap of any member.
func (l *loader) groups() {
	for _, name := range slices.Sorted(maps.Keys(l.members)) {
		members := l.members[name]
		tightest, busy := members[0], time.Duration(0)
		for _, m := range members {
			busy = min(busy+m.busy, longestDuration)
			if m.gap < tightest.gap {
				tightest = m
			}
		}
		if p := tightest.policy; len(members) > 1 && busy >= tightest.gap {
			l.fault(p.Group.where(p.Node), "%sgroup is %s, whose %d members need %s for overlaps and waits one after the other, but schedule %s fires every %s at its closest; shorten the overlaps to less than that together, or split the group",
				p.prefix(), quote(name), len(members), FormatDuration(busy), quote(p.Schedule.Value), FormatDuration(tightest.gap))
		}
		for _, m := range members {
			if lacks := busy - m.busy - m.spare; m.policy.MaxAge.Value > 0 && lacks > 0 {
				l.warnGroup(m, name, lacks)
			}
		}
	}
}
