package ledger

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
)

var now = time.Date(2026, 5, 5, 1, 0, 0, 0, time.UTC)

// testEntry has a current key b, a retiring key a, and a rotation that was abandoned.
func testEntry() *Entry {
	return &Entry{
		Schema: EntrySchema, Owner: "ownerown", Policy: "tts-prod", Salt: "salt",
		Current:   &KeyRef{ID: "b", Rotation: "rotation2"},
		Retiring:  []Retiring{{KeyRef: KeyRef{ID: "a", Rotation: "rotation1"}, State: InOverlap, Until: now}},
		Abandoned: []Abandoned{{Rotation: "rotation3", Since: now}, {Rotation: "rotation2", KeyID: "twin", Since: now}},
	}
}

func TestWhatAnEntryKnows(t *testing.T) {
	t.Parallel()
	e := testEntry()
	e.Intent = &Intent{Rotation: "rotation4"}
	for _, c := range []struct {
		id, rotation                string
		known, abandoned, explained bool // explained when it is in use
		twin                        string
	}{
		{"b", "rotation2", true, false, true, ""},
		{"a", "rotation1", true, false, true, ""},
		{"x", "rotation4", true, false, true, ""},
		{"x", "rotation3", true, true, false, ""},
		{"twin", "rotation2", true, true, false, "b"},
		{"x", "rotation2", false, false, false, "b"},
		{"x", "rotation1", false, false, false, "a"},
		{"x", "", false, false, false, ""},
		{"", "rotation9", false, false, false, ""},
	} {
		if got := e.Knows(c.id, c.rotation); got != c.known {
			t.Errorf("%+v: known %t", c, got)
		}
		if got := e.IsAbandoned(c.id, c.rotation); got != c.abandoned {
			t.Errorf("%+v: abandoned %t", c, got)
		}
		if got := e.Explains(elevenlabs.Key{ID: c.id, CharacterCount: 1}, c.rotation); got != c.explained {
			t.Errorf("%+v: explained in use %t", c, got)
		}
		if got := e.Explains(elevenlabs.Key{ID: c.id}, c.rotation); got != c.known {
			t.Errorf("%+v: explained unused %t", c, got)
		}
		twin := ""
		if k := e.TwinOf(c.id, c.rotation); k != nil {
			twin = k.ID
		}
		if twin != c.twin {
			t.Errorf("%+v: twin of %q", c, twin)
		}
	}
	e.Abandoned = append(e.Abandoned, Abandoned{Rotation: "rotation1"}) // and yet the entry has its key
	if !e.Explains(elevenlabs.Key{ID: "a", CharacterCount: 1}, "rotation1") {
		t.Error("a retiring key that is in use is not explained")
	}
	e.Current.Rotation = "" // adopted
	if e.TwinOf("x", "") != nil {
		t.Error("a key that was adopted has a twin")
	}
}

func TestAnEntryGivesUpItsIntent(t *testing.T) {
	t.Parallel()
	sink := Sink{Field: "api_key"}
	for _, c := range []struct {
		name      string
		change    func(*Entry)
		version   int
		abandoned int // rotations, two from before
		current   int // the record's version that is noted
	}{
		{"a rotation", func(*Entry) {}, 7, 3, 7},
		{"the version is unknown", func(*Entry) {}, 0, 3, 5},
		{"for another record", func(e *Entry) { e.Intent.Sink.Field = "elsewhere" }, 7, 3, 5},
		{"the first rotation", func(e *Entry) { e.Current = nil }, 7, 3, 0},
		{"a rollback", func(e *Entry) { e.Intent.Rollback = true }, 7, 2, 7},
		{"twice", func(e *Entry) { e.Intent.Rotation = "rotation3" }, 7, 2, 7},
		{"no intent", func(e *Entry) { e.Intent = nil }, 7, 2, 5},
	} {
		e := testEntry()
		e.Current.Sink, e.Current.Version = sink, 5
		e.Intent = &Intent{Rotation: "rotation4", KeyName: "name", Workspace: "w", Account: "s", Sink: sink}
		c.change(e)
		e.Abandon(now, c.version)
		if len(e.Abandoned) != c.abandoned || e.Intent != nil {
			t.Errorf("%s: intent %+v, abandoned %+v", c.name, e.Intent, e.Abandoned)
		}
		if c.abandoned == 3 && e.Abandoned[2] != (Abandoned{Rotation: "rotation4", KeyName: "name", Workspace: "w", Account: "s", Since: now}) {
			t.Errorf("%s: abandoned %+v", c.name, e.Abandoned[2])
		}
		if e.Current != nil && e.Current.Version != c.current {
			t.Errorf("%s: the current key's version is %d, want %d", c.name, e.Current.Version, c.current)
		}
	}
}

