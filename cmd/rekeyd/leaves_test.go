package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestThePlanSaysHowTheOldKeyLeaves as the rotation will take it: with what is left of max_age, or at once.
func TestThePlanSaysHowTheOldKeyLeaves(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		why    ledger.Trigger
		age    time.Duration
		maxAge time.Duration
		cutOff plan.DisableCause
		later  time.Duration
		want   string
	}{
		"overlap":              {why: ledger.TriggerSchedule, want: "works for another 4h0m"},
		"less of max_age left": {why: ledger.TriggerSchedule, age: 8 * time.Hour, maxAge: 9 * time.Hour, want: "works for another 1h0m"},
		"less left by then":    {why: ledger.TriggerSchedule, age: 6 * time.Hour, maxAge: 9 * time.Hour, later: 2 * time.Hour, want: "works for another 1h0m"},
		"too old":              {why: ledger.TriggerMaxAge, age: 20 * time.Hour, maxAge: 10 * time.Hour, want: "disabled at once"},
		"revoked":              {why: ledger.TriggerRevoke, want: "disabled at once"},
		"leaked":               {why: ledger.TriggerExposed, cutOff: plan.DisabledExposed, want: "disabled already, deleted after 1d0h"},
		"disabled by somebody": {why: ledger.TriggerRequested, cutOff: plan.DisabledOther, want: "disabled already"},
		"gone":                 {why: ledger.TriggerKeyMissing, want: "gone already"},
	} {
		s := rotator.PolicyStatus{
			Policy:  &plan.Policy{Overlap: 4 * time.Hour, Quarantine: 24 * time.Hour, MaxAge: c.maxAge},
			Current: &ledger.KeyRef{ID: "k", Created: instant.Add(-c.age)}, CutOff: c.cutOff,
		}
		at := time.Time{}
		if c.later > 0 {
			at = instant.Add(c.later)
		}
		for _, why := range []plan.Reason{c.why, plan.Delayed{Wait: plan.WaitBackoff, Trigger: c.why}} {
			if got := rotation(s, why, instant, at)[1]; !strings.HasSuffix(got.What, c.want) || got.Reason != why.Word() {
				t.Errorf("%s: %s (%s)", name, got.What, got.Reason)
			}
		}
	}
}
