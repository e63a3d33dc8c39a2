package daemon

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rekeyd/rekeyd/rotator"
)

// collector makes the series of policies and workspaces at scrape time from what the rotator holds anyway, so that
// they appear and go with their policy and cost nothing in between.
type collector struct {
	snapshot func() rotator.Snapshot
	expiry   func() (at time.Time, known bool) // of the Vault token; nil with the file sink
	lost     func(workspace string) int

	rotations, last, next, created, maxAge, keys, state, inUse, drift, disabled *prometheus.Desc
	problem, policies, reconciled, lostDeleted, tokenExpiry                     *prometheus.Desc
}

func newCollector(snapshot func() rotator.Snapshot, expiry func() (time.Time, bool), lost func(string) int) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("rekeyd_"+name, help, labels, nil)
	}
	return &collector{
		snapshot: snapshot, expiry: expiry, lost: lost,
		rotations: desc("rotations_total", "Rotations that this process completed or failed to complete.", "policy", "result"),
		last:      desc("last_rotation_timestamp_seconds", "When the policy's key was last rotated.", "policy"),
		next:      desc("next_rotation_timestamp_seconds", "When the next rotation, or the next attempt at one that failed, is due; +Inf when none will be.", "policy"),
		created:   desc("key_created_timestamp_seconds", "When the current key was created.", "policy"),
		maxAge:    desc("key_max_age_seconds", "The policy's max_age; absent without one.", "policy"),
		keys:      desc("keys", "Keys of the policy by what they are; foreign ones are those that others made in its service account.", "policy", "state"),
		state:     desc("policy_state", "1 for the state that the policy is in, 0 for the others.", "policy", "state"),
		inUse:     desc("retiring_key_in_use", "1 while the usage of a retiring key still grows.", "policy"),
		drift:     desc("drift", "Fields of the current key that differ from the policy.", "policy"),
		disabled:  desc("key_disabled_timestamp_seconds", "When a current key was last seen disabled by the provider.", "policy", "reason"),

		problem:     desc("policy_problem", "1 for each problem that the policy has now; absent without one.", "policy", "reason"),
		policies:    desc("policies", "Policies in force."),
		reconciled:  desc("last_reconcile_timestamp_seconds", "When the workspace was last listed.", "workspace"),
		lostDeleted: desc("lost_keys_deleted_total", "Keys that nobody held the secret of, deleted by this process.", "workspace"),
		tokenExpiry: desc("vault_token_expiry_timestamp_seconds", "When the Vault token ends; +Inf when it never does, absent until it is known."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.rotations, c.last, c.next, c.created, c.maxAge, c.keys, c.state, c.inUse, c.drift, c.disabled,
		c.problem, c.policies, c.reconciled, c.lostDeleted, c.tokenExpiry,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	out := sample{ch}
	s := c.snapshot()
	refused := refusedIn(s.Workspaces)
	for i := range s.Policies {
		c.policy(out, &s.Policies[i], refused[s.Policies[i].Policy.Workspace])
	}
	out.gauge(c.policies, float64(len(s.Policies)))
	for _, ws := range s.Workspaces {
		out.time(c.reconciled, ws.LastReconcile, ws.Name)
		out.counter(c.lostDeleted, c.lost(ws.Name), ws.Name)
	}
	if c.expiry != nil {
		if at, known := c.expiry(); known {
			out.gauge(c.tokenExpiry, orInf(at))
		}
	}
}

func (c *collector) policy(out sample, s *rotator.PolicyStatus, refused string) {
	name := s.Policy.Name
	out.counter(c.rotations, s.Successes, name, succeeded)
	out.counter(c.rotations, s.Failures, name, failed)
	out.time(c.last, s.LastRotation, name)
	out.gauge(c.next, orInf(s.NextDue), name)
	if s.Current != nil {
		out.time(c.created, s.Current.Created, name)
	}
	if s.Policy.MaxAge > 0 {
		out.gauge(c.maxAge, s.Policy.MaxAge.Seconds(), name)
	}
	out.gauge(c.keys, float64(s.Keys.Current), name, "current")
	out.gauge(c.keys, float64(s.Keys.Overlap), name, "overlap")
	out.gauge(c.keys, float64(s.Keys.Quarantine), name, "quarantine")
	out.gauge(c.keys, float64(s.Keys.Lost), name, "lost")
	out.gauge(c.keys, float64(s.Keys.Foreign), name, "foreign")
	for _, state := range rotator.States() {
		out.gauge(c.state, truth(s.State == state), name, string(state))
	}
	out.gauge(c.inUse, truth(s.InUse), name)
	out.gauge(c.drift, float64(len(s.Drift)), name)
	for reason, at := range s.Disabled {
		out.time(c.disabled, at, name, string(reason))
	}
	for _, p := range problems(s, refused, time.Now()) {
		out.gauge(c.problem, 1, name, p)
	}
}

// sample is one scrape under way.
type sample struct{ ch chan<- prometheus.Metric }

func (s sample) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sample) counter(d *prometheus.Desc, n int, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

// time leaves out what has not happened yet.
func (s sample) time(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.gauge(d, seconds(t), labels...)
	}
}

func orInf(t time.Time) float64 {
	if t.IsZero() {
		return math.Inf(1)
	}
	return seconds(t)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
