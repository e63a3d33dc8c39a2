package rotator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
)

// The stage for the planner: a policy that rotates daily at 03:00 UTC, whose current key k2 was made yesterday at
// 03:00, with k1 quarantined until tomorrow. Nothing is to be done.
var planNow = time.Date(2026, 5, 5, 1, 0, 0, 0, time.UTC)

const (
	planOwner = "ownerown"
	nameOfK1  = "rekeyd.ownerown.tts-prod.aaaaaaaaa1"
	nameOfK2  = "rekeyd.ownerown.tts-prod.aaaaaaaaa2"
)

func planStage(t testing.TB) (rotator.Policy, rotator.Observed) {
	t.Helper()
	p := testPolicy(t, nil)
	last := planNow.Add(-22 * time.Hour)
	ref := func(id, name string) rotator.KeyRef {
		return rotator.KeyRef{ID: id, Name: name, Rotation: name[len(name)-10:], Workspace: p.Workspace, Account: p.ServiceAccount, Sink: p.Sink,
			Hash: "hash-" + id, Created: last, Published: last, Verified: true}
	}
	k2 := ref("k2", nameOfK2)
	e := &rotator.Entry{
		Owner: planOwner, Policy: p.Name, Current: &k2, LastRotation: last,
		Retiring: []rotator.Retiring{{KeyRef: ref("k1", nameOfK1), State: rotator.InQuarantine, Until: planNow.Add(20 * time.Hour)}},
		Applied:  &rotator.Applied{Digest: p.Settings.Digest(), At: last},
	}
	listed := func(id, name string, disabled bool) rotator.ListedKey {
		return rotator.ListedKey{Workspace: p.Workspace, Key: elevenlabs.Key{ID: id, Name: name, ServiceAccount: p.ServiceAccount, Disabled: disabled, Settings: p.Settings}}
	}
	return p, rotator.Observed{
		Entry: e, Owner: planOwner, Record: &rotator.RecordView{HasValue: true, Match: "k2", Hash: "hash-k2", KeyID: "k2", Policy: p.Name},
		Listed: true, Found: true, HomeListed: true, Keys: []rotator.ListedKey{listed("k1", nameOfK1, true), listed("k2", nameOfK2, false)},
	}
}

func disable(o *rotator.Observed, id, reason string) {
	for i := range o.Keys {
		if o.Keys[i].ID == id {
			o.Keys[i].Disabled, o.Keys[i].DisableReason = true, reason
		}
	}
}

