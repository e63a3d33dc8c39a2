package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator"
)

// pruned is the JSON of `rekeyd prune`.
type pruned struct {
	Found  []rotator.LostKey `json:"found"`
	Pruned []string          `json:"pruned"` // ids
}

// prune is `rekeyd prune`: it lists, asks, and deletes.
func (a app) prune(ctx context.Context, o options, names []string) error {
	d, s, err := a.working(nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout(s.Env))
	defer cancel()
	if names, err = o.choose(s.Policies, names); err != nil {
		return err
	}
	lost, err := a.lost(a.surveying(ctx, o.format), d, s.Policies, names)
	if err != nil {
		return err
	}
	if !o.format.document() {
		if err := a.showLost(lost, time.Now()); err != nil {
			return err
		}
	}
	result := pruned{Found: append([]rotator.LostKey{}, lost...), Pruned: []string{}}
	if err = a.confirm(ctx, len(lost), o.yes); err == nil {
		result.Pruned, err = a.pruneAll(ctx, d, lost, o.format)
	}
	if o.format.document() {
		err = errors.Join(a.document(o.format, result), err)
	}
	return err
}

// lost finds the keys that may be pruned. A name must be that of a policy in the file, in the ledger or of a lost key.
func (a app) lost(ctx context.Context, d *daemon.Daemon, c *config.Config, names []string) ([]rotator.LostKey, error) {
	lost, err := d.Lost(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("looking for lost keys: %w", err)
	}
	all, err := d.Remembered(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, c.PolicyNames()...)
	for _, k := range lost {
		all = append(all, k.Policy)
	}
	return lost, unknown(names, sorted(all))
}

func (a app) showLost(lost []rotator.LostKey, now time.Time) error {
	if len(lost) == 0 {
		return a.print("Nothing to prune.\n")
	}
	p := a.painter()
	var rows [][]string
	for _, k := range lost {
		what, enabled := "delete", "enabled"
		if k.Disabled {
			enabled = "disabled"
		}
		if k.Removed {
			what, enabled = "disable", "current key of a removed policy"
		}
		rows = append(rows, []string{what, k.KeyID, k.KeyName, k.Account, "created " + k.Created.UTC().Format(time.RFC3339) + " (" + web.Span(now.Sub(k.Created)) + " ago)", enabled})
	}
	for i, line := range columns(rows) {
		effect := effectDelete
		if lost[i].Removed {
			effect = effectChange
		}
		if err := a.print("  %s %s\n", effect.mark(p), line); err != nil {
			return err
		}
	}
	return nil
}

// confirm asks before anything is deleted. Without a terminal it demands --yes.
func (a app) confirm(ctx context.Context, n int, yes bool) error {
	switch {
	case n == 0 || yes:
		return nil
	case !a.isTerminal(a.stdin) || !a.isTerminal(a.stderr):
		return usageError{fmt.Errorf("rekeyd prune: %s would be deleted or disabled, and there is no terminal to ask at; add --yes", count(n, "key", "keys"))}
	}
	a.say("\nDelete or disable %s? Type %d or yes: ", count(n, "key", "keys"), n)
	if answer := a.answer(ctx); answer == "yes" || answer == strconv.Itoa(n) {
		return nil
	}
	return errors.New("pruning: not confirmed, nothing was changed")
}

func (a app) pruneAll(ctx context.Context, d *daemon.Daemon, lost []rotator.LostKey, f format) ([]string, error) {
	done := []string{}
	var errs []error
	for i, k := range lost {
		a.sayNth(f, i+1, len(lost), k.KeyID)
		if err := d.Prune(ctx, k); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, k.KeyID)
		text := "deleted " + k.KeyID
		if k.Removed {
			text = "disabled " + k.KeyID + "; the daemon deletes it after its quarantine"
		}
		if !f.document() {
			errs = append(errs, a.print("%s\n", text))
		}
	}
	return done, errors.Join(errs...)
}
