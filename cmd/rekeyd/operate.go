package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/config"
	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// rotate is `rekeyd rotate`: through the same protocol and claims as the daemon's own work, so it is safe while a daemon runs.
func (a app) rotate(ctx context.Context, o options, names []string) error {
	if elevenlabs.LooksSecret(o.reason) {
		return usageError{errors.New("rekeyd rotate: --reason holds what looks like a secret, and would be logged; say why without it")}
	}
	if o.dryRun {
		return a.rehearse(ctx, o, names)
	}
	d, s, err := a.working(names)
	if err != nil {
		return err
	}
	if names, err = o.choose(s.Policies, names); err != nil {
		return err
	}
	if o.all {
		names = s.Policies.PolicyNames()
	}
	return a.each(ctx, s, names, o.format, func(ctx context.Context, name string) (daemon.Outcome, string, error) {
		out, err := d.Rotate(ctx, name, rotator.RotateOptions{Revoke: o.revoke, Reason: o.reason})
		return out, rotated(out, o.revoke, time.Now()), err
	})
}

// rehearse is `rekeyd rotate --dry-run`: what a rotation of each policy would change, or why it would be refused.
func (a app) rehearse(ctx context.Context, o options, names []string) error {
	s, err := a.load()
	if err != nil {
		return err
	}
	d, names, err := a.observing(s, o, names)
	if err != nil {
		return err
	}
	snapshot, err := d.Survey(a.surveying(ctx, o.format), names...)
	if err != nil {
		return err
	}
	now, view := time.Now(), web.ViewOf(snapshot)
	table := planTable{Policies: []policyPlan{}, Unmanaged: []policyPlan{}}
	for i, s := range snapshot.Policies {
		one := policyPlan{Policy: s.Policy.Name, State: s.State, Reason: plan.Word(s.Reason), Message: s.Message, Now: []change{}, Later: []change{}, words: view.Policies[i].Words()}
		if err := d.Refusal(ctx, s.Policy.Name, rotator.RotateOptions{Revoke: o.revoke}); err != nil {
			one.Note = "rotate would be refused: " + err.Error()
		} else {
			one.Now = asked(s, o.revoke, now)
		}
		for _, c := range one.Now {
			table.Summary.count(c.Effect)
		}
		table.Policies = append(table.Policies, one)
	}
	err = a.output(o.format, table, func() error {
		return a.print("%sDry run: nothing was changed.\n", safe(table.text(a.painter(), now)))
	})
	return errors.Join(err, unreachable(view))
}

// asked are the changes of a rotation that a person asks for.
func asked(s rotator.PolicyStatus, revoke bool, now time.Time) []change {
	changes := rotation(s, ledger.TriggerRequested, now, time.Time{})
	if !revoke {
		return changes
	}
	changes = changes[:1]
	if s.Current != nil {
		changes = append(changes, disabling(s.Current.ID, ledger.TriggerRevoke, time.Time{}))
	}
	for _, k := range s.Retiring {
		if k.State == ledger.InOverlap {
			changes = append(changes, disabling(k.ID, ledger.TriggerRevoke, time.Time{}))
		}
	}
	return changes
}

// rollback is `rekeyd rollback`.
func (a app) rollback(ctx context.Context, o options, names []string) error {
	d, s, err := a.working(names)
	if err != nil {
		return err
	}
	return a.each(ctx, s, names, o.format, func(ctx context.Context, name string) (daemon.Outcome, string, error) {
		out, err := d.Rollback(ctx, name)
		return out, fmt.Sprintf("%s: rolled back; the key is %s again%s", out.Policy, out.KeyID, previously(out, time.Now())), err
	})
}

// rename is `rekeyd rename`: for a rename that was undone, or one that the daemon cannot tell by itself.
func (a app) rename(ctx context.Context, o options, names []string) error {
	d, s, err := a.working(names[1:])
	if err != nil {
		return err
	}
	return a.each(ctx, s, names[1:], o.format, func(ctx context.Context, name string) (daemon.Outcome, string, error) {
		out, err := d.Rename(ctx, names[0], name)
		text := fmt.Sprintf("%s: it has the ledger entry of %s now", name, names[0])
		if out.KeyID != "" {
			text += "; the key is " + out.KeyID
		}
		return out, text, err
	})
}

// each runs a verb for one policy after another, regardless of failures, and reports the result of each.
func (a app) each(ctx context.Context, s daemon.Settings, names []string, f format, do func(context.Context, string) (daemon.Outcome, string, error)) error {
	var errs []error
	outcomes := []daemon.Outcome{}
	names = distinct(names)
	for i, name := range names {
		a.sayNth(f, i+1, len(names), name)
		out, text, err := a.within(ctx, s.Env, name, do)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		outcomes = append(outcomes, out)
		if !f.document() {
			errs = append(errs, a.print("%s\n", text))
		}
	}
	if f.document() {
		errs = append(errs, a.document(f, outcomes))
	}
	return errors.Join(errs...)
}

