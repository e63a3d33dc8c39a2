package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// errToDo is not a failure: it sets the exit status for pending work.
var errToDo = errors.New("there is something to do")

// plan is `rekeyd plan`: what the daemon would do now and why, and what comes later. It changes nothing.
func (a app) plan(ctx context.Context, o options, names []string) error {
	s, err := a.load()
	if err != nil {
		return err
	}
	var edits []edit
	if o.policyFile != "" {
		if s, edits, err = a.loading(ctx, s, o.policyFile); err != nil {
			return err
		}
	}
	d, names, err := a.observing(s, o, names)
	if err != nil {
		return err
	}
	snapshot, err := d.Survey(a.surveying(ctx, o.format), names...)
	if err != nil {
		return err
	}
	now := time.Now()
	plan := planOf(snapshot, now)
	plan.Edits = edits
	if len(names) > 0 {
		plan.Edits = slices.DeleteFunc(edits, func(e edit) bool { return !plan.has(e.Policy) })
	}
	err = a.output(o.format, plan, func() error { return a.print("%s", safe(plan.text(a.painter(), now))) })
	if err = errors.Join(err, unreachable(web.ViewOf(snapshot))); err == nil && (plan.Summary.now() > 0 || len(plan.Edits) > 0) {
		return errToDo
	}
	return err
}

// loading replaces the policies by those of another file, as a reload would.
func (a app) loading(ctx context.Context, s daemon.Settings, file string) (daemon.Settings, []edit, error) {
	next, err := config.LoadPolicies(ctx, config.Source{Path: file}, s.Env, a.lookuper)
	if err != nil {
		return s, nil, err
	}
	a.warn(next.Warnings)
	edits := editsOf(s.Policies, next)
	s.Policies = next
	return s, edits, nil
}

// effect is what a change does to a key, as the signs of a diff.
type effect string

const (
	effectCreate effect = "create"
	effectChange effect = "change"
	effectDelete effect = "delete"
	effectLook   effect = "look" // nothing changes
)

// change is one line of a plan.
type change struct {
	Effect effect      `json:"effect"`
	Action plan.Action `json:"action"`
	KeyID  string      `json:"key_id,omitempty"`
	What   string      `json:"what"`
	Reason string      `json:"reason"`
	At     time.Time   `json:"at,omitzero"` // zero: now
}

// policyPlan is the plan for one policy.
type policyPlan struct {
	Policy  string     `json:"policy"`
	State   plan.State `json:"state"`
	Reason  string     `json:"reason,omitempty"`
	Message string     `json:"message,omitempty"`
	HeldBy  string     `json:"group_held_by,omitempty"`
	Note    string     `json:"note,omitempty"` // what else to know
	Now     []change   `json:"now"`
	Later   []change   `json:"later"`

	words string // how it stands
}

// summary counts the changes due now, and the policies that wait or need a decision.
type summary struct {
	Create int `json:"create"`
	Change int `json:"change"`
	Delete int `json:"delete"`
	Look   int `json:"look"`
	Later  int `json:"later"`
	Wait   int `json:"waiting_policies"`
	Error  int `json:"policies_in_error"`
}

func (s summary) now() int { return s.Create + s.Change + s.Delete + s.Look }

type planTable struct {
	Edits     []edit       `json:"edits,omitempty"` // what the file of --policy-file says differently
	Policies  []policyPlan `json:"policies"`
	Unmanaged []policyPlan `json:"unmanaged"` // no longer in the policy file
	Summary   summary      `json:"summary"`
}

func (p planTable) has(policy string) bool {
	return slices.ContainsFunc(p.Policies, func(one policyPlan) bool { return one.Policy == policy })
}

func planOf(s rotator.Snapshot, now time.Time) planTable {
	view := web.ViewOf(s)
	p := planTable{Policies: []policyPlan{}, Unmanaged: []policyPlan{}}
	for i := range s.Policies {
		p.Policies = append(p.Policies, p.add(s.Policies[i], view.Policies[i], now))
	}
	for i := range s.Removed {
		p.Unmanaged = append(p.Unmanaged, p.add(s.Removed[i], view.Unmanaged[i], now))
	}
	return p
}

