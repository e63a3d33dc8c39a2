package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// maxRuns bounds the output of a typing error.
const maxRuns = 10_000

// run is one line of `rekeyd schedule`.
type run struct {
	Policy string    `json:"policy"`
	Local  string    `json:"local"` // RFC 3339, in the policy's zone
	UTC    string    `json:"utc"`
	Mode   plan.Mode `json:"mode"` // other than auto: no run happens
}

// schedule is `rekeyd schedule`: the runs of the schedule alone, without the ledger.
func (a app) schedule(_ context.Context, o options, names []string) error {
	start, err := timeOf("--from", o.from, time.Now())
	switch {
	case err != nil:
		return usageError{err}
	case o.runs < 1 || o.runs > maxRuns:
		return usageError{fmt.Errorf("-n is %d; write a number from 1 to %d", o.runs, maxRuns)}
	}
	s, err := a.load()
	if err != nil {
		return err
	}
	policies, err := o.chosen(s.Policies, names)
	if err != nil {
		return err
	}
	runs := []run{}
	for _, p := range policies {
		runs = append(runs, runsOf(p, start, o.runs)...)
	}
	slices.SortStableFunc(runs, func(x, y run) int { return cmp.Or(cmp.Compare(x.UTC, y.UTC), cmp.Compare(x.Policy, y.Policy)) })
	if o.format.document() {
		return a.document(o.format, runs)
	}
	a.sayIdle(policies)
	for _, r := range runs {
		line := r.Local + "\t" + r.UTC
		if len(policies) > 1 {
			line = r.Policy + "\t" + line
		}
		if err := a.print("%s\n", safe(line)); err != nil {
			return err
		}
	}
	return nil
}

// sayIdle says on stderr which policies do not run, since the lines of their schedules are as of others.
func (a app) sayIdle(policies []plan.Policy) {
	const most = 10
	var idle []string
	for _, p := range policies {
		if p.Mode != plan.ModeAuto {
			idle = append(idle, p.Name+" ("+string(p.Mode)+")")
		}
	}
	if more := len(idle) - most; more > 0 {
		idle = append(idle[:most:most], fmt.Sprintf("and %d more", more))
	}
	if len(idle) > 0 {
		a.printError("warning", fmt.Errorf("by its mode, no run happens of %s", strings.Join(idle, ", ")))
	}
}

// timeOf parses the value of a flag; without one it returns missing.
func timeOf(flag, text string, missing time.Time) (time.Time, error) {
	if text == "" {
		return missing, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%s is %q, which is not a time; write one such as 2026-03-01T00:00:00Z", flag, text)
	}
	return t, nil
}

// runsOf returns the next n runs after start, splay included.
func runsOf(p plan.Policy, start time.Time, n int) []run {
	splay := schedule.SplayOf(p.Name, p.Splay)
	var runs []run
	for at := p.Schedule.Next(start.Add(-splay)); len(runs) < n && !at.IsZero(); at = p.Schedule.Next(at) {
		t := at.Add(splay)
		runs = append(runs, run{p.Name, t.In(p.Schedule.Location()).Format(time.RFC3339), t.UTC().Format(time.RFC3339), p.Mode})
	}
	return runs
}
