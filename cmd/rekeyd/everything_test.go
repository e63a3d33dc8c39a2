package main

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

var instant = time.Date(2026, 3, 23, 12, 0, 0, 0, time.UTC)

// everything is a snapshot in which each action and each way to wait occurs.
func everything(t *testing.T) rotator.Snapshot {
	t.Helper()
	var parser schedule.Parser
	weekly, err := parser.Parse("0 3 * * 1", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	policy := func(name string) *plan.Policy {
		return &plan.Policy{Name: name, ServiceAccount: "svcacc_a", Schedule: weekly, Overlap: 24 * time.Hour, Quarantine: 48 * time.Hour,
			Settings: elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: []string{"text_to_speech"}}},
			Sink:     ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "app/" + name}, Field: "api_key"}}
	}
	current := &ledger.KeyRef{ID: "key_current", Created: instant.Add(-72 * time.Hour)}
	step := func(a plan.Action, why ledger.Trigger, key string) plan.Step {
		return plan.Step{Action: a, Reason: why, KeyID: key}
	}
	old := func(id string, s ledger.RetiringState, left time.Duration) ledger.Retiring {
		return ledger.Retiring{KeyRef: ledger.KeyRef{ID: id}, State: s, Until: instant.Add(left)}
	}
	managed := func(p *plan.Policy) *plan.Policy {
		p.Settings.Optional = elevenlabs.Optional{TTSConcurrency: elevenlabs.Some(int64(0)), MusicConcurrency: elevenlabs.None[int64](), ThirdPartyDisable: elevenlabs.Some(true)}
		return p
	}
	next := weekly.Next(instant)
	s := rotator.Snapshot{Policies: []rotator.PolicyStatus{
		{Policy: policy("first"), Outlook: plan.Outlook{State: plan.StateDue, Reason: ledger.TriggerFirst, Steps: []plan.Step{step(plan.ActRotate, ledger.TriggerFirst, "")}}},
		{Policy: policy("leaked"), Outlook: plan.Outlook{State: plan.StateDue, Reason: ledger.TriggerExposed, Steps: []plan.Step{step(plan.ActRotate, ledger.TriggerExposed, "")}}, Current: current},
		{Policy: policy("quiet"), Outlook: plan.Outlook{State: plan.StateOK, NextDue: next, NextReason: ledger.TriggerSchedule}, Current: current, LastRotation: instant, ThirdPartyDisable: elevenlabs.Some(false),
			Retiring: []ledger.Retiring{old("key_overlap", ledger.InOverlap, time.Hour), old("key_quarantine", ledger.InQuarantine, 26*time.Hour)}},
		{Policy: managed(policy("busy")), Outlook: plan.Outlook{State: plan.StateOK, NextDue: instant.Add(50 * time.Hour), NextReason: ledger.TriggerMaxAge, Drift: []string{"permissions", "allowed_ips", "character_limit", "tts_concurrency_limit", "music_concurrency_limit", "third_party_disable_allowed"}, Steps: []plan.Step{
			step(plan.ActSweep, ledger.TriggerAbandonedKey, "key_swept"), step(plan.ActDisable, ledger.TriggerOverlapEnded, "key_overlap"),
			step(plan.ActDelete, ledger.TriggerQuarantineEnded, "key_quarantine"), step(plan.ActPatch, ledger.TriggerDrift, "key_current"),
			step(plan.ActEnable, ledger.TriggerLateDisable, "key_current"), step(plan.ActAdopt, ledger.TriggerAdoptNamed, "key_adopted"),
			step(plan.ActFollow, ledger.TriggerRolledBack, "key_overlap"), step(plan.ActInherit, ledger.TriggerRecordFound, ""),
			step(plan.ActRecover, ledger.TriggerUnsettled, ""),
		}}, Current: current, LastRotation: instant},
		{Policy: policy("vanished"), Outlook: plan.Outlook{State: plan.StateError, Reason: plan.FaultKeyVanished, Message: "key key_current is missing from the listing", Steps: []plan.Step{step(plan.ActProve, ledger.TriggerKeyMissing, "key_current")}}, Current: current},
		{Policy: policy("failing"), Outlook: plan.Outlook{State: plan.StateFailing, Reason: plan.WaitBackoff, NextDue: instant.Add(5 * time.Minute), NextReason: plan.WaitBackoff}, Current: current},
		{Policy: policy("throttled"), Outlook: plan.Outlook{State: plan.StateThrottled, Reason: plan.WaitThrottled}, Current: current},
		{Policy: policy("waiting"), Outlook: plan.Outlook{State: plan.StateDue, Reason: plan.WaitOverlap}, Current: current, Retiring: []ledger.Retiring{old("key_overlap", ledger.InOverlap, time.Hour)}},
		{Policy: policy("late"), Outlook: plan.Outlook{State: plan.StateOK, Reason: plan.WaitWindow, NextDue: next, NextReason: plan.WaitWindow}, Current: current},
		{Policy: policy("paused"), Outlook: plan.Outlook{State: plan.StatePaused, Reason: plan.WaitPaused, NextDue: next}, Current: current},
	}}
	s.Removed = []rotator.PolicyStatus{{Policy: policy("removed"), Outlook: plan.Outlook{State: plan.StateOK, Reason: plan.WaitRemoved}, Current: current,
		Retiring: []ledger.Retiring{old("key_overlap", ledger.InOverlap, time.Hour)}}}
	for _, all := range [][]rotator.PolicyStatus{s.Policies, s.Removed} {
		for i := range all {
			all[i].Leaves = map[string]time.Time{}
			for _, k := range all[i].Retiring {
				all[i].Leaves[k.ID] = k.Until
			}
		}
	}
	return s
}
