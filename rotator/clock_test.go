package rotator_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// A process whose clock is wrong by more than a year begins nothing that is scheduled, and says so; what a person asks for
// it does.
func TestAWrongClockBeginsNothing(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": 400 * 24 * time.Hour, "behind": -3 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				_, stop := w.daemon(options{}, p)
				after(10 * time.Hour) // one key is in quarantine
				stop()
				n := len(w.alive())
				current, _ := w.recordHolds(p)
				r, stop := w.daemon(options{wall: func() time.Time { return time.Now().Add(ahead) }}, p)
				after(5 * time.Minute)
				if k, _ := w.recordHolds(p); k.ID != current.ID || len(w.alive()) != n {
					t.Error("something scheduled began")
				}
				if s := w.state(r, 0); s.Reason != plan.WaitClockSkew || s.Message == "" {
					t.Errorf("%s %s: %s", s.State, s.Reason, s.Message)
				}
				if n := strings.Count(w.logs.String(), "clock differs"); n != 1 {
					t.Errorf("it was logged %d times", n)
				}
				if skew := r.Skew(); skew.Store == nil || (*skew.Store-ahead).Abs() > 2*time.Second || (skew.Workspaces["default"]-ahead).Abs() > 2*time.Second {
					t.Errorf("the skew is %v %v", skew.Store, skew.Workspaces)
				}
				if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
					t.Fatal(err)
				}
				after(time.Minute)
				if k, _ := w.recordHolds(p); k.ID == current.ID {
					t.Error("a request is not carried out")
				}
				stop()
				before := w.countEvents(rotator.EventRotated)
				r, stop = w.daemon(options{}, p) // its clock is right
				defer stop()
				after(4 * 24 * time.Hour)
				if n := w.countEvents(rotator.EventRotated) - before; n < 3 || n > 5 {
					t.Errorf("%d rotations in four days with a daily schedule", n)
				}
				if s := w.state(r, 0); s.State != plan.StateOK || s.LastRotation.After(time.Now()) {
					t.Errorf("%s %s: %s, rotated at %s", s.State, s.Reason, s.Message, s.LastRotation)
				}
				if k := w.key(current.Secret); !k.Deleted() {
					t.Error("four days later the key that the wrong clock replaced is still there")
				}
			})
		})
	}
}

// A process begins nothing that only its clock calls for before ElevenLabs has told it the time.
func TestNothingScheduledBeginsBeforeTheClockIsCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		after(8 * time.Hour) // one key is in quarantine, until 13:00
		stop()
		keys := w.alive()
		h := hold(w.api, method(http.MethodGet))
		_, stop = w.daemon(options{api: h, wall: func() time.Time { return time.Now().Add(400 * 24 * time.Hour) }}, p)
		defer stop()
		<-h.held
		after(10 * time.Second)
		close(h.release)
		after(time.Hour)
		for _, k := range keys {
			if k := w.key(k.Secret); k.Deleted() {
				t.Errorf("%s was deleted by a clock that is wrong", k.ID)
			}
		}
	})
}

// What a process promises whose clock is wrong is right by everybody else's: the end of an overlap that a request, or a
// record that was rolled back, begins.
func TestAWrongClockPromisesTheRightTime(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": 2 * 24 * time.Hour, "behind": -2 * 24 * time.Hour} {
		for _, begin := range []string{"request", "rolled back"} {
			t.Run(name+" "+begin, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newArena(t)
					p := testPolicy(t, func(p *plan.Policy) { p.Mode = plan.ModeManual })
					_, stop := w.daemon(options{}, p)
					after(time.Hour)
					if begin == "rolled back" {
						if err := w.build(options{}, p).Rotate(within(t, time.Hour), p.Name, rotator.RotateOptions{}); err != nil {
							t.Fatal(err)
						}
					}
					stop()
					old, _ := w.recordHolds(p)
					r, stop := w.daemon(options{wall: func() time.Time { return time.Now().Add(ahead) }}, p)
					after(time.Minute)
					if begin == "request" {
						if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
							t.Fatal(err)
						}
					} else {
						w.putBack(p)
					}
					after(20 * time.Minute) // a record is read again every quarter of an hour
					stop()
					_, stop = w.daemon(options{}, p) // its clock is right
					defer stop()
					after(p.Overlap - 30*time.Minute)
					if k := w.key(old.Secret); k.Disabled || k.Deleted() {
						t.Error("the overlap was cut short")
					}
					after(40 * time.Minute)
					if k := w.key(old.Secret); !k.Disabled || k.Deleted() {
						t.Error("the overlap did not end")
					}
				})
			})
		}
	}
}

