package web

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

func TestRowsAreFilteredOrderedAndPaged(t *testing.T) {
	t.Parallel()
	rows := make([]row, 10_000)
	for i := range rows {
		rows[i] = row{PolicyView{Name: fmt.Sprintf("policy-%04d", i), State: plan.StateOK}, time.UTC, time.Now()}
	}
	rows[9_998].State = plan.StateFailing
	rows[9_999].Drift = []string{"name"}
	for _, c := range []struct {
		query, first     string
		rows, page, last int
	}{
		{"", "policy-9998", 100, 1, 100},
		{"page=2", "policy-0098", 100, 2, 100},
		{"page=100", "policy-9898", 100, 100, 100},
		{"page=1000", "policy-9898", 100, 100, 100},
		{"page=-1", "policy-9998", 100, 1, 100},
		{"q=Y-12", "policy-1200", 100, 1, 1},
		{"state=attention", "policy-9998", 2, 1, 1},
		{"state=failing", "policy-9998", 1, 1, 1},
		{"state=ok&q=9999", "policy-9999", 1, 1, 1},
		{"q=nobody", "", 0, 1, 1},
	} {
		query, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		s := selected(rows, query)
		first := ""
		if len(s.Rows) > 0 {
			first = s.Rows[0].Name
		}
		if first != c.first || len(s.Rows) != c.rows || s.Page != c.page || s.Pages != c.last {
			t.Errorf("%q: %d rows from %s, page %d of %d", c.query, len(s.Rows), first, s.Page, s.Pages)
		}
		if (s.Previous == "") != (c.page == 1) || (s.Following == "") != (c.page == c.last) {
			t.Errorf("%q: links %q and %q", c.query, s.Previous, s.Following)
		}
	}
}

func TestRowInWords(t *testing.T) {
	t.Parallel()
	oslo, err := time.LoadLocation("Europe/Oslo")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	r := row{PolicyView{
		State: plan.StateFailing, Key: &KeyView{Created: at(-9)}, NextRotation: at(3), InUse: true,
		Retiring: []RetiringView{{KeyView: KeyView{ID: "k1"}, State: ledger.InOverlap, Until: at(2)}, {KeyView: KeyView{ID: "k2"}, State: ledger.InQuarantine, Until: at(5)}},
		Failure:  &ledger.Failure{Stage: ledger.StageClaim, Reason: ledger.ReasonSinkSealed, Message: "Vault is sealed; unseal Vault", At: at(-1), Count: 3, NextTry: at(1)},
	}, oslo, now}
	want := "Failed at claim, 1h0m ago: Vault is sealed; unseal Vault. 3 times in a row. Tries again in 1h0m."
	if got := r.Trouble(); got != want {
		t.Errorf("it says %q", got)
	}
	want = "k1 works for another 2h0m (2026-03-03 15:00:00 Europe/Oslo)|k2 is disabled, deleted in 5h0m (2026-03-03 18:00:00 Europe/Oslo)|An old key is still in use."
	if got := strings.Join(r.Old(), "|"); got != want {
		t.Errorf("it says %q", got)
	}
	if r.Percent() != 75 || r.Life() != "9h0m of 12h0m until the next rotation" || r.Class() != "attention" {
		t.Errorf("%d %q %q", r.Percent(), r.Life(), r.Class())
	}
	r.MaxAge, r.Key.MaxAgeEnds = ledger.Duration(8*time.Hour), at(-1)
	if r.Percent() != 100 || r.Life() != "9h0m of 8h0m allowed" || r.Class() != "attention over" {
		t.Errorf("%d %q %q", r.Percent(), r.Life(), r.Class())
	}
}

func TestLabelsInTheView(t *testing.T) {
	t.Parallel()
	v := ViewOf(rotator.Snapshot{Policies: []rotator.PolicyStatus{{Policy: &plan.Policy{Name: "a", Labels: map[string]string{"team": "speech"}}}, {Policy: &plan.Policy{Name: "b"}}}})
	text, err := json.Marshal(v.Policies)
	if err != nil || strings.Count(string(text), `"labels":`) != 1 || !strings.Contains(string(text), `"labels":{"team":"speech"}`) {
		t.Errorf("%v: %s", err, text)
	}
}

// TestTheViewPromisesWhatIsDecided: an old key that may be used on is shown until the end of that, not of its overlap.
func TestTheViewPromisesWhatIsDecided(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 23, 12, 0, 0, 0, time.UTC)
	old := ledger.Retiring{KeyRef: ledger.KeyRef{ID: "k1"}, State: ledger.InOverlap, Until: now.Add(time.Hour)}
	status := rotator.PolicyStatus{Policy: &plan.Policy{Name: "tts-prod"}, Retiring: []ledger.Retiring{old}}
	for want, leaves := range map[string]map[string]time.Time{
		"k1 works for another 1h0m": nil, // nothing is decided yet
		"k1 works for another 4h0m": {"k1": now.Add(4 * time.Hour)},
	} {
		status.Leaves = leaves
		if got := ViewOf(rotator.Snapshot{Policies: []rotator.PolicyStatus{status}}).Policies[0].Leaving(now); len(got) != 1 || got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
