package rotator

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// callsPerHour is the budget of a policy's calls, not counting its workspace's listings and work that succeeds. With shorter
// intervals than the default ones, the budget's hour is shorter in proportion.
const callsPerHour = 60

// The looks that are paced like steps.
const (
	look        plan.Action = "look"        // at ledger and record
	lookClaimed plan.Action = "claim"       // at an entry whose claim does not change
	lookGroup   plan.Action = "group"       // at the members that hold the group
	lookNames   plan.Action = "predecessor" // at the entries of former names
	lookListed  plan.Action = "listed"      // at an entry that does not explain a listed key
)

// lookAsked is the look for a request.
func lookAsked() plan.Attempt { return plan.Attempt{Action: look, Reason: ledger.TriggerRequested} }

// pace holds the waits between the tries of one policy, and what they cost. It is kept per process; what must survive a restart
// is in the ledger. All times are monotonic.
type pace struct {
	tries []tries // one of each attempt
	spent []expense
	hour  time.Duration // in which callsPerHour count; 0: an hour
}

type tries struct {
	of         plan.Attempt
	count      int
	last, next time.Time
	logged     ledger.Failure
	version    int // of the entry at the last try
}

// expense is the calls of one minute, or of one reconcile interval.
type expense struct {
	begun time.Time
	calls int
}

// lasts returns how long calls are added to one expense: a sixtieth of the hour.
func (p *pace) lasts() time.Duration {
	if p.hour == 0 {
		return time.Minute
	}
	return p.hour / 60
}

// counts returns how long an expense counts: its last call counts for a whole hour.
func (p *pace) counts() time.Duration { return 61 * p.lasts() }

// tried notes one more try and when the next may follow. It returns the number of tries.
func (p *pace) tried(a plan.Attempt, wait func(count int) time.Duration) int {
	now := time.Now()
	// A try waits for MaxBackoff at most: what was not tried for twice as long is no longer due.
	p.tries = slices.DeleteFunc(p.tries, func(t tries) bool { return now.Sub(t.last) > 2*plan.MaxBackoff })
	t := p.noted(a)
	if t == nil {
		p.tries = append(p.tries, tries{of: a})
		t = &p.tries[len(p.tries)-1]
	}
	t.count++
	t.last, t.next = now, now.Add(wait(t.count))
	return t.count
}

// noted returns the tries of an attempt, nil if there are none.
func (p *pace) noted(a plan.Attempt) *tries {
	i := slices.IndexFunc(p.tries, func(t tries) bool { return t.of == a })
	if i < 0 {
		return nil
	}
	return &p.tries[i]
}

// waits returns how long it is until the next try.
func (p *pace) waits(a plan.Attempt) time.Duration {
	if t := p.noted(a); t != nil {
		return time.Until(t.next)
	}
	return 0
}

// forget ends the waits of actions that succeeded.
func (p *pace) forget(actions ...plan.Action) {
	p.tries = slices.DeleteFunc(p.tries, func(t tries) bool { return slices.Contains(actions, t.of.Action) })
	if len(p.tries) == 0 {
		p.tries = nil // as most policies have it
	}
}

// hurry allows one try of everything at once. If it fails, the waits keep growing.
func (p *pace) hurry() {
	for i := range p.tries {
		p.tries[i].next = time.Time{}
	}
}

// news reports whether a failure differs from the last one logged for these tries.
func (p *pace) news(a plan.Attempt, reason ledger.Failure) bool {
	t := p.noted(a)
	if t == nil || t.logged == reason {
		return false
	}
	t.logged = reason
	return true
}

// charge counts calls that made no progress.
func (p *pace) charge(calls int) {
	if calls == 0 {
		return
	}
	now := time.Now()
	p.spent = slices.DeleteFunc(p.spent, func(x expense) bool { return now.Sub(x.begun) >= p.counts() })
	if n := len(p.spent); n > 0 && now.Sub(p.spent[n-1].begun) < p.lasts() {
		p.spent[n-1].calls += calls
		return
	}
	p.spent = slices.Concat(p.spent, []expense{{now, calls}}) // no room for more: few looks make calls
}

// affords returns how long to wait until the budget allows this many calls.
func (p *pace) affords(calls int) time.Duration {
	if len(p.spent) == 0 {
		return 0
	}
	now, sum := time.Now(), calls
	for i := len(p.spent) - 1; i >= 0; i-- {
		x := p.spent[i]
		if left := p.counts() - now.Sub(x.begun); left > 0 {
			if sum += x.calls; sum > callsPerHour {
				return left
			}
		}
	}
	return 0
}

// costOf is what a failing step may cost, with four tries of its last write and a read after each.
func costOf(a plan.Action) int {
	switch a {
	case plan.ActRotate, plan.ActRecover:
		return 32
	case plan.ActSweep:
		return 40 // it costs one call, and leaves room for retirements and a rotation that does not wait for the budget
	}
	return 18
}

// costOfALook covers reading entry and record, each twice if the other is unexpected, and the documents of other policies.
const costOfALook = 6

// pacing returns the waits in wall time; the zero value means none.
func (p *pace) pacing(wall time.Time) plan.Pacing {
	var x plan.Pacing
	for _, t := range p.tries {
		if x.Next == nil {
			x.Next = make(map[plan.Attempt]time.Time, len(p.tries))
		}
		x.Next[t.of] = wall.Add(time.Until(t.next))
	}
	if p.affords(costOf(plan.ActRotate)) == 0 {
		return x
	}
	x.Affords = map[plan.Action]time.Time{}
	for _, a := range []plan.Action{plan.ActRecover, plan.ActAdopt, plan.ActInherit, plan.ActFollow, plan.ActEnable, plan.ActSweep, plan.ActDisable, plan.ActDelete, plan.ActRotate, plan.ActPatch, plan.ActProve} {
		if d := p.affords(costOf(a)); d > 0 {
			x.Affords[a] = wall.Add(d)
		}
	}
	return x
}

// meter counts the calls made under a context, and notes whether a conflict refused one.
type meter struct {
	policy   string
	calls    atomic.Int64
	conflict atomic.Bool
}

type meterKey struct{}

// metered returns a context for the work of one worker, whose calls are counted.
func metered(ctx context.Context) (context.Context, *meter) {
	m := &meter{}
	return elevenlabs.WithCount(context.WithValue(ctx, meterKey{}, m), &m.calls), m
}

// count counts a call of the store.
func count(ctx context.Context, err error) {
	m, ok := ctx.Value(meterKey{}).(*meter)
	if !ok {
		return
	}
	m.calls.Add(1)
	if errors.Is(err, ledger.ErrConflict) {
		m.conflict.Store(true)
	}
}

// How long a step's calls to ElevenLabs let later ones go first: what is urgent overtakes all, a new key overtakes the end of an
// old one.
const (
	urgent    = -time.Hour
	leisurely = 10 * time.Second
)

func patience(s plan.Step) time.Duration {
	switch {
	case plan.Urgent(s):
		return urgent
	case s.Action == plan.ActDisable, s.Action == plan.ActDelete, s.Action == plan.ActSweep:
		return leisurely
	}
	return 0
}
