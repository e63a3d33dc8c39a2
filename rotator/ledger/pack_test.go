package ledger

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// TestAPackedHistoryIsWhole: no field is forgotten, and none that is not set appears.
func TestAPackedHistoryIsWhole(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 3, 12, 0, 0, 5, time.UTC)
	var all Past
	fill(reflect.ValueOf(&all).Elem())
	histories := [][]Past{nil, {all}, {all, {}, all}, {
		{KeyID: "a", Published: at}, {KeyID: "b", PreviousKeyID: "a", Published: at.Add(-time.Hour), Deleted: time.Unix(-5, 999_999_999).UTC()},
		{KeyID: "a", PreviousKeyID: "b"}, {PreviousKeyID: "a", Probes: []ProbeAnswer{{"/é", 204}, {"", -1}}, Words: "wörds\x00"},
	}}
	for n := range reflect.TypeFor[Past]().NumField() {
		var one Past
		fill(reflect.ValueOf(&one).Elem().Field(n))
		histories = append(histories, []Past{one})
	}
	for _, h := range histories {
		if got := Pack(h).Unpack(); !reflect.DeepEqual(got, h) {
			t.Errorf("%+v\nis unpacked as\n%+v", h, got)
		}
	}
}

// TestAPackedEntry is the same entry, and changing its copy changes nothing in it.
func TestAPackedEntry(t *testing.T) {
	t.Parallel()
	var e Entry
	for _, id := range []string{"a", "b", "c"} {
		e.Remember(Past{KeyID: id, PreviousKeyID: "of " + id, Rotation: "r" + id})
	}
	want := e.Clone()
	e.Pack()
	if e.History != nil || len(e.packed) > 100 {
		t.Errorf("it is packed as %q beside %v", e.packed, e.History)
	}
	for _, c := range []*Entry{e.Clone(), e.Clone()} {
		if !reflect.DeepEqual(c, want) {
			t.Errorf("its copy is\n%+v\nwant\n%+v", c, want)
		}
		c.PastOf("of b").Words = "changed"
		c.Remember(Past{KeyID: "d"})
	}
	if past := e.PastOf("of b"); past == nil || past.KeyID != "b" || past.Words != "" {
		t.Errorf("its rotation is %+v", past)
	}
	var stored Entry
	if text, err := json.Marshal(&e); err != nil || json.Unmarshal(text, &stored) != nil || !reflect.DeepEqual(stored.History, want.History) || !reflect.DeepEqual(e.Rotations(), want.History) {
		t.Errorf("its document has %+v: %v", stored.History, err)
	}
	e.Pack()
	if !reflect.DeepEqual(e.Rotations(), want.History) {
		t.Error("packed twice, it is lost")
	}
}

// TestTheSizeOfAPackedHistory: the entries of 10,000 policies wait in a daemon's memory.
func TestTheSizeOfAPackedHistory(t *testing.T) {
	t.Parallel()
	var e Entry
	at := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	for i := range 25 {
		id := "9e2fb1ae31686d3dcd798129dd92300" + string(rune('a'+i))
		e.Remember(Past{Rotation: "fk6yza77bk", By: BySchedule, Reason: TriggerSchedule, KeyID: id, PreviousKeyID: id[:31] + string(rune('a'+i-1)),
			Started: at, Created: at, Published: at, Disabled: at, Deleted: at, Proof: Rejected, ProofAt: at})
		at = at.Add(7 * 24 * time.Hour)
	}
	if e.Pack(); len(e.packed) > 2200 {
		t.Errorf("20 rotations take %d bytes", len(e.packed))
	}
}

// TestReadingAPackedHistory makes one slice: it is read at each look that follows a change.
func TestReadingAPackedHistory(t *testing.T) {
	p := Pack([]Past{{KeyID: "a", Words: "because"}, {KeyID: "b", PreviousKeyID: "a", Published: time.Unix(1, 0)}})
	if n := testing.AllocsPerRun(100, func() { p.Unpack() }); n > 1 {
		t.Errorf("it allocates %v times", n)
	}
}
