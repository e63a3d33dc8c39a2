package web

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// onePolicy is the page of one policy.
type onePolicy struct {
	frame
	*row
	View     PolicyView
	Matters  []matter
	Settings []setting
	OldKeys  []oldKey
	Commands []command
	History  []rotationRow // newest first
	Admin    bool          // an admin token is set, so the page offers a rotation
}

// setting is one property of the current key, as wanted and as it is.
type setting struct {
	Name, Wanted, Actual string
	Differs              bool
}

// oldKey is one retiring key, and what happens to it next.
type oldKey struct {
	RetiringView
	Next string
	When moment
}

// command is what a person can run, as it is typed.
type command struct{ Line, What string }

// policyPage serves the page of one policy.
func (s *Server) policyPage(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	one, found := only(s.snapshot(), name)
	if !found {
		http.Error(w, noPolicy, http.StatusNotFound)
		return
	}
	key, listed := s.listed(name)
	s.render(w, "policy.html", policyOf(one, key, listed, time.Now(), s.frame(r), s.cfg.AdminToken.IsSet()))
}

// policyOf makes the page of the snapshot's only policy, whose current key the last listing shows as key.
func policyOf(s rotator.Snapshot, key elevenlabs.Key, listed bool, now time.Time, f frame, admin bool) onePolicy {
	r := &rowsOf(&s, now)[0]
	p := onePolicy{frame: f, row: r, View: viewOf(r.PolicyStatus), Admin: admin, Commands: r.commands()}
	for _, a := range alertsOf(r.PolicyStatus, s.Refused()[r.Policy.Workspace], now) {
		p.Matters = append(p.Matters, matter{alert: a, row: r})
	}
	if !r.removed() {
		p.Settings = settingsOf(r, key, listed)
	}
	for _, k := range p.View.Retiring {
		p.OldKeys = append(p.OldKeys, r.oldKey(k))
	}
	for _, past := range slices.Backward(HistoryOf(r.Policy.Name, r.History.Unpack())) {
		p.History = append(p.History, rotationRow{past, r})
	}
	return p
}

// settingsOf puts the policy's settings beside those of the listed key.
func settingsOf(r *row, key elevenlabs.Key, listed bool) []setting {
	want := r.Policy.Settings
	all := make([]setting, 0, len(want.Fields()))
	for _, field := range want.Fields() {
		one := setting{field, cmp.Or(want.Words(field), "not managed"), "unknown", slices.Contains(r.Drift, field)}
		if listed {
			one.Actual = cmp.Or(key.Settings.Words(field), "not shown")
		}
		all = append(all, one)
	}
	return all
}

// oldKey says what happens to a retiring key next, and when.
func (r *row) oldKey(k RetiringView) oldKey {
	next := "deleted"
	if k.State == ledger.InOverlap {
		next = "disabled"
	}
	if len(k.WaitsFor) > 0 {
		next += " at the latest, or as soon as " + strings.NewReplacer(string(plan.WaitNewKeyUnused), "the new key is used", string(plan.WaitOldKeyInUse), "it is idle").Replace(joined(k.WaitsFor))
	}
	return oldKey{k, next, momentOf(k.Until, r.now, r.zone(), "unknown")}
}

func joined(waits []plan.Wait) string {
	all := make([]string, len(waits))
	for i, w := range waits {
		all[i] = string(w)
	}
	return strings.Join(all, " and ")
}

// commands are what can be done about the policy, those that change nothing first.
func (r *row) commands() []command {
	name := r.Policy.Name
	all := []command{{"rekeyd plan " + name, "what rekeyd would do now, and why"}}
	if r.Needs {
		all = append(all, command{"rekeyd check --online", "what Vault and ElevenLabs say"})
	}
	if r.Rotatable() {
		all = append(all, command{"rekeyd rotate " + name, "a new key; the old one works on for " + Span(r.Policy.Overlap)},
			command{"rekeyd rotate " + name + " --revoke-now", "a new key, and every older one is disabled at once"})
		if len(r.Retiring) > 0 {
			all = append(all, command{"rekeyd rollback " + name, "the previous key again"})
		}
	}
	if r.removed() || r.Keys.Lost > 0 {
		all = append(all, command{"rekeyd prune " + name, "lists keys to delete, and asks"})
	}
	return all
}

// NextWhy is what makes the next rotation due.
func (r *row) NextWhy() string {
	if r.NextDue.IsZero() {
		return ""
	}
	return strings.ReplaceAll(plan.Word(r.NextReason), "_", " ")
}

// AgeEnds is when the current key is as old as max_age allows.
func (r *row) AgeEnds() moment {
	if r.Current == nil || r.Policy.MaxAge == 0 {
		return moment{Never: "no max_age"}
	}
	return momentOf(r.Current.Created.Add(r.Policy.MaxAge), r.now, r.zone(), "")
}

// Schedule is when it rotates, in the words of the policy file.
func (r *row) Schedule() string {
	p, words := r.Policy, r.Policy.Schedule.String()+" "+r.Policy.Schedule.Zone()
	if p.Splay > 0 {
		words += ", splay " + Span(p.Splay)
	}
	if p.Window > 0 {
		words += ", window " + Span(p.Window)
	}
	if p.Mode != plan.ModeAuto {
		words += ", mode " + string(p.Mode)
	}
	return words
}

// rotationRow is one rotation on the page.
type rotationRow struct {
	RotationView
	row *row
}

func (r rotationRow) at(t time.Time) moment { return momentOf(t, r.row.now, r.row.zone(), "") }

// When is when the new key was published.
func (r rotationRow) When() moment { return r.at(r.Published) }

// step is what happened in a rotation, and when.
type step struct {
	When      moment
	What, Key string
	Evidence  string
}

// Steps are what is known to have happened, in order.
func (r rotationRow) Steps() []step {
	all := []step{{r.at(r.Created), "created", r.KeyID, ""}}
	if answers := r.Answers(); answers != "" {
		evidence := make([]string, len(r.Probes))
		for i, p := range r.Probes {
			evidence[i] = fmt.Sprintf("%s: %d", p.Path, p.Status)
		}
		all[0].Evidence = "probes answered: " + answers + "; " + strings.Join(evidence, ", ")
	}
	all = append(all, step{r.at(r.Published), "published", r.KeyID, ""})
	if r.PreviousKeyID == "" {
		return all
	}
	switch word, since := r.Fate(); {
	case r.Disabled.IsZero() && r.Deleted.IsZero():
		all = append(all, step{r.at(since), word, r.PreviousKeyID, ""})
	case !r.Disabled.IsZero():
		all = append(all, step{r.at(r.Disabled), "disabled", r.PreviousKeyID, ""})
	}
	if death := r.Death(); death != "" {
		all = append(all, step{r.at(r.ProofAt), "secret " + death, r.PreviousKeyID, ""})
	}
	if !r.Deleted.IsZero() {
		all = append(all, step{r.at(r.Deleted), "deleted", r.PreviousKeyID, ""})
	}
	return all
}
