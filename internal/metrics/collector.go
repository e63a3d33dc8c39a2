package metrics

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Collector makes the series of policies and workspaces at scrape time from the rotator's state, so that they come and go
// with their policy and cost nothing between scrapes.
//
// It is not part of the registry, which would hash, check and sort each of 200,000 series. They are made in order here, and
// the names of policies and workspaces make them distinct.
type Collector struct {
	Rest     prometheus.Gatherer // all other metrics
	Snapshot func() rotator.Snapshot
	Skew     func() rotator.Skew
	Expiry   func() (at time.Time, known bool) // of the Vault token; nil with the file sink
	Lost     func(workspace string) int
	used     sync.Pool // finished *gathering, for reuse
}

// Gather implements prometheus.TransactionalGatherer. The result is valid until done.
func (c *Collector) Gather() (all []*dto.MetricFamily, done func(), err error) {
	all, err = c.Rest.Gather()
	g, ok := c.used.Get().(*gathering)
	if !ok {
		g = newGathering()
	}
	c.fill(g)
	all = append(all, g.all...)
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all, func() { g.clear(); c.used.Put(g) }, err
}

// fill makes the series.
func (c *Collector) fill(g *gathering) {
	s, now := c.Snapshot(), time.Now()
	refused := s.Refused()
	for i := range s.Policies {
		g.policy(&s.Policies[i], refused[s.Policies[i].Policy.Workspace], now)
	}
	g.policies.add(float64(len(s.Policies)))
	g.sinkUp.add(boolToFloat(s.StoreDown == nil))
	for _, ws := range s.Workspaces {
		name := label("workspace", ws.Name)
		if !ws.LastTry.IsZero() {
			g.workspaceUp.add(boolToFloat(ws.Err == nil), name)
		}
		for _, a := range ws.Accounts {
			g.accountKeys.add(float64(a.Keys), label("service_account", a.Account), name)
		}
		g.reconciled.time(ws.LastReconcile, name)
		g.lostDeleted.add(float64(c.Lost(ws.Name)), name)
	}
	g.skews(c.Skew())
	if c.Expiry != nil {
		if at, known := c.Expiry(); known {
			g.tokenExpiry.add(orInf(at))
		}
	}
}

// skews adds the difference of the clocks: of all workspaces, the one that differs most.
func (g *gathering) skews(s rotator.Skew) {
	var most time.Duration
	for _, d := range s.Workspaces {
		if d.Abs() > most.Abs() {
			most = d
		}
	}
	if len(s.Workspaces) > 0 {
		g.skew.add(most.Seconds(), label("target", "elevenlabs"))
	}
	if s.Store != nil {
		g.skew.add(s.Store.Seconds(), label("target", "vault"))
	}
}

// gathering is one scrape in progress.
type gathering struct {
	all []*dto.MetricFamily

	info, rotations, last, next, created, maxAge, keys, state, inUse, drift, thirdParty, disabled, problem family
	policies, reconciled, lostDeleted, tokenExpiry, sinkUp, workspaceUp, skew, accountKeys                 family

	success, failure                            *dto.LabelPair
	current, overlap, quarantine, lost, foreign *dto.LabelPair
	states                                      []*dto.LabelPair // as plan.States
}

