package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/rekeyd/rekeyd/internal/daemon"
)

// check is `rekeyd check`. It uses the network only with --online.
func (a app) check(ctx context.Context, o options, _ []string) error {
	s, err := a.load()
	if err != nil {
		return err
	}
	a.warn(append(s.Env.Warnings(), s.Policies.Warnings...))
	if o.online {
		return a.examine(ctx, s, o.json)
	}
	return a.print("ok: %s in %s\n", count(len(s.Policies.Policies), "policy", "policies"), count(len(s.Policies.Workspaces), "workspace", "workspaces"))
}

// examine is the doctor's report, one line each.
func (a app) examine(ctx context.Context, s daemon.Settings, asJSON bool) error {
	s.Env.LogLevel = "error"
	d, err := a.build(s, io.Discard, nil)
	if err != nil {
		return fmt.Errorf("preparing the checks: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout(s.Env))
	defer cancel()
	findings := d.Examine(ctx)
	if asJSON {
		err = a.json(findings)
	} else {
		err = a.report(findings)
	}
	n := 0
	for _, f := range findings {
		if f.Level == daemon.LevelError {
			n++
		}
	}
	if n > 0 {
		return errors.Join(err, fmt.Errorf("checking online: %s; the report says which", count(n, "fault", "faults")))
	}
	return err
}

func (a app) report(findings []daemon.Finding) error {
	p := a.painter()
	colors := map[daemon.Level]string{daemon.LevelOK: green, daemon.LevelUnknown: dim, daemon.LevelWarning: yellow, daemon.LevelError: red}
	for _, f := range findings {
		if err := a.print("%s %s: %s\n", p.paint(colors[f.Level], fmt.Sprintf("%-7s", f.Level)), f.Subject, f.Text); err != nil {
			return err
		}
	}
	return nil
}
