package main

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
)

var instant = time.Date(2026, 3, 23, 12, 0, 0, 0, time.UTC)

// everything is a snapshot in which each action and each way to wait occurs.
func everything(t *testing.T) rotator.Snapshot {
	t.Helper()
	var parser rotator.ScheduleParser
	weekly, err := parser.Parse("0 3 * * 1", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	policy := func(name string) *rotator.Policy {
		return &rotator.Policy{Name: name, ServiceAccount: "svcacc_a", Schedule: weekly, Overlap: 24 * time.Hour, Quarantine: 48 * time.Hour,
			Settings: elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: []string{"text_to_speech"}}},
			Sink:     rotator.Sink{Ref: rotator.Ref{Mount: "secret", Path: "app/" + name}, Field: "api_key"}}
	}
	current := &rotator.KeyRef{ID: "key_current", Created: instant.Add(-72 * time.Hour)}
	step := func(a rotator.Action, why rotator.Reason, key string) rotator.Step {
		return rotator.Step{Action: a, Reason: why, KeyID: key}
	}
	old := func(id string, s rotator.RetiringState, left time.Duration) rotator.Retiring {
		return rotator.Retiring{KeyRef: rotator.KeyRef{ID: id}, State: s, Until: instant.Add(left)}
	}
	next := weekly.Next(instant)
	s := rotator.Snapshot{Policies: []rotator.PolicyStatus{
		{Policy: policy("first"), State: rotator.StateDue, Reason: rotator.ReasonFirst, Steps: []rotator.Step{step(rotator.ActRotate, rotator.ReasonFirst, "")}},
		{Policy: policy("leaked"), State: rotator.StateDue, Reason: rotator.ReasonExposed, Current: current, Steps: []rotator.Step{step(rotator.ActRotate, rotator.ReasonExposed, "")}},
		{Policy: policy("quiet"), State: rotator.StateOK, Current: current, LastRotation: instant, NextDue: next,
			Retiring: []rotator.Retiring{old("key_overlap", rotator.InOverlap, time.Hour), old("key_quarantine", rotator.InQuarantine, 26*time.Hour)}},
		{Policy: policy("busy"), State: rotator.StateOK, Current: current, LastRotation: instant, NextDue: instant.Add(50 * time.Hour), Drift: []string{"permissions", "allowed_ips", "character_limit"},
			Steps: []rotator.Step{
				step(rotator.ActSweep, rotator.ReasonAbandonedKey, "key_swept"), step(rotator.ActDisable, rotator.ReasonOverlapEnded, "key_overlap"),
				step(rotator.ActDelete, rotator.ReasonQuarantineEnded, "key_quarantine"), step(rotator.ActPatch, rotator.ReasonDrift, "key_current"),
				step(rotator.ActEnable, rotator.ReasonLateDisable, "key_current"), step(rotator.ActAdopt, rotator.ReasonAdoptNamed, "key_adopted"),
				step(rotator.ActFollow, rotator.ReasonRolledBack, "key_overlap"), step(rotator.ActInherit, rotator.ReasonRecordFound, ""),
				step(rotator.ActRecover, rotator.ReasonUnsettled, ""),
			}},
		{Policy: policy("vanished"), State: rotator.StateError, Reason: rotator.ReasonKeyVanished, Message: "key key_current is missing from the listing", Current: current,
			Steps: []rotator.Step{step(rotator.ActProve, rotator.ReasonKeyMissing, "key_current")}, NextDue: next},
		{Policy: policy("failing"), State: rotator.StateFailing, Reason: rotator.ReasonBackoff, Current: current, NextDue: instant.Add(5 * time.Minute)},
		{Policy: policy("throttled"), State: rotator.StateThrottled, Reason: rotator.ReasonThrottled, Current: current},
		{Policy: policy("waiting"), State: rotator.StateDue, Reason: rotator.ReasonOverlap, Current: current, Retiring: []rotator.Retiring{old("key_overlap", rotator.InOverlap, time.Hour)}},
		{Policy: policy("late"), State: rotator.StateOK, Reason: rotator.ReasonWindow, Current: current, NextDue: next},
		{Policy: policy("paused"), State: rotator.StatePaused, Reason: rotator.ReasonPaused, Current: current, NextDue: next},
	}}
	s.Unmanaged = []rotator.PolicyStatus{{Policy: policy("removed"), State: rotator.StateOK, Reason: rotator.ReasonUnmanaged, Current: current,
		Retiring: []rotator.Retiring{old("key_overlap", rotator.InOverlap, time.Hour)}}}
	return s
}
