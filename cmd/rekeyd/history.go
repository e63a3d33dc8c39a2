package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator"
)

// history is `rekeyd history`: the rotations that the ledger remembers, newest last. It asks nothing but the ledger. An entry
// that cannot be read is an error, and the others are shown.
func (a app) history(ctx context.Context, o options, names []string) error {
	since, err := timeOf("--since", o.since, time.Time{})
	if err != nil {
		return usageError{err}
	}
	s, err := a.load()
	if err != nil {
		return err
	}
	d, err := a.build(s, nil, nil)
	if err != nil {
		return fmt.Errorf("preparing to read the ledger: %w", err)
	}
	all, err := recorded(ctx, d, s.Policies, names)
	if err != nil {
		return err
	}
	if o.chooses() {
		if all, err = o.choose(s.Policies, names); err != nil {
			return err
		}
	}
	found, lacks := rotations(ctx, d, all, len(names) > 0)
	found = slices.DeleteFunc(found, func(r web.RotationView) bool { return r.Last().Before(since) })
	err = a.output(o.format, found, func() error {
		return a.table(historyRows(found, o.format == formatWide), make([]string, len(found)))
	})
	return errors.Join(lacks, err)
}

// rotations reads what the ledger remembers of these policies. An entry that moved to another policy is an error where the
// policies were named; else its history is that of the other.
func rotations(ctx context.Context, d *daemon.Daemon, policies []string, named bool) ([]web.RotationView, error) {
	found := []web.RotationView{}
	var errs []error
	for _, h := range d.History(ctx, policies...) {
		if errors.As(h.Err, new(*rotator.MovedError)) && !named {
			continue
		}
		errs = append(errs, h.Err)
		found = append(found, web.HistoryOf(h.Policy, h.Rotations)...)
	}
	slices.SortStableFunc(found, func(x, y web.RotationView) int {
		return cmp.Or(x.Published.Compare(y.Published), cmp.Compare(x.Policy, y.Policy))
	})
	return found, errors.Join(errs...)
}

// recorded returns the policies to read: the named ones, or all in policy file and ledger.
func recorded(ctx context.Context, d *daemon.Daemon, c *config.Config, names []string) ([]string, error) {
	loaded := c.PolicyNames()
	if len(names) > 0 && unknown(names, loaded) == nil {
		return sorted(names), nil
	}
	remembered, err := d.Remembered(ctx)
	if err != nil {
		return nil, err
	}
	all := sorted(append(loaded, remembered...))
	if len(names) == 0 {
		return all, nil
	}
	return sorted(names), unknown(names, all)
}

// sorted returns the names in order, each once.
func sorted(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }

// historyRows are the rows of the table; wide ones say when which key ended, and have a person's words.
func historyRows(rotations []web.RotationView, wide bool) [][]string {
	rows := [][]string{{"PUBLISHED", "POLICY", "BY", "REASON", "KEY", "OLD KEY", "PROOF"}}
	if wide {
		rows[0] = append(rows[0], "PROBES", "WORDS")
	}
	for _, r := range rotations {
		old, at := r.Fate()
		if wide && old != "" {
			old = r.PreviousKeyID + " " + old
			if !at.IsZero() {
				old += " " + at.Format(time.RFC3339)
			}
		}
		row := []string{r.Published.Format(time.RFC3339), r.Policy, string(r.By), string(r.Reason), r.KeyID, cmp.Or(old, "-"), cmp.Or(r.Death(), "-")}
		if wide {
			row = append(row, cmp.Or(r.Answers(), "-"), cmp.Or(r.Words, "-"))
		}
		rows = append(rows, row)
	}
	return rows
}
