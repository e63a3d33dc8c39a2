package web

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// noPolicy answers a call about a policy that does not exist.
const noPolicy = "There is no policy of that name; /api/v1/policies lists them."

// RotationView is one rotation of a policy's history. Its JSON is what `rekeyd history -o json` exports.
type RotationView struct {
	Policy string `json:"policy"`
	ledger.Past
}

// HistoryOf returns the view of a policy's history, oldest first.
func HistoryOf(policy string, history []ledger.Past) []RotationView {
	views := make([]RotationView, len(history))
	for i, p := range history {
		for _, t := range []*time.Time{&p.Started, &p.Created, &p.Published, &p.Disabled, &p.Deleted, &p.ProofAt} {
			*t = t.UTC()
		}
		views[i] = RotationView{policy, p}
	}
	return views
}

// Fate says what became of the previous key, and since when that is so; a zero time is unknown.
func (r RotationView) Fate() (string, time.Time) {
	switch {
	case r.PreviousKeyID == "":
		return "", time.Time{}
	case !r.Deleted.IsZero():
		return "deleted", r.Deleted
	case !r.Disabled.IsZero():
		return "disabled", r.Disabled
	case r.By == ledger.ByLeak:
		return "disabled already", time.Time{}
	}
	return "replaced", r.Published
}

// Last is when something last happened to the new key or the previous one.
func (r RotationView) Last() time.Time {
	return slices.MaxFunc([]time.Time{r.Published, r.Disabled, r.Deleted, r.ProofAt}, time.Time.Compare)
}

// Answers counts the probes that the new key was answered with 2xx; "" without probes.
func (r RotationView) Answers() string {
	if len(r.Probes) == 0 {
		return ""
	}
	bad := slices.DeleteFunc(slices.Clone(r.Probes), ledger.ProbeAnswer.Good)
	return fmt.Sprintf("%d of %d", len(r.Probes)-len(bad), len(r.Probes))
}

// Death is the proof of the previous key's end in words; "" where there is none.
func (r RotationView) Death() string { return strings.ReplaceAll(string(r.Proof), "_", " ") }

// HealedLeak says that a leaked key was replaced within the last day, and when; "" otherwise.
func (p PolicyView) HealedLeak(now time.Time) string {
	leak := plan.HealedLeak(p.history.Unpack(), now)
	if leak == nil {
		return ""
	}
	return "leaked, replaced " + Span(now.Sub(leak.Published)) + " ago"
}

// only returns the snapshot with that policy alone, loaded or removed.
func only(s rotator.Snapshot, name string) (rotator.Snapshot, bool) {
	others := func(p rotator.PolicyStatus) bool { return p.Policy.Name != name }
	s.Policies, s.Removed = slices.DeleteFunc(s.Policies, others), slices.DeleteFunc(s.Removed, others)
	return s, len(s.Policies)+len(s.Removed) > 0
}

// policyDetail is the JSON of GET /api/v1/policies/{name}.
type policyDetail struct {
	PolicyView
	History []RotationView `json:"history"` // oldest first
}

// policy serves GET /api/v1/policies/{name}.
func (s *Server) policy(w http.ResponseWriter, r *http.Request) {
	one, found := only(s.snapshot(), r.PathValue("name"))
	if !found {
		http.Error(w, noPolicy, http.StatusNotFound)
		return
	}
	view := ViewOf(one)
	p := slices.Concat(view.Policies, view.Unmanaged)[0]
	s.sendJSON(w, policyDetail{p, HistoryOf(p.Name, p.history.Unpack())})
}