func TestPlan(t *testing.T) {
	type stage struct {
		p   *rotator.Policy
		o   *rotator.Observed
		now *time.Time
	}
	overlap := func(s stage, left time.Duration) {
		s.o.Entry.Retiring[0].State, s.o.Entry.Retiring[0].Until = rotator.InOverlap, s.now.Add(left)
		s.o.Keys[0].Disabled = false
	}
	hours := func(s stage, n int) { *s.now = s.now.Add(time.Duration(n) * time.Hour) }
	noEntry := func(s stage) { s.o.Entry = nil; s.o.Record = &rotator.RecordView{} }
	for _, c := range []struct {
		name   string
		change func(stage)
		steps  string // "action reason key", comma separated
		state  rotator.State
		reason rotator.Reason
	}{
		{"nothing to do", func(stage) {}, "", rotator.StateOK, ""},
		{"nothing known", func(s stage) { *s.o = rotator.Observed{} }, "", rotator.StateDue, rotator.ReasonNotObserved},

		{"due by schedule", func(s stage) { hours(s, 2) }, "rotate schedule", rotator.StateDue, rotator.ReasonSchedule},
		{"a second before", func(s stage) { hours(s, 2); *s.now = s.now.Add(-time.Second) }, "", rotator.StateOK, ""},
		{"due, splayed", func(s stage) { hours(s, 2); s.p.Splay = time.Hour }, "", rotator.StateOK, ""},
		{"due days ago", func(s stage) { hours(s, 15) }, "rotate schedule", rotator.StateDue, rotator.ReasonSchedule},
		{"due, manual", func(s stage) { hours(s, 2); s.p.Mode = rotator.ModeManual }, "", rotator.StateOK, ""},
		{"due, paused", func(s stage) { hours(s, 2); s.p.Mode = rotator.ModePaused }, "", rotator.StatePaused, rotator.ReasonPaused},
		{"due, overlap running", func(s stage) { hours(s, 2); overlap(s, time.Hour) }, "", rotator.StateDue, rotator.ReasonOverlap},
		{"due, within the window", func(s stage) { hours(s, 3); s.p.Window = time.Hour }, "rotate schedule", rotator.StateDue, rotator.ReasonSchedule},
		{"due, past the window", func(s stage) { hours(s, 4); s.p.Window = time.Hour }, "", rotator.StateOK, rotator.ReasonWindow},
		{"manual, with a window", func(s stage) { hours(s, 4); s.p.Window, s.p.Mode = time.Hour, rotator.ModeManual }, "", rotator.StateOK, ""},
		{"past the window, but too old", func(s stage) { hours(s, 4); s.p.Window = time.Hour; s.p.MaxAge = 29 * time.Hour }, "rotate max_age", rotator.StateDue, rotator.ReasonMaxAge},
		{"past the window, and max_age before the next run", func(s stage) { hours(s, 4); s.p.Window = time.Hour; s.p.MaxAge = 34 * time.Hour }, "", rotator.StateOK, rotator.ReasonWindow},
		{"due, group busy", func(s stage) { hours(s, 2); s.o.GroupHeld = "tts-other" }, "", rotator.StateDue, rotator.ReasonGroup},
		{"due, group busy, too old", func(s stage) { hours(s, 4); s.o.GroupHeld, s.p.MaxAge = "tts-other", 30*time.Hour }, "rotate max_age", rotator.StateDue, rotator.ReasonMaxAge},
		{"due, overlap running, too old by now", func(s stage) { hours(s, 4); overlap(s, time.Hour); s.p.MaxAge = 30 * time.Hour }, "rotate max_age", rotator.StateDue, rotator.ReasonMaxAge},
		{"due, past the window, group busy", func(s stage) { hours(s, 4); s.p.Window = time.Hour; s.o.GroupHeld = "tts-other" }, "", rotator.StateOK, rotator.ReasonWindow},
		{"leaked, group busy", func(s stage) { disable(s.o, "k2", "exposed_publicly"); s.o.GroupHeld = "tts-other" }, "rotate exposed_publicly", rotator.StateDue, rotator.ReasonExposed},
		{"revoke, group busy", func(s stage) {
			s.o.Request, s.o.GroupHeld = &rotator.Request{NotKey: "k2", Revoke: true}, "tts-other"
		}, "rotate revoke_now", rotator.StateDue, rotator.ReasonRevoke},
		{"asked for, group busy", func(s stage) { s.o.Request, s.o.GroupHeld = &rotator.Request{NotKey: "k2"}, "tts-other" }, "", rotator.StateDue, rotator.ReasonGroup},
		{"moved, group busy", func(s stage) { s.p.ServiceAccount, s.o.GroupHeld = "svcacc_2", "tts-other" }, "", rotator.StateDue, rotator.ReasonGroup},
		{"record deleted, group busy", func(s stage) { s.o.Record, s.o.GroupHeld = &rotator.RecordView{}, "tts-other" }, "rotate record_missing", rotator.StateDue, rotator.ReasonRecordMissing},
		{"due, throttled", func(s stage) { hours(s, 2); s.o.Rotations, s.o.MaxRotations = 5, 5 }, "", rotator.StateThrottled, rotator.ReasonThrottled},
		{"due, not listed", func(s stage) { hours(s, 2); s.o.Listed = false }, "", rotator.StateDue, rotator.ReasonNotObserved},
		{"due, account gone", func(s stage) { hours(s, 2); s.o.Found = false }, "", rotator.StateError, rotator.ReasonUnknownAccount},
		{"due, backoff in the ledger", func(s stage) {
			hours(s, 2)
			s.o.Entry.Failure = &rotator.Failure{NextTry: s.now.Add(time.Minute)}
		}, "", rotator.StateFailing, rotator.ReasonBackoff},
		{"due, backoff in memory", func(s stage) { hours(s, 2); s.o.RetryAt = s.now.Add(time.Minute) }, "", rotator.StateFailing, rotator.ReasonBackoff},
		{"due, backoff over", func(s stage) { hours(s, 2); s.o.Entry.Failure = &rotator.Failure{NextTry: *s.now} }, "rotate schedule", rotator.StateFailing, rotator.ReasonSchedule},
		{"too old", func(s stage) { s.p.MaxAge = 26 * time.Hour }, "rotate max_age", rotator.StateDue, rotator.ReasonMaxAge},
		{"too old, overlap running", func(s stage) { s.p.MaxAge = 26 * time.Hour; overlap(s, time.Hour) }, "rotate max_age", rotator.StateDue, rotator.ReasonMaxAge},
		{"too old, manual", func(s stage) { s.p.MaxAge = 26 * time.Hour; s.p.Mode = rotator.ModeManual }, "rotate max_age", rotator.StateDue, rotator.ReasonMaxAge},

		{"claimed by another", func(s stage) { hours(s, 2); s.o.Entry.Claim = &rotator.Claim{Holder: "other"} }, "", rotator.StateRotating, rotator.ReasonClaimed},
		{"claim expired", func(s stage) { s.o.Entry.Claim = &rotator.Claim{Holder: "other"}; s.o.ClaimExpired = true }, "recover claim_expired", rotator.StateRotating, rotator.ReasonClaimed},
		{"our own claim", func(s stage) { s.o.Entry.Claim = &rotator.Claim{Holder: "me"}; s.o.ClaimOurs = true }, "recover unsettled", rotator.StateRotating, rotator.ReasonClaimed},

		{"overlap ended", func(s stage) { overlap(s, 0) }, "disable overlap_ended k1", rotator.StateOK, ""},
		{"overlap ended, retry later", func(s stage) { overlap(s, 0); s.o.Entry.Retiring[0].NextTry = s.now.Add(1) }, "", rotator.StateOK, ""},
		{"overlap ended, in use", func(s stage) { overlap(s, 0); s.o.InUse = []string{"k1"}; s.p.WaitUntilIdle = time.Hour }, "", rotator.StateOK, ""},
		{"overlap ended, nothing known of its use", func(s stage) { overlap(s, 0); s.p.WaitUntilIdle = time.Hour }, "", rotator.StateOK, ""},
		{"overlap ended, idle", func(s stage) { overlap(s, 0); s.o.Idle = []string{"k1"}; s.p.WaitUntilIdle = time.Hour }, "disable overlap_ended k1", rotator.StateOK, ""},
		{"overlap ended, in use too long", func(s stage) { overlap(s, -2*time.Hour); s.o.InUse = []string{"k1"}; s.p.WaitUntilIdle = time.Hour }, "disable overlap_ended k1", rotator.StateOK, ""},
		{"in use, but max_age ends it", func(s stage) {
			overlap(s, 0)
			s.o.InUse, s.p.WaitUntilIdle, s.p.MaxAge = []string{"k1"}, time.Hour, 22*time.Hour
			s.o.Entry.Current.Created = *s.now
		}, "disable overlap_ended k1", rotator.StateOK, ""},
		{"retiring key disabled by others", func(s stage) { overlap(s, time.Hour); disable(s.o, "k1", "") }, "disable disabled_outside k1", rotator.StateOK, ""},
		{"quarantine ended", func(s stage) { s.o.Entry.Retiring[0].Until = *s.now }, "delete quarantine_ended k1", rotator.StateOK, ""},
		{"abandoned key listed", func(s stage) {
			s.o.Entry.Abandoned = []rotator.Abandoned{{Rotation: "aaaaaaaaa3"}}
			s.o.Keys = append(s.o.Keys, rotator.ListedKey{Key: elevenlabs.Key{ID: "k3", Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa3"}})
		}, "sweep abandoned k3", rotator.StateOK, ""},
		{"unexplained key listed", func(s stage) {
			s.o.Keys = append(s.o.Keys, rotator.ListedKey{Key: elevenlabs.Key{ID: "k3", Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa3"}})
		}, "", rotator.StateOK, ""},
		{"abandoned rotation of another owner", func(s stage) {
			s.o.Entry.Abandoned = []rotator.Abandoned{{Rotation: "aaaaaaaaa3"}}
			s.o.Keys = append(s.o.Keys, rotator.ListedKey{Key: elevenlabs.Key{ID: "k3", Name: "rekeyd.ownertwo.tts-prod.aaaaaaaaa3"}})
		}, "", rotator.StateOK, ""},

		{"leaked", func(s stage) { disable(s.o, "k2", "exposed_publicly") }, "rotate exposed_publicly", rotator.StateDue, rotator.ReasonExposed},
		{"leaked, manual", func(s stage) { disable(s.o, "k2", "self_disabled"); s.p.Mode = rotator.ModeManual }, "rotate self_disabled", rotator.StateDue, rotator.ReasonSelfDisabled},
		{"leaked, throttled", func(s stage) { disable(s.o, "k2", "exposed_publicly"); s.o.Rotations, s.o.MaxRotations = 5, 5 }, "rotate exposed_publicly", rotator.StateDue, rotator.ReasonExposed},
		{"leaked again and again", func(s stage) {
			disable(s.o, "k2", "exposed_publicly")
			s.o.Entry.Leaks = []time.Time{*s.now, *s.now, *s.now}
		}, "", rotator.StateError, rotator.ReasonLeakStorm},
		{"leaked again and again, rotate", func(s stage) {
			disable(s.o, "k2", "exposed_publicly")
			s.o.Entry.Leaks = []time.Time{*s.now, *s.now, *s.now}
			s.o.Request = &rotator.Request{NotKey: "k2"}
		}, "rotate requested", rotator.StateDue, rotator.ReasonRequested},
		{"trial ended, due", func(s stage) { hours(s, 2); disable(s.o, "k2", "trial_ended") }, "", rotator.StateError, rotator.ReasonTrialEnded},
		{"disabled by a person, due", func(s stage) { hours(s, 2); disable(s.o, "k2", "") }, "", rotator.StateError, rotator.ReasonKeyDisabled},
		{"disabled for a new reason", func(s stage) { disable(s.o, "k2", "solar_flare") }, "", rotator.StateError, rotator.ReasonKeyDisabled},
		{"disabled by a late call of ours", func(s stage) {
			disable(s.o, "k2", "")
			s.o.Entry.Current.Calls = []rotator.Call{{Kind: rotator.CallDisable, At: *s.now}}
		}, "enable late_disable k2", rotator.StateOK, ""},
		{"gone from one listing", func(s stage) { s.o.Keys = s.o.Keys[:1] }, "", rotator.StateOK, rotator.ReasonKeyMissing},
		{"gone from two listings", func(s stage) { s.o.Keys = s.o.Keys[:1]; s.o.MissingTwice = true }, "prove key_missing k2", rotator.StateError, rotator.ReasonKeyVanished},
		{"gone, and the record too", func(s stage) {
			s.o.Keys, s.o.MissingTwice, s.o.Record = s.o.Keys[:1], true, &rotator.RecordView{}
		}, "rotate record_missing", rotator.StateDue, rotator.ReasonRecordMissing},
		{"gone and proven", func(s stage) { s.o.Keys, s.o.MissingTwice, s.o.Proof = s.o.Keys[:1], true, elevenlabs.Dead }, "rotate key_missing", rotator.StateDue, rotator.ReasonKeyMissing},
		{"gone from listings, but alive", func(s stage) { s.o.Keys, s.o.MissingTwice, s.o.Proof = s.o.Keys[:1], true, elevenlabs.Alive }, "prove key_missing k2", rotator.StateError, rotator.ReasonKeyVanished},

		{"record deleted", func(s stage) { s.o.Record = &rotator.RecordView{} }, "rotate record_missing", rotator.StateDue, rotator.ReasonRecordMissing},
		{"record overwritten", func(s stage) { hours(s, 2); s.o.Record.Match = "" }, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"record overwritten, leaked", func(s stage) { s.o.Record.Match = ""; disable(s.o, "k2", "exposed_publicly") }, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"record overwritten, rotate", func(s stage) { s.o.Record.Match = ""; s.o.Request = &rotator.Request{NotKey: "k2"} }, "rotate requested", rotator.StateDue, rotator.ReasonRequested},
		{"record holds a key of ours that the ledger forgot", func(s stage) {
			s.o.Record.Match, s.o.Record.KeyID = "", "k3"
			s.o.Keys = append(s.o.Keys, rotator.ListedKey{Workspace: s.p.Workspace, Key: elevenlabs.Key{ID: "k3", ServiceAccount: s.p.ServiceAccount, Name: "rekeyd.ownerown.tts-prod.aaaaaaaaa3"}})
		}, "adopt record_found k3", rotator.StateOK, ""},
		{"record rolled back", func(s stage) { overlap(s, time.Hour); s.o.Record.Match = "k1" }, "follow rolled_back k1", rotator.StateOK, ""},
		{"record rolled back to a dead key", func(s stage) { s.o.Record.Match = "k1" }, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"record overwritten, adopt", func(s stage) {
			s.o.Record.Match, s.p.Adopt = "", "k9"
			s.o.Keys = append(s.o.Keys, rotator.ListedKey{Workspace: s.p.Workspace, Key: elevenlabs.Key{ID: "k9", Name: "by hand", ServiceAccount: s.p.ServiceAccount}})
		}, "adopt adopt k9", rotator.StateOK, ""},
		{"record overwritten, adopt a second key that others made", func(s stage) {
			s.o.Record.Match, s.p.Adopt, s.o.Entry.Current.Rotation, s.o.Keys[1].Name = "", "k9", "", "by hand"
			s.o.Keys = append(s.o.Keys, rotator.ListedKey{Workspace: s.p.Workspace, Key: elevenlabs.Key{ID: "k9", Name: "by hand", ServiceAccount: s.p.ServiceAccount}})
		}, "adopt adopt k9", rotator.StateOK, ""},
		{"request fulfilled", func(s stage) { s.o.Request = &rotator.Request{NotKey: "k1"} }, "", rotator.StateOK, ""},
		{"revoke", func(s stage) { s.o.Request = &rotator.Request{NotKey: "k2", Revoke: true} }, "rotate revoke_now", rotator.StateDue, rotator.ReasonRevoke},

		{"drift, patch", func(s stage) { s.o.Keys[1].Settings.Permissions.All = true }, "patch drift k2", rotator.StateOK, ""},
		{"drift, report", func(s stage) { s.o.Keys[1].Settings.Permissions.All = true; s.p.OnDrift = rotator.DriftReport }, "", rotator.StateOK, ""},
		{"drift, rotate", func(s stage) { s.o.Keys[1].Settings.Permissions.All = true; s.p.OnDrift = rotator.DriftRotate }, "rotate drift", rotator.StateDue, rotator.ReasonDrift},
		{"drift, rotate, due", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All = true
			s.p.OnDrift = rotator.DriftRotate
			hours(s, 2)
		}, "rotate drift", rotator.StateDue, rotator.ReasonDrift},
		{"drift, rotate, manual", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All, s.p.OnDrift, s.p.Mode = true, rotator.DriftRotate, rotator.ModeManual
		}, "", rotator.StateOK, ""},
		{"drift that survived", func(s stage) {
			s.o.Keys[1].Settings.Permissions.All = true
			s.o.Entry.Applied.Ignored = []string{"permissions"}
		}, "", rotator.StateError, rotator.ReasonSettingsIgnored},
		{"drift that survived, due", func(s stage) {
			hours(s, 2)
			s.o.Keys[1].Settings.Permissions.All = true
			s.o.Entry.Applied.Ignored = []string{"permissions"}
		}, "rotate schedule", rotator.StateError, rotator.ReasonSettingsIgnored},
		{"drift, replicas disagree", func(s stage) { s.o.Keys[1].Settings.Permissions.All = true; s.o.Differs = true }, "", rotator.StateError, rotator.ReasonReplicasDiffer},
		{"moved to another sink", func(s stage) { s.p.Sink.Path = "elevenlabs/new"; s.o.Record = &rotator.RecordView{} }, "rotate moved", rotator.StateDue, rotator.ReasonMoved},
		{"moved onto somebody's value", func(s stage) { s.p.Sink.Path = "elevenlabs/new"; s.o.Record.Match = "" }, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"moved to another account", func(s stage) { s.p.ServiceAccount = "svcacc_2" }, "rotate moved", rotator.StateDue, rotator.ReasonMoved},
		{"entry moved away", func(s stage) { s.o.Entry.MovedTo = "new-name" }, "", rotator.StateError, rotator.ReasonMovedAway},
		{"unreadable entry", func(s stage) { s.o.LedgerError = "schema 9" }, "", rotator.StateError, rotator.ReasonLedgerInvalid},

		{"admin key, others are due", func(s stage) { hours(s, 2); s.p.AdminOf, s.o.OthersDue = "default", true }, "", rotator.StateDue, rotator.ReasonOthersFirst},
		{"admin key, others were due for long", func(s stage) { hours(s, 3); s.p.AdminOf, s.o.OthersDue = "default", true }, "rotate schedule", rotator.StateDue, rotator.ReasonSchedule},
		{"admin key, others are due, window half over", func(s stage) {
			hours(s, 2)
			*s.now = s.now.Add(10 * time.Minute)
			s.p.AdminOf, s.o.OthersDue, s.p.Window = "default", true, 20*time.Minute
		}, "rotate schedule", rotator.StateDue, rotator.ReasonSchedule},
		{"admin key, nobody else is due", func(s stage) { hours(s, 2); s.p.AdminOf = "default" }, "rotate schedule", rotator.StateDue, rotator.ReasonSchedule},
		{"admin key too old, others are due", func(s stage) {
			s.p.AdminOf, s.o.OthersDue, s.p.MaxAge = "default", true, 26*time.Hour
		}, "rotate max_age", rotator.StateDue, rotator.ReasonMaxAge},
		{"admin key asked for, others are due", func(s stage) {
			hours(s, 2)
			s.p.AdminOf, s.o.OthersDue, s.o.Request = "default", true, &rotator.Request{NotKey: "k2"}
		}, "rotate requested", rotator.StateDue, rotator.ReasonRequested},
		{"admin key, drift", func(s stage) { s.p.AdminOf = "default"; s.o.Keys[1].Settings.Permissions.All = true }, "rotate drift", rotator.StateDue, rotator.ReasonDrift},
		{"admin key, drift, manual", func(s stage) {
			s.p.AdminOf, s.p.Mode = "default", rotator.ModeManual
			s.o.Keys[1].Settings.Permissions.All = true
		}, "", rotator.StateOK, ""},
		{"admin key, drift, report", func(s stage) {
			s.p.AdminOf, s.p.OnDrift = "default", rotator.DriftReport
			s.o.Keys[1].Settings.Permissions.All = true
		}, "", rotator.StateOK, ""},
		{"due, admin key refused", func(s stage) { hours(s, 2); s.o.Listed, s.o.AdminRefused = false, true }, "", rotator.StateFailing, rotator.ReasonAdminKeyRefused},
		{"admin key refused, not due", func(s stage) { s.o.Listed, s.o.AdminRefused = false, true }, "", rotator.StateOK, ""},

		{"nothing anywhere", noEntry, "rotate first", rotator.StateDue, rotator.ReasonFirst},
		{"nothing anywhere, manual", func(s stage) { noEntry(s); s.p.Mode = rotator.ModeManual }, "rotate first", rotator.StateDue, rotator.ReasonFirst},
		{"nothing anywhere, group busy", func(s stage) { noEntry(s); s.o.GroupHeld = "tts-other" }, "rotate first", rotator.StateDue, rotator.ReasonFirst},
		{"nothing anywhere, throttled", func(s stage) { noEntry(s); s.o.Rotations, s.o.MaxRotations = 5, 5 }, "", rotator.StateThrottled, rotator.ReasonThrottled},
		{"no entry, record not read", func(s stage) { s.o.Entry, s.o.Record = nil, nil }, "", rotator.StateDue, rotator.ReasonNotObserved},
		{"no entry, record names a key", func(s stage) { s.o.Entry = nil }, "adopt record_found k2", rotator.StateOK, ""},
		{"no entry, record names an unknown key", func(s stage) { s.o.Entry = nil; s.o.Record.KeyID = "k7" }, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"no entry, a value without a name", func(s stage) { s.o.Entry = nil; s.o.Record.KeyID = "" }, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"no entry, adopt", func(s stage) { s.o.Entry, s.p.Adopt = nil, "k1" }, "adopt adopt k1", rotator.StateOK, ""},
		{"no entry, adopt without its secret", func(s stage) { noEntry(s); s.p.Adopt = "k1" }, "", rotator.StateError, rotator.ReasonAdoptRefused},
		{"no entry, adopt what is not there", func(s stage) { noEntry(s); s.p.Adopt = "k7" }, "", rotator.StateError, rotator.ReasonAdoptUnknown},
		{"no entry, adopt a key whose hint does not fit", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Keys[0].Hint, s.o.Record.Ending = nil, "k1", "...ab12", "12345678"
		}, "", rotator.StateError, rotator.ReasonAdoptRefused},
		{"no entry, adopt a key whose hint fits", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Keys[0].Hint, s.o.Record.Ending = nil, "k1", "...5678", "12345678"
		}, "adopt adopt k1", rotator.StateOK, ""},
		{"no entry, adopt a key that the ledger has for another", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Elsewhere = nil, "k1", map[string]string{"k1": "other"}
		}, "", rotator.StateError, rotator.ReasonAdoptRefused},
		{"no entry, adopt a key of another policy's name", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Keys[0].Name = nil, "k1", "rekeyd.ownerown.other.aaaaaaaaa1"
		}, "", rotator.StateError, rotator.ReasonAdoptRefused},
		{"no entry, adopt a key of the same policy elsewhere", func(s stage) {
			s.o.Entry, s.p.Adopt, s.o.Keys[0].Name = nil, "k1", "rekeyd.neighbor.other.aaaaaaaaa1"
		}, "adopt adopt k1", rotator.StateOK, ""},
		{"no entry, adopt a secret", func(s stage) { s.o.Entry, s.p.Adopt = nil, "sk_secret" }, "", rotator.StateError, rotator.ReasonAdoptUnknown},
		{"an abandoned key, adopt", func(s stage) {
			s.o.Entry.Current, s.p.Adopt, s.o.Entry.Retiring = nil, "k1", nil
			s.o.Entry.Abandoned = []rotator.Abandoned{{Rotation: "aaaaaaaaa2"}}
		}, "sweep abandoned k2, adopt adopt k1", rotator.StateOK, ""},
		{"an abandoned key in the record", func(s stage) {
			s.o.Entry.Current, s.o.Entry.Retiring = nil, nil
			s.o.Entry.Abandoned = []rotator.Abandoned{{Rotation: "aaaaaaaaa2"}}
		}, "sweep abandoned k2", rotator.StateError, rotator.ReasonAdoptRefused},
		{"no entry, record names another policy's key", func(s stage) {
			s.o.Entry, s.o.Keys[1].Name = nil, "rekeyd.ownerown.other.aaaaaaaaa2"
		}, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"record overwritten with another policy's key", func(s stage) {
			s.o.Record.Match, s.o.Record.KeyID, s.o.Elsewhere = "", "k9", map[string]string{"k9": "other"}
		}, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"no entry, fields of others", func(s stage) { noEntry(s); s.o.Record.Foreign = []string{"key_id"} }, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"no entry, what a takeover leaves", func(s stage) {
			noEntry(s)
			s.o.Record.Foreign, s.o.Record.Policy = []string{"policy"}, s.p.Name
		}, "rotate first", rotator.StateDue, rotator.ReasonFirst},
		{"moved to fields of others", func(s stage) {
			s.p.Sink.Path, s.o.Record = "elsewhere", &rotator.RecordView{Foreign: []string{"policy"}}
		}, "", rotator.StateError, rotator.ReasonRecordChanged},
		{"a field of rekeyd's own for the secret", func(s stage) { hours(s, 2); s.p.Sink.Field = "key_id" }, "", rotator.StateError, rotator.ReasonSinkField},

		{"no entry, another policy's record", func(s stage) { s.o.Entry, s.o.Inherits = nil, "tts-old" }, "inherit record_found k2", rotator.StateOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, o := planStage(t)
			now := planNow
			c.change(stage{&p, &o, &now})
			d := rotator.Plan(p, o, now)
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
			if (d.State == rotator.StateError) != (d.Message != "") {
				t.Errorf("state %s with message %q", d.State, d.Message)
			}
			if again := rotator.Plan(p, o, now); !slices.Equal(again.Steps, d.Steps) {
				t.Error("the same arguments gave another plan")
			}
		})
	}
}

