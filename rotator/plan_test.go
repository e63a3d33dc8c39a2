package rotator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// The stage for the planner: a policy that rotates daily at 03:00 UTC, whose current key k2 was made yesterday at
// 03:00, with k1 quarantined until tomorrow. Nothing is to be done.
var planNow = time.Date(2026, 5, 5, 1, 0, 0, 0, time.UTC)

const (
	planOwner = "ownerown"
	nameOfK1  = "rekeyd.ownerown.tts-prod.aaaaaaaaa1"
	nameOfK2  = "rekeyd.ownerown.tts-prod.aaaaaaaaa2"
)

func planStage(t testing.TB) (plan.Policy, plan.Observed) {
	t.Helper()
	p := testPolicy(t, nil)
	last := planNow.Add(-22 * time.Hour)
	ref := func(id, name string) ledger.KeyRef {
		return ledger.KeyRef{ID: id, Name: name, Rotation: name[len(name)-10:], Workspace: p.Workspace, Account: p.ServiceAccount, Sink: p.Sink,
			Hash: "hash-" + id, Created: last, Published: last, Verified: true}
	}
	k2 := ref("k2", nameOfK2)
	e := &ledger.Entry{
		Owner: planOwner, Policy: p.Name, Current: &k2, LastRotation: last,
		Retiring: []ledger.Retiring{{KeyRef: ref("k1", nameOfK1), State: ledger.InQuarantine, Until: planNow.Add(20 * time.Hour), Proof: ledger.Rejected}},
		Applied:  &ledger.Applied{Digest: p.Settings.Digest(), At: last},
	}
	listed := func(id, name string, disabled bool) plan.ListedKey {
		return plan.ListedKey{Workspace: p.Workspace, Key: &elevenlabs.Key{ID: id, Name: name, ServiceAccount: p.ServiceAccount, Disabled: disabled, Settings: p.Settings}}
	}
	return p, plan.Observed{
		Entry: e, Owner: planOwner, Record: &plan.RecordView{HasValue: true, Match: "k2", KeyID: "k2", Policy: p.Name},
		Listed: true, Found: true, HomeListed: true, Keys: []plan.ListedKey{listed("k1", nameOfK1, true), listed("k2", nameOfK2, false)},
	}
}

func disable(o *plan.Observed, id, reason string) {
	for i := range o.Keys {
		if o.Keys[i].ID == id {
			o.Keys[i].Disabled, o.Keys[i].DisableReason = true, reason
		}
	}
}

