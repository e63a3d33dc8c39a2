package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	s.Env.LogLevel = "error"
	d, err := a.build(s, io.Discard, nil)
	if err != nil {
		return fmt.Errorf("preparing to read the ledger: %w", err)
	}
	all, err := recorded(ctx, d, s.Policies, names)
	if err != nil {
		return err
	}
	rotations := []web.RotationView{}
	var errs []error
	for _, h := range d.History(ctx, all...) {
		if moved := (*rotator.MovedError)(nil); errors.As(h.Err, &moved) && len(names) == 0 {
			continue // the history is that of the policy that has the entry now
		}
		errs = append(errs, h.Err)
		rotations = append(rotations, web.HistoryOf(h.Policy, h.Rotations)...)
	}
	rotations = slices.DeleteFunc(rotations, func(r web.RotationView) bool { return r.Last().Before(since) })
	slices.SortStableFunc(rotations, func(x, y web.RotationView) int {
		return cmp.Or(x.Published.Compare(y.Published), cmp.Compare(x.Policy, y.Policy))
	})
	if o.json {
		err = a.json(rotations)
	} else {
		err = a.table(historyRows(rotations), make([]string, len(rotations)))
	}
	return errors.Join(append(errs, err)...)
}

// recorded returns the policies to read: the named ones, or all in policy file and ledger.
func recorded(ctx context.Context, d *daemon.Daemon, c *config.Config, names []string) ([]string, error) {
	loaded := namesOf(c)
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

func historyRows(rotations []web.RotationView) [][]string {
	rows := [][]string{{"PUBLISHED", "POLICY", "BY", "REASON", "KEY", "OLD KEY", "PROOF", "PROBES", "WORDS"}}
	for _, r := range rotations {
		old, at := r.Fate()
		if old != "" {
			old = r.PreviousKeyID + " " + old
		}
		if !at.IsZero() {
			old += " " + at.Format(time.RFC3339)
		}
		rows = append(rows, []string{
			r.Published.Format(time.RFC3339), r.Policy, string(r.By), string(r.Reason), r.KeyID,
			cmp.Or(old, "-"), cmp.Or(r.Death(), "-"), cmp.Or(r.Answers(), "-"), cmp.Or(r.Words, "-"),
		})
	}
	return rows
}
