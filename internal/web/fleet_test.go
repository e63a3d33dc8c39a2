package web

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// fleet is a snapshot of n policies in all kinds of states, in workspaces of about a hundred.
func fleet(t testing.TB, n int, now time.Time) rotator.Snapshot {
	t.Helper()
	must := func(expr, zone string) schedule.Schedule {
		s, err := schedule.Parse(expr, zone)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	schedules := []schedule.Schedule{must("0 3 * * 1", "Europe/Oslo"), must("30 4 * * *", "UTC"), must("@every 36h", "UTC"), must("0 2 1,15 * *", "America/New_York"), must("0 3 * * *", "Europe/Oslo")}
	uses, teams := []string{"tts", "agents", "dubbing", "music", "narration"}, []string{"speech", "contact-center", "studio", "games"}
	var s rotator.Snapshot
	for i := range (n + 99) / 100 {
		s.Workspaces = append(s.Workspaces, rotator.WorkspaceStatus{Name: fmt.Sprintf("emea-%02d", i), LastReconcile: now.Add(-time.Duration(i%50) * time.Second), LastTry: now})
	}
	for i := range n {
		use, team := uses[i%len(uses)], teams[i/3%len(teams)]
		p := &plan.Policy{
			Name: fmt.Sprintf("%s-%s-%04d", use, team, i), Workspace: s.Workspaces[i/100].Name, ServiceAccount: fmt.Sprintf("svcacc_%016x", i*7919),
			Schedule: schedules[i/7%len(schedules)], Overlap: 6 * time.Hour, Quarantine: 24 * time.Hour, Verify: true, Mode: plan.ModeAuto, OnDrift: plan.DriftReport,
			Settings: elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: []string{"text_to_speech", "voices_read"}}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}},
			Sink:     ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "elevenlabs/" + team + "/" + use}, Field: "api_key"},
			Labels:   map[string]string{"team": team, "tier": []string{"prod", "staging"}[i%2]},
		}
		if i%3 == 0 {
			p.MaxAge = 400 * time.Hour
		}
		if i%50 == 4 {
			p.Group, p.Window = fmt.Sprintf("failover-%d", i/100), 4*time.Hour
		}
		created := now.Add(-time.Duration(i%30) * time.Hour)
		if _, counts := p.Schedule.Every(); !counts {
			for run := p.Schedule.Next(now.AddDate(0, 0, -16)); run.Before(now); run = p.Schedule.Next(run) {
				created = run
			}
		}
		age := now.Sub(created)
		key := func(k int, at time.Time) ledger.KeyRef {
			return ledger.KeyRef{ID: fmt.Sprintf("%x", sha256.Sum256([]byte{byte(k), byte(i >> 8), byte(i)}))[:32], Name: "rekeyd.k3v9x2ab." + p.Name, Created: at, Published: at.Add(2 * time.Second), Verified: true}
		}
		current := key(2, created)
		st := rotator.PolicyStatus{Policy: p, Outlook: plan.Outlook{State: plan.StateOK}, Loaded: true, Current: &current, LastRotation: current.Published, Keys: plan.KeyCounts{Current: 1}}
		st.NextDue, st.NextReason = p.Schedule.Next(created), ledger.TriggerSchedule
		history := []ledger.Past{
			{Rotation: "a", By: ledger.BySchedule, Reason: ledger.TriggerFirst, KeyID: key(1, created).ID, Created: created.Add(-200 * time.Hour), Published: created.Add(-200 * time.Hour)},
			{Rotation: "b", By: ledger.BySchedule, Reason: ledger.TriggerSchedule, KeyID: current.ID, PreviousKeyID: key(1, created).ID, Started: created, Created: created, Published: current.Published,
				Probes: []ledger.ProbeAnswer{{Path: "/v1/voices/21m00Tcm4TlvDq8ikWAM", Status: 200}}},
		}
		if age < 30*time.Hour {
			old := ledger.Retiring{KeyRef: key(1, created.Add(-200*time.Hour)), State: ledger.InOverlap, Until: created.Add(6 * time.Hour), Reason: ledger.TriggerSchedule}
			st.Keys.Overlap = 1
			if age >= 6*time.Hour {
				old.State, old.Until, old.Proof = ledger.InQuarantine, created.Add(30*time.Hour), ledger.Rejected
				st.Keys.Overlap, st.Keys.Quarantine = 0, 1
				history[1].Disabled, history[1].Proof, history[1].ProofAt = created.Add(6*time.Hour), ledger.Rejected, created.Add(6*time.Hour+time.Second)
			}
			st.Retiring = []ledger.Retiring{old}
		} else {
			history[1].Disabled, history[1].Deleted = created.Add(6*time.Hour), created.Add(30*time.Hour)
		}
		trouble(&st, i, now)
		if n == 3 && i == 1 {
			trouble(&st, 23, now)
		}
		st.History = ledger.Pack(history)
		s.Policies = append(s.Policies, st)
	}
	slices.SortFunc(s.Policies, func(x, y rotator.PolicyStatus) int { return cmp.Compare(x.Policy.Name, y.Policy.Name) })
	return s
}

