package plan

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

var now = time.Date(2026, 5, 5, 1, 0, 0, 0, time.UTC)

func daily(t *testing.T) schedule.Schedule {
	t.Helper()
	s, err := schedule.Parse("0 3 * * *", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARequestIsFulfilled(t *testing.T) {
	t.Parallel()
	entry := func(state ledger.RetiringState) *ledger.Entry {
		return &ledger.Entry{Current: &ledger.KeyRef{ID: "b", Rotation: "r2"}, Retiring: []ledger.Retiring{{KeyRef: ledger.KeyRef{ID: "a"}, State: state}}}
	}
	for _, c := range []struct {
		name    string
		request Request
		entry   *ledger.Entry
		done    bool
	}{
		{"the key is replaced", Request{NotKey: "a"}, entry(ledger.InOverlap), true},
		{"the key is current", Request{NotKey: "b"}, entry(ledger.InOverlap), false},
		{"the key of its rotation is current", Request{NotKey: "a", NotRotation: "r2"}, entry(ledger.InOverlap), false},
		{"the key of another rotation is current", Request{NotKey: "a", NotRotation: "r1"}, entry(ledger.InOverlap), true},
		{"an adopted key is current", Request{NotKey: "a"}, &ledger.Entry{Current: &ledger.KeyRef{ID: "b"}}, true},
		{"pending", Request{NotKey: "a", Pending: true}, entry(ledger.InOverlap), false},
		{"no entry", Request{NotKey: "a"}, nil, false},
		{"no key", Request{NotKey: "a"}, &ledger.Entry{}, false},
		{"revoke, an older key works", Request{NotKey: "a", Revoke: true}, entry(ledger.InOverlap), false},
		{"revoke, no older key works", Request{NotKey: "a", Revoke: true}, entry(ledger.InQuarantine), true},
	} {
		if got := c.request.Fulfilled(c.entry); got != c.done {
			t.Errorf("%s: fulfilled %t", c.name, got)
		}
	}
}

func TestNextDue(t *testing.T) {
	t.Parallel()
	made := now.Add(-22 * time.Hour)
	e := &ledger.Entry{LastRotation: made, Current: &ledger.KeyRef{Created: made}}
	for _, c := range []struct {
		name   string
		policy Policy
		entry  *ledger.Entry
		in     time.Duration // from now; 0: never
		why    ledger.Trigger
	}{
		{"schedule", Policy{}, e, 2 * time.Hour, ledger.TriggerSchedule},
		{"manual", Policy{Mode: ModeManual}, e, 0, ledger.TriggerSchedule},
		{"age", Policy{MaxAge: 25 * time.Hour, Overlap: time.Hour, WaitUntilIdle: time.Hour}, e, time.Hour, ledger.TriggerMaxAge},
		{"age after the schedule", Policy{MaxAge: 25 * time.Hour}, e, 2 * time.Hour, ledger.TriggerSchedule},
		{"age with the schedule", Policy{MaxAge: 24 * time.Hour}, e, 2 * time.Hour, ledger.TriggerSchedule},
		{"age, manual", Policy{MaxAge: 25 * time.Hour, Mode: ModeManual}, e, 3 * time.Hour, ledger.TriggerMaxAge},
		{"age of no key", Policy{MaxAge: time.Hour}, &ledger.Entry{LastRotation: made}, 2 * time.Hour, ledger.TriggerSchedule},
	} {
		c.policy.Schedule = daily(t)
		at, why := NextDue(c.policy, c.entry)
		if never := c.in == 0; at.IsZero() != never || why != c.why || !never && !at.Equal(now.Add(c.in)) {
			t.Errorf("%s: %s by %s", c.name, at, why)
		}
	}
	splayed := Policy{Name: "tts-prod", Splay: time.Hour, Schedule: daily(t)}
	if at, _ := NextDue(splayed, e); !at.Equal(now.Add(2*time.Hour + schedule.SplayOf("tts-prod", time.Hour))) {
		t.Errorf("splayed: %s", at)
	}
}

func TestWhatIsUrgent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		action Action
		reason ledger.Trigger
		urgent bool
	}{
		{ActRotate, ledger.TriggerExposed, true}, {ActRotate, ledger.TriggerSelfDisabled, true}, {ActRotate, ledger.TriggerRevoke, true}, {ActRotate, ledger.TriggerSchedule, false},
		{ActDisable, ledger.TriggerRevoke, true}, {ActDisable, ledger.TriggerOverlapEnded, false}, {ActDelete, ledger.TriggerRevoke, false}, {ActAdopt, ledger.TriggerExposed, false},
	} {
		if got := Urgent(Step{Action: c.action, Reason: c.reason}); got != c.urgent {
			t.Errorf("%s for %s: urgent %t", c.action, c.reason, got)
		}
	}
	for why, leaked := range map[ledger.Trigger]bool{ledger.TriggerExposed: true, ledger.TriggerSelfDisabled: true, ledger.TriggerRevoke: false} {
		if Leaked(why) != leaked {
			t.Errorf("%s: leaked %t", why, !leaked)
		}
	}
}

