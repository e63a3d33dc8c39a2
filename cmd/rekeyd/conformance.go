package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/conformance"
	"github.com/rekeyd/rekeyd/internal/daemon"
)

// conformance is `rekeyd conformance`: it says what it will do, asks, and reports.
func (a app) conformance(ctx context.Context, o options, _ []string) error {
	switch {
	case o.account == "":
		return usageError{errors.New("rekeyd conformance: name a service account with --account ID; the keys are made there, so take one for tests")}
	case elevenlabs.LooksSecret(o.account):
		return usageError{errors.New("rekeyd conformance: --account holds what looks like a secret; write the id of a service account")}
	case !o.yes && (!a.isTerminal(a.stdin) || !a.isTerminal(a.stderr)):
		return usageError{errors.New("rekeyd conformance: keys would be made and deleted, and there is no terminal to ask at; add --yes")}
	}
	v, _ := built()
	api, err := daemon.OpenAPI(a.lookuper, o.workspace, v, a.unwrapped)
	if err != nil {
		return err
	}
	s, err := conformance.Open(ctx, conformance.Options{
		BaseURL: api.BaseURL, Account: o.account, AdminKey: api.AdminKey, Timeout: api.Env.APITimeout, Rate: api.Env.APIRate,
		Patience: api.Env.VerifyTimeout, Version: v, Redactor: api.Redactor, ShowIDs: !o.redact, Progress: a.asking(),
	})
	if err != nil {
		return err
	}
	if !o.yes {
		if err := a.agree(ctx, s, api); err != nil {
			return err
		}
	}
	report, err := s.Run(ctx)
	err = errors.Join(a.output(o.format, report, func() error { return a.showConformance(report) }), err)
	if n := report.Count(conformance.Differs); n > 0 {
		err = errors.Join(err, fmt.Errorf("asking ElevenLabs: %s not hold; docs/conformance.md says how to send the report", count(n, "assumption does", "assumptions do")))
	}
	return err
}

// asking shows a person at a terminal which check is at work.
func (a app) asking() func(conformance.Check, int, int) {
	if !a.isTerminal(a.stderr) {
		return nil
	}
	return func(c conformance.Check, n, of int) { a.say("  %d of %d: %s %s\n", n, of, c.ID, c.Assumption) }
}

// agree says what will be done, and asks.
func (a app) agree(ctx context.Context, s *conformance.Session, api daemon.API) error {
	a.say("With the admin key of workspace %s, in the service account that --account names, this\n", api.Workspace)
	for _, c := range conformance.Checks() {
		a.say("  %s %s\n", c.ID, c.How)
	}
	a.say(`Its keys are named rekeyd-conformance.…; there are never more than three, for seconds, and each is deleted.
One has all permissions, one service_account_write. Their secrets stay in this process.
No other key is touched, and nothing costs credits: about 100 requests, at most %g a second.
`, api.Env.APIRate)
	if n := s.Earlier(); n > 0 {
		a.say("%s that an earlier run left, or that another one makes now, will be deleted.\n", count(n, "key", "keys"))
	}
	a.say("Begin? Type yes: ")
	if a.answer(ctx) != "yes" {
		return errors.New("asking ElevenLabs: not confirmed, nothing was changed")
	}
	return nil
}

func (a app) showConformance(r conformance.Report) error {
	words := map[conformance.Verdict]string{conformance.Holds: "holds", conformance.Differs: "differs", conformance.NotAsked: "could not be asked"}
	colors := map[conformance.Verdict]string{conformance.Holds: green, conformance.Differs: red, conformance.NotAsked: dim}
	rows := [][]string{{"ID", "VERDICT", "ASSUMPTION", "SEEN"}}
	var lines []string
	for _, f := range r.Checks {
		rows = append(rows, []string{f.ID, words[f.Verdict], f.Assumption, f.Seen})
		lines = append(lines, colors[f.Verdict])
	}
	err := errors.Join(a.table(rows, lines), a.print("\n"))
	for _, m := range r.Measures {
		err = errors.Join(err, a.print("%s: %s\n", m.What, spans(m, r.Patience)))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		err = errors.Join(err, a.print("header %s: %s, in %s\n", name, r.Headers[name].Last, count(r.Headers[name].Answers, "answer", "answers")))
	}
	host := r.Host
	if host == conformance.OtherHost {
		host = "a host that is not ElevenLabs'"
	}
	return errors.Join(err, a.print("%d hold, %d differ, %d could not be asked; %d requests to %s at %s\n", r.Count(conformance.Holds),
		r.Count(conformance.Differs), r.Count(conformance.NotAsked), r.Requests, host, r.At.Format(time.RFC3339)))
}

func spans(m conformance.Measure, patience float64) string {
	var all []string
	for i, most := range m.AtMost {
		text := fmt.Sprintf("at once (asked after %gs)", most)
		if least := m.AtLeast[i]; least > 0 {
			text = fmt.Sprintf("%gs to %gs", least, most)
		}
		all = append(all, text)
	}
	for range m.Longer {
		all = append(all, fmt.Sprintf("more than %gs", patience))
	}
	if all == nil {
		return "not measured"
	}
	return strings.Join(all, ", ")
}
