package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

func TestHistorySession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "history")
	w.must(0, "history", "-o", "json")
	w.must(0, "rotate", "dubbing")
	w.must(0, "rotate", "tts-prod")
	w.must(0, "rotate", "tts-prod", "--reason", "a drill of the month")
	w.must(0, "rollback", "tts-prod")
	w.must(0, "rotate", "tts-prod", "--revoke-now")
	w.must(0, "history")
	w.must(0, "history", "tts-prod", "dubbing", "tts-prod", "--since", "2026-03-01T00:00:00Z", "-o", "json")
	w.must(0, "history", "--since", "9999-01-01T00:00:00+01:00")
	w.must(2, "history", "--since", "yesterday")
	w.must(2, "history", "tts-prd", "dubbing")
	w.env["REKEYD_POLICIES"] = twoPolicies[:strings.Index(twoPolicies, "  - {name: dubbing")]
	w.must(0, "history", "dubbing")
	w.env["REKEYD_POLICIES"] = strings.ReplaceAll(twoPolicies, "tts-prod", "zz-speech")
	w.must(0, "rename", "tts-prod", "zz-speech")
	w.must(1, "history", "tts-prod")
	w.tty = true
	w.must(0, "history")
	w.env["ELEVENLABS_BASE_URL"] = "http://127.0.0.1:1"
	w.must(0, "history", "dubbing")
	w.kv.Seal()
	w.must(1, "history")
	w.golden("history")
}

// TestHistoryOfTroubledEntries: an entry that cannot be read does not hide the others, and one of an earlier schema, which has no
// history, reads on.
func TestHistoryOfTroubledEntries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(0, "rotate", "dubbing", "tts-prod")
	entry, _ := w.kv.Get("secret/rekeyd/policies/dubbing", 0)
	history := entry["history"]
	put := func(schema, past any) {
		entry["schema"], entry["history"] = schema, past
		if past == nil {
			delete(entry, "history")
		}
		if _, err := w.kv.Put("secret/rekeyd/policies/dubbing", entry); err != nil {
			t.Fatal(err)
		}
	}
	put(1, nil)
	if out := w.must(0, "history"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "tts-prod") {
		t.Errorf("beside an entry without a history:\n%s", out)
	}
	w.must(0, "rotate", "dubbing")
	if out := w.must(0, "history", "dubbing"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "command") {
		t.Errorf("after the first rotation that it remembers:\n%s", out)
	}
	put(99, history)
	for _, names := range [][]string{nil, {"tts-prod", "dubbing"}} {
		status, out, stderr := w.run(append([]string{"history"}, names...)...)
		if status != 1 || strings.Count(out, "\n") != 2 || !strings.Contains(out, "tts-prod") || strings.Count(stderr, "\n") != 1 ||
			!strings.Contains(stderr, "reading the history of dubbing") || !strings.Contains(stderr, "schema is 99") {
			t.Errorf("%v: exit status %d\n%s%s", names, status, out, stderr)
		}
	}
}