func TestAnEntryForgets(t *testing.T) {
	t.Parallel()
	note := func(kind CallKind, age time.Duration) Call {
		return Call{Kind: kind, ID: age.String(), At: now.Add(-age)}
	}
	e := testEntry()
	e.Current.Calls = []Call{note(CallDisable, callRemembered), note(CallDisable, callRemembered+1), note(CallDelete, 2*callRemembered), note(CallEnable, -time.Hour), {Kind: CallEnable, ID: "undated"}}
	e.Retiring[0].Calls = []Call{note(CallEnable, callRemembered+1)}
	e.Leaks = []time.Time{now.Add(-time.Hour), now.Add(-time.Hour - 1)}
	for i, age := range []time.Duration{abandonedFor, abandonedFor + 1} {
		e.Abandoned[i].Since = now.Add(-age)
	}
	lists := e.Clone()
	e.ForgetOld(now, func(a Abandoned, since time.Time) bool { return since.Equal(a.Since.Add(abandonedFor)) })
	want := []Call{note(CallDisable, callRemembered), note(CallDelete, 2*callRemembered), {CallEnable, (-time.Hour).String(), now}, {CallEnable, "undated", now}}
	if !slices.Equal(e.Current.Calls, want) || len(e.Retiring[0].Calls) != 0 {
		t.Errorf("calls %+v and %+v, want %+v", e.Current.Calls, e.Retiring[0].Calls, want)
	}
	if len(e.Leaks) != 1 || len(e.Abandoned) != 1 || !e.Abandoned[0].Since.Equal(now.Add(-abandonedFor)) {
		t.Errorf("leaks %v, abandoned %+v", e.Leaks, e.Abandoned)
	}
	lists.ForgetOld(now, func(Abandoned, time.Time) bool { return false })
	if len(lists.Abandoned) != 2 {
		t.Errorf("a rotation whose key is still listed is forgotten: %+v", lists.Abandoned)
	}
}

func TestACloneIsItsOwn(t *testing.T) {
	t.Parallel()
	var e Entry
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		fill(v.Field(i))
	}
	before := mustJSON(t, e)
	c := e.Clone()
	if got := mustJSON(t, c); string(got) != string(before) {
		t.Errorf("the clone is %s, not %s", got, before)
	}
	c.Claim.Holder, c.Intent.Rotation, c.Current.ID, c.Failure.Count, c.Applied.Digest = "x", "x", "x", 9, "x"
	*c.LimitUsed, c.Leaks[0] = now, now
	c.Retiring[0].Tries, c.Abandoned[0].KeyID = 9, "x"
	c.Current.Note(Call{Kind: CallDelete, ID: "x"})
	c.Retiring[0].Settle("something")
	c.DropRetiring("something")
	if got := mustJSON(t, e); string(got) != string(before) {
		t.Errorf("a change of the clone changes the entry to %s", got)
	}
	if len(c.Retiring) != 0 {
		t.Errorf("still retiring: %+v", c.Retiring)
	}
	if e = *testEntry(); e.Key("a") == nil {
		t.Fatal("there is no retiring key")
	}
	if e.DropRetiring("b"); len(e.Retiring) != 1 {
		t.Error("another key is dropped")
	}
}

func TestAnEntryIsCompared(t *testing.T) {
	t.Parallel()
	e := testEntry()
	text := mustJSON(t, e)
	if !e.Equal(text) {
		t.Error("an entry is not its own document")
	}
	e.Moves++
	if e.Equal(text) {
		t.Error("a changed entry counts as its document of before")
	}
	if e.Equal([]byte("{")) {
		t.Error("half a document counts as the entry")
	}
}

