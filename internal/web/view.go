package web

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// View is what /api/v1/policies and `rekeyd status --json` show. Its names are stable; what is unknown is absent. It
// holds no secret and no hash of one.
type View struct {
	Policies   []PolicyView    `json:"policies"`
	Unmanaged  []PolicyView    `json:"unmanaged"` // removed from the policy file: the current key stays until it is pruned
	Workspaces []WorkspaceView `json:"workspaces"`
	StoreError string          `json:"store_error,omitempty"` // why the store of records and ledger is unavailable
}

// PolicyView is one policy.
type PolicyView struct {
	Name           string              `json:"name"`
	Workspace      string              `json:"workspace"`
	ServiceAccount string              `json:"service_account"`
	Sink           ledger.Sink         `json:"sink"`
	Mode           plan.Mode           `json:"mode"`
	MaxAge         ledger.Duration     `json:"max_age,omitzero"`
	Labels         map[string]string   `json:"labels,omitempty"`
	State          plan.State          `json:"state"`
	Reason         string              `json:"reason,omitempty"`
	Message        string              `json:"message,omitempty"`
	Group          string              `json:"group,omitempty"`
	HeldBy         string              `json:"group_held_by,omitempty"` // the member it waits for
	Key            *KeyView            `json:"key,omitempty"`           // the current one
	LastRotation   time.Time           `json:"last_rotation,omitzero"`
	NextRotation   time.Time           `json:"next_rotation,omitzero"`
	Retiring       []RetiringView      `json:"retiring"`
	Keys           plan.KeyCounts      `json:"keys"`
	InUse          bool                `json:"retiring_key_in_use"`
	Drift          []string            `json:"drift"`
	Failure        *ledger.LastFailure `json:"failure,omitempty"` // since the last success

	history ledger.Packed
}

// KeyView is a published key.
type KeyView struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// MaxAgeEnds is when the key is as old as its policy allows, in whole seconds; absent without a max_age.
	MaxAgeEnds time.Time `json:"max_age_ends,omitzero"`
	// ThirdPartyDisable is whether ElevenLabs may disable the current key when it leaks; absent where that is unknown.
	ThirdPartyDisable *bool `json:"third_party_disable_allowed,omitempty"`
	// Disabled is why ElevenLabs lists the current key as disabled; absent while it is enabled.
	Disabled plan.DisableCause `json:"disabled,omitempty"`
}

func keyView(k ledger.KeyRef, maxAge time.Duration) KeyView {
	v := KeyView{ID: k.ID, Name: k.Name, Created: k.Created}
	if maxAge > 0 {
		v.MaxAgeEnds = k.Created.Add(maxAge).UTC().Truncate(time.Second)
	}
	return v
}

// RetiringView is a former current key, and when it leaves its state.
type RetiringView struct {
	KeyView
	State ledger.RetiringState `json:"state"`
	Until time.Time            `json:"until"`
	// WaitsFor is the evidence that ends the overlap before Until: old_key_in_use until it is idle, new_key_unused until it is used.
	WaitsFor []plan.Wait  `json:"waits_for,omitempty"`
	Proof    ledger.Proof `json:"proof,omitempty"` // of a disabled key's end
}

// WorkspaceView is one workspace.
type WorkspaceView struct {
	Name          string    `json:"name"`
	LastReconcile time.Time `json:"last_reconcile,omitzero"`
	Error         string    `json:"error,omitempty"`
}

// ViewOf returns the view of a snapshot.
func ViewOf(s rotator.Snapshot) View {
	return View{Policies: viewsOf(s.Policies), Unmanaged: viewsOf(s.Removed), Workspaces: workspacesOf(s.Workspaces), StoreError: text(s.StoreDown)}
}

func workspacesOf(all []rotator.WorkspaceStatus) []WorkspaceView {
	views := make([]WorkspaceView, len(all))
	for i, ws := range all {
		views[i] = WorkspaceView{ws.Name, ws.LastReconcile, text(ws.Err)}
	}
	return views
}

