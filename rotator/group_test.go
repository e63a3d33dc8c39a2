package rotator_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// grouped returns a policy of the group both, which rotates at three in the morning.
func grouped(t *testing.T, name string) plan.Policy {
	return testPolicy(t, func(p *plan.Policy) { p.Name, p.Group, p.Sink.Path = name, "both", "elevenlabs/"+name })
}

// overlapping returns the policies that have a key in overlap.
func overlapping(r *rotator.Rotator) []string {
	var names []string
	for _, s := range r.Snapshot().Policies {
		if s.Keys.Overlap > 0 {
			names = append(names, s.Policy.Name)
		}
	}
	return names
}

// untilThree lets simulated time pass until just after the next run: bubbles begin at midnight.
func untilThree() { after(3*time.Hour + time.Minute) }

func TestAGroupTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := grouped(t, "tts-a"), grouped(t, "tts-b")
		r, stop := w.start(a, b)
		other, stopOther := w.start(a, b)
		defer stop()
		defer stopOther()
		untilThree()
		first := overlapping(r)
		for range 5 { // the replicas may have called each other's first try off
			if len(first) == 0 {
				after(time.Minute)
				first = overlapping(r)
			}
		}
		if len(first) != 1 {
			t.Fatalf("in overlap at once: %v", first)
		}
		after(2*time.Minute + time.Second) // by then nobody shows a claim any more that was soon given back
		waits := []*rotator.Rotator{r, other}
		for _, s := range waits {
			for _, p := range s.Snapshot().Policies {
				if p.Policy.Name != first[0] && (p.State != plan.StateDue || p.Reason != plan.WaitGroup || p.HeldBy != first[0]) {
					t.Errorf("%s: %s %s, held by %q", p.Policy.Name, p.State, p.Reason, p.HeldBy)
				}
			}
		}
		if !strings.Contains(w.logs.String(), "rotation waits for its group") {
			t.Error("the log does not say that it waits")
		}
		after(4 * time.Hour)
		if second := overlapping(r); len(second) != 1 || second[0] == first[0] {
			t.Errorf("in overlap after %v: %v", first, second)
		}
		if n := w.countEvents(rotator.EventRotated); n != 4 {
			t.Errorf("%d rotations, with the first keys", n)
		}
	})
}

// TestAGroupIsNotHeldForEver has the member that holds the group come to an end in every way there is.
func TestAGroupIsNotHeldForEver(t *testing.T) {
	for name, end := range map[string]func(p plan.Policy) []plan.Policy{
		"removed": func(plan.Policy) []plan.Policy { return nil },
		"paused":  func(p plan.Policy) []plan.Policy { p.Mode = plan.ModePaused; return []plan.Policy{p} },
		"renamed": func(p plan.Policy) []plan.Policy { p.Name = "tts-new"; return []plan.Policy{p} },
		"another group": func(p plan.Policy) []plan.Policy {
			p.Group = "alone"
			return []plan.Policy{p}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ps := []plan.Policy{grouped(t, "tts-a"), grouped(t, "tts-b")}
				r, stop := w.start(ps...)
				defer stop()
				untilThree()
				holder := slices.IndexFunc(ps, func(p plan.Policy) bool { return slices.Contains(overlapping(r), p.Name) })
				waits := ps[1-holder]
				r.Load(append(end(ps[holder]), waits), w.clients(w.api))
				before := w.inRecord(waits).ID
				after(time.Hour)
				if w.inRecord(waits).ID != before {
					t.Error("the other member did not wait for the end of the overlap")
				}
				after(5 * time.Hour)
				if w.inRecord(waits).ID == before {
					t.Error("the other member still waits")
				}
			})
		})
	}
}