func TestAKeyWithoutAnEntry(t *testing.T) {
	t.Parallel()
	e := testEntry()
	if ClaimOf(nil) != nil || CurrentID(nil) != "" || CurrentID(&Entry{}) != "" || CurrentID(e) != "b" {
		t.Error("no entry and one without a key have none")
	}
	e.Retiring = append(e.Retiring, Retiring{KeyRef: KeyRef{ID: "c"}})
	if e.Key("a") == nil || e.Key("b") == nil || e.Key("c") == nil || e.Key("x") != nil || e.RetiringKey("b") != nil {
		t.Error("keys are found by their id")
	}
	for range e.Keys() {
		break // the iteration can be left
	}
	e.Current = nil
	for range e.Keys() {
		break
	}
	if e.MadeRoom() {
		t.Error("no quarantine was cut short")
	}
	if e.LimitUsed = &now; e.MadeRoom() {
		t.Error("a quarantine was cut short for another rotation")
	}
	if e.LastRotation = now; !e.MadeRoom() {
		t.Error("a quarantine was cut short for this rotation")
	}
	var d Duration
	if d.UnmarshalText([]byte("1h0m0s")) != nil || d != Duration(time.Hour) || d.UnmarshalText([]byte("soon")) == nil {
		t.Errorf("duration %d", d)
	}
}

func TestCallsAreNoted(t *testing.T) {
	t.Parallel()
	at := func(hour int) time.Time { return now.Add(time.Duration(hour) * time.Hour) }
	var k KeyRef
	k.Note(Call{CallDisable, "one", at(2)})
	k.Note(Call{CallEnable, "two", at(1)})
	if want := []Call{{CallDisable, "one", at(2)}, {CallEnable, "two", at(1)}}; !slices.Equal(k.Calls, want) {
		t.Errorf("calls %+v, want %+v", k.Calls, want)
	}
	k.Note(Call{CallDisable, "three", at(3)})
	k.Note(Call{CallDisable, "four", at(1)})
	merged := []Call{{CallEnable, "two", at(1)}, {CallDisable, "", at(3)}, {CallDisable, "four", at(1)}}
	if !slices.Equal(k.Calls, merged) {
		t.Errorf("calls %+v, want %+v", k.Calls, merged)
	}
	k.Note(Call{CallDisable, "five", at(2)})
	if !k.Calls[1].At.Equal(at(3)) {
		t.Errorf("merged calls are of %s, the newest of them is of %s", k.Calls[1].At, at(3))
	}
	var other KeyRef
	other.Note(Call{CallEnable, "one", at(5)})
	other.Note(Call{CallDisable, "two", at(1)})
	other.Note(Call{CallDisable, "three", at(2)})
	if want := []Call{{CallEnable, "one", at(5)}, {CallDisable, "", at(1)}, {CallDisable, "three", at(2)}}; !slices.Equal(other.Calls, want) {
		t.Errorf("calls %+v, want %+v", other.Calls, want)
	}
	k.Settle("")
	k.Settle("two")
	if k.Outstanding(CallEnable, now) || !k.Outstanding(CallDisable, now) || len(k.Calls) != 2 {
		t.Errorf("settled: %+v", k.Calls)
	}
	if k.Outstanding(CallDisable, at(2).Add(callRemembered+time.Hour+1)) || k.Deleting() || (*KeyRef)(nil).Deleting() {
		t.Errorf("outstanding for ever: %+v", k.Calls)
	}
}

func TestAHoldEnds(t *testing.T) {
	t.Parallel()
	h := Hold{Policy: "tts-prod", Rotation: "rotation4", WaitUntilIdle: Duration(time.Hour)}
	idle := HoldGrace + time.Hour
	for _, c := range []struct {
		name    string
		change  func(*Entry)
		managed bool
		after   time.Duration
		holds   bool
	}{
		{"overlap", func(*Entry) {}, false, idle - 1, true},
		{"overlap that is long over", func(*Entry) {}, true, idle, false},
		{"quarantine", func(e *Entry) { e.Retiring[0].State = InQuarantine }, true, 0, false},
		{"intent of one that is gone", func(e *Entry) { e.Retiring, e.Intent = nil, &Intent{Rotation: "rotation4", Started: now} }, false, HoldGrace - 1, true},
		{"old intent of one that is gone", func(e *Entry) { e.Retiring, e.Intent = nil, &Intent{Rotation: "rotation4", Started: now} }, false, HoldGrace, false},
		{"old intent", func(e *Entry) { e.Retiring, e.Intent = nil, &Intent{Rotation: "rotation4", Started: now} }, true, HoldGrace, true},
		{"another intent", func(e *Entry) { e.Retiring, e.Intent = nil, &Intent{Rotation: "rotation5", Started: now} }, true, 0, false},
	} {
		e := testEntry()
		c.change(e)
		if got := e.HoldsGroup(h, c.managed, now.Add(c.after)); got != c.holds {
			t.Errorf("%s: holds the group: %t", c.name, got)
		}
	}
}