func viewsOf(policies []rotator.PolicyStatus) []PolicyView {
	views := make([]PolicyView, len(policies))
	for i := range policies {
		views[i] = viewOf(&policies[i])
	}
	return views
}

func viewOf(s *rotator.PolicyStatus) PolicyView {
	v := PolicyView{
		Name: s.Policy.Name, Workspace: s.Policy.Workspace, ServiceAccount: s.Policy.ServiceAccount, Sink: s.Policy.Sink,
		Mode: s.Policy.Mode, MaxAge: ledger.Duration(s.Policy.MaxAge), Labels: s.Policy.Labels, State: s.State, Reason: plan.Word(s.Reason), Message: s.Message,
		Group: s.Policy.Group, HeldBy: s.HeldBy, LastRotation: s.LastRotation, NextRotation: s.NextDue.UTC(),
		Retiring: []RetiringView{}, Keys: s.Keys, InUse: s.InUse, Drift: append([]string{}, s.Drift...), Failure: s.Failure,
		history: s.History,
	}
	if s.Current != nil {
		key := keyView(*s.Current, s.Policy.MaxAge)
		if s.ThirdPartyDisable.Has() {
			key.ThirdPartyDisable = &s.ThirdPartyDisable.Value
		}
		key.Disabled = s.CutOff
		v.Key = &key
	}
	for _, r := range s.Retiring {
		v.Retiring = append(v.Retiring, RetiringView{keyView(r.KeyRef, s.Policy.MaxAge), r.State, leaves(s, r), s.Missing[r.ID], r.Proof})
	}
	return v
}

