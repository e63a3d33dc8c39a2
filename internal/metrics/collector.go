package metrics

import (
	"maps"
	"math"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Collector makes the series of policies and workspaces at scrape time from the rotator's state, so that they come and go
// with their policy and cost nothing between scrapes. It makes one family after another in the same memory: all series of
// 10,000 policies at once would take as much as rekeyd itself.
//
// It is not part of the registry, which would hash, check and sort each of 200,000 series. They are made in order here, and
// the names of policies and workspaces make them distinct.
type Collector struct {
	Snapshot func() rotator.Snapshot
	Skew     func() rotator.Skew
	Expiry   func() (at time.Time, known bool) // of the Vault token; nil with the file sink
	Lost     func(workspace string) int
}

// each calls do with each family that has a series. The family is valid until do returns.
func (c *Collector) each(do func(*dto.MetricFamily) error) error {
	s := &scrape{Collector: c, Snapshot: c.Snapshot(), now: time.Now()}
	s.refused = s.Refused()
	s.names = make([]dto.LabelPair, len(s.Policies))
	for i := range s.Policies {
		s.names[i].Name, s.names[i].Value = new("policy"), &s.Policies[i].Policy.Name
	}
	for _, m := range made() {
		name := "rekeyd_" + m.name
		s.family = dto.MetricFamily{Name: &name, Help: &m.help, Type: &m.kind, Metric: s.family.Metric[:0]}
		if m.fill(s); len(s.family.Metric) == 0 {
			continue
		}
		if err := do(&s.family); err != nil {
			return err
		}
	}
	return nil
}

// scrape is one scrape in progress.
type scrape struct {
	*Collector
	rotator.Snapshot
	refused map[string]ledger.Failure
	now     time.Time
	names   []dto.LabelPair // of the policies

	family dto.MetricFamily // in the making
	slabs  [][]series       // of the largest family so far
}

// series is one series with the values that its parts point to.
type series struct {
	metric dto.Metric
	gauge  dto.Gauge
	value  float64
	labels [4]*dto.LabelPair
}

const slab = 512 // series per allocation

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// add adds a series with labels in the order of their names. More than four are allocated.
func (s *scrape) add(v float64, labels ...*dto.LabelPair) {
	n := len(s.family.Metric)
	if n == slab*len(s.slabs) {
		s.slabs = append(s.slabs, make([]series, slab))
	}
	x := &s.slabs[n/slab][n%slab]
	x.value, x.gauge.Value = v, &x.value
	x.metric.Label, x.metric.Gauge, x.metric.Counter = append(x.labels[:0], labels...), &x.gauge, nil
	if s.family.GetType() == dto.MetricType_COUNTER {
		x.metric.Gauge, x.metric.Counter = nil, &dto.Counter{Value: &x.value}
	}
	s.family.Metric = append(s.family.Metric, &x.metric)
}

// time adds a series, unless the time is zero.
func (s *scrape) time(t time.Time, labels ...*dto.LabelPair) {
	if !t.IsZero() {
		s.add(seconds(t), labels...)
	}
}

// metric is a family that is made at scrape time.
type metric struct {
	kind       dto.MetricType
	name, help string
	fill       func(*scrape)
}

// made returns the families in the order of their names.
func made() []metric {
	const counter, gauge = dto.MetricType_COUNTER, dto.MetricType_GAUGE
	return []metric{
		{gauge, "clock_skew_seconds", "How far this host's clock is ahead of the Date of the target's last answer; absent before that.", (*scrape).skews},
		{gauge, "drift", "Fields of the current key that differ from the policy.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			s.add(float64(len(p.Drift)), name)
		})},
		{gauge, "key_created_timestamp_seconds", "When the current key was created.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			if p.Current != nil {
				s.time(p.Current.Created, name)
			}
		})},
		{gauge, "key_disabled_timestamp_seconds", "When a current key was last seen disabled by the provider; before this process started, leaks only.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			for reason, at := range p.Disabled {
				s.time(at, name, label("reason", string(reason)))
			}
		})},
		{gauge, "key_max_age_seconds", "The policy's max_age; absent without one.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			if p.Policy.MaxAge > 0 {
				s.add(p.Policy.MaxAge.Seconds(), name)
			}
		})},
		{gauge, "keys", "Keys of the policy by their state; foreign keys are those in its service account that rekeyd did not create.", keys()},
		{gauge, "last_reconcile_timestamp_seconds", "When the workspace was last listed.", ofWorkspaces(func(s *scrape, ws *rotator.WorkspaceStatus, name *dto.LabelPair) {
			s.time(ws.LastReconcile, name)
		})},
		{gauge, "last_rotation_timestamp_seconds", "When the policy's key was last rotated.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			s.time(p.LastRotation, name)
		})},
		{counter, "lost_keys_deleted_total", "Keys with a lost secret that this process deleted.", ofWorkspaces(func(s *scrape, ws *rotator.WorkspaceStatus, name *dto.LabelPair) {
			s.add(float64(s.Lost(ws.Name)), name)
		})},
		{gauge, "next_rotation_timestamp_seconds", "When the next rotation, or the next attempt at one that failed, is due; +Inf when none will be.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			s.add(orInf(p.NextDue), name)
		})},
		{gauge, "policies", "Policies in force.", func(s *scrape) { s.add(float64(len(s.Policies))) }},
		{gauge, "policy_info", "Where the policy's key and record are, and its labels as label_NAME; the value is always 1.", ofPolicies((*scrape).about)},
		{gauge, "policy_problem", "1 for each problem that the policy has now; absent without one.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			for _, problem := range p.Problems(s.refused[p.Policy.Workspace], s.now) {
				s.add(1, name, label("reason", string(problem)))
			}
		})},
		{gauge, "policy_state", "1 for the state that the policy is in, 0 for the others.", states()},
		{gauge, "retiring_key_in_use", "1 while the usage of a retiring key still grows.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			s.add(boolToFloat(p.InUse), name)
		})},
		{counter, "rotations_total", "Rotations that this process completed or failed to complete.", rotations()},
		{gauge, "service_account_keys", "Keys of the service account at the last listing, whoever made them, disabled ones included.", ofWorkspaces(func(s *scrape, ws *rotator.WorkspaceStatus, name *dto.LabelPair) {
			for _, a := range ws.Accounts {
				s.add(float64(len(a.Keys)), label("service_account", a.ID), name)
			}
		})},
		{gauge, "sink_up", "Whether the ledger could be reached and was not refused at the last call, which is at most one REKEYD_RECONCILE_INTERVAL ago.", func(s *scrape) {
			s.add(boolToFloat(s.StoreDown == nil))
		}},
		{gauge, "third_party_disable_allowed", "Whether ElevenLabs may disable the current key when it leaks; absent where that is unknown.", ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
			if p.ThirdPartyDisable.Has() {
				s.add(boolToFloat(p.ThirdPartyDisable.Value), name)
			}
		})},
		{gauge, "vault_token_expiry_timestamp_seconds", "When the Vault token ends; +Inf when it never does, absent until it is known.", func(s *scrape) {
			if s.Expiry == nil {
				return
			}
			if at, known := s.Expiry(); known {
				s.add(orInf(at))
			}
		}},
		{gauge, "workspace_up", "Whether the last listing of the workspace succeeded, and no call since was refused; absent before the first.", ofWorkspaces(func(s *scrape, ws *rotator.WorkspaceStatus, name *dto.LabelPair) {
			if !ws.LastTry.IsZero() {
				s.add(boolToFloat(ws.Err == nil), name)
			}
		})},
	}
}