func TestAGroupIsRead(t *testing.T) {
	t.Parallel()
	if g, err := ParseGroup(nil, "tts"); err != nil || g.Schema != Schema || len(g.Holds) != 0 {
		t.Errorf("a missing group: %+v, %v", g, err)
	}
	if g, err := ParseGroup([]byte(`{"schema":1,"holds":[{"policy":"a","rotation":"r"}]}`), "tts"); err != nil || len(g.Holds) != 1 {
		t.Errorf("a group: %+v, %v", g, err)
	}
	if _, err := ParseGroup([]byte(`{"schema":2,"more":1}`), "tts"); err == nil || !strings.Contains(err.Error(), "unknown field") {
		t.Errorf("a newer group: %v", err)
	}
	for _, text := range []string{`{"schema":3,"holds":[]}`, `{"schema":1,"more":1}`, `{`} {
		if _, err := ParseGroup([]byte(text), "tts"); err == nil || !strings.Contains(err.Error(), "reading group tts") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAnUnreadableEntrySaysWhy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"schema":1,"owner":"o","policy":"p","salt":""}`:            "lacks owner or salt",
		`{"schema":1,"owner":"","policy":"p","salt":"s"}`:            "lacks owner or salt",
		`{"schema":1,"owner":"o","policy":"q","salt":"s"}`:           `entry of "q"`,
		`{"schema":3,"owner":"o","policy":"p","salt":"s"}`:           "its schema is 3",
		`{"schema":3,"owner":"o","policy":"p","salt":"s","new":1}`:   "its schema is 3",
		`{"schema":1,"owner":"o","policy":"p","salt":"s","new":1}`:   "unknown field",
		`{"schema":"1","owner":"o","policy":"p","salt":"s"}`:         "cannot unmarshal",
		`{"schema":1,"owner":"o","policy":"p","salt":"s","moves":{}`: "its schema is <nil>",
	} {
		if e, err := ParseEntry([]byte(text), "p"); e != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	e, err := ParseEntry([]byte(`{"schema":1,"owner":"o","policy":"p","salt":"s","current":{"id":"b","disabling":true},"retiring":[{"id":"a"}]}`), "p")
	if err != nil {
		t.Fatal(err)
	}
	if !e.Current.Outstanding(CallDisable, now) || e.Current.Disabling || e.Retiring[0].Calls != nil {
		t.Errorf("the note of an earlier build: %+v", e.Current)
	}
}

func TestAnErrorOfTheStore(t *testing.T) {
	t.Parallel()
	cause := errors.New("sealed")
	err := fmt.Errorf("publishing: %w", &Error{Op: "writing x", Err: cause, Advice: "unseal it", Outage: true})
	if err.Error() != "publishing: writing x: sealed; unseal it" || !errors.Is(err, cause) || !IsOutage(err) || MaybeWritten(err) {
		t.Errorf("%v: outage %t, maybe written %t", err, IsOutage(err), MaybeWritten(err))
	}
	if err := (&Error{Op: "writing x", MaybeApplied: true}); err.Error() != "writing x" || IsOutage(err) || !MaybeWritten(err) || IsOutage(cause) || MaybeWritten(cause) {
		t.Errorf("%v: outage %t, maybe written %t", err, IsOutage(err), MaybeWritten(err))
	}
	long := strings.Repeat("ä", maxMessage)
	if got := Shorten(long); got != long {
		t.Errorf("shortened to %q", got)
	}
	if got := Shorten(long + "ä"); got != long[:2*(maxMessage-1)]+"…" {
		t.Errorf("shortened to %q", got)
	}
}