// trouble gives one policy in eight a state of its own.
func trouble(st *rotator.PolicyStatus, i int, now time.Time) {
	name := st.Policy.Name
	decision := func(f plan.Fault, message string) {
		st.State, st.Reason, st.Message, st.NextDue, st.NextReason = plan.StateError, f, message, time.Time{}, nil
	}
	switch i % 97 {
	case 5:
		st.Policy.MaxAge, st.Current.Created = 200*time.Hour, now.Add(-230*time.Hour)
	case 13:
		decision(plan.FaultRecordChanged, "secret/elevenlabs/"+name+" holds a value that rekeyd did not put there; set adopt to its key's id, or run: rekeyd rotate "+name)
	case 23:
		st.State, st.Reason = plan.StateFailing, plan.WaitBackoff
		st.NextDue, st.NextReason = now.Add(17*time.Minute), plan.WaitBackoff
		st.Failure = &ledger.LastFailure{Stage: ledger.StageVerify, Reason: ledger.FailureProbeFailed, At: now.Add(-4 * time.Minute), Count: 3, NextTry: st.NextDue,
			Message: "probe /v1/voices/21m00Tcm4TlvDq8ikWAM was answered 404; correct the path, or share what it names with the service account"}
	case 31, 63:
		st.State, st.Reason = plan.StateRotating, plan.WaitClaimed
	case 37, 71, 90:
		st.State, st.Reason, st.NextDue = plan.StateDue, plan.WaitGroup, now.Add(-5*time.Minute)
		st.HeldBy = "tts-speech-0000"
	case 44:
		st.State, st.Reason, st.NextDue = plan.StateThrottled, plan.WaitThrottled, now.Add(-time.Hour)
	case 52, 81:
		st.Policy.Mode, st.State, st.Reason, st.NextDue = plan.ModePaused, plan.StatePaused, plan.WaitPaused, time.Time{}
	case 60:
		st.Drift = []string{"allowed_ips"}
	case 77:
		st.Keys.Lost = 2
	case 85:
		decision(plan.FaultLeakStorm, "key "+st.Current.ID+" was disabled (exposed_publicly) after 3 leak rotations within an hour; find the leak, then run: rekeyd rotate "+name)
		st.CutOff, st.Disabled = plan.DisabledExposed, map[plan.DisableCause]time.Time{plan.DisabledExposed: now.Add(-20 * time.Minute)}
	}
}

// servedOf is a server that shows a snapshot.
func servedOf(t testing.TB, snapshot rotator.Snapshot) *Server {
	t.Helper()
	s := newWorld(t).build(nil).Server
	s.snapshot = func() rotator.Snapshot {
		copied := snapshot
		copied.Policies = slices.Clone(snapshot.Policies)
		return copied
	}
	s.listed = func(policy string) (elevenlabs.Key, bool) {
		i := slices.IndexFunc(snapshot.Policies, func(p rotator.PolicyStatus) bool { return p.Policy.Name == policy })
		if i < 0 {
			return elevenlabs.Key{}, false
		}
		k := elevenlabs.Key{ID: snapshot.Policies[i].Current.ID, Settings: snapshot.Policies[i].Policy.Settings}
		if len(snapshot.Policies[i].Drift) > 0 {
			k.Settings.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}
		}
		return k, true
	}
	s.cfg.Ready = func(context.Context) error { return nil }
	return s
}

// shows serves pages of a snapshot, until the test ends.
func shows(t testing.TB, snapshot rotator.Snapshot) (url string) {
	t.Helper()
	return pagesOf(t, servedOf(t, snapshot))
}

func pagesOf(t testing.TB, s *Server) (url string) {
	t.Helper()
	server := httptest.NewServer(s.handler(true))
	t.Cleanup(server.Close)
	return server.URL
}
