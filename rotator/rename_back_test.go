package rotator_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

func renamed(t *testing.T, change ...func(*plan.Policy)) plan.Policy {
	return testPolicy(t, func(p *plan.Policy) {
		p.Name = "speech"
		for _, c := range change {
			c(p)
		}
	})
}

// ledgerOf reads a policy's entry.
func (w *world) ledgerOf(name string) map[string]any {
	return w.record(plan.Policy{Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + name}}})
}

// TestARenameThatIsUndone in one process, at once or after the new name rotated: the old name takes its entry back.
func TestARenameThatIsUndone(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": time.Minute, "after a rotation": 4 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, b := testPolicy(t, brief), renamed(t, brief)
			synctest.Test(t, func(t *testing.T) {
				e := newEdits(t, w, a)
				defer e.stop()
				for range 3 { // to and fro
					e.load(b)
					after(wait)
					k := e.published(b)
					e.load(a)
					after(time.Minute)
					if s := e.status(a.Name); s.State != plan.StateOK || s.Current == nil || s.Current.ID != k.ID {
						t.Fatalf("after the rename was undone: %s (%s): %s", s.State, s.Reason, s.Message)
					}
					if from, to := w.ledgerOf(b.Name)["moved_to"], w.ledgerOf(a.Name)["moved_to"]; from != a.Name || to != nil {
						t.Fatalf("the entries are marked %v and %v", from, to)
					}
				}
				after(briefLife)
				if k := e.published(a); k.Disabled || !strings.Contains(k.Name, "."+a.Name+".") {
					t.Errorf("in the end the record holds %s", k.Name)
				}
				if n := len(w.alive()); n > 3 {
					t.Errorf("%d keys are left", n)
				}
			})
		})
	}
}

// TestARenameThatIsUndoneFourWays: the mark and the entry are written by either process, and one of them owns the key.
func TestARenameThatIsUndoneFourWays(t *testing.T) {
	for _, call := range []string{"write secret/rekeyd/policies/speech", "write secret/rekeyd/policies/tts-prod"} {
		for _, m := range []mode{notApplied, applied, diesBefore, diesAfter} {
			t.Run(call+" "+string(m), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				a, b := testPolicy(t, brief), renamed(t, brief)
				synctest.Test(t, func(t *testing.T) {
					e := newEdits(t, w, a)
					e.stop()
					proc := &process{}
					r, stop := w.startProcess(proc, b)
					after(time.Minute)
					first := e.published(b)
					proc.mu.Lock()
					proc.fault = fault{call: call, nth: 1, mode: m}
					proc.mu.Unlock()
					r.Load([]plan.Policy{a}, w.clients(proc))
					after(20 * time.Minute)
					if !proc.fault.hit {
						t.Fatalf("the fault never struck; calls %q", proc.made())
					}
					stop()
					// A process that knows nothing of the rename has either file.
					r, stop = w.startProcess(&process{}, a)
					after(20 * time.Minute)
					if s := named(t, r, a.Name); s.State == plan.StateError {
						stop()
						if m != diesBefore || !strings.Contains(s.Message, "rekeyd rename speech tts-prod") {
							t.Errorf("%s (%s): %s", s.State, s.Reason, s.Message)
						}
						after(time.Hour) // the process that died no longer counts
						if err := w.build(options{}, a).Rename(context.Background(), b.Name, a.Name); err != nil {
							t.Fatal(err)
						}
						r, stop = w.startProcess(&process{}, a)
						after(time.Minute)
					}
					defer func() { stop() }()
					if s := named(t, r, a.Name); s.State != plan.StateOK || s.Current == nil || s.Current.ID != first.ID {
						t.Errorf("%s (%s): %s", s.State, s.Reason, s.Message)
					}
					after(briefLife)
					w.accounted(a)
				})
			})
		}
	}
}

// TestARenameBackAndForthWithALateWrite: the way back was begun, its last write is held up, and the new name is loaded
// again: what the first one sends after all is refused.
func TestARenameBackAndForthWithALateWrite(t *testing.T) {
	w := newWorld(t)
	a, b := testPolicy(t, nil), renamed(t)
	synctest.Test(t, func(t *testing.T) {
		e := newEdits(t, w, a)
		defer func() { e.stop() }()
		e.load(b)
		before := w.ledgerOf(a.Name)
		late := w.version(a.Name)
		// The mark alone, as a process leaves it that stands still right after.
		e.proc.mu.Lock()
		e.proc.fault = fault{call: "write secret/rekeyd/policies/" + a.Name, nth: 1, mode: diesBefore}
		e.proc.mu.Unlock()
		e.load(a)
		if got := w.ledgerOf(b.Name)["moved_to"]; got != a.Name {
			t.Fatalf("the new name's entry is marked %v", got)
		}
		e.stop()
		e.stop = func() {}
		after(time.Hour)
		if err := w.build(options{}, b).Rename(context.Background(), a.Name, b.Name); err != nil {
			t.Fatal(err)
		}
		if got := w.ledgerOf(b.Name); got["moved_to"] != nil || got["current"] == nil {
			t.Fatalf("the new name's entry is %v", got)
		}
		delete(before, "moved_to")
		if _, err := w.store.Write(context.Background(), ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + a.Name}, before, late); err == nil {
			t.Error("the late write of the way back was not refused")
		}
		_, e.stop = w.startProcess(&process{}, b)
		after(30 * time.Hour)
		w.accounted(b)
	})
}