// distinct returns the names in their order, each once.
func distinct(names []string) []string {
	var all []string
	for _, name := range names {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// sayNth tells a person at a terminal how far the work on many is.
func (a app) sayNth(f format, n, of int, what string) {
	if of > 1 && !f.document() && a.isTerminal(a.stderr) {
		a.say("%d of %d: %s\n", n, of, what)
	}
}

// surveying has the reading of many documents tell a person at a terminal how far it is.
func (a app) surveying(ctx context.Context, f format) context.Context {
	if f.document() || !a.isTerminal(a.stderr) {
		return ctx
	}
	last := time.Now()
	return rotator.WithProgress(ctx, func(done, of int) {
		if time.Since(last) >= progressEvery {
			last = time.Now()
			a.say("  read %d of %d\n", done, of)
		}
	})
}

// within bounds the work on one policy.
func (a app) within(ctx context.Context, env config.Env, name string, do func(context.Context, string) (daemon.Outcome, string, error)) (daemon.Outcome, string, error) {
	limit := commandTimeout(env)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if a.isTerminal(a.stderr) {
		defer a.reportProgress(name, limit)()
	}
	out, text, err := do(ctx, name)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w; given up after %s: a running daemon finishes or undoes the work", err, limit)
	}
	return out, text, err
}

// reportProgress tells a waiting person that the work continues.
func (a app) reportProgress(name string, limit time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	begun, tick := time.Now(), time.NewTicker(progressEvery)
	go func() {
		defer close(ended)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				a.say("  %s: not done after %s; where another process is at work on it, that is waited for; given up after %s\n",
					name, web.Span(time.Since(begun)), limit)
			}
		}
	}()
	return func() { close(done); <-ended }
}

const progressEvery = 5 * time.Second

// commandTimeout bounds the work on one policy: another process's claim may have to expire, its unfinished work be recovered,
// and the new key become usable.
func commandTimeout(env config.Env) time.Duration {
	return env.ClaimTTL + 2*env.VerifyTimeout + time.Minute
}

// working builds a daemon whose verbs are used; its log, which has the reason and every change, goes to stderr.
func (a app) working(names []string) (*daemon.Daemon, daemon.Settings, error) {
	s, err := a.load()
	if err != nil {
		return nil, s, err
	}
	if err := known(s.Policies, names); err != nil {
		return nil, s, err
	}
	d, err := a.build(s, a.log(&s), nil)
	if err != nil {
		return nil, s, fmt.Errorf("preparing to work: %w", err)
	}
	return d, s, nil
}

// log is where a command logs: a terminal is shown the progress instead, unless a format was asked for.
func (a app) log(s *daemon.Settings) io.Writer {
	if _, chosen := a.lookuper.Lookup("REKEYD_LOG_FORMAT"); chosen || !a.isTerminal(a.stderr) {
		return escaped{a.stderr}
	}
	s.Env.LogFormat = "json"
	return progress{a.stderr}
}

// known refuses unknown policy names and suggests the closest ones.
func known(c *config.Config, names []string) error { return unknown(names, c.PolicyNames()) }

func unknown(names, all []string) error {
	var faults config.Faults
	for _, name := range names {
		if !slices.Contains(all, name) {
			faults = append(faults, config.Fault{Text: fmt.Sprintf("there is no policy %q; %s", name, config.Suggestion(name, all))})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// rotated describes a policy after a rotation.
func rotated(o daemon.Outcome, revoked bool, now time.Time) string {
	text := fmt.Sprintf("%s: rotated; the key is now %s", o.Policy, o.KeyID)
	switch {
	case revoked && len(o.Unproven) > 0:
		return text + ", and older keys are disabled: " + strings.Join(o.Disabled, ", ") + "; that readers had " + strings.Join(o.Unproven, ", ") + " is not proven, since it was adopted by its id alone"
	case revoked && len(o.Disabled) > 0:
		return text + ", and no older key works: disabled " + strings.Join(o.Disabled, ", ")
	case revoked:
		return text + ", and there is no older key"
	}
	return text + previously(o, now)
}

// previously describes what happens to the replaced key.
func previously(o daemon.Outcome, now time.Time) string {
	switch left := o.PreviousValidUntil.Sub(now); {
	case o.PreviousKeyID == "":
		return ""
	case left > 0:
		return fmt.Sprintf("; %s works until %s (%s)", o.PreviousKeyID, o.PreviousValidUntil.UTC().Format(time.RFC3339), web.Span(left))
	}
	return fmt.Sprintf("; %s does not work any more", o.PreviousKeyID)
}