func TestViewOfARecord(t *testing.T) {
	t.Parallel()
	const salt, value = "salt", "sk_0123456789abcdef0123456789abcdef"
	hash := ledger.HashValue(salt, value)
	key := func(id, hash string) ledger.KeyRef { return ledger.KeyRef{ID: id, Hash: hash} }
	entry := func(current string, retiring ...ledger.Retiring) *ledger.Entry {
		k := key("b", current)
		return &ledger.Entry{Salt: salt, Current: &k, Retiring: retiring}
	}
	a, z := ledger.Retiring{KeyRef: key("a", hash)}, ledger.Retiring{KeyRef: key("z", "another")}
	for _, c := range []struct {
		name, value string
		entry       *ledger.Entry
		match       string
	}{
		{"current", value, entry(hash, a), "b"},
		{"retiring", value, entry("another", z, a, z), "a"},
		{"unknown", value, entry("another", z), ""},
		{"no current key", value, &ledger.Entry{Salt: salt, Retiring: []ledger.Retiring{a}}, "a"},
		{"no entry", value, nil, ""},
		{"no value", "", entry(ledger.HashValue(salt, "")), ""},
	} {
		rec := ledger.Record{KeyID: "k", Doc: ledger.Doc{Version: 3}}
		if c.value != "" {
			rec.Secret = secret.New(c.value)
		}
		v := View(rec, c.entry)
		if v.Match != c.match || v.HasValue != (c.value != "") || v.KeyID != "k" || v.Version != 3 {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

func TestOverlapEnd(t *testing.T) {
	t.Parallel()
	const part = time.Millisecond
	for _, c := range []struct {
		overlap, age, from, end time.Duration
	}{
		{time.Hour, 0, 0, time.Hour},
		{time.Hour, 0, part, time.Hour + time.Second},
		{0, 0, part, part},
		{time.Hour, 2 * time.Hour, 0, time.Hour},
		{3 * time.Hour, 2 * time.Hour, 0, 2 * time.Hour},
	} {
		got := OverlapEnd(Policy{Overlap: c.overlap, MaxAge: c.age}, ledger.KeyRef{Created: now}, now.Add(c.from))
		if !got.Equal(now.Add(c.end)) {
			t.Errorf("%+v: %s", c, got.Sub(now))
		}
	}
}

func TestWhatARecordMayHold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		view  RecordView
		hash  string
		maybe bool
	}{
		{RecordView{HasValue: true, Match: "a"}, "h", true},
		{RecordView{HasValue: true, KeyID: "a"}, "h", true},
		{RecordView{HasValue: true, Match: "b", KeyID: "a"}, "h", true},
		{RecordView{HasValue: true}, "h", false},
		{RecordView{HasValue: true}, "", true},
		{RecordView{HasValue: true, Match: "b"}, "", false},
		{RecordView{Match: "a", KeyID: "a"}, "", false},
	} {
		if got := c.view.MayBe(ledger.KeyRef{ID: "a", Hash: c.hash}); got != c.maybe {
			t.Errorf("%+v, hash %q: %t", c.view, c.hash, got)
		}
	}
}

func TestKeysAreCounted(t *testing.T) {
	t.Parallel()
	p := Policy{Name: "tts-prod", Workspace: "w", ServiceAccount: "s"}
	key := func(id, name, workspace, account string) ListedKey {
		return ListedKey{Workspace: workspace, Key: &elevenlabs.Key{ID: id, Name: name, ServiceAccount: account}}
	}
	o := Observed{Owner: "ownerown", Keys: []ListedKey{
		key("b", "rekeyd.ownerown.tts-prod.aaaaaaaaa2", "w", "s"),
		key("lost", "rekeyd.ownerown.tts-prod.aaaaaaaaa3", "elsewhere", "t"),
		key("others", "rekeyd.ownerown.other.aaaaaaaaa3", "w", "s"),
		key("hand", "by hand", "w", "s"), key("neighbour", "rekeyd.neighbor.tts-prod.aaaaaaaaa3", "w", "s"),
		key("elsewhere", "by hand", "v", "s"), key("account", "by hand", "w", "t"),
	}}
	o.Entry = &ledger.Entry{Owner: "ownerown", Policy: "tts-prod", Current: &ledger.KeyRef{ID: "b"}, Retiring: []ledger.Retiring{
		{KeyRef: ledger.KeyRef{ID: "c"}, State: ledger.InOverlap}, {KeyRef: ledger.KeyRef{ID: "d"}, State: ledger.InQuarantine}, {KeyRef: ledger.KeyRef{ID: "e"}, State: ledger.InQuarantine},
	}}
	if got, want := CountKeys(p, o), (KeyCounts{Current: 1, Overlap: 1, Quarantine: 2, Lost: 1, Foreign: 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if got := Unexplained(o); got != " lost" {
		t.Errorf("unexplained: %q", got)
	}
	o.Entry.Current = nil
	if got, want := CountKeys(p, o), (KeyCounts{Overlap: 1, Quarantine: 2, Lost: 2, Foreign: 2}); got != want {
		t.Errorf("without a current key: counted %+v, want %+v", got, want)
	}
	o.Entry = nil
	if got, want := CountKeys(p, o), (KeyCounts{Lost: 2, Foreign: 2}); got != want || Unexplained(o) != "" {
		t.Errorf("without an entry: counted %+v, want %+v", got, want)
	}
	for reason, want := range map[string]DisableCause{"exposed_publicly": DisabledExposed, "solar_flare": DisabledOther, "": DisabledOther} {
		if got := CauseOf(reason); got != want {
			t.Errorf("disabled for %q: %s", reason, got)
		}
	}
}

// TestWhatIsLeftOfARemovedPolicy: the place of its current key, else of one that retires, is claimed or was abandoned.
func TestWhatIsLeftOfARemovedPolicy(t *testing.T) {
	t.Parallel()
	at := func(w string) ledger.KeyRef {
		return ledger.KeyRef{Workspace: w, Account: "s", Verified: true, Sink: ledger.Sink{Field: w}}
	}
	current, intent := at("current"), ledger.Intent{Workspace: "intent", Account: "s", Verify: true, Sink: ledger.Sink{Field: "intent"}}
	e := ledger.Entry{Policy: "tts-prod", Current: &current, Retiring: []ledger.Retiring{{KeyRef: at("retiring")}, {KeyRef: at("later")}}, Intent: &intent,
		Abandoned: []ledger.Abandoned{{Workspace: "abandoned", Account: "s"}}, Quarantine: ledger.Duration(time.Hour)}
	check := func(workspace, account, field string, quarantine time.Duration) {
		t.Helper()
		p := RemovedPolicy(&e)
		if p.Name != "tts-prod" || p.Mode != ModeRemoved || p.Workspace != workspace || p.ServiceAccount != account || p.Sink.Field != field || p.Verify != (field != "") || p.Quarantine != quarantine {
			t.Errorf("%+v", p)
		}
	}
	check("current", "s", "current", time.Hour)
	e.Current, e.Quarantine = nil, 0
	check("retiring", "s", "retiring", 24*time.Hour)
	e.Retiring = nil
	check("intent", "s", "intent", 24*time.Hour)
	e.Intent = nil
	check("abandoned", "s", "", 24*time.Hour)
	e.Abandoned = nil
	check("", "", "", 24*time.Hour)
}

func TestWhetherTheRecordIsWanted(t *testing.T) {
	t.Parallel()
	p := Policy{Workspace: "w", ServiceAccount: "s"}
	here := &ledger.KeyRef{Workspace: "w", Account: "s"}
	for _, c := range []struct {
		entry  *ledger.Entry
		wanted bool
	}{
		{nil, true},
		{&ledger.Entry{}, true},
		{&ledger.Entry{Current: here}, false},
		{&ledger.Entry{Current: &ledger.KeyRef{Workspace: "v", Account: "s"}}, true},
		{&ledger.Entry{Current: &ledger.KeyRef{Workspace: "w", Account: "t"}}, true},
		{&ledger.Entry{Current: &ledger.KeyRef{Workspace: "w", Account: "s", Sink: ledger.Sink{Field: "f"}}}, true},
		{&ledger.Entry{Claim: &ledger.Claim{}}, false},
	} {
		if got := WantsRecord(p, c.entry); got != c.wanted {
			t.Errorf("%+v: %t", c.entry, got)
		}
	}
}