func (p *planTable) add(s rotator.PolicyStatus, v web.PolicyView, now time.Time) policyPlan {
	out := policyPlan{Policy: v.Name, State: s.State, Reason: plan.Word(s.Reason), Message: s.Message, HeldBy: s.HeldBy, Note: v.Unguarded(), Now: []change{}, Later: []change{}, words: v.Words()}
	for _, step := range s.Steps {
		out.Now = append(out.Now, changesOf(s, step, now)...)
	}
	if s.State != plan.StatePaused {
		out.Later = append(out.Later, laterOf(s, now)...)
	}
	if len(out.Now) > 0 && s.State == plan.StateDue {
		out.words = "due: " + plan.Word(s.Reason)
	}
	for _, c := range out.Now {
		p.Summary.count(c.Effect)
	}
	p.Summary.Later += len(out.Later)
	switch {
	case s.State == plan.StateError:
		p.Summary.Error++
	case len(out.Now) == 0 && s.State != plan.StateOK:
		p.Summary.Wait++
	}
	return out
}

func (s *summary) count(e effect) {
	*map[effect]*int{effectCreate: &s.Create, effectChange: &s.Change, effectDelete: &s.Delete, effectLook: &s.Look}[e]++
}

// changesOf describes one step. A rotation is two changes: a new key, and the old one on its way out.
func changesOf(s rotator.PolicyStatus, step plan.Step, now time.Time) []change {
	if step.Action == plan.ActRotate {
		return rotation(s, step.Reason, now, time.Time{})
	}
	id := step.KeyID
	c := change{Effect: effectChange, Action: step.Action, KeyID: id, Reason: string(step.Reason), What: map[plan.Action]string{
		plan.ActDisable: "disable " + id,
		plan.ActDelete:  "delete " + id,
		plan.ActSweep:   "delete " + id,
		plan.ActPatch:   "patch " + id + ": " + patched(s),
		plan.ActEnable:  "enable " + id,
		plan.ActAdopt:   "adopt " + id + " as the current key",
		plan.ActFollow:  "take " + id + " as the current key, as the record says",
		plan.ActInherit: "take over the ledger entry of the policy that this one replaces",
		plan.ActRecover: "finish or undo the work that was interrupted",
		plan.ActProve:   "ask with the published secret whether " + id + " works",
	}[step.Action]}
	switch step.Action {
	case plan.ActDelete, plan.ActSweep:
		c.Effect = effectDelete
	case plan.ActProve:
		c.Effect = effectLook
	}
	if step.Reason == ledger.TriggerProof {
		c.What = "try the disabled " + id + " once more"
	}
	return []change{c}
}

// rotation is a new key, at a later time or now, and the retirement of the old one.
func rotation(s rotator.PolicyStatus, why plan.Reason, now, at time.Time) []change {
	changes := []change{{Effect: effectCreate, Action: plan.ActRotate, Reason: plan.Word(why), At: at,
		What: fmt.Sprintf("create a key of %s, publish it in %s", s.Policy.ServiceAccount, s.Policy.Sink)}}
	if s.Current == nil {
		return changes
	}
	trigger := plan.TriggerOf(why)
	replaced, leaves := cmp.Or(at, now), ": it is disabled at once"
	switch old := plan.RetiringOf(*s.Policy, *s.Current, trigger, s.CutOff != "", trigger != ledger.TriggerKeyMissing, replaced, time.Time{}); {
	case trigger == ledger.TriggerKeyMissing:
		leaves = ": it is gone already"
	case old.State == ledger.InQuarantine:
		leaves = ": disabled already, deleted after " + web.Span(s.Policy.Quarantine)
	case s.CutOff != "":
		leaves = ": disabled already"
	case old.Until.After(replaced):
		leaves = ": it works for another " + web.Span(old.Until.Sub(replaced))
	}
	return append(changes, change{effectChange, plan.ActRotate, s.Current.ID, "retire " + s.Current.ID + leaves, plan.Word(why), at})
}