// version is that of a policy's entry.
func (w *world) version(name string) int {
	w.t.Helper()
	doc, err := w.store.Read(context.Background(), ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + name}, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return doc.Version
}

// TestReplicasThatDisagreeAboutARename take the entry from each other once at most.
func TestReplicasThatDisagreeAboutARename(t *testing.T) {
	w := newWorld(t)
	a, b := testPolicy(t, nil), renamed(t)
	synctest.Test(t, func(t *testing.T) {
		e := newEdits(t, w, a)
		defer e.stop()
		proc := &process{}
		other, stop := w.startProcess(proc, a)
		defer stop()
		both := func(p plan.Policy) {
			e.load(p)
			other.Load([]plan.Policy{p}, w.clients(proc))
			after(time.Minute)
		}
		both(b)
		both(a)
		other.Load([]plan.Policy{b}, w.clients(proc)) // and this one back again
		after(3 * time.Hour)
		if n := w.version(a.Name) + w.version(b.Name); n > 20 {
			t.Errorf("the entries were written %d times", n)
		}
		states := map[plan.State]int{e.status(a.Name).State: 1}
		states[named(t, other, b.Name).State]++
		if states[plan.StateOK] != 1 || states[plan.StateError] != 1 {
			t.Errorf("the replicas show %v", states)
		}
		e.load(b)
		after(time.Hour)
		if k := e.published(b); k.Disabled || k.Deleted() {
			t.Error("the record's key does not work")
		}
	})
}

// TestRename: what the command refuses, and what it does.
func TestRename(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		a, b, c := testPolicy(t, nil), renamed(t), second(t, nil)
		_, stop := w.daemon(options{}, a, c)
		after(time.Hour)
		refused := func(says string, err error) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want %q", err, says)
			}
		}
		ctx := context.Background()
		refused("running daemon", w.build(options{}, b, c).Rename(ctx, a.Name, b.Name))
		stop()
		r := w.build(options{}, b, c)
		refused("no policy nobody", r.Rename(ctx, a.Name, "nobody"))
		refused("a-z 0-9", r.Rename(ctx, "../owner", b.Name))
		refused("the same", r.Rename(ctx, b.Name, b.Name))
		refused("still in the policy file", r.Rename(ctx, c.Name, b.Name))
		refused("has no ledger entry", r.Rename(ctx, "nobody", b.Name))
		refused("keys of its own", r.Rename(ctx, a.Name, c.Name))
		k := w.inRecord(a)
		if err := r.Rename(ctx, a.Name, b.Name); err != nil {
			t.Fatal(err)
		}
		if err := w.build(options{}, b, c).Rename(ctx, a.Name, b.Name); err != nil {
			t.Errorf("once more: %v", err)
		}
		d := second(t, func(p *plan.Policy) { p.Name = "tts-next" })
		refused("rekeyd rename speech tts-next", w.build(options{}, d).Rename(ctx, a.Name, d.Name))
		if err := w.build(options{}, a, c).Rename(ctx, b.Name, a.Name); err != nil {
			t.Fatal(err)
		}
		r, stop = w.daemon(options{}, a, c)
		defer stop()
		after(time.Minute)
		if s := named(t, r, a.Name); s.State != plan.StateOK || s.Current == nil || s.Current.ID != k.ID {
			t.Errorf("%s (%s): %s", s.State, s.Reason, s.Message)
		}
	})
}

// TestRenameWaitsForTheClaim: an entry changes hands only while no work on it is under way.
func TestRenameWaitsForTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		a, b := testPolicy(t, nil), renamed(t)
		h := holdLater(w.api, method("POST"))
		_, stop := w.daemon(options{api: h}, a)
		after(2 * time.Hour)
		h.arm()
		<-h.held        // the run of 03:00
		synctest.Wait() // it announces itself at 03:00 too
		d := w.kv
		d.Delete("secret/rekeyd/replicas") // the courtesy is lost
		if err := w.build(options{}, b).Rename(context.Background(), a.Name, b.Name); err == nil || !strings.Contains(err.Error(), "being worked on") {
			t.Errorf("got %v", err)
		}
		close(h.release)
		after(time.Minute)
		stop()
		if err := w.build(options{}, b).Rename(context.Background(), a.Name, b.Name); err != nil {
			t.Error(err)
		}
		w.mustWork(b, "after the rename")
	})
}