func TestAnUnplaceableValueNamesTheCandidates(t *testing.T) {
	p, o := planStage(t)
	o.Entry, o.Record.KeyID = nil, ""
	o.Keys[0].Hint, o.Keys[0].CreatedAt = "…ab12", planNow
	d := rotator.Plan(p, o, planNow)
	for _, want := range []string{"adopt", "k1", "…ab12", "2026-05-05", "secret/elevenlabs/tts-prod", "k2"} {
		if !strings.Contains(d.Message, want) {
			t.Errorf("the message lacks %q: %s", want, d.Message)
		}
	}
}

// TestMaxAgeEndsTheWaits has work that waits for other things looked at when max_age calls for it.
func TestMaxAgeEndsTheWaits(t *testing.T) {
	now := planNow.Add(4 * time.Hour)   // two hours after the run of 03:00
	byAge := planNow.Add(8 * time.Hour) // 34h old, less an overlap of 4h
	for name, change := range map[string]func(*rotator.Policy, *rotator.Observed){
		"window": func(p *rotator.Policy, _ *rotator.Observed) { p.Window = time.Hour },
		"group":  func(_ *rotator.Policy, o *rotator.Observed) { o.GroupHeld = "tts-other" },
	} {
		t.Run(name, func(t *testing.T) {
			p, o := planStage(t)
			p.MaxAge = 34 * time.Hour
			change(&p, &o)
			d := rotator.Plan(p, o, now)
			if len(d.Steps) > 0 || !d.Wake.Equal(byAge) {
				t.Errorf("steps %v, next look %s, want one at %s", d.Steps, d.Wake, byAge)
			}
			if name == "window" && !d.NextDue.Equal(byAge) {
				t.Errorf("next due %s, want %s", d.NextDue, byAge)
			}
			if name == "group" && d.HeldBy != "tts-other" {
				t.Errorf("held by %q", d.HeldBy)
			}
			if d = rotator.Plan(p, o, byAge); len(d.Steps) != 1 || d.Reason != rotator.ReasonMaxAge {
				t.Errorf("at that time: %v, %s", d.Steps, d.Reason)
			}
		})
	}
}

// TestAWindowOfAScheduleThatCounts: @every has its runs every so long after the last rotation, also those left out.
func TestAWindowOfAScheduleThatCounts(t *testing.T) {
	p, o := planStage(t)
	s, err := rotator.ParseSchedule("@every 10h", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	p.Schedule, p.Window = s, time.Hour // the last rotation was 22h ago: runs were 12h and 2h ago
	d := rotator.Plan(p, o, planNow)
	next := planNow.Add(8 * time.Hour)
	if len(d.Steps) > 0 || d.Reason != rotator.ReasonWindow || !d.NextDue.Equal(next) {
		t.Errorf("steps %v, reason %s, next %s, want %s", d.Steps, d.Reason, d.NextDue, next)
	}
	for _, late := range []time.Duration{0, 30 * time.Minute} {
		if d := rotator.Plan(p, o, next.Add(late)); len(d.Steps) != 1 {
			t.Errorf("%s after the next run: %v, %s, next %s", late, d.Steps, d.Reason, d.NextDue)
		}
	}
}