func TestPlan(t *testing.T) {
	type stage struct {
		p   *plan.Policy
		o   *plan.Observed
		now *time.Time
	}
	overlap := func(s stage, left time.Duration) {
		s.o.Entry.Retiring[0].State, s.o.Entry.Retiring[0].Until = ledger.InOverlap, s.now.Add(left)
		s.o.Keys[0].Disabled = false
	}
	hours := func(s stage, n int) { *s.now = s.now.Add(time.Duration(n) * time.Hour) }
	noEntry := func(s stage) { s.o.Entry = nil; s.o.Record = &plan.RecordView{} }
	for _, c := range []struct {
		name   string
		change func(stage)
		steps  string // "action reason key", comma separated
		state  plan.State
		reason plan.Reason
	}{
		{"nothing to do", func(stage) {}, "", plan.StateOK, nil},
		{"nothing known", func(s stage) { *s.o = plan.Observed{} }, "", plan.StateDue, plan.WaitNotObserved},

		{"due by schedule", func(s stage) { hours(s, 2) }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"a second before", func(s stage) { hours(s, 2); *s.now = s.now.Add(-time.Second) }, "", plan.StateOK, nil},
		{"due, splayed", func(s stage) { hours(s, 2); s.p.Splay = time.Hour }, "", plan.StateOK, nil},
		{"due days ago", func(s stage) { hours(s, 15) }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"due, manual", func(s stage) { hours(s, 2); s.p.Mode = plan.ModeManual }, "", plan.StateOK, nil},
		{"due, paused", func(s stage) { hours(s, 2); s.p.Mode = plan.ModePaused }, "", plan.StatePaused, plan.WaitPaused},
		{"due, overlap running", func(s stage) { hours(s, 2); overlap(s, time.Hour) }, "", plan.StateDue, plan.WaitOverlap},
		{"due, within the window", func(s stage) { hours(s, 3); s.p.Window = time.Hour }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"due, past the window", func(s stage) { hours(s, 4); s.p.Window = time.Hour }, "", plan.StateOK, plan.WaitWindow},
		{"manual, with a window", func(s stage) { hours(s, 4); s.p.Window, s.p.Mode = time.Hour, plan.ModeManual }, "", plan.StateOK, nil},
		{"past the window, but too old", func(s stage) { hours(s, 4); s.p.Window = time.Hour; s.p.MaxAge = 29 * time.Hour }, "rotate max_age", plan.StateDue, ledger.TriggerMaxAge},
		{"past the window, and max_age before the next run", func(s stage) { hours(s, 4); s.p.Window = time.Hour; s.p.MaxAge = 34 * time.Hour }, "", plan.StateOK, plan.WaitWindow},
		{"due, group busy", func(s stage) { hours(s, 2); s.o.GroupHeld = "tts-other" }, "", plan.StateDue, plan.WaitGroup},
		{"due, group busy, too old", func(s stage) { hours(s, 4); s.o.GroupHeld, s.p.MaxAge = "tts-other", 30*time.Hour }, "rotate max_age", plan.StateDue, ledger.TriggerMaxAge},
		{"due, overlap running, too old by now", func(s stage) { hours(s, 4); overlap(s, time.Hour); s.p.MaxAge = 30 * time.Hour }, "rotate max_age", plan.StateDue, ledger.TriggerMaxAge},
		{"due, past the window, group busy", func(s stage) { hours(s, 4); s.p.Window = time.Hour; s.o.GroupHeld = "tts-other" }, "", plan.StateOK, plan.WaitWindow},
		{"leaked, group busy", func(s stage) { disable(s.o, "k2", "exposed_publicly"); s.o.GroupHeld = "tts-other" }, "rotate exposed_publicly", plan.StateDue, ledger.TriggerExposed},
		{"revoke, group busy", func(s stage) {
			s.o.Request, s.o.GroupHeld = &plan.Request{NotKey: "k2", Revoke: true}, "tts-other"
		}, "rotate revoke_now", plan.StateDue, ledger.TriggerRevoke},
		{"asked for, group busy", func(s stage) { s.o.Request, s.o.GroupHeld = &plan.Request{NotKey: "k2"}, "tts-other" }, "", plan.StateDue, plan.WaitGroup},
		{"moved, group busy", func(s stage) { s.p.ServiceAccount, s.o.GroupHeld = "svcacc_2", "tts-other" }, "", plan.StateDue, plan.WaitGroup},
		{"record deleted, group busy", func(s stage) { s.o.Record, s.o.GroupHeld = &plan.RecordView{}, "tts-other" }, "rotate record_missing", plan.StateDue, ledger.TriggerRecordMissing},
		{"due, throttled", func(s stage) { hours(s, 2); s.o.Rotations, s.o.MaxRotations = 5, 5 }, "", plan.StateThrottled, plan.WaitThrottled},
		{"due, not listed", func(s stage) { hours(s, 2); s.o.Listed = false }, "", plan.StateDue, plan.WaitNotObserved},
		{"due, account gone", func(s stage) { hours(s, 2); s.o.Found = false }, "", plan.StateError, plan.FaultUnknownAccount},
		{"due, backoff in the ledger", func(s stage) {
			hours(s, 2)
			s.o.Entry.Failure = &ledger.LastFailure{NextTry: s.now.Add(time.Minute)}
		}, "", plan.StateFailing, plan.WaitBackoff},
		{"due, backoff in memory", func(s stage) { hours(s, 2); s.o.RetryAt = s.now.Add(time.Minute) }, "", plan.StateFailing, plan.WaitBackoff},
		{"due, backoff over", func(s stage) { hours(s, 2); s.o.Entry.Failure = &ledger.LastFailure{NextTry: *s.now} }, "rotate schedule", plan.StateFailing, ledger.TriggerSchedule},
		{"too old", func(s stage) { s.p.MaxAge = 26 * time.Hour }, "rotate max_age", plan.StateDue, ledger.TriggerMaxAge},
		{"too old, overlap running", func(s stage) { s.p.MaxAge = 26 * time.Hour; overlap(s, time.Hour) }, "rotate max_age", plan.StateDue, ledger.TriggerMaxAge},
		{"too old, manual", func(s stage) { s.p.MaxAge = 26 * time.Hour; s.p.Mode = plan.ModeManual }, "rotate max_age", plan.StateDue, ledger.TriggerMaxAge},

		{"claimed by another", func(s stage) { hours(s, 2); s.o.Entry.Claim = &ledger.Claim{Holder: "other"} }, "", plan.StateRotating, plan.WaitClaimed},
		{"claim expired", func(s stage) { s.o.Entry.Claim = &ledger.Claim{Holder: "other"}; s.o.ClaimExpired = true }, "recover claim_expired", plan.StateRotating, plan.WaitClaimed},
		{"our own claim", func(s stage) { s.o.Entry.Claim = &ledger.Claim{Holder: "me"}; s.o.ClaimOurs = true }, "recover unsettled", plan.StateRotating, plan.WaitClaimed},

		{"overlap ended", func(s stage) { overlap(s, 0) }, "disable overlap_ended k1", plan.StateOK, nil},
		{"overlap ended, retry later", func(s stage) { overlap(s, 0); s.o.Entry.Retiring[0].NextTry = s.now.Add(1) }, "", plan.StateOK, nil},
		{"overlap ended, in use", func(s stage) { overlap(s, 0); s.o.InUse = []string{"k1"}; s.p.WaitUntilIdle = time.Hour }, "", plan.StateOK, nil},
		{"overlap ended, nothing known of its use", func(s stage) { overlap(s, 0); s.p.WaitUntilIdle = time.Hour }, "", plan.StateOK, nil},
		{"overlap ended, new key unused", func(s stage) { overlap(s, 0); s.p.WaitUntilUsed = time.Hour }, "", plan.StateOK, nil},
		{"overlap ended, new key used", func(s stage) { overlap(s, 0); s.p.WaitUntilUsed = time.Hour; s.o.Used = true }, "disable overlap_ended k1", plan.StateOK, nil},
		{"overlap ended, new key used, old key not idle", func(s stage) {
			overlap(s, 0)
			s.p.WaitUntilUsed, s.p.WaitUntilIdle, s.o.Used = time.Hour, time.Hour, true
		}, "", plan.StateOK, nil},
		{"overlap ended, new key unused too long", func(s stage) { overlap(s, -time.Hour); s.p.WaitUntilUsed = time.Hour }, "disable overlap_ended k1", plan.StateOK, nil},
		{"disabled, not proven", func(s stage) { s.o.Entry.Retiring[0].Proof = "" }, "prove proof k1", plan.StateOK, nil},
		{"disabled, still accepted", func(s stage) { s.o.Entry.Retiring[0].Proof = ledger.StillAccepted }, "prove proof k1", plan.StateOK, nil},
		{"disabled, cannot be tried", func(s stage) { s.o.Entry.Retiring[0].Proof = ledger.NotTried }, "", plan.StateOK, nil},
		{"not proven, enabled by a person", func(s stage) {
			s.o.Entry.Retiring[0].Proof = ""
			s.o.Keys[0].Disabled, s.o.Enabled = false, []string{"k1"}
		}, "", plan.StateOK, plan.WaitQuarantineEnabled},
		{"overlap ended, idle", func(s stage) { overlap(s, 0); s.o.Idle = []string{"k1"}; s.p.WaitUntilIdle = time.Hour }, "disable overlap_ended k1", plan.StateOK, nil},
		{"overlap ended, in use too long", func(s stage) { overlap(s, -2*time.Hour); s.o.InUse = []string{"k1"}; s.p.WaitUntilIdle = time.Hour }, "disable overlap_ended k1", plan.StateOK, nil},
		{"in use, but max_age ends it", func(s stage) {
			overlap(s, 0)
			s.o.InUse, s.p.WaitUntilIdle, s.p.MaxAge = []string{"k1"}, time.Hour, 22*time.Hour
			s.o.Entry.Current.Created = *s.now
		}, "disable overlap_ended k1", plan.StateOK, nil},
		{"retiring key disabled by others", func(s stage) { overlap(s, time.Hour); disable(s.o, "k1", "") }, "disable disabled_outside k1", plan.StateOK, nil},
		{"quarantine ended", func(s stage) { s.o.Entry.Retiring[0].Until = *s.now }, "delete quarantine_ended k1", plan.StateOK, nil},
		{"abandoned key listed", func(s stage) {
			s.o.Entry.Abandoned = []ledger.Abandoned{{Rotation: "aaaaaaaaa3"}}
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Key: &elevenlabs.Key{ID: "k3", Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa3"}})
		}, "sweep abandoned k3", plan.StateOK, nil},
		{"unexplained key listed", func(s stage) {
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Key: &elevenlabs.Key{ID: "k3", Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa3"}})
		}, "", plan.StateOK, nil},
		{"abandoned rotation of another owner", func(s stage) {
			s.o.Entry.Abandoned = []ledger.Abandoned{{Rotation: "aaaaaaaaa3"}}
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Key: &elevenlabs.Key{ID: "k3", Name: "rekeyd.ownertwo.tts-prod.aaaaaaaaa3"}})
		}, "", plan.StateOK, nil},

		{"leaked", func(s stage) { disable(s.o, "k2", "exposed_publicly") }, "rotate exposed_publicly", plan.StateDue, ledger.TriggerExposed},
		{"leaked, manual", func(s stage) { disable(s.o, "k2", "self_disabled"); s.p.Mode = plan.ModeManual }, "rotate self_disabled", plan.StateDue, ledger.TriggerSelfDisabled},
		{"leaked, throttled", func(s stage) { disable(s.o, "k2", "exposed_publicly"); s.o.Rotations, s.o.MaxRotations = 5, 5 }, "rotate exposed_publicly", plan.StateDue, ledger.TriggerExposed},
		{"leaked again and again", func(s stage) {
			disable(s.o, "k2", "exposed_publicly")
			s.o.Entry.Leaks = []time.Time{*s.now, *s.now, *s.now}
		}, "", plan.StateError, plan.FaultLeakStorm},
		{"leaked again and again, rotate", func(s stage) {
			disable(s.o, "k2", "exposed_publicly")
			s.o.Entry.Leaks = []time.Time{*s.now, *s.now, *s.now}
			s.o.Request = &plan.Request{NotKey: "k2"}
		}, "rotate requested", plan.StateDue, ledger.TriggerRequested},
		{"trial ended, due", func(s stage) { hours(s, 2); disable(s.o, "k2", "trial_ended") }, "", plan.StateError, plan.FaultTrialEnded},
		{"disabled by a person, due", func(s stage) { hours(s, 2); disable(s.o, "k2", "") }, "", plan.StateError, plan.FaultKeyDisabled},
		{"disabled for a new reason", func(s stage) { disable(s.o, "k2", "solar_flare") }, "", plan.StateError, plan.FaultKeyDisabled},
		{"disabled by a late call of ours", func(s stage) {
			disable(s.o, "k2", "")
			s.o.Entry.Current.Calls = []ledger.Call{{Kind: ledger.CallDisable, At: *s.now}}
		}, "enable late_disable k2", plan.StateOK, nil},
		{"gone from one listing", func(s stage) { s.o.Keys = s.o.Keys[:1] }, "", plan.StateOK, ledger.TriggerKeyMissing},
		{"gone with its account", func(s stage) { s.o.Keys, s.o.Found = nil, false }, "", plan.StateError, plan.FaultUnknownAccount},
		{"gone with the account that the policy has left", func(s stage) {
			s.p.ServiceAccount, s.o.Keys = "svcacc_2", nil
		}, "rotate moved", plan.StateDue, ledger.TriggerMoved},
		{"gone, and the workspace does not answer", func(s stage) { s.o.Keys, s.o.Listed, s.o.Found = nil, false, false }, "", plan.StateOK, ledger.TriggerKeyMissing},
		{"gone from two listings", func(s stage) { s.o.Keys = s.o.Keys[:1]; s.o.MissingTwice = true }, "prove key_missing k2", plan.StateDue, ledger.TriggerKeyMissing},
		{"gone, and it is not clear whether it works", func(s stage) { s.o.Keys, s.o.MissingTwice, s.o.Proof = s.o.Keys[:1], true, elevenlabs.Inconclusive }, "prove key_missing k2", plan.StateError, plan.FaultKeyVanished},
		{"gone, and the record too", func(s stage) {
			s.o.Keys, s.o.MissingTwice, s.o.Record = s.o.Keys[:1], true, &plan.RecordView{}
		}, "rotate record_missing", plan.StateDue, ledger.TriggerRecordMissing},
		{"gone and proven", func(s stage) { s.o.Keys, s.o.MissingTwice, s.o.Proof = s.o.Keys[:1], true, elevenlabs.Invalid }, "rotate key_missing", plan.StateDue, ledger.TriggerKeyMissing},
		{"gone from listings, but alive", func(s stage) { s.o.Keys, s.o.MissingTwice, s.o.Proof = s.o.Keys[:1], true, elevenlabs.Valid }, "prove key_missing k2", plan.StateError, plan.FaultKeyVanished},

		{"record deleted", func(s stage) { s.o.Record = &plan.RecordView{} }, "rotate record_missing", plan.StateDue, ledger.TriggerRecordMissing},
		{"record overwritten", func(s stage) { hours(s, 2); s.o.Record.Match = "" }, "", plan.StateError, plan.FaultRecordChanged},
		{"record overwritten, leaked", func(s stage) { s.o.Record.Match = ""; disable(s.o, "k2", "exposed_publicly") }, "", plan.StateError, plan.FaultRecordChanged},
		{"record overwritten, rotate", func(s stage) { s.o.Record.Match = ""; s.o.Request = &plan.Request{NotKey: "k2"} }, "rotate requested", plan.StateDue, ledger.TriggerRequested},
		{"record holds a key of ours that the ledger forgot", func(s stage) {
			s.o.Record.Match, s.o.Record.KeyID = "", "k3"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k3", ServiceAccount: s.p.ServiceAccount, Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa3"}})
		}, "adopt record_found k3", plan.StateOK, nil},
		{"record rolled back", func(s stage) { overlap(s, time.Hour); s.o.Record.Match = "k1" }, "follow rolled_back k1", plan.StateOK, nil},
		{"record rolled back to a dead key", func(s stage) { s.o.Record.Match = "k1" }, "", plan.StateError, plan.FaultRecordChanged},
		{"record overwritten, adopt", func(s stage) {
			s.o.Record.Match, s.p.Adopt = "", "k9"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k9", Name: "by hand", ServiceAccount: s.p.ServiceAccount}})
		}, "adopt adopt k9", plan.StateOK, nil},
		{"record overwritten, adopt a second key that others made", func(s stage) {
			s.o.Record.Match, s.p.Adopt, s.o.Entry.Current.Rotation, s.o.Keys[1].Name = "", "k9", "", "by hand"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k9", Name: "by hand", ServiceAccount: s.p.ServiceAccount}})
		}, "adopt adopt k9", plan.StateOK, nil},
		{"request fulfilled", func(s stage) { s.o.Request = &plan.Request{NotKey: "k1"} }, "", plan.StateOK, nil},
		{"revoke, a key in quarantine works", func(s stage) {
			s.o.Request, s.o.Keys[0].Disabled = &plan.Request{NotKey: "k1", Revoke: true}, false
		}, "disable revoke_now k1", plan.StateOK, nil},
		{"revoke", func(s stage) { s.o.Request = &plan.Request{NotKey: "k2", Revoke: true} }, "rotate revoke_now", plan.StateDue, ledger.TriggerRevoke},

		{"drift, patch", func(s stage) { s.o.Keys[1].Settings.Permissions.All = true }, "patch drift k2", plan.StateOK, nil},
		{"no drift, a limit that nobody manages", func(s stage) {
			s.o.Keys[1].Settings.Optional = elevenlabs.Optional{TTSConcurrency: elevenlabs.Some(int64(3)), ThirdPartyDisable: elevenlabs.Some(false)}
		}, "", plan.StateOK, nil},
		{"drift, another limit", func(s stage) {
			s.p.Settings.TTSConcurrency, s.o.Keys[1].Settings.TTSConcurrency = elevenlabs.Some(int64(2)), elevenlabs.Some(int64(3))
		}, "patch drift k2", plan.StateOK, nil},
		{"drift, a limit that is to be cleared", func(s stage) {
			s.p.Settings.MusicConcurrency, s.o.Keys[1].Settings.MusicConcurrency = elevenlabs.None[int64](), elevenlabs.Some(int64(0))
		}, "patch drift k2", plan.StateOK, nil},
		{"drift, a limit of zero is a limit", func(s stage) {
			s.p.Settings.DubbingConcurrency, s.o.Keys[1].Settings.DubbingConcurrency = elevenlabs.Some(int64(0)), elevenlabs.None[int64]()
		}, "patch drift k2", plan.StateOK, nil},
		{"no drift, none of what an older API does not show", func(s stage) { s.p.Settings.DubbingConcurrency = elevenlabs.None[int64]() }, "", plan.StateOK, nil},
		{"drift, third parties", func(s stage) {
			s.p.Settings.ThirdPartyDisable, s.o.Keys[1].Settings.ThirdPartyDisable = elevenlabs.Some(true), elevenlabs.Some(false)
		}, "patch drift k2", plan.StateOK, nil},
		{"drift, report", func(s stage) { s.o.Keys[1].Settings.Permissions.All = true; s.p.OnDrift = plan.DriftReport }, "", plan.StateOK, nil},
		{"drift, rotate", func(s stage) { s.o.Keys[1].Settings.Permissions.All = true; s.p.OnDrift = plan.DriftRotate }, "rotate drift", plan.StateDue, ledger.TriggerDrift},
		{"drift, rotate, due", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All = true
			s.p.OnDrift = plan.DriftRotate
			hours(s, 2)
		}, "rotate drift", plan.StateDue, ledger.TriggerDrift},
		{"drift, rotate, manual", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All, s.p.OnDrift, s.p.Mode = true, plan.DriftRotate, plan.ModeManual
		}, "", plan.StateOK, nil},
		{"drift that survived", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All = true
			s.o.Entry.Applied.Ignored = []string{"permissions"}
		}, "", plan.StateError, plan.FaultSettingsIgnored},
		{"drift that survived, due", func(s stage) {
			hours(s, 2)
			s.o.Keys[1].Settings.Permissions.All = true
			s.o.Entry.Applied.Ignored = []string{"permissions"}
		}, "rotate schedule", plan.StateError, plan.FaultSettingsIgnored},
		{"drift, replicas disagree", func(s stage) { s.o.Keys[1].Settings.Permissions.All = true; s.o.Differs = true }, "", plan.StateError, plan.FaultReplicasDiffer},
		{"moved to another sink", func(s stage) { s.p.Sink.Path = "elevenlabs/new"; s.o.Record = &plan.RecordView{} }, "rotate moved", plan.StateDue, ledger.TriggerMoved},
		{"moved onto somebody's value", func(s stage) { s.p.Sink.Path = "elevenlabs/new"; s.o.Record.Match = "" }, "", plan.StateError, plan.FaultRecordChanged},
		{"moved to another account", func(s stage) { s.p.ServiceAccount = "svcacc_2" }, "rotate moved", plan.StateDue, ledger.TriggerMoved},
		{"entry moved away", func(s stage) { s.o.Entry.MovedTo = "new-name" }, "", plan.StateError, plan.FaultMovedAway},
		{"unreadable entry", func(s stage) { s.o.LedgerError = "schema 9" }, "", plan.StateError, plan.FaultLedgerInvalid},

		{"admin key, others are due", func(s stage) { hours(s, 2); s.p.AdminOf, s.o.OthersDue = "default", true }, "", plan.StateDue, plan.WaitOthersFirst},
		{"admin key, others were due for long", func(s stage) { hours(s, 3); s.p.AdminOf, s.o.OthersDue = "default", true }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"admin key, others are due, window half over", func(s stage) {
			hours(s, 2)
			*s.now = s.now.Add(10 * time.Minute)
			s.p.AdminOf, s.o.OthersDue, s.p.Window = "default", true, 20*time.Minute
		}, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"admin key, nobody else is due", func(s stage) { hours(s, 2); s.p.AdminOf = "default" }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"admin key too old, others are due", func(s stage) {
			s.p.AdminOf, s.o.OthersDue, s.p.MaxAge = "default", true, 26*time.Hour
		}, "rotate max_age", plan.StateDue, ledger.TriggerMaxAge},
		{"admin key asked for, others are due", func(s stage) {
			hours(s, 2)
			s.p.AdminOf, s.o.OthersDue, s.o.Request = "default", true, &plan.Request{NotKey: "k2"}
		}, "rotate requested", plan.StateDue, ledger.TriggerRequested},
		{"admin key, drift", func(s stage) { s.p.AdminOf = "default"; s.o.Keys[1].Settings.Permissions.All = true }, "rotate drift", plan.StateDue, ledger.TriggerDrift},
		{"admin key, drift, manual", func(s stage) {
			s.p.AdminOf, s.p.Mode = "default", plan.ModeManual
			s.o.Keys[1].Settings.Permissions.All = true
		}, "", plan.StateOK, nil},
		{"admin key, drift, report", func(s stage) {
			s.p.AdminOf, s.p.OnDrift = "default", plan.DriftReport
			s.o.Keys[1].Settings.Permissions.All = true
		}, "", plan.StateOK, nil},
		{"due, admin key refused", func(s stage) { hours(s, 2); s.o.Listed, s.o.AdminRefused = false, true }, "", plan.StateFailing, ledger.FailureAdminKeyRefused},
		{"admin key refused, not due", func(s stage) { s.o.Listed, s.o.AdminRefused = false, true }, "", plan.StateOK, nil},

		{"nothing anywhere", noEntry, "rotate first", plan.StateDue, ledger.TriggerFirst},
		{"nothing anywhere, manual", func(s stage) { noEntry(s); s.p.Mode = plan.ModeManual }, "rotate first", plan.StateDue, ledger.TriggerFirst},
		{"nothing anywhere, group busy", func(s stage) { noEntry(s); s.o.GroupHeld = "tts-other" }, "rotate first", plan.StateDue, ledger.TriggerFirst},
		{"nothing anywhere, throttled", func(s stage) { noEntry(s); s.o.Rotations, s.o.MaxRotations = 5, 5 }, "", plan.StateThrottled, plan.WaitThrottled},
		{"no entry, record not read", func(s stage) { s.o.Entry, s.o.Record = nil, nil }, "", plan.StateDue, plan.WaitNotObserved},
		{"no entry, record names a key", func(s stage) { s.o.Entry = nil }, "adopt record_found k2", plan.StateOK, nil},
		{"no entry, record names an unknown key", func(s stage) { s.o.Entry = nil; s.o.Record.KeyID = "k7" }, "", plan.StateError, plan.FaultRecordChanged},
		{"no entry, a value without a name", func(s stage) { s.o.Entry = nil; s.o.Record.KeyID = "" }, "", plan.StateError, plan.FaultRecordChanged},
		{"no entry, adopt", func(s stage) { s.o.Entry, s.p.Adopt = nil, "k1" }, "adopt adopt k1", plan.StateOK, nil},
		{"no entry, adopt without its secret", func(s stage) { noEntry(s); s.p.Adopt = "k1" }, "", plan.StateError, plan.FaultAdoptRefused},
		{"no entry, adopt what is not there", func(s stage) { noEntry(s); s.p.Adopt = "k7" }, "", plan.StateError, plan.FaultAdoptUnknown},
		{"no entry, adopt a key whose hint does not fit", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Keys[0].Hint, s.o.Record.Ending = nil, "k1", "...ab12", "12345678"
		}, "", plan.StateError, plan.FaultAdoptRefused},
		{"no entry, adopt a key whose hint fits", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Keys[0].Hint, s.o.Record.Ending = nil, "k1", "...5678", "12345678"
		}, "adopt adopt k1", plan.StateOK, nil},
		{"no entry, adopt a key that the ledger has for another", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Elsewhere = nil, "k1", map[string]string{"k1": "other"}
		}, "", plan.StateError, plan.FaultAdoptRefused},
		{"no entry, adopt a key of another policy's name", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Keys[0].Name = nil, "k1", "rekeyd.ownerown.other.aaaaaaaaa1"
		}, "", plan.StateError, plan.FaultAdoptRefused},
		{"no entry, adopt a key of the same policy elsewhere", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Keys[0].Name = nil, "k1", "rekeyd.neighbor.other.aaaaaaaaa1"
		}, "adopt adopt k1", plan.StateOK, nil},
		{"no entry, adopt a secret", func(s stage) { s.o.Entry, s.p.Adopt = nil, "sk_secret" }, "", plan.StateError, plan.FaultAdoptUnknown},
		{"an abandoned key, adopt", func(s stage) {
			s.o.Entry.Current, s.p.Adopt, s.o.Entry.Retiring = nil, "k1", nil
			s.o.Entry.Abandoned = []ledger.Abandoned{{Rotation: "aaaaaaaaa2"}}
		}, "sweep abandoned k2, adopt adopt k1", plan.StateOK, nil},
		{"an abandoned key in the record", func(s stage) {
			s.o.Entry.Current, s.o.Entry.Retiring = nil, nil
			s.o.Entry.Abandoned = []ledger.Abandoned{{Rotation: "aaaaaaaaa2"}}
		}, "sweep abandoned k2", plan.StateError, plan.FaultAdoptRefused},
		{"no entry, record names another policy's key", func(s stage) {
			s.o.Entry, s.o.Keys[1].Name = nil, "rekeyd.ownerown.other.aaaaaaaaa2"
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"record overwritten with another policy's key", func(s stage) {
			s.o.Record.Match, s.o.Record.KeyID, s.o.Elsewhere = "", "k9", map[string]string{"k9": "other"}
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"no entry, fields of others", func(s stage) { noEntry(s); s.o.Record.Foreign = "key_id" }, "", plan.StateError, plan.FaultRecordChanged},
		{"no entry, what a takeover leaves", func(s stage) {
			noEntry(s)
			s.o.Record.Foreign, s.o.Record.Policy = "policy", s.p.Name
		}, "rotate first", plan.StateDue, ledger.TriggerFirst},
		{"moved to fields of others", func(s stage) {
			s.p.Sink.Path, s.o.Record = "elsewhere", &plan.RecordView{Foreign: "policy"}
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"a field of rekeyd's own for the secret", func(s stage) { hours(s, 2); s.p.Sink.Field = "key_id" }, "", plan.StateError, plan.FaultSinkField},

		{"no entry, another policy's record", func(s stage) { s.o.Entry, s.o.Inherits = nil, "tts-old" }, "inherit record_found k2", plan.StateOK, nil},
		{"no entry, adopt a key of another account", func(s stage) { s.o.Entry, s.p.Adopt, s.o.Keys[0].ServiceAccount = nil, "k1", "svcacc_2" }, "", plan.StateError, plan.FaultAdoptUnknown},
		{"no entry, adopt a key of another workspace", func(s stage) { s.o.Entry, s.p.Adopt, s.o.Keys[0].Workspace = nil, "k1", "second" }, "", plan.StateError, plan.FaultAdoptUnknown},
		{"record overwritten, adopt a key that it had once", func(s stage) {
			s.o.Record.Match, s.p.Adopt = "", "k9"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k9", Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa9", ServiceAccount: s.p.ServiceAccount}})
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"record overwritten, adopt a key of another installation", func(s stage) {
			s.o.Record.Match, s.p.Adopt = "", "k9"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k9", Name: "rekeyd.ownertwo.tts-prod.aaaaaaaaa9", ServiceAccount: s.p.ServiceAccount}})
		}, "adopt adopt k9", plan.StateOK, nil},
		{"record overwritten, adopt another policy's key", func(s stage) {
			s.o.Record.Match, s.p.Adopt = "", "k9"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k9", Name: "rekeyd.ownerown.other.aaaaaaaaa9", ServiceAccount: s.p.ServiceAccount}})
		}, "", plan.StateError, plan.FaultAdoptRefused},

		{"record overwritten, adopt names the retiring key", func(s stage) {
			s.o.Record.Match, s.p.Adopt, s.o.Keys[0].Name = "", "k1", "by hand"
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"no entry, more than a takeover leaves", func(s stage) {
			noEntry(s)
			s.o.Record.Foreign, s.o.Record.Policy = "key_id, policy", s.p.Name
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"due, backoff, a request is fulfilled", func(s stage) {
			hours(s, 2)
			s.o.Request, s.o.RetryAt = &plan.Request{NotKey: "k1"}, s.now.Add(time.Minute)
		}, "", plan.StateFailing, plan.WaitBackoff},
		{"in order, and it could inherit", func(s stage) { s.o.Inherits = "tts-old" }, "", plan.StateOK, nil},
		{"overlap ended, record not read", func(s stage) { overlap(s, 0); s.o.Record = nil }, "disable overlap_ended k1", plan.StateOK, nil},
		{"removed, without a current key, record not read", func(s stage) {
			overlap(s, 0)
			s.p.Mode, s.o.Entry.Current, s.o.Record = plan.ModeRemoved, nil, nil
		}, "disable overlap_ended k1", plan.StateOK, plan.WaitRemoved},
		{"revoke, the older key in quarantine", func(s stage) { s.o.Request = &plan.Request{NotKey: "k1", Revoke: true} }, "", plan.StateOK, nil},
		{"revoke, the older key in quarantine and gone", func(s stage) {
			s.o.Request, s.o.Keys = &plan.Request{NotKey: "k1", Revoke: true}, s.o.Keys[1:]
		}, "", plan.StateOK, nil},
		{"revoke, the older key in overlap and gone", func(s stage) {
			overlap(s, time.Hour)
			s.o.Request, s.o.Keys = &plan.Request{NotKey: "k1", Revoke: true}, s.o.Keys[1:]
		}, "disable revoke_now k1", plan.StateOK, nil},
		{"revoke, and an older key in overlap", func(s stage) {
			overlap(s, time.Hour)
			s.o.Request = &plan.Request{NotKey: "k2", Revoke: true}
		}, "rotate revoke_now", plan.StateDue, ledger.TriggerRevoke},
		{"revoke, no current key", func(s stage) {
			overlap(s, time.Hour)
			s.o.Entry.Current, s.o.Record, s.o.Request = nil, &plan.RecordView{}, &plan.Request{NotKey: "k1", Revoke: true}
		}, "rotate first", plan.StateDue, ledger.TriggerFirst},
		{"an enable of ours may come", func(s stage) { s.o.Entry.Retiring[0].Calls = []ledger.Call{{Kind: ledger.CallEnable, At: *s.now}} }, "", plan.StateOK, nil},
		{"overlap running, beyond a max_age of now", func(s stage) {
			overlap(s, time.Hour)
			s.p.MaxAge, s.o.Entry.Current.Created = 22*time.Hour, *s.now
		}, "", plan.StateOK, nil},
		{"no entry, not listed, record names a key", func(s stage) { s.o.Entry, s.o.Listed = nil, false }, "", plan.StateDue, plan.WaitNotObserved},
		{"no current key, adopt of one that it had", func(s stage) {
			s.o.Entry.Current, s.p.Adopt, s.o.Record.KeyID = nil, "k1", "k9"
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"moved onto a value of others, leaked", func(s stage) {
			s.p.Sink.Path, s.o.Record.Match, s.o.Record.KeyID = "elsewhere", "", ""
			disable(s.o, "k2", "exposed_publicly")
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"moved, leaked", func(s stage) {
			s.p.Sink.Path, s.o.Record = "elsewhere", &plan.RecordView{}
			disable(s.o, "k2", "exposed_publicly")
		}, "rotate exposed_publicly", plan.StateDue, ledger.TriggerExposed},
		{"adopted, the record names another key, leaked", func(s stage) {
			s.o.Entry.Current.Hash, s.o.Record.Match, s.o.Record.KeyID = "", "", "k7"
			disable(s.o, "k2", "exposed_publicly")
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"adopted, moved to a record that names its key", func(s stage) {
			s.o.Entry.Current.Hash, s.o.Record.Match, s.p.Sink.Path = "", "", "elsewhere"
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"drift, rotate, patched in vain a moment ago", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All, s.o.PatchAfter, s.p.OnDrift = true, s.now.Add(1), plan.DriftRotate
		}, "rotate drift", plan.StateDue, ledger.TriggerDrift},
		{"revoke, backoff", func(s stage) {
			s.o.Request, s.o.RetryAt = &plan.Request{NotKey: "k2", Revoke: true}, s.now.Add(time.Minute)
		}, "rotate revoke_now", plan.StateDue, ledger.TriggerRevoke},
		{"asked for, backoff", func(s stage) { s.o.Request, s.o.RetryAt = &plan.Request{NotKey: "k2"}, s.now.Add(time.Minute) }, "rotate requested", plan.StateDue, ledger.TriggerRequested},
		{"asked for, and it failed", func(s stage) {
			s.o.Request, s.o.RetryAt = &plan.Request{NotKey: "k2", Failed: true}, s.now.Add(time.Minute)
		}, "", plan.StateFailing, plan.WaitBackoff},
		{"asked for, and it failed, record rolled back", func(s stage) {
			overlap(s, time.Hour)
			s.o.Record.Match, s.o.Request, s.o.RetryAt = "k1", &plan.Request{NotKey: "k2", Failed: true}, s.now.Add(time.Minute)
		}, "follow rolled_back k1", plan.StateFailing, plan.WaitBackoff},
		{"asked for and pending", func(s stage) { s.o.Request = &plan.Request{NotKey: "k2", Pending: true} }, "", plan.StateOK, nil},
		{"revoke and pending", func(s stage) {
			overlap(s, time.Hour)
			s.o.Request = &plan.Request{NotKey: "k1", Revoke: true, Pending: true}
		}, "", plan.StateOK, nil},
		{"revoke, the older key in overlap", func(s stage) {
			overlap(s, time.Hour)
			s.o.Request = &plan.Request{NotKey: "k1", Revoke: true}
		}, "disable revoke_now k1", plan.StateOK, nil},
		{"asked for without revoke, the older key in overlap", func(s stage) { overlap(s, time.Hour); s.o.Request = &plan.Request{NotKey: "k1"} }, "", plan.StateOK, nil},
		{"backoff that a wrong clock wrote", func(s stage) { hours(s, 2); s.o.RetryAt = s.now.Add(plan.MaxBackoff + plan.MaxSkew + 1) }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"longest backoff", func(s stage) { hours(s, 2); s.o.RetryAt = s.now.Add(plan.MaxBackoff + plan.MaxSkew) }, "", plan.StateFailing, plan.WaitBackoff},
		{"due, entries unread", func(s stage) { hours(s, 2); s.o.MaxRotations, s.o.Uncounted = 5, true }, "", plan.StateDue, plan.WaitNotObserved},
		{"due, entries unread, no limit", func(s stage) { hours(s, 2); s.o.Uncounted = true }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"due, many rotations, no limit", func(s stage) { hours(s, 2); s.o.Rotations = 5 }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"due, below the limit", func(s stage) { hours(s, 2); s.o.Rotations, s.o.MaxRotations = 4, 5 }, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"leaked, entries unread", func(s stage) { disable(s.o, "k2", "exposed_publicly"); s.o.MaxRotations, s.o.Uncounted = 5, true }, "rotate exposed_publicly", plan.StateDue, ledger.TriggerExposed},
		{"self disabled, throttled", func(s stage) { disable(s.o, "k2", "self_disabled"); s.o.Rotations, s.o.MaxRotations = 5, 5 }, "rotate self_disabled", plan.StateDue, ledger.TriggerSelfDisabled},
		{"revoke, throttled", func(s stage) {
			s.o.Request, s.o.Rotations, s.o.MaxRotations = &plan.Request{NotKey: "k2", Revoke: true}, 5, 5
		}, "rotate revoke_now", plan.StateDue, ledger.TriggerRevoke},
		{"asked for, throttled", func(s stage) {
			s.o.Request, s.o.Rotations, s.o.MaxRotations = &plan.Request{NotKey: "k2"}, 5, 5
		}, "", plan.StateThrottled, plan.WaitThrottled},
		{"due, overlap running in a workspace that it left", func(s stage) {
			hours(s, 2)
			overlap(s, 0)
			s.o.Entry.Retiring[0].Workspace, s.o.Entry.Retiring[0].NextTry = "second", s.now.Add(time.Minute)
		}, "", plan.StateDue, plan.WaitOverlap},
		{"due, overlap long over in a workspace that it left", func(s stage) {
			hours(s, 2)
			overlap(s, -time.Hour)
			s.o.Entry.Retiring[0].Workspace, s.o.Entry.Retiring[0].NextTry = "second", s.now.Add(time.Minute)
		}, "rotate schedule", plan.StateDue, ledger.TriggerSchedule},
		{"due, overlap long over in its workspace", func(s stage) {
			hours(s, 2)
			overlap(s, -time.Hour)
			s.o.Entry.Retiring[0].NextTry = s.now.Add(time.Minute)
		}, "", plan.StateDue, plan.WaitOverlap},
		{"leaked, overlap running", func(s stage) { overlap(s, time.Hour); disable(s.o, "k2", "exposed_publicly") }, "rotate exposed_publicly", plan.StateDue, ledger.TriggerExposed},
		{"drift, group busy", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All, s.p.OnDrift, s.o.GroupHeld = true, plan.DriftRotate, "tts-other"
		}, "", plan.StateDue, plan.WaitGroup},

		{"intent without a claim", func(s stage) { s.o.Entry.Intent = &ledger.Intent{} }, "", plan.StateRotating, plan.WaitClaimed},
		{"removed, claim expired", func(s stage) {
			s.p.Mode, s.o.Entry.Claim, s.o.ClaimExpired = plan.ModeRemoved, &ledger.Claim{}, true
		}, "recover claim_expired", plan.StateRotating, plan.WaitClaimed},
		{"removed, overlap ended", func(s stage) { hours(s, 2); overlap(s, 0); s.p.Mode = plan.ModeRemoved }, "disable overlap_ended k1", plan.StateOK, plan.WaitRemoved},
		{"removed, overlap ended, new key unused", func(s stage) {
			overlap(s, 0)
			s.p.Mode, s.o.Entry.Retiring[0].WaitUntilUsed, s.o.Idle = plan.ModeRemoved, ledger.Duration(time.Hour), []string{"k1"}
		}, "", plan.StateOK, plan.WaitRemoved},
		{"removed, overlap ended, new key used", func(s stage) {
			overlap(s, 0)
			s.p.Mode, s.o.Entry.Retiring[0].WaitUntilUsed, s.o.Used = plan.ModeRemoved, ledger.Duration(time.Hour), true
		}, "disable overlap_ended k1", plan.StateOK, plan.WaitRemoved},
		{"removed, overlap ended, of a policy that waits", func(s stage) {
			overlap(s, 0)
			s.p.Mode, s.o.Entry.Retiring[0].WaitUntilIdle = plan.ModeRemoved, ledger.Duration(time.Hour)
		}, "", plan.StateOK, plan.WaitRemoved},
		{"removed, without a current key", func(s stage) {
			overlap(s, 0)
			s.p.Mode, s.o.Entry.Current = plan.ModeRemoved, nil
		}, "disable overlap_ended k1", plan.StateOK, plan.WaitRemoved},
		{"removed, no entry", func(s stage) { s.p.Mode, s.o.Entry = plan.ModeRemoved, nil }, "", plan.StateOK, nil},
		{"removed, moved away", func(s stage) { s.p.Mode, s.o.Entry.MovedTo = plan.ModeRemoved, "new-name" }, "", plan.StateOK, nil},
		{"renamed back", func(s stage) { s.o.Entry.MovedTo, s.o.Inherits = "new-name", "new-name" }, "inherit renamed_back", plan.StateOK, nil},

		{"overlap ended, revoked, in use", func(s stage) {
			overlap(s, 0)
			s.p.WaitUntilIdle, s.o.Entry.Retiring[0].Reason = time.Hour, ledger.TriggerRevoke
		}, "disable overlap_ended k1", plan.StateOK, nil},
		{"retry that a wrong clock wrote", func(s stage) {
			overlap(s, 0)
			s.o.Entry.Retiring[0].NextTry = s.now.Add(plan.MaxBackoff + plan.MaxSkew + 1)
		}, "disable overlap_ended k1", plan.StateOK, nil},
		{"retiring key disabled by a call of ours", func(s stage) {
			overlap(s, time.Hour)
			disable(s.o, "k1", "")
			s.o.Entry.Retiring[0].Calls = []ledger.Call{{Kind: ledger.CallDisable, At: *s.now}}
		}, "", plan.StateOK, nil},
		{"quarantine ended, and the key is gone", func(s stage) { s.o.Entry.Retiring[0].Until, s.o.Keys = *s.now, s.o.Keys[1:] }, "delete quarantine_ended k1", plan.StateOK, nil},
		{"quarantine ended, and the key works", func(s stage) { s.o.Entry.Retiring[0].Until, s.o.Keys[0].Disabled = *s.now, false }, "", plan.StateOK, nil},
		{"overlap ended, of the current key", func(s stage) {
			s.o.Entry.Retiring[0].KeyRef, s.o.Entry.Retiring[0].State, s.o.Entry.Retiring[0].Until = *s.o.Entry.Current, ledger.InOverlap, *s.now
		}, "", plan.StateOK, nil},
		{"enabled in quarantine by a person", func(s stage) { s.o.Enabled, s.o.Keys[0].Disabled = []string{"k1"}, false }, "", plan.StateOK, plan.WaitQuarantineEnabled},
		{"enabled in quarantine by a late call of ours", func(s stage) {
			s.o.Enabled, s.o.Keys[0].Disabled = []string{"k1"}, false
			s.o.Entry.Retiring[0].Calls = []ledger.Call{{Kind: ledger.CallEnable, At: *s.now}}
		}, "disable late_enable k1", plan.StateOK, nil},
		{"enabled in its overlap", func(s stage) { overlap(s, time.Hour); s.o.Enabled = []string{"k1"} }, "", plan.StateOK, nil},
		{"abandoned key in use", func(s stage) {
			s.o.Entry.Abandoned = []ledger.Abandoned{{Rotation: "aaaaaaaaa3"}}
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Key: &elevenlabs.Key{ID: "k3", Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa3", CharacterCount: 1}})
		}, "", plan.StateOK, nil},
		{"twin of the current key", func(s stage) {
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Key: &elevenlabs.Key{ID: "k3", Name: nameOfK2}})
		}, "sweep abandoned k3", plan.StateOK, nil},
		{"twin of a current key that is gone", func(s stage) {
			s.o.Keys[1] = plan.ListedKey{Key: &elevenlabs.Key{ID: "k3", Name: nameOfK2}}
		}, "", plan.StateOK, ledger.TriggerKeyMissing},
		{"two keys of one rotation, both in the entry", func(s stage) { s.o.Entry.Retiring[0].Rotation, s.o.Keys[0].Name = "aaaaaaaaa2", nameOfK2 }, "", plan.StateOK, nil},

		{"no current key, and the record holds the retiring one", func(s stage) {
			overlap(s, 0)
			s.o.Entry.Current, s.o.Record.Match, s.o.Record.KeyID = nil, "k1", "k1"
		}, "adopt record_found k1", plan.StateOK, nil},
		{"no current key, record not read", func(s stage) {
			overlap(s, 0)
			s.o.Entry.Current, s.o.Record = nil, nil
		}, "", plan.StateDue, plan.WaitNotObserved},
		{"no current key, and the record is empty", func(s stage) {
			overlap(s, 0)
			s.o.Entry.Current, s.o.Record = nil, &plan.RecordView{}
		}, "disable overlap_ended k1, rotate first", plan.StateDue, ledger.TriggerFirst},
		{"pruned, and the record holds it", func(s stage) {
			s.o.Entry.Current, s.o.Record.Match, s.o.Entry.Retiring[0].Reason = nil, "k1", ledger.TriggerRemoved
		}, "follow returned k1", plan.StateOK, nil},
		{"pruned, and a delete is under way", func(s stage) {
			s.o.Entry.Current, s.o.Record.Match, s.o.Entry.Retiring[0].Reason = nil, "k1", ledger.TriggerRemoved
			s.o.Entry.Retiring[0].Calls = []ledger.Call{{Kind: ledger.CallDelete}}
		}, "rotate key_missing", plan.StateDue, ledger.TriggerKeyMissing},
		{"no entry, not listed", func(s stage) { noEntry(s); s.o.Listed = false }, "", plan.StateDue, plan.WaitNotObserved},
		{"no entry, account gone", func(s stage) { noEntry(s); s.o.Found = false }, "", plan.StateError, plan.FaultUnknownAccount},
		{"no entry, record names another policy's key elsewhere", func(s stage) {
			s.o.Entry, s.o.Record.KeyID, s.o.Elsewhere = nil, "k9", map[string]string{"k9": "other"}
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"adopt a key that is being deleted", func(s stage) {
			s.o.Entry.Current, s.o.Entry.Retiring[0].Calls, s.o.Record.KeyID = nil, []ledger.Call{{Kind: ledger.CallDelete}}, "k1"
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"rotated in the future", func(s stage) { s.o.Entry.LastRotation = s.now.Add(plan.MaxSkew + 1) }, "", plan.StateError, plan.FaultClockSkew},
		{"rotated in the future, by a little", func(s stage) { s.o.Entry.LastRotation = s.now.Add(plan.MaxSkew) }, "", plan.StateOK, nil},
		{"rotated in the future, clock wrong", func(s stage) { s.o.Entry.LastRotation, s.o.Skew = s.now.Add(plan.MaxSkew+1), time.Hour }, "", plan.StateOK, plan.WaitClockSkew},

		{"leaked three times, once long ago", func(s stage) {
			disable(s.o, "k2", "exposed_publicly")
			s.o.Entry.Leaks = []time.Time{s.now.Add(-time.Hour), *s.now, *s.now}
		}, "rotate exposed_publicly", plan.StateDue, ledger.TriggerExposed},
		{"downgraded", func(s stage) { disable(s.o, "k2", "subscription_downgrade") }, "", plan.StateError, plan.FaultDowngraded},
		{"disabled, in an old listing", func(s stage) { disable(s.o, "k2", ""); s.o.HomeListed = false }, "", plan.StateOK, nil},
		{"gone, the record not read", func(s stage) { s.o.Keys, s.o.MissingTwice, s.o.Record = s.o.Keys[:1], true, nil }, "prove key_missing k2", plan.StateDue, ledger.TriggerKeyMissing},
		{"record not read", func(s stage) { s.o.Record = nil }, "", plan.StateOK, nil},
		{"moved to another workspace", func(s stage) { s.p.Workspace = "second" }, "rotate moved", plan.StateDue, ledger.TriggerMoved},
		{"moved, and another replica moved it", func(s stage) { s.p.Workspace, s.o.Displaced = "second", true }, "", plan.StateError, plan.FaultReplicasDiffer},
		{"moved to a value to adopt", func(s stage) {
			s.p.Sink.Path, s.o.Record, s.p.Adopt = "elsewhere", &plan.RecordView{HasValue: true}, "k9"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k9", Name: "by hand", ServiceAccount: s.p.ServiceAccount}})
		}, "adopt adopt k9", plan.StateOK, nil},
		{"moved to a value, adopt of one that it had", func(s stage) {
			s.p.Sink.Path, s.o.Record, s.p.Adopt = "elsewhere", &plan.RecordView{HasValue: true}, "k1"
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"moved to another field of its record", func(s stage) {
			s.p.Sink.Field, s.o.Record = "elsewhere", &plan.RecordView{Foreign: "policy"}
		}, "rotate moved", plan.StateDue, ledger.TriggerMoved},
		{"moved, record not read", func(s stage) { s.p.Sink.Path, s.o.Record = "elsewhere", nil }, "rotate moved", plan.StateDue, ledger.TriggerMoved},
		{"adopted, its value never seen", func(s stage) { s.o.Entry.Current.Hash, s.o.Record.Match = "", "" }, "", plan.StateOK, nil},
		{"adopted, and the record names another key", func(s stage) {
			s.o.Entry.Current.Hash, s.o.Record.Match, s.o.Record.KeyID = "", "", "k7"
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"record rolled back to a key that is being deleted", func(s stage) {
			overlap(s, time.Hour)
			s.o.Record.Match, s.o.Entry.Retiring[0].Calls = "k1", []ledger.Call{{Kind: ledger.CallDelete}}
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"record rolled back to a key that is gone", func(s stage) { s.o.Record.Match, s.o.Keys = "k1", s.o.Keys[1:] }, "", plan.StateError, plan.FaultRecordChanged},
		{"record rolled back, and a late disable", func(s stage) {
			s.o.Record.Match, s.o.Entry.Retiring[0].Calls = "k1", []ledger.Call{{Kind: ledger.CallDisable, At: *s.now}}
		}, "follow rolled_back k1", plan.StateOK, nil},
		{"record rolled back to a leaked key", func(s stage) {
			s.o.Record.Match, s.o.Entry.Retiring[0].Calls = "k1", []ledger.Call{{Kind: ledger.CallDisable, At: *s.now}}
			disable(s.o, "k1", "exposed_publicly")
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"record holds a forgotten key that is disabled", func(s stage) {
			s.o.Record.Match, s.o.Record.KeyID = "", "k3"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k3", Disabled: true, ServiceAccount: s.p.ServiceAccount, Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa3"}})
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"record holds a key of another installation", func(s stage) {
			s.o.Record.Match, s.o.Record.KeyID = "", "k3"
			s.o.Keys = append(s.o.Keys, plan.ListedKey{Workspace: s.p.Workspace, Key: &elevenlabs.Key{ID: "k3", ServiceAccount: s.p.ServiceAccount, Name: "rekeyd.ownertwo.tts-prod.aaaaaaaaa3"}})
		}, "", plan.StateError, plan.FaultRecordChanged},
		{"record holds a changed value under a known key's id", func(s stage) { s.o.Record.Match, s.o.Record.KeyID = "", "k1" }, "", plan.StateError, plan.FaultRecordChanged},

		{"drift, in an old listing", func(s stage) { s.o.Keys[1].Settings.Permissions.All, s.o.HomeListed = true, false }, "", plan.StateOK, nil},
		{"drift, patched in vain a moment ago", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All, s.o.PatchAfter = true, s.now.Add(1)
		}, "", plan.StateOK, nil},
		{"drift, patched in vain before", func(s stage) { s.o.Keys[1].Settings.Permissions.All, s.o.PatchAfter = true, *s.now }, "patch drift k2", plan.StateOK, nil},
		{"drift that other settings survived", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All = true
			s.o.Entry.Applied = &ledger.Applied{Digest: "another", Ignored: []string{"permissions"}}
		}, "patch drift k2", plan.StateOK, nil},
		{"drift beside what survived", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All = true
			s.o.Entry.Applied.Ignored = []string{"character_limit"}
		}, "patch drift k2", plan.StateOK, nil},
		{"drift, nothing known to be applied", func(s stage) { s.o.Keys[1].Settings.Permissions.All, s.o.Entry.Applied = true, nil }, "patch drift k2", plan.StateOK, nil},

		{"clock wrong", func(s stage) { s.o.Skew = time.Hour }, "", plan.StateOK, plan.WaitClockSkew},
		{"clock wrong, due", func(s stage) { hours(s, 2); s.o.Skew = time.Hour }, "", plan.StateDue, plan.WaitClockSkew},
		{"clock wrong, backoff", func(s stage) { hours(s, 2); s.o.Skew, s.o.RetryAt = time.Hour, s.now.Add(time.Minute) }, "", plan.StateFailing, plan.WaitBackoff},
		{"clock wrong, overlap ended", func(s stage) { overlap(s, 0); s.o.Skew = time.Hour }, "", plan.StateOK, plan.WaitClockSkew},
		{"clock wrong, overlap ended, in error", func(s stage) { overlap(s, 0); s.o.Skew, s.o.Record.Match = time.Hour, "" }, "", plan.StateError, plan.FaultRecordChanged},
		{"clock wrong, in error", func(s stage) { s.o.Skew, s.o.Record.Match = time.Hour, "" }, "", plan.StateError, plan.FaultRecordChanged},
		{"clock wrong, requested", func(s stage) { s.o.Skew, s.o.Request = time.Hour, &plan.Request{NotKey: "k2"} }, "rotate requested", plan.StateDue, plan.WaitClockSkew},
		{"clock unconfirmed, due", func(s stage) { hours(s, 2); s.o.ClockUnknown = true }, "", plan.StateDue, ledger.TriggerSchedule},
		{"clock unconfirmed, too old", func(s stage) { s.p.MaxAge, s.o.ClockUnknown = 26*time.Hour, true }, "", plan.StateDue, ledger.TriggerMaxAge},
		{"clock unconfirmed, quarantine ended", func(s stage) { s.o.Entry.Retiring[0].Until, s.o.ClockUnknown = *s.now, true }, "", plan.StateOK, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, o := planStage(t)
			now := planNow
			c.change(stage{&p, &o, &now})
			d := plan.Plan(p, o, now)
			var steps []string
			for _, s := range d.Steps {
				steps = append(steps, strings.TrimSpace(string(s.Action)+" "+string(s.Reason)+" "+s.KeyID))
			}
			if got := strings.Join(steps, ", "); got != c.steps || d.State != c.state || d.Reason != c.reason {
				t.Errorf("steps %q, state %s, reason %q; want %q, %s, %q", got, d.State, d.Reason, c.steps, c.state, c.reason)
			}
			if strings.Contains(d.Message, "sk_") {
				t.Errorf("a secret is repeated: %s", d.Message)
			}
			if (d.State == plan.StateError || d.State == plan.StateThrottled || d.Reason == plan.WaitClockSkew) != (d.Message != "") {
				t.Errorf("state %s with message %q", d.State, d.Message)
			}
			at, told := strings.Index(d.Message, "this host's clock differs"), o.Skew != 0 && (d.State == plan.StateError || d.Reason == plan.WaitClockSkew)
			if told != (at >= 0) || d.State == plan.StateError && at == 0 {
				t.Errorf("of the clock, state %s says %q", d.State, d.Message)
			}
			if again := plan.Plan(p, o, now); !slices.Equal(again.Steps, d.Steps) {
				t.Error("the same arguments gave another plan")
			}
		})
	}
}

func TestAnUnplaceableValueNamesTheCandidates(t *testing.T) {
	p, o := planStage(t)
	o.Entry, o.Record.KeyID = nil, ""
	o.Keys[0].Hint, o.Keys[0].CreatedAt, o.Record.Ending = "…ab12", planNow, "0000ab12"
	add := func(id, workspace, account, name string) {
		o.Keys = append(o.Keys, plan.ListedKey{Workspace: workspace, Key: &elevenlabs.Key{ID: id, Name: name, ServiceAccount: account}})
	}
	add("elsewhere", "second", p.ServiceAccount, "by hand")
	add("neighbour", p.Workspace, "svcacc_2", "by hand")
	add("others", p.Workspace, p.ServiceAccount, "rekeyd.ownerown.other.aaaaaaaaa1")
	d := plan.Plan(p, o, planNow)
	for _, want := range []string{"adopt", "k1", "…ab12 fits", "2026-05-05", "secret/elevenlabs/tts-prod", "k2"} {
		if !strings.Contains(d.Message, want) {
			t.Errorf("the message lacks %q: %s", want, d.Message)
		}
	}
	for _, not := range []string{"elsewhere", "neighbour", "others", "more"} {
		if strings.Contains(d.Message, not) {
			t.Errorf("the message has %q: %s", not, d.Message)
		}
	}
	for range 10 {
		add("many", p.Workspace, p.ServiceAccount, "by hand")
	}
	if d := plan.Plan(p, o, planNow); !strings.HasSuffix(d.Message, ", and 2 more; or remove api_key from the record for a new key") {
		t.Errorf("of twelve keys the message names %s", d.Message)
	}
	o.Keys = nil
	if d := plan.Plan(p, o, planNow); !strings.HasSuffix(d.Message, "; service account svcacc_1 has no key to adopt, so remove api_key from the record for a new key") {
		t.Errorf("of no keys the message names %s", d.Message)
	}
}

// TestAKeyOfAnEarlierNameIsThePolicysOwn: a renamed policy keeps its key, whose name is still of before.
func TestAKeyOfAnEarlierNameIsThePolicysOwn(t *testing.T) {
	p, o := planStage(t)
	for i := range o.Keys {
		o.Keys[i].Name = strings.Replace(o.Keys[i].Name, "tts-prod", "tts-old", 1)
	}
	o.Record.Match = ""
	for _, id := range []string{"k1", "k2"} {
		if o.Record.KeyID = id; strings.Contains(plan.Plan(p, o, planNow).Message, "belongs to") {
			t.Errorf("%s is taken for another policy's", id)
		}
	}
}

// TestWhenADecisionChanges: when it is looked at again, and what is shown as the next rotation.
func TestWhenADecisionChanges(t *testing.T) {
	const never = -1
	rotate := plan.Step{Action: plan.ActRotate, Reason: ledger.TriggerSchedule, Workspace: "default", Account: account}
	overlap := func(o *plan.Observed, left time.Duration) {
		o.Entry.Retiring[0].State, o.Entry.Retiring[0].Until, o.Keys[0].Disabled = ledger.InOverlap, planNow.Add(left), false
	}
	for _, c := range []struct {
		name       string
		after      time.Duration // planNow
		change     func(*plan.Policy, *plan.Observed)
		wake, next time.Duration // from planNow
		why        plan.Reason   // of the next rotation
		reason     plan.Reason
	}{
		{"nothing to do", 0, func(*plan.Policy, *plan.Observed) {}, 2 * time.Hour, 2 * time.Hour, ledger.TriggerSchedule, nil},
		{"overlap", 0, func(_ *plan.Policy, o *plan.Observed) { overlap(o, time.Hour) }, time.Hour, 2 * time.Hour, ledger.TriggerSchedule, nil},
		{"overlap ended, retry later", 0, func(_ *plan.Policy, o *plan.Observed) {
			overlap(o, 0)
			o.Entry.Retiring[0].NextTry = planNow.Add(time.Minute)
		}, time.Minute, 2 * time.Hour, ledger.TriggerSchedule, nil},
		{"manual", 0, func(p *plan.Policy, _ *plan.Observed) { p.Mode = plan.ModeManual }, 20 * time.Hour, never, ledger.TriggerSchedule, nil},
		{"paused", 0, func(p *plan.Policy, _ *plan.Observed) { p.Mode = plan.ModePaused }, 2 * time.Hour, never, ledger.TriggerSchedule, plan.WaitPaused},
		{"claimed", 0, func(_ *plan.Policy, o *plan.Observed) { o.Entry.Claim = &ledger.Claim{} }, never, 2 * time.Hour, ledger.TriggerSchedule, plan.WaitClaimed},
		{"claimed, removed", 0, func(p *plan.Policy, o *plan.Observed) { o.Entry.Claim, p.Mode = &ledger.Claim{}, plan.ModeRemoved }, never, never, nil, plan.WaitClaimed},
		{"claimed, no key", 0, func(_ *plan.Policy, o *plan.Observed) { o.Entry.Claim, o.Entry.Current = &ledger.Claim{}, nil }, never, never, nil, plan.WaitClaimed},
		{"a first key", 0, func(_ *plan.Policy, o *plan.Observed) { o.Entry, o.Record = nil, &plan.RecordView{} }, never, 0, ledger.TriggerFirst, ledger.TriggerFirst},
		{"a first key, throttled", 0, func(_ *plan.Policy, o *plan.Observed) {
			o.Entry, o.Record, o.Rotations, o.MaxRotations, o.RoomAt = nil, &plan.RecordView{}, 5, 5, planNow.Add(20*time.Minute)
		}, never, 20 * time.Minute, plan.Delayed{Wait: plan.WaitThrottled, Trigger: ledger.TriggerFirst}, plan.WaitThrottled},
		{"a first key, the admin key refused", 0, func(_ *plan.Policy, o *plan.Observed) {
			o.Entry, o.Record, o.AdminRefused = nil, &plan.RecordView{}, true
		}, never, 0, ledger.TriggerFirst, ledger.FailureAdminKeyRefused},
		{"a first key, paused", 0, func(p *plan.Policy, o *plan.Observed) {
			o.Entry, o.Record, p.Mode = nil, &plan.RecordView{}, plan.ModePaused
		}, never, never, ledger.TriggerFirst, plan.WaitPaused},
		{"a first key, no account", 0, func(_ *plan.Policy, o *plan.Observed) { o.Entry, o.Record, o.Found = nil, &plan.RecordView{}, false }, never, never, nil, plan.FaultUnknownAccount},
		{"throttled", 2 * time.Hour, func(_ *plan.Policy, o *plan.Observed) {
			o.Rotations, o.MaxRotations, o.RoomAt = 5, 5, planNow.Add(3*time.Hour)
		}, 20 * time.Hour, 2 * time.Hour, ledger.TriggerSchedule, plan.WaitThrottled},
		{"manual, leaked", 0, func(p *plan.Policy, o *plan.Observed) { disable(o, "k2", "exposed_publicly"); p.Mode = plan.ModeManual }, 20 * time.Hour, 0, ledger.TriggerExposed, ledger.TriggerExposed},
		{"others first", 2 * time.Hour, func(_ *plan.Policy, o *plan.Observed) { o.OthersDue = true }, 3 * time.Hour, 2 * time.Hour, ledger.TriggerSchedule, plan.WaitOthersFirst},
		{"others first, after an outage", 3 * time.Hour, func(_ *plan.Policy, o *plan.Observed) { o.OthersDue, o.Answers = true, planNow.Add(150*time.Minute) }, 210 * time.Minute, 2 * time.Hour, ledger.TriggerSchedule, plan.WaitOthersFirst},
		{"backoff", 2 * time.Hour, func(_ *plan.Policy, o *plan.Observed) { o.RetryAt = planNow.Add(121 * time.Minute) }, 121 * time.Minute, 121 * time.Minute, plan.Delayed{Wait: plan.WaitBackoff, Trigger: ledger.TriggerSchedule}, plan.WaitBackoff},
		{"backoff in ledger and memory", 2 * time.Hour, func(_ *plan.Policy, o *plan.Observed) {
			o.RetryAt, o.Entry.Failure = planNow.Add(121*time.Minute), &ledger.LastFailure{NextTry: planNow.Add(122 * time.Minute)}
		}, 122 * time.Minute, 122 * time.Minute, plan.Delayed{Wait: plan.WaitBackoff, Trigger: ledger.TriggerSchedule}, plan.WaitBackoff},
		{"past the window", 4 * time.Hour, func(p *plan.Policy, _ *plan.Observed) { p.Window = time.Hour }, 20 * time.Hour, 26 * time.Hour, plan.Delayed{Wait: plan.WaitWindow, Trigger: ledger.TriggerSchedule}, plan.WaitWindow},
		{"past the window, with a max_age", 4 * time.Hour, func(p *plan.Policy, _ *plan.Observed) { p.Window, p.MaxAge = time.Hour, 100*time.Hour }, 20 * time.Hour, 26 * time.Hour, plan.Delayed{Wait: plan.WaitWindow, Trigger: ledger.TriggerSchedule}, plan.WaitWindow},
		{"drift that survived", 0, func(_ *plan.Policy, o *plan.Observed) {
			o.Keys[1].Settings.Permissions.All, o.Entry.Applied.Ignored = true, []string{"permissions"}
		}, 2 * time.Hour, 2 * time.Hour, ledger.TriggerSchedule, plan.FaultSettingsIgnored},
		{"backoff in memory and ledger", 2 * time.Hour, func(_ *plan.Policy, o *plan.Observed) {
			o.RetryAt, o.Entry.Failure = planNow.Add(122*time.Minute), &ledger.LastFailure{NextTry: planNow.Add(121 * time.Minute)}
		}, 122 * time.Minute, 122 * time.Minute, plan.Delayed{Wait: plan.WaitBackoff, Trigger: ledger.TriggerSchedule}, plan.WaitBackoff},
		{"in error", 0, func(_ *plan.Policy, o *plan.Observed) { o.Record.Match = "" }, 20 * time.Hour, never, nil, plan.FaultRecordChanged},
		{"tried in vain", 2 * time.Hour, func(_ *plan.Policy, o *plan.Observed) {
			o.Pacing.Next = map[plan.Attempt]time.Time{plan.AttemptOf(rotate): planNow.Add(125 * time.Minute)}
		}, 125 * time.Minute, 125 * time.Minute, plan.Delayed{Wait: plan.WaitBackoff, Trigger: ledger.TriggerSchedule}, plan.WaitBackoff},
		{"tried in vain before", 2 * time.Hour, func(_ *plan.Policy, o *plan.Observed) {
			o.Pacing.Next = map[plan.Attempt]time.Time{plan.AttemptOf(rotate): planNow.Add(2 * time.Hour)}
		}, 20 * time.Hour, 2 * time.Hour, ledger.TriggerSchedule, ledger.TriggerSchedule},
		{"budget spent", 2 * time.Hour, func(_ *plan.Policy, o *plan.Observed) {
			o.Pacing.Affords = map[plan.Action]time.Time{plan.ActRotate: planNow.Add(125 * time.Minute)}
		}, 125 * time.Minute, 125 * time.Minute, plan.Delayed{Wait: plan.WaitBackoff, Trigger: ledger.TriggerSchedule}, plan.WaitCallBudget},
		{"budget spent, leaked", 0, func(_ *plan.Policy, o *plan.Observed) {
			disable(o, "k2", "exposed_publicly")
			o.Pacing.Affords = map[plan.Action]time.Time{plan.ActRotate: planNow.Add(time.Minute)}
		}, 20 * time.Hour, 2 * time.Hour, ledger.TriggerSchedule, ledger.TriggerExposed},
		{"budget spent, leaked and tried in vain", 0, func(_ *plan.Policy, o *plan.Observed) {
			disable(o, "k2", "exposed_publicly")
			o.Pacing.Next = map[plan.Attempt]time.Time{{Action: plan.ActRotate, Reason: ledger.TriggerExposed}: planNow}
			o.Pacing.Affords = map[plan.Action]time.Time{plan.ActRotate: planNow.Add(time.Minute)}
		}, time.Minute, time.Minute, plan.Delayed{Wait: plan.WaitBackoff, Trigger: ledger.TriggerExposed}, plan.WaitCallBudget},
		{"a retirement tried in vain", 0, func(_ *plan.Policy, o *plan.Observed) {
			overlap(o, 0)
			o.Pacing.Next = map[plan.Attempt]time.Time{{Action: plan.ActDisable, Reason: ledger.TriggerOverlapEnded, KeyID: "k1"}: planNow.Add(time.Minute)}
		}, time.Minute, 2 * time.Hour, ledger.TriggerSchedule, nil},
		{"a retirement beyond the budget", 0, func(_ *plan.Policy, o *plan.Observed) {
			overlap(o, 0)
			o.Pacing.Affords = map[plan.Action]time.Time{plan.ActDisable: planNow.Add(time.Minute)}
		}, time.Minute, 2 * time.Hour, ledger.TriggerSchedule, plan.WaitCallBudget},
		{"a retirement beyond the budget, in error", 0, func(_ *plan.Policy, o *plan.Observed) {
			overlap(o, 0)
			o.Record.Match = ""
			o.Pacing.Affords = map[plan.Action]time.Time{plan.ActDisable: planNow.Add(time.Minute)}
		}, time.Minute, never, nil, plan.FaultRecordChanged},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, o := planStage(t)
			c.change(&p, &o)
			d := plan.Plan(p, o, planNow.Add(c.after))
			is := func(at time.Time, want time.Duration) bool {
				return want == never && at.IsZero() || at.Equal(planNow.Add(want))
			}
			if !is(d.Wake, c.wake) || !is(d.NextDue, c.next) || d.NextReason != c.why || d.Reason != c.reason {
				t.Errorf("next look %s, next rotation %s by %q, reason %q; want %s, %s by %q, reason %q", d.Wake, d.NextDue, d.NextReason, d.Reason, c.wake, c.next, c.why, c.reason)
			}
			if paced := o.Pacing.Next != nil || o.Pacing.Affords != nil; paced && d.Wake.Before(planNow.Add(20*time.Hour)) && !is(d.Later[d.Steps[0]], c.wake) {
				t.Errorf("steps %v wait until %v", d.Steps, d.Later)
			}
		})
	}
}

