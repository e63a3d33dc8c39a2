package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/internal/daemon"
)

// check is `rekeyd check`. It uses the network only with --online.
func (a app) check(ctx context.Context, o options, files []string) error {
	if len(files) > 0 {
		return a.checkFiles(ctx, o, files)
	}
	s, err := a.load()
	if found, ok := errors.AsType[config.Faults](err); ok {
		return errors.Join(a.found(o.format, findingsOf(daemon.LevelError, found)), err)
	}
	if err != nil {
		return err
	}
	warnings := append(s.Env.Warnings(), s.Policies.Warnings...)
	a.warn(warnings)
	if o.online {
		return a.examine(ctx, s, o.format)
	}
	return a.found(o.format, append(findingsOf(daemon.LevelWarning, warnings), daemon.Finding{Level: daemon.LevelOK, Text: extent(s.Policies)}))
}

// checkFiles checks policy files without an environment, all of them before it ends.
func (a app) checkFiles(ctx context.Context, o options, files []string) error {
	if o.online {
		return usageError{errors.New("rekeyd check: --online asks with the environment's policies; name no file")}
	}
	var faults config.Faults
	var findings []daemon.Finding
	for _, file := range files {
		c, err := config.CheckPolicies(ctx, config.Source{Path: file})
		if found, ok := errors.AsType[config.Faults](err); ok {
			faults = append(faults, found...)
			findings = append(findings, findingsOf(daemon.LevelError, found)...)
			continue
		}
		a.warn(c.Warnings)
		findings = append(findings, findingsOf(daemon.LevelWarning, c.Warnings)...)
		findings = append(findings, daemon.Finding{Level: daemon.LevelOK, Subject: file, Text: extent(c)})
	}
	err := a.found(o.format, findings)
	if len(faults) > 0 {
		return faults
	}
	return err
}

func findingsOf(level daemon.Level, faults []config.Fault) []daemon.Finding {
	var all []daemon.Finding
	for _, f := range faults {
		all = append(all, daemon.Finding{Level: level, Subject: f.Place(), Text: config.Fault{Text: f.Text}.Error()})
	}
	return all
}

// found says what has no fault; faults and warnings are on stderr. A document has all of them.
func (a app) found(f format, findings []daemon.Finding) error {
	return a.output(f, findings, func() error {
		var errs []error
		for _, found := range findings {
			switch {
			case found.Level != daemon.LevelOK:
			case found.Subject == "":
				errs = append(errs, a.print("ok: %s\n", found.Text))
			default:
				errs = append(errs, a.print("ok: %s: %s\n", found.Subject, found.Text))
			}
		}
		return errors.Join(errs...)
	})
}

func extent(c *config.Config) string {
	return count(len(c.Policies), "policy", "policies") + " in " + count(len(c.Workspaces), "workspace", "workspaces")
}

// examine is the doctor's report, one line each.
func (a app) examine(ctx context.Context, s daemon.Settings, f format) error {
	s.Unwrapped = nil // the report says so
	d, err := a.build(s, nil, nil)
	if err != nil {
		return fmt.Errorf("preparing the checks: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout(s.Env))
	defer cancel()
	findings := d.Examine(ctx)
	err = a.output(f, findings, func() error { return a.report(findings) })
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
