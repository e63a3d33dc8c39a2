package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// status is `rekeyd status`. It changes nothing.
func (a app) status(ctx context.Context, o options, names []string) error {
	for _, state := range o.states {
		if !slices.Contains(stateNames(), state) {
			return usageError{fmt.Errorf("--state is %q, which is no state; %s", state, config.Suggestion(state, stateNames()))}
		}
	}
	snapshot, err := a.survey(ctx, o, names)
	if err != nil {
		return err
	}
	view := web.ViewOf(snapshot)
	if len(o.states) > 0 {
		others := func(p web.PolicyView) bool { return !slices.Contains(o.states, string(p.State)) }
		view.Policies, view.Unmanaged = slices.DeleteFunc(view.Policies, others), slices.DeleteFunc(view.Unmanaged, others)
	}
	if o.json {
		err = a.json(view)
	} else {
		err = a.table(statusRows(view, time.Now()), trouble(view))
	}
	if err = errors.Join(err, unreachable(view)); err == nil && o.exitCode && slices.ContainsFunc(view.Policies, troubled) {
		return errToDo
	}
	return err
}

func stateNames() []string {
	var names []string
	for _, state := range plan.States() {
		names = append(names, string(state))
	}
	return names
}

func troubled(p web.PolicyView) bool {
	return p.State == plan.StateError || p.State == plan.StateFailing
}

// survey observes the chosen policies, or all of them, removed ones included.
func (a app) survey(ctx context.Context, o options, names []string) (rotator.Snapshot, error) {
	s, err := a.load()
	if err != nil {
		return rotator.Snapshot{}, err
	}
	return a.observe(ctx, s, o, names)
}

func (a app) observe(ctx context.Context, s daemon.Settings, o options, names []string) (rotator.Snapshot, error) {
	err := known(s.Policies, names)
	if err != nil {
		return rotator.Snapshot{}, err
	}
	if names, err = o.choose(s.Policies, names); err != nil {
		return rotator.Snapshot{}, err
	}
	s.Env.LogLevel = "error" // findings are shown, not logged
	d, err := a.build(s, io.Discard, nil)
	if err != nil {
		return rotator.Snapshot{}, fmt.Errorf("preparing the survey: %w", err)
	}
	snapshot, err := d.Survey(ctx, names...)
	if err != nil {
		return snapshot, fmt.Errorf("observing the policies: %w", err)
	}
	return snapshot, nil
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

func statusRows(v web.View, now time.Time) [][]string {
	rows := [][]string{{"POLICY", "STATE", "KEY", "KEY AGE", "NEXT ROTATION", "OLD KEYS", "LAST ERROR"}}
	for _, p := range slices.Concat(v.Policies, v.Unmanaged) {
		key, words := "-", p.Words()
		if p.Key != nil {
			key = p.Key.ID
		}
		if len(p.Drift) > 0 {
			words += "; differs in " + strings.Join(p.Drift, ", ")
		}
		if leak := p.HealedLeak(now); leak != "" {
			words += "; " + leak
		}
		rows = append(rows, []string{
			p.Name, words, key, p.Age(now), p.Next(now),
			cmp.Or(strings.Join(p.Leaving(now), "; "), "-"), cmp.Or(p.LastFailure(), "-"),
		})
	}
	return rows
}

// trouble gives each policy's line its colour.
func trouble(v web.View) []string {
	var colors []string
	for _, p := range slices.Concat(v.Policies, v.Unmanaged) {
		switch {
		case troubled(p):
			colors = append(colors, red)
		case p.State == plan.StateOK:
			colors = append(colors, "")
		default:
			colors = append(colors, yellow)
		}
	}
	return colors
}

// table writes rows: aligned, coloured and with their heading for a person, with tabs for programs.
func (a app) table(rows [][]string, colors []string) error {
	var lines []string
	if p := a.painter(); a.isTerminal(a.stdout) {
		lines = columns(rows)
		for i, color := range append([]string{bold}, colors...) {
			lines[i] = string(p.paint(color, lines[i]))
		}
	} else {
		for _, row := range rows[1:] {
			lines = append(lines, tabbed(row))
		}
	}
	for _, line := range lines {
		if err := a.print("%s\n", safe(line)); err != nil {
			return err
		}
	}
	return nil
}

func (a app) json(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		_, err = a.stdout.Write(append(escapeControls(text), '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing to stdout: %w", err)
	}
	return nil
}