func ofPolicies(fill func(*scrape, *rotator.PolicyStatus, *dto.LabelPair)) func(*scrape) {
	return func(s *scrape) {
		for i := range s.Policies {
			fill(s, &s.Policies[i], &s.names[i])
		}
	}
}

func ofWorkspaces(fill func(*scrape, *rotator.WorkspaceStatus, *dto.LabelPair)) func(*scrape) {
	return func(s *scrape) {
		for i := range s.Workspaces {
			fill(s, &s.Workspaces[i], label("workspace", s.Workspaces[i].Name))
		}
	}
}

func keys() func(*scrape) {
	current, overlap, quarantine, lost, foreign := label("state", "current"), label("state", "overlap"), label("state", "quarantine"), label("state", "lost"), label("state", "foreign")
	return ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
		s.add(float64(p.Keys.Current), name, current)
		s.add(float64(p.Keys.Overlap), name, overlap)
		s.add(float64(p.Keys.Quarantine), name, quarantine)
		s.add(float64(p.Keys.Lost), name, lost)
		s.add(float64(p.Keys.Foreign), name, foreign)
	})
}

func states() func(*scrape) {
	var labels []*dto.LabelPair
	for _, state := range plan.States() {
		labels = append(labels, label("state", string(state)))
	}
	return ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
		for _, state := range labels {
			s.add(boolToFloat(string(p.State) == state.GetValue()), name, state)
		}
	})
}

func rotations() func(*scrape) {
	success, failure := label("result", succeeded), label("result", failed)
	return ofPolicies(func(s *scrape, p *rotator.PolicyStatus, name *dto.LabelPair) {
		s.add(float64(p.Successes), name, success)
		s.add(float64(p.Failures), name, failure)
	})
}

// about adds policy_info. A label that the policy lacks is left out, as kube-state-metrics does: for Prometheus it is empty.
func (s *scrape) about(p *rotator.PolicyStatus, name *dto.LabelPair) {
	var room [4 + 8]*dto.LabelPair
	labels := room[:0]
	if own := p.Policy.Labels; len(own) > 0 {
		for _, n := range slices.Sorted(maps.Keys(own)) {
			labels = append(labels, label("label_"+n, own[n]))
		}
	}
	s.add(1, append(labels, name, label("service_account", p.Policy.ServiceAccount), label("sink", p.Policy.Sink.String()), label("workspace", p.Policy.Workspace))...)
}

// skews adds the difference of the clocks: of all workspaces, the one that differs most.
func (s *scrape) skews() {
	var most time.Duration
	skew := s.Skew()
	for _, d := range skew.Workspaces {
		if d.Abs() > most.Abs() {
			most = d
		}
	}
	if len(skew.Workspaces) > 0 {
		s.add(most.Seconds(), label("target", "elevenlabs"))
	}
	if skew.Store != nil {
		s.add(skew.Store.Seconds(), label("target", "vault"))
	}
}

// seconds is a timestamp with fractions.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func orInf(t time.Time) float64 {
	if t.IsZero() {
		return math.Inf(1)
	}
	return seconds(t)
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
