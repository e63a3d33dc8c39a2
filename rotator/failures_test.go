package rotator_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// refusedRecord is a store that refuses writes of records, for certain, as often as it is told.
type refusedRecord struct {
	ledger.Store
	left atomic.Int32
}

func (s *refusedRecord) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	if strings.HasPrefix(ref.Path, "elevenlabs/") && s.left.Add(-1) >= 0 {
		return 0, &ledger.Error{Op: "writing", Reason: ledger.FailureSinkDenied, Err: errors.New("no")}
	}
	return s.Store.Write(ctx, ref, data, cas)
}

// TestAFailureIsToldAndSettled has one step of a rotation fail: it is told once, its key is deleted at once, the ledger says
// when it is tried again, and that succeeds.
func TestAFailureIsToldAndSettled(t *testing.T) {
	create := func(kind elevensim.Kind) elevensim.Faults {
		f := forbidding("createAPIKey", 1)
		f.Rules[0].Kind = kind
		return f
	}
	for _, c := range []struct {
		name      string
		faults    elevensim.Faults
		refused   int32 // writes of the record
		stage     ledger.Stage
		reason    ledger.Failure
		lost      int               // keys deleted
		abandoned int               // rotations remembered
		left      int               // keys that listings do not show yet
		says      string            // the log
		then      *elevensim.Faults // from forty seconds later, when the rotation has begun
	}{
		{name: "create refused", faults: create(elevensim.Status), stage: ledger.StageCreate, reason: ledger.FailureForbidden},
		{name: "create refused by a limit, perhaps the second of two", faults: elevensim.Faults{Rules: []elevensim.Rule{
			{Kind: elevensim.Status, Operation: "createAPIKey", Count: 1, Status: 429, Code: "rate_limit_exceeded", Message: "no"}}},
			stage: ledger.StageCreate, reason: ledger.FailureRateLimited, abandoned: 1},
		{name: "create cut before", faults: create(elevensim.CutBefore), stage: ledger.StageCreate, reason: ledger.FailureLostAnswer, abandoned: 1},
		{name: "create cut after", faults: create(elevensim.CutAfter), stage: ledger.StageCreate, reason: ledger.FailureLostAnswer, lost: 1, abandoned: 1},
		{name: "create answered 500", faults: create(elevensim.Status500After), stage: ledger.StageCreate, reason: ledger.FailureLostAnswer, lost: 1, abandoned: 1},
		{name: "create answered half", faults: create(elevensim.Truncate), stage: ledger.StageCreate, reason: ledger.FailureLostAnswer, lost: 1, abandoned: 1},
		{name: "create answered with no JSON", faults: create(elevensim.Malformed), stage: ledger.StageCreate, reason: ledger.FailureLostAnswer, lost: 1, abandoned: 1},
		{name: "create cut after, listings lag", faults: func() elevensim.Faults {
			f := create(elevensim.CutAfter)
			f.ListLag = elevensim.Duration(20 * time.Second)
			return f
		}(), stage: ledger.StageCreate, reason: ledger.FailureLostAnswer, lost: 1, abandoned: 1},
		{name: "the new key does not work", faults: elevensim.Faults{KeyDelay: elevensim.Duration(time.Hour)}, stage: ledger.StageVerify, reason: ledger.FailureNotUsable, lost: 1, abandoned: 1},
		{name: "the new key does not work, and a listing is refused", faults: elevensim.Faults{KeyDelay: elevensim.Duration(time.Hour)}, then: new(forbidding("listAPIKeys", 1)),
			stage: ledger.StageVerify, reason: ledger.FailureNotUsable, lost: 1, abandoned: 1},
		{name: "no id, and listings lag for long", faults: elevensim.Faults{NoKeyID: true, ListLag: elevensim.Duration(30 * time.Minute)}, stage: ledger.StageVerify, reason: ledger.FailureNotUsable,
			abandoned: 1, left: 1, says: "finding the new key in its account: the listing does not show it"},
		{name: "create cut after, and its delete arrives twice", faults: func() elevensim.Faults {
			f := create(elevensim.CutAfter)
			f.Rules = append(f.Rules, elevensim.Rule{Kind: elevensim.Status, Operation: "deleteAPIKey", Count: 1, Status: 404, Code: "not_found", Message: "no", After: true})
			return f
		}(), stage: ledger.StageCreate, reason: ledger.FailureLostAnswer, lost: 1, abandoned: 1},
		{name: "publish refused", refused: 1, stage: ledger.StagePublish, reason: ledger.FailureSinkDenied, lost: 1, abandoned: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			store := &refusedRecord{Store: w.store}
			w.store = store
			p := testPolicy(t, betweenResyncs(t))
			w.guardReaders(p)
			synctest.Test(t, func(t *testing.T) {
				r, stop := w.start(p)
				defer stop()
				after(3*time.Hour + 6*time.Minute + 30*time.Second)
				first := w.inRecord(p)
				w.setFaults(c.faults)
				store.left.Store(c.refused)
				if c.then != nil {
					after(40 * time.Second)
					w.setFaults(*c.then)
				}
				var failed rotator.Event
				for failed.Type == "" {
					after(time.Second)
					w.mu.Lock()
					for _, e := range w.events {
						if e.Type == rotator.EventFailed {
							failed = e
						}
					}
					w.mu.Unlock()
				}
				after(3 * time.Second)
				e, s := w.entry(p), w.state(r, 0)
				if e.Failure == nil || s.Failure == nil {
					t.Fatalf("failure in the ledger %+v, shown %+v", e.Failure, s.Failure)
				}
				if f := e.Failure; f.Stage != c.stage || f.Reason != c.reason || f.Count != 1 || f.NextTry.Sub(f.At) < 30*time.Second || f.NextTry.Sub(f.At) > time.Minute {
					t.Errorf("failure in the ledger: %+v", f)
				}
				if failed.Stage != c.stage || failed.Reason != c.reason || s.Failure.Reason != c.reason || s.State != plan.StateFailing || s.Failures != 1 {
					t.Errorf("told: %+v; shown: %s, %d failures, %+v", failed, s.State, s.Failures, s.Failure)
				}
				if len(e.Abandoned) != c.abandoned || e.Claim != nil || e.Intent != nil || e.Current.ID != first.ID || len(e.Retiring) > 0 {
					t.Errorf("entry: %+v", e)
				}
				// A listing from before the delete has the sweep repeat it.
				if n := w.countEvents(rotator.EventLostDeleted); n < c.lost || n > 2*c.lost || len(w.alive()) != 1+c.left || strings.Count(w.logs.String(), "abandoned key deleted") != n {
					t.Errorf("%d lost keys were deleted, keys %+v", n, w.alive())
				}
				if logs := w.logs.String(); strings.Contains(logs, "abandoned key not deleted") || strings.Contains(logs, "recovery incomplete") || !strings.Contains(logs, c.says) {
					t.Errorf("the log does not say %q, or tells of what was not done", c.says)
				}
				w.setFaults(elevensim.Faults{})
				if after(20 * time.Second); w.inRecord(p).ID != first.ID {
					t.Error("it was tried again at once")
				}
				for range 75 { // tries in vain may have spent what they may cost in an hour
					if after(time.Minute); w.state(r, 0).State == plan.StateOK {
						break
					}
				}
				if s := w.state(r, 0); w.inRecord(p).ID == first.ID || s.Failure != nil || s.State != plan.StateOK || w.entry(p).Failure != nil {
					t.Errorf("after the next try: %s, %+v", s.State, s.Failure)
				}
				if n := w.countEvents(rotator.EventFailed); n != 1 || strings.Count(w.logs.String(), `msg="rotation failed"`) != 1 || len(w.alive()) != 2 {
					t.Errorf("%d failures were told, keys %+v", n, w.alive())
				}
			})
		})
	}
}