func disabling(id string, why ledger.Trigger, at time.Time) change {
	return change{effectChange, plan.ActDisable, id, "disable " + id, string(why), at}
}

// patched names the settings that differ, with their new values.
func patched(s rotator.PolicyStatus) string {
	var all []string
	for _, field := range s.Drift {
		all = append(all, field+" becomes "+s.Policy.Settings.Words(field))
	}
	return strings.Join(all, "; ")
}

// laterOf lists the changes that are due later.
func laterOf(s rotator.PolicyStatus, now time.Time) []change {
	var changes []change
	for _, k := range s.Retiring {
		switch at := s.Leaves[k.ID]; {
		case !at.After(now):
		case k.State == ledger.InOverlap:
			changes = append(changes, disabling(k.ID, ledger.TriggerOverlapEnded, at))
		default:
			changes = append(changes, change{effectDelete, plan.ActDelete, k.ID, "delete " + k.ID, string(ledger.TriggerQuarantineEnded), at})
		}
	}
	if s.NextDue.After(now) {
		changes = append(changes, rotation(s, s.NextReason, now, s.NextDue)...)
	}
	return changes
}

// text renders the plan for a person.
func (p planTable) text(paint painter, now time.Time) string {
	var out strings.Builder
	if len(p.Edits) > 0 {
		fmt.Fprintf(&out, "%s\n%s\n", paint.paint(bold, "Loading the file changes:"), editsText(p.Edits, paint))
	}
	for _, one := range append(p.Policies[:len(p.Policies):len(p.Policies)], p.Unmanaged...) {
		color := ""
		if troubled(one.State) {
			color = red
		}
		fmt.Fprintf(&out, "%s: %s\n", paint.paint(bold, one.Policy), paint.paint(color, one.words))
		if one.Note != "" {
			fmt.Fprintf(&out, "  %s %s\n", paint.paint(yellow, "!"), one.Note)
		}
		out.WriteString(changesText(append(one.Now[:len(one.Now):len(one.Now)], one.Later...), paint, now) + "\n")
	}
	return out.String() + p.Summary.text() + "\n"
}

func changesText(changes []change, paint painter, now time.Time) string {
	var rows [][]string
	for _, c := range changes {
		when := "now"
		if !c.At.IsZero() {
			when = c.At.UTC().Format(time.RFC3339) + " (in " + web.Span(c.At.Sub(now)) + ")"
		}
		rows = append(rows, []string{c.What, c.Reason, when})
	}
	var out strings.Builder
	for i, line := range columns(rows) {
		if !changes[i].At.IsZero() {
			line = string(paint.paint(dim, line))
		}
		fmt.Fprintf(&out, "  %s %s\n", changes[i].Effect.mark(paint), line)
	}
	return out.String()
}

// mark is the sign of a diff.
func (e effect) mark(paint painter) safe {
	mark := map[effect][2]string{effectCreate: {green, "+"}, effectChange: {yellow, "~"}, effectDelete: {red, "-"}, effectLook: {dim, "?"}}[e]
	return paint.paint(mark[0], mark[1])
}

func (s summary) text() string {
	text := "Plan: nothing to do now"
	if s.now() > 0 {
		text = fmt.Sprintf("Plan: %d to create, %d to change, %d to delete now", s.Create, s.Change, s.Delete)
	}
	if s.Look > 0 {
		text += fmt.Sprintf(", %d to look at", s.Look)
	}
	if s.Later > 0 {
		text += fmt.Sprintf("; %d later", s.Later)
	}
	if s.Wait > 0 {
		text += fmt.Sprintf("; %s", count(s.Wait, "policy waits", "policies wait"))
	}
	if s.Error > 0 {
		text += fmt.Sprintf("; %s", count(s.Error, "policy in error", "policies in error"))
	}
	return text + "."
}
