package ledger

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestTheBoundOfAHistory: it is never longer as JSON than its bound, and ordinary rotations are all remembered.
func TestTheBoundOfAHistory(t *testing.T) {
	t.Parallel()
	late := time.Date(2026, 11, 30, 12, 0, 0, 999_999_999, time.FixedZone("", 3600))
	var longest Past
	fill(reflect.ValueOf(&longest).Elem())
	for _, at := range []*time.Time{&longest.Started, &longest.Created, &longest.Published, &longest.Disabled, &longest.Deleted, &longest.ProofAt} {
		*at = late
	}
	for _, text := range []string{"", "because", "<&>", `"\"`, "für später", "キーが漏れた", "\u2028\u2029", "\xff\xfe", "\x00\x1f\x7f", strings.Repeat("<", 300)} {
		longest.Words, longest.KeyID = text, text
		longest.Probes = []ProbeAnswer{{text, 200}, {"/v1/voices", 599}}
		for n := range 21 {
			history := make([]Past, n)
			for i := range history {
				history[i] = longest
			}
			encoded, err := json.Marshal(history)
			if most := atMost(history); err != nil || len(encoded) > most+len("[]") {
				t.Errorf("%d with %q take %d bytes, at most %d: %v", n, text, len(encoded), most, err)
			}
		}
	}
	for words, least := range map[string]int{"": maxPast, strings.Repeat("キー", 100): maxPast / 2, strings.Repeat("<", 300): 7} {
		var e Entry
		for range 3 * maxPast {
			e.Remember(Past{Rotation: "fk6yza77bk", By: BySchedule, Reason: TriggerSchedule, KeyID: strings.Repeat("a", 32), PreviousKeyID: strings.Repeat("b", 32), Words: words,
				Started: late, Created: late, Published: late, Disabled: late, Deleted: late, Proof: Rejected, ProofAt: late})
		}
		encoded, err := json.Marshal(e.History)
		if err != nil || len(encoded) > maxPastBytes || len(e.History) < least {
			t.Errorf("with words %q it has %d rotations in %d bytes: %v", words, len(e.History), len(encoded), err)
		}
	}
}
