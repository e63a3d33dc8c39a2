package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// status is `rekeyd status`. It changes nothing.
func (a app) status(ctx context.Context, o options, names []string) error {
	for _, state := range o.states {
		if !slices.Contains(stateNames(), state) {
			return usageError{fmt.Errorf("--state is %q, which is no state; %s", state, config.Suggestion(state, stateNames()))}
		}
	}
	switch {
	case o.watch && o.exitCode:
		return usageError{errors.New("rekeyd status: --watch ends with an interrupt alone; leave out --exit-code")}
	case o.interval < leastInterval || o.interval > mostInterval:
		return usageError{fmt.Errorf("--interval is %s; write one from %s to %s", o.interval, config.FormatDuration(leastInterval), config.FormatDuration(mostInterval))}
	}
	s, err := a.load()
	if err != nil {
		return err
	}
	d, chosen, err := a.observing(s, o, names)
	if err != nil {
		return err
	}
	look := func(ctx context.Context) (web.View, error) {
		snapshot, err := d.Survey(ctx, chosen...)
		view := web.ViewOf(snapshot)
		if len(o.states) > 0 {
			others := func(p web.PolicyView) bool { return !slices.Contains(o.states, string(p.State)) }
			view.Policies, view.Unmanaged = slices.DeleteFunc(view.Policies, others), slices.DeleteFunc(view.Unmanaged, others)
		}
		return view, err
	}
	if o.watch {
		return a.watch(ctx, o, look)
	}
	view, err := look(a.surveying(ctx, o.format))
	if err != nil {
		return err
	}
	if err = errors.Join(a.show(o, view, names), unreachable(view)); err == nil && o.exitCode && slices.ContainsFunc(view.Policies, func(p web.PolicyView) bool { return troubled(p.State) }) {
		return errToDo
	}
	return err
}

// show writes a view. One policy that is named is told of in full.
func (a app) show(o options, view web.View, names []string) error {
	now, all := time.Now(), slices.Concat(view.Policies, view.Unmanaged)
	switch {
	case o.format.document():
		return a.document(o.format, view)
	case o.format == formatTable && len(names) == 1 && len(all) == 1:
		return a.detail(all[0], now)
	}
	return a.table(statusRows(all, o.format == formatWide, now), trouble(all))
}

func stateNames() []string {
	var names []string
	for _, state := range plan.States() {
		names = append(names, string(state))
	}
	return names
}

func troubled(s plan.State) bool { return s == plan.StateError || s == plan.StateFailing }

// observing builds a daemon that is only asked, and returns the names of the chosen policies; none stand for all, removed ones
// included.
func (a app) observing(s daemon.Settings, o options, names []string) (*daemon.Daemon, []string, error) {
	err := known(s.Policies, names)
	if err != nil {
		return nil, nil, err
	}
	if names, err = o.choose(s.Policies, names); err != nil {
		return nil, nil, err
	}
	d, err := a.build(s, nil, nil) // findings are shown, not logged
	if err != nil {
		return nil, nil, fmt.Errorf("preparing the survey: %w", err)
	}
	return d, names, nil
}

// chosen returns the policies that are named or chosen, or all of them.
func (o options) chosen(c *config.Config, names []string) ([]plan.Policy, error) {
	if err := known(c, names); err != nil {
		return nil, err
	}
	names, err := o.choose(c, names)
	if err != nil || len(names) == 0 {
		return c.Policies, err
	}
	return slices.DeleteFunc(slices.Clone(c.Policies), func(p plan.Policy) bool { return !slices.Contains(names, p.Name) }), nil
}

// unreachable sets the exit status for an incomplete survey.
func unreachable(v web.View) error {
	var errs []error
	if v.StoreError != "" {
		errs = append(errs, fmt.Errorf("reading ledger and records: %s", v.StoreError))
	}
	for _, w := range v.Workspaces {
		if w.Error != "" {
			errs = append(errs, fmt.Errorf("listing workspace %s: %s", w.Name, w.Error))
		}
	}
	return errors.Join(errs...)
}

// statusRows are the rows of the table. Narrow ones have words, wide ones have sentences.
func statusRows(all []web.PolicyView, wide bool, now time.Time) [][]string {
	rows := [][]string{{"POLICY", "STATE", "KEY", "KEY AGE", "NEXT ROTATION", "OLD KEYS", "LAST ERROR"}}
	for _, p := range all {
		state, old, failure := p.Clause(now), p.LeavingInShort(now), p.FailureInShort(now)
		if wide {
			state, old, failure = strings.Join(sentences(p, now), "; "), strings.Join(p.Leaving(now), "; "), p.LastFailure()
		}
		rows = append(rows, []string{p.Name, state, keyID(p), p.Age(now), p.Next(now), cmp.Or(old, "-"), cmp.Or(failure, "-")})
	}
	return rows
}

func keyID(p web.PolicyView) string {
	if p.Key == nil {
		return "-"
	}
	return p.Key.ID
}

// sentences say how a policy stands.
func sentences(p web.PolicyView, now time.Time) []string {
	all := []string{p.Words()}
	if words := p.CutOff(); words != "" {
		all = append(all, words)
	}
	if len(p.Drift) > 0 {
		all = append(all, "differs in "+strings.Join(p.Drift, ", "))
	}
	if leak := p.HealedLeak(now); leak != "" {
		all = append(all, leak)
	}
	return all
}

// detail tells of one policy, a line for each fact.
func (a app) detail(p web.PolicyView, now time.Time) error {
	var rows [][]string
	add := func(title string, facts ...string) {
		for _, fact := range slices.DeleteFunc(facts, func(fact string) bool { return fact == "" }) {
			rows = append(rows, []string{title, fact})
			title = ""
		}
	}
	at := func(t time.Time, relative string) string {
		if t.IsZero() {
			return relative
		}
		return t.UTC().Format(time.RFC3339) + " (" + relative + ")"
	}
	add("Policy:", p.Name)
	add("State:", append(sentences(p, now), p.Unguarded())...)
	add("Last error:", p.LastFailure())
	if p.Key != nil {
		add("Key:", p.Key.ID+" "+p.Key.Name)
		add("Created:", at(p.Key.Created, p.Age(now)+" ago"))
	}
	if !p.LastRotation.IsZero() {
		add("Last rotation:", at(p.LastRotation, web.Span(now.Sub(p.LastRotation))+" ago"))
	}
	add("Next rotation:", at(p.NextRotation, p.Next(now)))
	add("Old keys:", p.Leaving(now)...)
	add("Record:", p.Sink.String()+", field "+p.Sink.Field)
	add("Service account:", p.ServiceAccount+" in workspace "+p.Workspace)
	add("Mode:", string(p.Mode))
	add("Group:", p.Group)
	for _, name := range slices.Sorted(maps.Keys(p.Labels)) {
		add("Label:", name+"="+p.Labels[name])
	}
	lines := columns(rows)
	colors := make([]string, len(lines))
	colors[0], colors[1] = bold, trouble([]web.PolicyView{p})[0]
	return a.lines(lines, colors)
}

// trouble gives each policy's line its colour.
func trouble(all []web.PolicyView) []string {
	var colors []string
	for _, p := range all {
		switch {
		case troubled(p.State):
			colors = append(colors, red)
		case p.State == plan.StateOK:
			colors = append(colors, "")
		default:
			colors = append(colors, yellow)
		}
	}
	return colors
}