// TestAGroupSurvivesEveryCrash kills the process at each call of the group and of what is around it.
func TestAGroupSurvivesEveryCrash(t *testing.T) {
	for _, call := range []string{"read secret/rekeyd/groups", "write secret/rekeyd/groups", "write secret/rekeyd/policies", "POST"} {
		for _, m := range []mode{applied, notApplied, diesBefore, diesAfter} {
			t.Run(call+" "+string(m), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					ps := []plan.Policy{grouped(t, "tts-a"), grouped(t, "tts-b")}
					for i := range ps {
						ps[i].Overlap = time.Hour
					}
					_, stop := w.start(ps...)
					after(time.Minute)
					stop()
					before := []string{w.inRecord(ps[0]).ID, w.inRecord(ps[1]).ID}
					p := &process{fault: fault{call: call, nth: 1, mode: m}}
					_, stopDead := w.startProcess(p, ps...)
					untilThree()
					stopDead()
					_, stop = w.start(ps...)
					defer stop()
					after(4 * time.Hour)
					for i := range ps {
						if w.inRecord(ps[i]).ID == before[i] {
							t.Errorf("%s was not rotated", ps[i].Name)
						}
					}
					if !p.fault.hit {
						t.Error("the fault never struck")
					}
				})
			})
		}
	}
}

func TestALeakGoesAheadOfItsGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ps := []plan.Policy{grouped(t, "tts-a"), grouped(t, "tts-b")}
		r, stop := w.start(ps...)
		defer stop()
		untilThree()
		holder := slices.IndexFunc(ps, func(p plan.Policy) bool { return slices.Contains(overlapping(r), p.Name) })
		leaked := w.inRecord(ps[1-holder]).ID
		if err := w.sim.DisableKey(leaked, "exposed_publicly"); err != nil {
			t.Fatal(err)
		}
		after(2 * time.Minute)
		if w.inRecord(ps[1-holder]).ID == leaked {
			t.Error("a leaked key waits for its group")
		}
		doc, err := w.store.Read(context.Background(), ledger.Ref{Mount: "secret", Path: "rekeyd/groups/both"}, 0)
		if holds, _ := doc.Fields()["holds"].([]any); err != nil || len(holds) != 2 {
			t.Errorf("the group holds %v, %v", doc.Fields(), err)
		}
	})
}

// TestAnOverlapIsNotCutShortByAFreshProcess restarts the process just before the overlap of a key in use ends.
func TestAnOverlapIsNotCutShortByAFreshProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := testPolicy(t, func(p *plan.Policy) { p.WaitUntilIdle = time.Hour })
		_, stop := w.start(p)
		after(time.Minute)
		old := w.inRecord(p).ID
		enabled := func() bool {
			return !w.alive()[slices.IndexFunc(w.alive(), func(k elevensim.Key) bool { return k.ID == old })].Disabled
		}
		use := func(d time.Duration) {
			for range d / (30 * time.Second) {
				if err := w.sim.AddUsage(old, 1); err != nil {
					t.Fatal(err)
				}
				after(30 * time.Second)
			}
		}
		after(6*time.Hour + 50*time.Minute) // ten minutes before the end of the overlap
		use(9*time.Minute - 30*time.Second)
		stop()
		_, stop = w.start(p)
		defer stop()
		use(30 * time.Minute)
		if !enabled() {
			t.Error("a key in use was disabled at the end of its overlap")
		}
		after(4 * time.Minute)
		if enabled() {
			t.Error("a key that is idle is still enabled")
		}
	})
}

// TestAMemberThatJoinsInItsOverlap is waited for, although its hold is nowhere noted.
func TestAMemberThatJoinsInItsOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ps := []plan.Policy{grouped(t, "tts-a"), grouped(t, "tts-b")}
		ps[0].Group, ps[1].Mode = "another", plan.ModeManual
		r, stop := w.start(ps...)
		defer stop()
		untilThree()
		if got := overlapping(r); !slices.Equal(got, []string{"tts-a"}) {
			t.Fatalf("in overlap: %v", got)
		}
		ps[0].Group, ps[1].Mode = "both", plan.ModeAuto
		before := w.inRecord(ps[1]).ID
		r.Load(ps, w.clients(w.last))
		after(3 * time.Hour)
		if w.inRecord(ps[1]).ID != before {
			t.Error("it did not wait for the end of the overlap")
		}
		after(2 * time.Hour)
		if w.inRecord(ps[1]).ID == before {
			t.Error("it still waits")
		}
	})
}