// TestTheExportHasTheFieldsOfTheContract, and no others, so that what reads it can rely on them.
func TestTheExportHasTheFieldsOfTheContract(t *testing.T) {
	t.Parallel()
	at := instant.In(time.FixedZone("", 3600))
	past := ledger.Past{Rotation: "abcdefghij", By: ledger.ByHTTP, Reason: ledger.TriggerRequested, Words: "a drill", KeyID: "key_b", PreviousKeyID: "key_a",
		Started: at, Created: at, Published: at, Disabled: at, Deleted: at, Probes: []ledger.ProbeAnswer{{Path: "/v1/models", Status: 200}},
		Proof: ledger.Rejected, ProofAt: at}
	got, err := json.Marshal(web.HistoryOf("tts-prod", []ledger.Past{past}))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"policy":"tts-prod","rotation":"abcdefghij","by":"http","reason":"requested","words":"a drill","key_id":"key_b","previous_key_id":"key_a",` +
		`"started":"T","created":"T","published":"T","disabled":"T","deleted":"T","probes":[{"path":"/v1/models","status":200}],"proof":"rejected","proof_at":"T"}]`
	if want = strings.ReplaceAll(want, `"T"`, `"2026-03-23T12:00:00Z"`); string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHistoryInWords(t *testing.T) {
	t.Parallel()
	hour := func(n int) time.Time { return instant.Add(time.Duration(n) * time.Hour) }
	probes := []ledger.ProbeAnswer{{Path: "/v1/models", Status: 204}, {Path: "/v1/voices", Status: 403}}
	past := web.HistoryOf("p", []ledger.Past{
		{By: ledger.BySchedule, Reason: ledger.TriggerFirst, KeyID: "k1", Published: hour(0)},
		{By: ledger.BySchedule, Reason: ledger.TriggerSchedule, KeyID: "k2", PreviousKeyID: "k1", Published: hour(1), Disabled: hour(2), Deleted: hour(3), Proof: ledger.Rejected, Probes: probes},
		{By: ledger.ByHTTP, Reason: ledger.TriggerRequested, KeyID: "k3", PreviousKeyID: "k2", Published: hour(4), Disabled: hour(5), Proof: ledger.StillAccepted, Probes: probes[:1], Words: "w"},
		{By: ledger.ByLeak, Reason: ledger.TriggerExposed, KeyID: "k4", PreviousKeyID: "k3", Published: hour(6), Proof: ledger.NotTried},
		{By: ledger.BySchedule, Reason: ledger.TriggerSchedule, KeyID: "k5", PreviousKeyID: "k4", Published: hour(7)},
	})
	rows := historyRows(past, true)
	var got strings.Builder
	for _, row := range rows[1:] {
		got.WriteString(strings.Join(row, "|") + "\n")
	}
	if narrow := historyRows(past, false)[2]; strings.Join(narrow, "|") != "2026-03-23T13:00:00Z|p|schedule|schedule|k2|deleted|rejected" {
		t.Errorf("the narrow row is %q", narrow)
	}
	want := `2026-03-23T12:00:00Z|p|schedule|first|k1|-|-|-|-
2026-03-23T13:00:00Z|p|schedule|schedule|k2|k1 deleted 2026-03-23T15:00:00Z|rejected|1 of 2|-
2026-03-23T16:00:00Z|p|http|requested|k3|k2 disabled 2026-03-23T17:00:00Z|still accepted|1 of 1|w
2026-03-23T18:00:00Z|p|leak|exposed_publicly|k4|k3 disabled already|not tried|-|-
2026-03-23T19:00:00Z|p|schedule|schedule|k5|k4 replaced 2026-03-23T19:00:00Z|-|-|-
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

// TestAForgedReasonOnItsWayToTheScreen: a person's words are not the terminal's.
func TestAForgedReasonOnItsWayToTheScreen(t *testing.T) {
	t.Parallel()
	for _, words := range forged() {
		past := web.HistoryOf(words, []ledger.Past{{By: ledger.By(words), Reason: ledger.Trigger(words), Words: words, KeyID: words, PreviousKeyID: words}})
		for _, terminal := range []bool{true, false} {
			var out bytes.Buffer
			a := app{stdout: &out, lookuper: noColor{}, terminal: func(any) bool { return terminal }}
			if err := a.table(historyRows(past, true), []string{""}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(a.document(formatJSON, past), a.document(formatYAML, past)); err != nil {
				t.Fatal(err)
			}
			if !harmless(out.String()) {
				t.Errorf("%q: %q", words, out.String())
			}
		}
	}
}

// TestAHealedLeakInStatus is shown for a day.
func TestAHealedLeakInStatus(t *testing.T) {
	t.Parallel()
	s := everything(t)
	s.Policies[2].History = ledger.Pack([]ledger.Past{{By: ledger.ByLeak, Started: instant.Add(-time.Hour), Published: instant.Add(-time.Hour + 6*time.Second)}})
	view := web.ViewOf(s)
	if got := statusRows(view.Policies, true, instant)[3][1]; got != "ok; leaked, replaced 59m54s ago" {
		t.Errorf("an hour later: %q", got)
	}
	if got := statusRows(view.Policies, true, instant.Add(23*time.Hour))[3][1]; got != "ok; leaked, replaced 23h59m ago" {
		t.Errorf("almost a day later: %q", got)
	}
	if got := statusRows(view.Policies, true, instant.Add(24*time.Hour))[3][1]; got != "ok" {
		t.Errorf("a day later: %q", got)
	}
}