// TestANewKeyIsLookedAt: what the listing says of it counts, also where the create did not say its id.
func TestANewKeyIsLookedAt(t *testing.T) {
	for _, noID := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.api = &disabling{RoundTripper: w.api, w: w}
			p := testPolicy(t, func(p *plan.Policy) { p.Verify = false })
			w.setFaults(elevensim.Faults{NoKeyID: noID})
			r, stop := w.start(p)
			defer stop()
			after(5 * time.Minute)
			if k := w.inRecord(p); k.Disabled || w.entry(p).Current.ID != k.ID || !w.entry(p).Current.Created.Equal(k.CreatedAt.Truncate(time.Second)) || w.state(r, 0).Failures > 1 {
				t.Errorf("current: %+v", w.entry(p).Current)
			}
			if !strings.Contains(w.logs.String(), "is already disabled") || w.countEvents(rotator.EventLostDeleted) == 0 {
				t.Error("the key that was disabled at once was not given up")
			}
		})
	}
}

// TestAKeyWithoutAnIDIsWaitedFor, while listings lag.
func TestAKeyWithoutAnIDIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.setFaults(elevensim.Faults{NoKeyID: true, ListLag: elevensim.Duration(10 * time.Second)})
		p := testPolicy(t, nil)
		_, stop := w.start(p)
		defer stop()
		after(30 * time.Second)
		if k := w.inRecord(p); w.entry(p).Current.ID != k.ID || w.countEvents(rotator.EventFailed) != 0 || len(w.alive()) != 1 {
			t.Errorf("current: %+v, keys %+v", w.entry(p).Current, w.alive())
		}
	})
}