// TestARecoveryWaitsForItsWorkspace, not for that of the policy.
func TestARecoveryWaitsForItsWorkspace(t *testing.T) {
	p, o := planStage(t)
	o.Entry.Claim, o.ClaimOurs = &ledger.Claim{}, true
	for _, want := range []string{"", "second"} {
		if want != "" {
			o.Entry.Intent = &ledger.Intent{Workspace: want}
		}
		if steps := plan.Plan(p, o, planNow).Steps; len(steps) != 1 || steps[0].Workspace != want {
			t.Errorf("steps %+v, want one in workspace %q", steps, want)
		}
	}
}

// TestAMessageNamesThePolicyOfAKey, where another owns the one in the record.
func TestAMessageNamesThePolicyOfAKey(t *testing.T) {
	for name, change := range map[string]func(*plan.Policy, *plan.Observed){
		"no entry":           func(_ *plan.Policy, o *plan.Observed) { o.Entry = nil },
		"record overwritten": func(*plan.Policy, *plan.Observed) {},
		"moved":              func(p *plan.Policy, _ *plan.Observed) { p.Sink.Path = "elsewhere" },
	} {
		p, o := planStage(t)
		o.Record.Match, o.Record.KeyID, o.Elsewhere = "", "k9", map[string]string{"k9": "other"}
		change(&p, &o)
		if m := plan.Plan(p, o, planNow).Message; !strings.Contains(m, "belongs to policy other") {
			t.Errorf("%s: %s", name, m)
		}
	}
}

