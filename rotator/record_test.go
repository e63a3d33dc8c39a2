package rotator

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// FuzzTheFieldThatReadersRead: whatever a record held before, a policy that is not refused publishes a record whose field
// holds the secret.
func FuzzTheFieldThatReadersRead(f *testing.F) {
	f.Add("api_key", `{"api_key": "old", "theirs": 1}`, "sk_1")
	for _, name := range ledger.RecordFields() {
		f.Add(name, `{}`, "sk_1")
	}
	accepted := regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`) // what the policy file can say
	f.Fuzz(func(t *testing.T, field, before, value string) {
		if !accepted.MatchString(field) || !accepted.MatchString(value) {
			return
		}
		p := plan.Policy{Name: "p", Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "p"}, Field: field}}
		if plan.Plan(p, plan.Observed{}, time.Unix(0, 0)).Reason == plan.FaultSinkField {
			return
		}
		rec := ledger.ParseRecord(ledger.Doc{JSON: json.RawMessage(before), Version: 1}, field)
		pub := ledger.Publication{KeyRef: ledger.KeyRef{ID: "k2", Name: "n", Account: "a", Sink: p.Sink, Published: time.Unix(0, 0)}, Secret: secret.New(value), Policy: p.Name, PreviousID: "k1"}
		text, err := json.Marshal(rec.With(pub))
		if err != nil {
			t.Fatal(err)
		}
		if got := (ledger.Doc{JSON: text}).Fields()[field]; got != value {
			t.Errorf("field %s holds %v, not the secret", field, got)
		}
		if back := ledger.ParseRecord(ledger.Doc{JSON: text}, field); !back.Publishes("n") || back.Secret.Reveal() != value || back.KeyID != "k2" {
			t.Errorf("what is read back is %q of key %s", back.Secret.Reveal(), back.KeyID)
		}
	})
}

// TestHints: the characters after the last one that hides something are the secret's end.
func TestHints(t *testing.T) {
	const value = "sk_0123456789abcdef0123456709c5"
	v := plan.RecordView{HasValue: true, Ending: plan.Ending(value)}
	for hint, want := range map[string]plan.Fit{
		"...09c5": plan.HintFits, "…09c5": plan.HintFits, "sk_012***09c5": plan.HintFits, "09c5": plan.HintFits, "...456709c5": plan.HintFits, "...ab456709c5": plan.HintFits,
		"...09c6": plan.HintDiffers, "…9c50": plan.HintDiffers, "": plan.Unsaid, "...": plan.Unsaid, "sk_012...": plan.Unsaid, "****": plan.Unsaid,
	} {
		if got := v.Fit(hint); got != want {
			t.Errorf("hint %q: %d, want %d", hint, got, want)
		}
	}
	odd := plan.RecordView{HasValue: true, Ending: plan.Ending("sk_0123456789abcdef01234_9-Zc5")}
	if got := odd.Fit("...1234_9-Zc5"); got != plan.HintFits {
		t.Errorf("a hint of every kind of character: %d", got)
	}
	if got := odd.Fit("...5_9-Zc5"); got != plan.HintDiffers {
		t.Errorf("a hint that differs before a sign: %d", got)
	}
	if got := (plan.RecordView{}).Fit("...09c5"); got != plan.Unsaid {
		t.Errorf("without a value: %d", got)
	}
	if got := (plan.RecordView{HasValue: true, Ending: plan.Ending("too short 09c5")}).Fit("...09c5"); got != plan.HintDiffers {
		t.Errorf("a value that is too short to be a key: %d", got)
	}
}