// disabling is an API where a person disables the first key as soon as it is made.
type disabling struct {
	http.RoundTripper
	w    *world
	done atomic.Bool
}

func (d *disabling) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(r)
	if r.Method == http.MethodPost && d.done.CompareAndSwap(false, true) {
		_ = d.w.sim.DisableKey(d.w.alive()[0].ID, "")
	}
	return resp, err
}

// rival is a store where another writer writes the record right before or after a rotation does.
type rival struct {
	ledger.Store
	path          string // of the documents
	before, after func()
	armed         atomic.Bool
}

func (s *rival) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	if !strings.HasPrefix(ref.Path, s.path) || !s.armed.CompareAndSwap(true, false) {
		return s.Store.Write(ctx, ref, data, cas)
	}
	s.before()
	version, err := s.Store.Write(ctx, ref, data, cas)
	s.after()
	return version, err
}

// TestAnotherWriterOfTheRecord keeps its fields, and its value: a rotation gives way before it has published, and is over once
// it has.
func TestAnotherWriterOfTheRecord(t *testing.T) {
	none := func() {}
	for _, c := range []struct {
		name      string
		published bool
		value     bool // of the secret; else of another field
		after     bool
		failed    int
		reason    plan.Reason // of the policy's state
		log       string
	}{
		{"another field before", true, false, false, 0, nil, "record published"},
		{"the secret before", false, true, false, 1, plan.FaultRecordChanged, "abandoned key deleted"},
		{"another field after", true, false, true, 0, nil, "record published"},
		{"the secret after", true, true, true, 0, plan.FaultRecordChanged, "record published, then changed by another writer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				s := &rival{Store: w.store, path: "elevenlabs/", before: none, after: none}
				p := testPolicy(t, nil)
				act := func() {
					fields := w.record(p)
					if fields["note"] = "theirs"; c.value {
						fields[p.Sink.Field] = "sk_of_somebody_else_0123456789"
					}
					w.put(p, fields)
				}
				if s.before = act; c.after {
					s.before, s.after = none, act
				}
				w.store = s
				r, stop := w.daemon(options{}, p)
				defer stop()
				after(2 * time.Hour)
				first := w.inRecord(p)
				s.armed.Store(true)
				after(80 * time.Minute) // until everything is read again
				if s.armed.Load() {
					t.Fatal("nothing was published")
				}
				if rec := w.record(p); rec["note"] != "theirs" || c.value != (rec[p.Sink.Field] == "sk_of_somebody_else_0123456789") {
					t.Errorf("what the other writer wrote is gone")
				}
				e, st := w.entry(p), w.state(r, 0)
				if (e.Current.ID != first.ID) != c.published || e.Claim != nil || st.Reason != c.reason || st.Failures != c.failed {
					t.Errorf("%s %s, %d failures, entry %+v", st.State, st.Reason, st.Failures, e)
				}
				if log := strings.Join(w.audited(), ", "); !strings.Contains(log, c.log) || strings.Contains(w.logs.String(), "recovered=true") {
					t.Errorf("logged: %s", log)
				}
			})
		})
	}
}

// TestAClaimThatIsRefused makes no key, is told once and backed off.
func TestAClaimThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		store := &outOfOrder{Store: w.store, refuse: func(call string) bool { return strings.HasPrefix(call, "write rekeyd/policies/") }}
		w.store = store
		p := testPolicy(t, nil)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(3*time.Hour - time.Minute)
		store.set.Store(true)
		after(70 * time.Second)
		if s := w.state(r, 0); s.State != plan.StateFailing || s.Failure == nil || s.Failure.Stage != ledger.StageClaim || s.Failure.Reason != ledger.FailureSinkDenied {
			t.Errorf("%s %s, %+v", s.State, s.Reason, s.Failure)
		}
		after(10 * time.Minute)
		if n := store.hit.Load(); w.creates() != 1 || w.countEvents(rotator.EventFailed) != 1 || n < 2 || n > 12 {
			t.Errorf("%d creates, %d failures told, %d claims refused", w.creates(), w.countEvents(rotator.EventFailed), n)
		}
		store.set.Store(false)
		after(20 * time.Minute)
		if w.creates() != 2 || w.state(r, 0).Failure != nil {
			t.Errorf("%d creates, %+v", w.creates(), w.state(r, 0).Failure)
		}
	})
}