// TestMaxAgeEndsTheWaits has work that waits for other things looked at when max_age calls for it.
func TestMaxAgeEndsTheWaits(t *testing.T) {
	now := planNow.Add(4 * time.Hour)   // two hours after the run of 03:00
	byAge := planNow.Add(8 * time.Hour) // 34h old, less an overlap of 4h
	for name, change := range map[string]func(*plan.Policy, *plan.Observed){
		"window": func(p *plan.Policy, _ *plan.Observed) { p.Window = time.Hour },
		"group":  func(_ *plan.Policy, o *plan.Observed) { o.GroupHeld = "tts-other" },
	} {
		t.Run(name, func(t *testing.T) {
			p, o := planStage(t)
			p.MaxAge = 34 * time.Hour
			change(&p, &o)
			d := plan.Plan(p, o, now)
			if len(d.Steps) > 0 || !d.Wake.Equal(byAge) {
				t.Errorf("steps %v, next look %s, want one at %s", d.Steps, d.Wake, byAge)
			}
			if name == "window" && !d.NextDue.Equal(byAge) {
				t.Errorf("next due %s, want %s", d.NextDue, byAge)
			}
			if name == "group" && d.HeldBy != "tts-other" {
				t.Errorf("held by %q", d.HeldBy)
			}
			if d = plan.Plan(p, o, byAge); len(d.Steps) != 1 || d.Reason != ledger.TriggerMaxAge {
				t.Errorf("at that time: %v, %s", d.Steps, d.Reason)
			}
		})
	}
}