// What was written by a clock that was wrong is not waited for.
func TestTimesInTheFutureAreNotWaitedFor(t *testing.T) {
	p := testPolicy(t, nil)
	now := time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	far := now.Add(300 * 24 * time.Hour)
	key := func(id string, created time.Time) ledger.KeyRef {
		return ledger.KeyRef{ID: id, Workspace: "default", Account: account, Sink: p.Sink, Hash: "h" + id, Created: created, Published: created, Verified: true}
	}
	listed := func(id string) plan.ListedKey {
		return plan.ListedKey{Workspace: "default", Key: &elevenlabs.Key{ID: id, ServiceAccount: account, Settings: p.Settings, CreatedAt: now.Add(-time.Hour)}}
	}
	at := func(e *ledger.Entry) plan.Observed {
		e.Owner, e.Policy = "abcdefgh", p.Name
		return plan.Observed{Entry: e, Listed: true, Found: true, HomeListed: true, Keys: []plan.ListedKey{listed("a"), listed("b")}}
	}
	current := key("a", now.Add(-48*time.Hour))
	due := at(&ledger.Entry{Current: &current, LastRotation: now.Add(-48 * time.Hour), Failure: &ledger.LastFailure{Count: 9, NextTry: far}})
	if d := plan.Plan(p, due, now); len(d.Steps) != 1 || d.Steps[0].Action != plan.ActRotate {
		t.Errorf("next_try: %s %s %v", d.State, d.Reason, d.Steps)
	}
	old := ledger.Retiring{KeyRef: key("b", now.Add(-72*time.Hour)), State: ledger.InOverlap, Until: now.Add(-time.Hour), Tries: 3, NextTry: far}
	retire := at(&ledger.Entry{Current: &current, LastRotation: now.Add(-10 * time.Hour), Retiring: []ledger.Retiring{old}})
	if d := plan.Plan(p, retire, now); len(d.Steps) != 1 || d.Steps[0].Action != plan.ActDisable {
		t.Errorf("next_try of a retiring key: %s %s %v", d.State, d.Reason, d.Steps)
	}
	unlisted := at(&ledger.Entry{Current: &current, LastRotation: far})
	unlisted.Keys = nil
	if d := plan.Plan(p, unlisted, now); d.State != plan.StateError || d.Reason != plan.FaultClockSkew || d.Message == "" {
		t.Errorf("last_rotation: %s %s: %s", d.State, d.Reason, d.Message)
	}
}

// An entry with times in the future that nothing corrects is corrected at each look, as far as can be. What another process wrote
// meanwhile is not taken back by that.
func TestACorrectedEntryIsTheOneThatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, func(p *plan.Policy) { p.Mode = plan.ModeManual })
		_, stop := w.daemon(options{}, p)
		after(time.Hour)
		stop()
		far := time.Now().Add(48 * time.Hour)
		w.edit(p, func(e *ledger.Entry) {
			gone := *e.Current
			gone.ID, gone.Hash, gone.Created, gone.Published = "0123456789abcdef0123456789abcdef", "", far, far
			e.Retiring = append(e.Retiring, ledger.Retiring{KeyRef: gone, State: ledger.InQuarantine, Until: far})
		})
		old := w.inRecord(p)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(2 * time.Minute)
		if err := w.build(options{}, p).Rotate(within(t, time.Hour), p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		made := w.inRecord(p)
		for _, wait := range []time.Duration{3 * time.Minute, time.Hour} { // a listing shows the key, then ledger and record are read again
			after(wait)
			if s := named(t, r, p.Name); s.Current.ID != made.ID {
				t.Errorf("after %s the daemon takes %s for the current key, not %s", wait, s.Current.ID, made.ID)
			}
			if e := w.entry(p); ledger.CurrentID(e) != made.ID || e.RetiringKey(old.ID) == nil || len(e.Retiring) != 2 {
				t.Errorf("after %s the ledger has %s and %+v", wait, ledger.CurrentID(e), e.Retiring)
			}
		}
		if strings.Contains(w.logs.String(), "adopted") {
			t.Error("a key was adopted")
		}
	})
}
