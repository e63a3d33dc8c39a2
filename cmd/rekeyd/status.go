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
	"text/tabwriter"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/rotator"
)

// status is `rekeyd status`: it looks and changes nothing.
func (a app) status(ctx context.Context, args []string) error {
	f := a.flags("status")
	asJSON := f.Bool("json", false, "write JSON")
	names, err := parse(f, args, 1)
	if err != nil {
		return err
	}
	s, err := a.load()
	if err != nil {
		return err
	}
	if s.Policies.Policies, err = chosen(s.Policies, names); err != nil {
		return err
	}
	s.Env.LogLevel = "error" // what is found is shown below, and not in a log
	d, err := a.build(s, io.Discard, nil)
	if err != nil {
		return fmt.Errorf("preparing to look: %w", err)
	}
	snapshot, err := d.Survey(ctx)
	if err != nil {
		return fmt.Errorf("looking at the policies: %w", err)
	}
	view := daemon.ViewOf(snapshot)
	if *asJSON {
		err = a.json(view)
	} else {
		err = a.table(statusRows(view, time.Now()))
	}
	return errors.Join(err, unreachable(view))
}

// chosen returns the policy of that name, or all of them.
func chosen(c *config.Config, names []string) ([]rotator.Policy, error) {
	if len(names) == 0 {
		return c.Policies, nil
	}
	i := slices.IndexFunc(c.Policies, func(p rotator.Policy) bool { return p.Name == names[0] })
	if i < 0 {
		return nil, usageError{fmt.Errorf("there is no policy %q; rekeyd status shows all of them", names[0])}
	}
	return c.Policies[i : i+1], nil
}

// unreachable makes the exit status tell that the picture is not whole.
func unreachable(v daemon.View) error {
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

func statusRows(v daemon.View, now time.Time) [][]string {
	rows := [][]string{{"POLICY", "STATE", "KEY AGE", "NEXT ROTATION", "RETIRING", "LAST ERROR"}}
	for _, p := range v.Policies {
		rows = append(rows, []string{
			p.Name, p.Words(), p.Age(now), p.Next(now),
			cmp.Or(strings.Join(p.Leaving(now), "; "), "-"), cmp.Or(p.LastFailure(), "-"),
		})
	}
	return rows
}

// table writes rows: aligned and with their heading for a person, with tabs for programs.
func (a app) table(rows [][]string) error {
	out := a.stdout
	if !terminal(out) {
		rows = rows[1:]
	} else {
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		defer func() { _ = t.Flush() }() // the screen is gone
		out = t
	}
	for _, row := range rows {
		if _, err := fmt.Fprintln(out, strings.Join(row, "\t")); err != nil {
			return fmt.Errorf("writing to stdout: %w", err)
		}
	}
	return nil
}

func (a app) json(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("writing to stdout: %w", err)
	}
	return nil
}