// that of a key which is old because somebody rolled the record back.
func TestAnOverlapThatIsNotNotedIsWaitedFor(t *testing.T) {
	group := ledger.Ref{Mount: "secret", Path: "rekeyd/groups/both"}
	for name, c := range map[string]struct {
		other string // schedule of the member that has to wait
		act   func(w *world, p plan.Policy)
	}{
		"went ahead": {"0 2 * * *", func(w *world, p plan.Policy) {
			w.write(group, map[string]any{"schema": "who knows"})
			w.write(p.Sink.Ref, map[string]any{"note": "emptied"})
			after(20 * time.Minute)
			w.write(group, map[string]any{"schema": 1})
		}},
		"rolled back": {"0 7 * * *", func(w *world, p plan.Policy) {
			first := w.record(p)
			after(4 * time.Hour) // in the overlap of its own rotation
			w.write(group, map[string]any{"schema": 1})
			w.write(p.Sink.Ref, first)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, b := grouped(t, "tts-a"), grouped(t, "tts-b")
				var err error
				if b.Schedule, err = schedule.Parse(c.other, "UTC"); err != nil {
					t.Fatal(err)
				}
				r, stop := w.start(a, b)
				defer stop()
				after(time.Hour)
				before := w.inRecord(b).ID
				c.act(w, a)
				after(15*time.Minute + time.Second) // from here on, looked at when what happens on the minute is over
				if got := overlapping(r); !slices.Equal(got, []string{a.Name}) {
					t.Fatalf("in overlap: %v", got)
				}
				for range 12 * 60 {
					after(time.Minute)
					if both := overlapping(r); len(both) > 1 {
						t.Fatalf("in overlap at once: %v", both)
					}
				}
				if w.inRecord(b).ID == before {
					t.Error("the other member was never rotated")
				}
			})
		})
	}
}

// write has somebody else write a document.
func (w *world) write(ref ledger.Ref, data map[string]any) {
	w.t.Helper()
	doc, err := w.store.Read(context.Background(), ref, 0)
	if err == nil {
		_, err = w.store.Write(context.Background(), ref, data, doc.Version)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestAWindowLeavesNoMemberOutForEver: only one of two can rotate in the window of a run, so they take turns.
func TestAWindowLeavesNoMemberOutForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := grouped(t, "tts-a"), grouped(t, "tts-b")
		a.Window, b.Window = time.Hour, time.Hour
		r, stop := w.start(a, b)
		defer stop()
		untilThree()
		for day := range 6 {
			if got := overlapping(r); len(got) != 1 {
				t.Fatalf("on day %d in overlap: %v", day, got)
			}
			after(24 * time.Hour)
			for _, s := range r.Snapshot().Policies {
				if age := time.Since(s.LastRotation); age > 28*time.Hour {
					t.Errorf("on day %d %s was last rotated %s ago", day, s.Policy.Name, age)
				}
			}
		}
	})
}

// TestAGroupIsNotReadWhileTheBudgetWaits: looks at the group would spend the call budget that the rotation waits for, for ever.
func TestAGroupIsNotReadWhileTheBudgetWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		store := &outOfOrder{Store: w.store}
		store.refuse = func(call string) bool { return strings.HasPrefix(call, "write rekeyd/policies/tts-b") }
		w.store = store
		other, p := grouped(t, "tts-a"), grouped(t, "tts-b")
		other.Mode = plan.ModeManual
		r, stop := w.start(other, p)
		defer stop()
		after(2 * time.Hour)
		before := w.inRecord(p).ID
		store.set.Store(true)
		spent := false
		for range 180 { // from 03:00 on each claim is refused, until that has spent the budget
			after(time.Minute)
			if spent = w.state(r, 1).Reason == plan.WaitCallBudget; spent {
				break
			}
		}
		if !spent {
			t.Fatalf("the budget is not spent: %s %s", w.state(r, 1).State, w.state(r, 1).Reason)
		}
		store.set.Store(false)
		after(2 * time.Hour)
		if w.inRecord(p).ID == before {
			s := w.state(r, 1)
			t.Errorf("two hours later it was not rotated: %s %s", s.State, s.Reason)
		}
	})
}