// leaves says when a retiring key leaves its state, at the latest; what nothing was decided about yet goes by the ledger.
func leaves(s *rotator.PolicyStatus, r ledger.Retiring) time.Time {
	if at, decided := s.Leaves[r.ID]; decided {
		return at
	}
	return r.Until
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Words is the policy's state, the word of the metric, with what there is to say about it.
func (p PolicyView) Words() string {
	if sentence := p.Sentence(); sentence != "" {
		return string(p.State) + ": " + sentence
	}
	return string(p.State)
}

// Sentence says more about the state than its word; "" where that is all.
func (p PolicyView) Sentence() string {
	if p.Reason == string(plan.WaitClockSkew) && p.State != plan.StateError && p.Message != "" {
		return p.Message
	}
	switch p.State {
	case plan.StateOK:
		switch {
		case p.Reason == string(plan.WaitRemoved) && p.Key == nil:
			return "removed from the policy file"
		case p.Reason == string(plan.WaitRemoved):
			return "removed from the policy file; its key stays until rekeyd prune " + p.Name
		case p.Reason == string(ledger.TriggerKeyMissing):
			return "its key is missing from the last listing; the next one decides"
		case p.Reason == string(plan.WaitWindow):
			return "too late for the last run, so it waits for the next (window)"
		}
		return ""
	case plan.StateDue:
		if p.HeldBy != "" {
			return p.Reason + ", it is the turn of " + p.HeldBy
		}
		return cmp.Or(p.Reason, "about to begin")
	case plan.StateFailing:
		return p.Reason
	case plan.StateThrottled:
		return cmp.Or(p.Message, "its workspace has had its rotations for this hour")
	case plan.StateError:
		return cmp.Or(p.Message, p.Reason)
	}
	return "" // rotating, paused
}

// Clause is Words in a few: for a table, where the whole sentence stands elsewhere.
func (p PolicyView) Clause(now time.Time) string {
	text := string(p.State)
	if p.Reason != "" && p.Reason != text {
		text += ": " + p.Reason
	}
	if p.CutOff() != "" && p.Reason != string(plan.FaultKeyDisabled) {
		text += ", key disabled"
	}
	if len(p.Drift) > 0 {
		text += ", drift"
	}
	if p.HealedLeak(now) != "" {
		text += ", leak replaced"
	}
	return text
}

// CutOff says that the current key is disabled, whose readers are refused; "" while it is enabled.
func (p PolicyView) CutOff() string {
	if p.Key == nil || p.Key.Disabled == "" {
		return ""
	}
	return "readers are refused, since the key is disabled (" + string(p.Key.Disabled) + ")"
}

// Unguarded says that ElevenLabs may not disable the current key, which nothing replaces then when it leaks; "" otherwise.
func (p PolicyView) Unguarded() string {
	if p.Key == nil || p.Key.ThirdPartyDisable == nil || *p.Key.ThirdPartyDisable {
		return ""
	}
	return "ElevenLabs may not disable key " + p.Key.ID + " when it leaks, nor may its holder: third_party_disable_allowed is false"
}

// Age returns the current key's age in words.
func (p PolicyView) Age(now time.Time) string {
	if p.Key == nil || p.Key.Created.IsZero() {
		return "no key"
	}
	return Span(now.Sub(p.Key.Created))
}

// Next says when the next rotation is due.
func (p PolicyView) Next(now time.Time) string {
	switch d := p.NextRotation.Sub(now); {
	case p.NextRotation.IsZero() && p.State == plan.StateError:
		return "none: needs a decision"
	case p.NextRotation.IsZero():
		return p.noNext()
	case d <= 0:
		return "now"
	default:
		return "in " + Span(d)
	}
}

// noNext says why no rotation is due at any time.
func (p PolicyView) noNext() string {
	switch {
	case p.State == plan.StateError:
		return "none: needs a decision"
	case p.State == plan.StatePaused, p.Mode == plan.ModeManual:
		return "none: " + string(p.Mode)
	}
	return "none"
}

// Leaving says for each retiring key how long it works, or, once it is disabled, when it will be deleted.
func (p PolicyView) Leaving(now time.Time) []string {
	var all []string
	for _, r := range p.Retiring {
		left := r.Until.Sub(now)
		switch {
		case r.State == ledger.InOverlap && len(r.WaitsFor) > 0 && left > 0:
			all = append(all, fmt.Sprintf("%s works for at most another %s: %s", r.ID, Span(left), r.waiting()))
		case r.State == ledger.InOverlap && left > 0:
			all = append(all, fmt.Sprintf("%s works for another %s", r.ID, Span(left)))
		case r.State == ledger.InOverlap:
			all = append(all, r.ID+" is about to be disabled")
		case r.Proof == ledger.StillAccepted:
			all = append(all, fmt.Sprintf("%s is disabled and still accepted, deleted in %s", r.ID, Span(left)))
		case left > 0:
			all = append(all, fmt.Sprintf("%s is disabled, deleted in %s", r.ID, Span(left)))
		default:
			all = append(all, r.ID+" is disabled, about to be deleted")
		}
	}
	return all
}

// LeavingInShort says for each retiring key how long it stays in which state.
func (p PolicyView) LeavingInShort(now time.Time) string {
	var all []string
	for _, r := range p.Retiring {
		text := string(r.State) + " " + Span(r.Until.Sub(now))
		if r.Proof == ledger.StillAccepted {
			text += ", still accepted"
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// waiting says which evidence is missing, and until when it is waited for.
func (r RetiringView) waiting() string {
	var all []string
	for _, evidence := range r.WaitsFor {
		switch evidence {
		case plan.WaitNewKeyUnused:
			all = append(all, "the new key is not used yet")
		case plan.WaitOldKeyInUse:
			all = append(all, "it is not known to be idle")
		}
	}
	return strings.Join(all, ", ") + "; waits until " + r.Until.UTC().Format("15:04") + " UTC"
}

// LastFailure describes what went wrong since the last success.
func (p PolicyView) LastFailure() string {
	f := p.Failure
	if f == nil {
		return ""
	}
	return fmt.Sprintf("%s: %s: %s (%s)", f.Stage, f.Reason, f.Message, f.At.UTC().Format(time.RFC3339))
}

// FailureInShort is the reason of LastFailure, and how long ago it was.
func (p PolicyView) FailureInShort(now time.Time) string {
	if p.Failure == nil {
		return ""
	}
	return fmt.Sprintf("%s, %s ago", p.Failure.Reason, Span(now.Sub(p.Failure.At)))
}

// Span writes a duration in its two largest units: 3d4h, 5m10s.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
