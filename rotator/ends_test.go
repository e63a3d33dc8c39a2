package rotator

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// TestWhichEndsAreThoseOfOthers compares two reads of an entry.
func TestWhichEndsAreThoseOfOthers(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	entry := func(state ledger.RetiringState, past ledger.Past) *ledger.Entry {
		past.PreviousKeyID, past.KeyID = "k1", "k2"
		e := &ledger.Entry{Current: &ledger.KeyRef{ID: "k2"}, History: []ledger.Past{past}}
		if state != "" {
			e.Retiring = []ledger.Retiring{{KeyRef: ledger.KeyRef{ID: "k1"}, State: state}}
		}
		return e
	}
	overlap, disabled, deleted := entry(ledger.InOverlap, ledger.Past{}), entry(ledger.InQuarantine, ledger.Past{Disabled: at}), entry("", ledger.Past{Disabled: at, Deleted: at})
	removed := &ledger.Entry{Current: &ledger.KeyRef{ID: "k1"}}
	pruned := &ledger.Entry{Retiring: []ledger.Retiring{{KeyRef: ledger.KeyRef{ID: "k1"}, State: ledger.InQuarantine}}}
	for name, tc := range map[string]struct {
		was, is *ledger.Entry
		told    map[end]bool
		want    string
	}{
		"nothing":                  {was: overlap, is: overlap},
		"disabled":                 {was: overlap, is: disabled, want: "disabled"},
		"disabled and logged here": {was: overlap, is: disabled, told: map[end]bool{{keyDisabled, "k1"}: true}},
		"deleted":                  {was: disabled, is: deleted, want: "deleted"},
		"both between two reads":   {was: removed, is: deleted, want: "disabled deleted"},
		"leaked":                   {was: removed, is: entry(ledger.InQuarantine, ledger.Past{})}, // ElevenLabs disabled it
		"pruned":                   {was: removed, is: pruned, want: "disabled"},
		"pruned, then deleted":     {was: pruned, is: &ledger.Entry{}, want: "deleted"},
		"moved away":               {was: overlap, is: &ledger.Entry{MovedTo: "other"}},
		"the first read":           {is: deleted},
	} {
		var log bytes.Buffer
		(&Rotator{opt: Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}}).logEnds("p", tc.was, tc.is, tc.told)
		var got []string
		for line := range strings.Lines(log.String()) {
			_, what, _ := strings.Cut(line, `msg="key `)
			what, _, _ = strings.Cut(what, ` by another process" policy=p key_id=k1`)
			got = append(got, what)
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: the log has\n%swant %q", name, &log, tc.want)
		}
	}
}