func newGathering() *gathering {
	g := &gathering{
		success: label("result", succeeded), failure: label("result", failed), current: label("state", "current"), overlap: label("state", "overlap"),
		quarantine: label("state", "quarantine"), lost: label("state", "lost"), foreign: label("state", "foreign"),
	}
	for _, state := range plan.States() {
		g.states = append(g.states, label("state", string(state)))
	}
	counter := func(name, help string) family { return newFamily(&g.all, dto.MetricType_COUNTER, name, help) }
	gauge := func(name, help string) family { return newFamily(&g.all, dto.MetricType_GAUGE, name, help) }
	g.info = gauge("policy_info", "Where the policy's key and record are, and its labels as label_NAME; the value is always 1.")
	g.rotations = counter("rotations_total", "Rotations that this process completed or failed to complete.")
	g.last = gauge("last_rotation_timestamp_seconds", "When the policy's key was last rotated.")
	g.next = gauge("next_rotation_timestamp_seconds", "When the next rotation, or the next attempt at one that failed, is due; +Inf when none will be.")
	g.created = gauge("key_created_timestamp_seconds", "When the current key was created.")
	g.maxAge = gauge("key_max_age_seconds", "The policy's max_age; absent without one.")
	g.keys = gauge("keys", "Keys of the policy by their state; foreign keys are those in its service account that rekeyd did not create.")
	g.state = gauge("policy_state", "1 for the state that the policy is in, 0 for the others.")
	g.inUse = gauge("retiring_key_in_use", "1 while the usage of a retiring key still grows.")
	g.drift = gauge("drift", "Fields of the current key that differ from the policy.")
	g.thirdParty = gauge("third_party_disable_allowed", "Whether ElevenLabs may disable the current key when it leaks; absent where that is unknown.")
	g.disabled = gauge("key_disabled_timestamp_seconds", "When a current key was last seen disabled by the provider; before this process started, leaks only.")
	g.problem = gauge("policy_problem", "1 for each problem that the policy has now; absent without one.")
	g.policies = gauge("policies", "Policies in force.")
	g.reconciled = gauge("last_reconcile_timestamp_seconds", "When the workspace was last listed.")
	g.sinkUp = gauge("sink_up", "Whether the ledger could be reached and was not refused at the last call, which is at most one REKEYD_RECONCILE_INTERVAL ago.")
	g.workspaceUp = gauge("workspace_up", "Whether the last listing of the workspace succeeded, and no call since was refused; absent before the first.")
	g.accountKeys = gauge("service_account_keys", "Keys of the service account at the last listing, whoever made them, disabled ones included.")
	g.skew = gauge("clock_skew_seconds", "How far this host's clock is ahead of the Date of the target's last answer; absent before that.")
	g.lostDeleted = counter("lost_keys_deleted_total", "Keys with a lost secret that this process deleted.")
	g.tokenExpiry = gauge("vault_token_expiry_timestamp_seconds", "When the Vault token ends; +Inf when it never does, absent until it is known.")
	return g
}

// clear prepares g for the next scrape.
func (g *gathering) clear() {
	for _, f := range g.all {
		f.Metric = f.Metric[:0]
	}
	g.all = g.all[:0]
}

// about adds policy_info. A label that the policy lacks is left out, as kube-state-metrics does: for Prometheus it is empty.
func (g *gathering) about(p *plan.Policy, name *dto.LabelPair) {
	var room [4 + 8]*dto.LabelPair
	labels := room[:0]
	if len(p.Labels) > 0 {
		for _, n := range slices.Sorted(maps.Keys(p.Labels)) {
			labels = append(labels, label("label_"+n, p.Labels[n]))
		}
	}
	g.info.add(1, append(labels, name, label("service_account", p.ServiceAccount), label("sink", p.Sink.String()), label("workspace", p.Workspace))...)
}

func (g *gathering) policy(s *rotator.PolicyStatus, refused ledger.Failure, now time.Time) {
	name := label("policy", s.Policy.Name)
	g.about(s.Policy, name)
	g.rotations.add(float64(s.Successes), name, g.success)
	g.rotations.add(float64(s.Failures), name, g.failure)
	g.last.time(s.LastRotation, name)
	g.next.add(orInf(s.NextDue), name)
	if s.Current != nil {
		g.created.time(s.Current.Created, name)
	}
	if s.Policy.MaxAge > 0 {
		g.maxAge.add(s.Policy.MaxAge.Seconds(), name)
	}
	g.keys.add(float64(s.Keys.Current), name, g.current)
	g.keys.add(float64(s.Keys.Overlap), name, g.overlap)
	g.keys.add(float64(s.Keys.Quarantine), name, g.quarantine)
	g.keys.add(float64(s.Keys.Lost), name, g.lost)
	g.keys.add(float64(s.Keys.Foreign), name, g.foreign)
	for _, state := range g.states {
		g.state.add(boolToFloat(string(s.State) == state.GetValue()), name, state)
	}
	g.inUse.add(boolToFloat(s.InUse), name)
	g.drift.add(float64(len(s.Drift)), name)
	if s.ThirdPartyDisable.Has() {
		g.thirdParty.add(boolToFloat(s.ThirdPartyDisable.Value), name)
	}
	for reason, at := range s.Disabled {
		g.disabled.time(at, name, label("reason", string(reason)))
	}
	for _, p := range s.Problems(refused, now) {
		g.problem.add(1, name, label("reason", string(p)))
	}
}