// TestAWindowOfAScheduleThatCounts: @every has its runs every so long after the last rotation, also those left out.
func TestAWindowOfAScheduleThatCounts(t *testing.T) {
	p, o := planStage(t)
	s, err := schedule.Parse("@every 10h", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	p.Schedule, p.Window = s, time.Hour // the last rotation was 22h ago: runs were 12h and 2h ago
	d := plan.Plan(p, o, planNow)
	next := planNow.Add(8 * time.Hour)
	if len(d.Steps) > 0 || d.Reason != plan.WaitWindow || !d.NextDue.Equal(next) {
		t.Errorf("steps %v, reason %s, next %s, want %s", d.Steps, d.Reason, d.NextDue, next)
	}
	for _, late := range []time.Duration{0, 30 * time.Minute} {
		if d := plan.Plan(p, o, next.Add(late)); len(d.Steps) != 1 {
			t.Errorf("%s after the next run: %v, %s, next %s", late, d.Steps, d.Reason, d.NextDue)
		}
	}
}

// What is promised is what is done: a key that may be used on leaves at the end of what waiting for it to be idle allows, and
// nothing is rotated in an error.
func TestADecisionPromisesWhatComes(t *testing.T) {
	p, o := planStage(t)
	p.WaitUntilIdle = 3 * time.Hour
	o.Entry.Retiring[0].State, o.Entry.Retiring[0].Until = ledger.InOverlap, planNow.Add(time.Hour)
	o.Keys[0].Disabled = false
	d := plan.Plan(p, o, planNow)
	if got, want := d.Leaves["k1"], planNow.Add(4*time.Hour); !got.Equal(want) {
		t.Errorf("k1 leaves at %s, want %s", got, want)
	}
	if d.NextDue.IsZero() || d.NextReason != ledger.TriggerSchedule {
		t.Errorf("next: %s by %q", d.NextDue, d.NextReason)
	}
	o.Idle = []string{"k1"}
	if got, want := plan.Plan(p, o, planNow).Leaves["k1"], planNow.Add(time.Hour); !got.Equal(want) {
		t.Errorf("idle, k1 leaves at %s, want %s", got, want)
	}
	o.Entry.Retiring[0].NextTry = planNow.Add(90 * time.Minute)
	if got, want := plan.Plan(p, o, planNow).Leaves["k1"], planNow.Add(90*time.Minute); !got.Equal(want) {
		t.Errorf("tried again later, k1 leaves at %s, want %s", got, want)
	}
	o.Record.Match, o.Record.KeyID = "", ""
	if d := plan.Plan(p, o, planNow); d.State != plan.StateError || !d.NextDue.IsZero() {
		t.Errorf("%s, and the next rotation is due at %s", d.State, d.NextDue)
	}
}

// TestDue holds what a rotation asks once it has its claim.
func TestDue(t *testing.T) {
	claim := func(o *plan.Observed) {
		o.Entry.Claim = &ledger.Claim{Holder: "me"}
		o.Entry.Intent = &ledger.Intent{Rotation: "r"}
	}
	late := func(o *plan.Observed) { o.Entry.LastRotation = planNow.Add(-8 * 24 * time.Hour) }
	for _, c := range []struct {
		name   string
		change func(o *plan.Observed)
		due    bool
	}{
		{"not due", func(*plan.Observed) {}, false},
		{"due", late, true},
		{"due, and its rotation fills the hourly limit", func(o *plan.Observed) { late(o); o.Rotations, o.MaxRotations = 1, 1 }, true},
		{"due, by a wrong clock", func(o *plan.Observed) { late(o); o.Skew = time.Hour }, false},
		{"due, and its group is held", func(o *plan.Observed) { late(o); o.GroupHeld = "other" }, false},
		{"the key vanished from the record", func(o *plan.Observed) { o.Record = &plan.RecordView{} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, o := planStage(t)
			c.change(&o)
			claim(&o)
			if plan.Due(p, o, planNow) != c.due {
				t.Errorf("due: %v", !c.due)
			}
			if plan.Plan(p, o, planNow).Rotates() {
				t.Error("the plan rotates what is claimed")
			}
		})
	}
}

func TestDueUnread(t *testing.T) {
	p, o := planStage(t)
	o.Record = nil
	if plan.DueUnread(p, o, planNow) {
		t.Error("due although the schedule is not")
	}
	if o.Entry.LastRotation = planNow.Add(-8 * 24 * time.Hour); !plan.DueUnread(p, o, planNow) {
		t.Error("not due although the schedule is")
	}
	if o.Entry = nil; !plan.DueUnread(p, o, planNow) {
		t.Error("no first key is due")
	}
}