// TestStoppingWhileAKeyDoesNotWorkYet: a shutdown does not wait for it, and the next process deletes the key.
func TestStoppingWhileAKeyDoesNotWorkYet(t *testing.T) {
	for _, faults := range []elevensim.Faults{{KeyDelay: elevensim.Duration(time.Hour)}, {NoKeyID: true, ListLag: elevensim.Duration(5 * time.Minute)}} {
		synctest.Test(t, func(t *testing.T) {
			w := newArena(t)
			w.setFaults(faults)
			p := testPolicy(t, nil)
			_, stop := w.daemon(options{}, p)
			after(time.Second)
			begun := time.Now()
			stop()
			if took := time.Since(begun); took > 26*time.Second {
				t.Errorf("stopping took %s", took)
			}
			w.setFaults(elevensim.Faults{})
			_, stop = w.daemon(options{}, p)
			defer stop()
			after(10 * time.Minute)
			w.mustWork(p, "after a restart")
			w.accounted(p)
		})
	}
}

// TestAReadFromBeforeThePublish: a store that answers it from before the write is asked again.
func TestAReadFromBeforeThePublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		s := &stale{Store: w.store}
		w.store = s
		p := testPolicy(t, nil)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(2 * time.Hour)
		first := w.inRecord(p)
		s.armed.Store(true)
		after(62 * time.Minute)
		if s.armed.Load() || s.old.JSON != nil {
			t.Fatal("nothing was read")
		}
		if log := w.audited(); w.inRecord(p).ID == first.ID || !slices.Equal(log[len(log)-3:], []string{"key created", "record published", "rotated"}) || w.state(r, 0).Failures != 0 {
			t.Errorf("logged: %q", log)
		}
	})
}

// stale is a store whose first read of the record after a write of it, once armed, is of before.
type stale struct {
	ledger.Store
	armed atomic.Bool
	old   ledger.Doc
}

func (s *stale) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	if strings.HasPrefix(ref.Path, "elevenlabs/") && s.armed.CompareAndSwap(true, false) {
		s.old, _ = s.Store.Read(ctx, ref, 0)
	}
	return s.Store.Write(ctx, ref, data, cas)
}

func (s *stale) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if !strings.HasPrefix(ref.Path, "elevenlabs/") { // other goroutines read the ledger
		return s.Store.Read(ctx, ref, version)
	}
	if old := s.old; old.JSON != nil {
		s.old = ledger.Doc{}
		return old, nil
	}
	return s.Store.Read(ctx, ref, version)
}

// TestAFailureIsNotToldForAnother: what a process failed at and settled is not the reason why another process stopped.
func TestAFailureIsNotToldForAnother(t *testing.T) {
	for _, name := range []string{"given up", "completed"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				_, stop := w.daemon(options{}, p)
				after(time.Hour)
				stop()
				failing := &process{fault: fault{call: "POST", nth: 1, mode: applied}}
				if name == "completed" { // the commit is refused, then done
					commit := &outOfOrder{Store: w.store}
					commit.refuse = func(call string) bool {
						return strings.HasPrefix(call, "write rekeyd/policies/") && commit.set.CompareAndSwap(true, false)
					}
					publish := &rival{Store: commit, path: "elevenlabs/", before: func() {}, after: func() { commit.set.Store(true) }}
					publish.armed.Store(true)
					failing, w.store = &process{}, publish
				}
				_, stop = w.startProcess(failing, p)
				defer stop()
				after(3 * time.Hour)
				if recovered := strings.Contains(w.logs.String(), "recovered=true"); recovered != (name == "completed") || w.entry(p).Claim != nil || w.entry(p).Failure != nil || len(w.alive()) != 2 {
					t.Fatalf("recovered %t: %+v", recovered, w.entry(p))
				}
				told := w.countEvents(rotator.EventFailed)
				dying := &process{fault: fault{call: "POST", nth: 1, mode: diesAfter}}
				_ = w.buildProcess(dying, p).Rotate(within(t, 10*time.Second), p.Name, rotator.RotateOptions{})
				if !dying.isDead() {
					t.Fatal("the other process did not die")
				}
				after(20 * time.Minute)
				w.mu.Lock()
				last := w.events[len(w.events)-1]
				for _, e := range w.events {
					if e.Type == rotator.EventFailed {
						last = e
					}
				}
				w.mu.Unlock()
				if w.countEvents(rotator.EventFailed) != told+1 || last.Reason != ledger.FailureInterrupted {
					t.Errorf("told: %+v", last)
				}
			})
		})
	}
}
