package rotator_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// Somebody deletes the record right after the process that published a new key in it has died. Vault shows nobody what
// the deleted version held, so the key counts as read: it is replaced, and retired through its overlap and quarantine.
func TestARecordDeletedAfterItsWriterDied(t *testing.T) {
	for _, c := range []struct {
		name    string
		nth     int  // publication whose writer dies
		undated bool // the listing does not say when a key was made
	}{{"first key", 1, false}, {"second key", 2, false}, {"second key, undated", 2, true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.undated {
				w.api = undated{w.api}
			}
			p := testPolicy(t, nil)
			var read elevensim.Key
			disabled := map[string]time.Time{}
			w.sim.OnChange(func(change elevensim.Change) {
				switch at, was := disabled[change.Key.ID]; {
				case change.Kind == elevensim.Disabled:
					disabled[change.Key.ID] = change.Time
				case change.Kind == elevensim.Deleted && !was:
					t.Errorf("key %s was deleted without a quarantine", change.Key.ID)
				case change.Kind == elevensim.Deleted && change.Time.Sub(at) < p.Quarantine:
					t.Errorf("key %s was deleted after %s of quarantine", change.Key.ID, change.Time.Sub(at))
				}
			})
			synctest.Test(t, func(*testing.T) {
				proc := &process{fault: fault{call: "write secret/elevenlabs", nth: c.nth, mode: diesAfter}}
				_, stop := w.startProcess(proc, p)
				for !proc.isDead() {
					after(time.Second)
				}
				stop()
				read = w.inRecord(p)
				w.kept.remove(p.Sink.Ref)
				begun := time.Now()
				_, stop = w.startProcess(&process{}, p)
				after(10 * time.Minute)
				for k := range w.entry(p).Keys() {
					if k.ID == read.ID && (k.Created.IsZero() || begun.Sub(k.Created) > time.Minute) {
						t.Errorf("the key that readers had counts as made at %s", k.Created)
					}
				}
				after(30 * time.Hour)
				stop()
				if d := disabled[read.ID].Sub(begun); d < p.Overlap {
					t.Errorf("the key that readers had was disabled after %s, the overlap is %s", d, p.Overlap)
				}
			})
			w.accounted(p)
		})
	}
}

// pastRefused is a store that refuses the first reads of earlier versions, and notes which are read.
type pastRefused struct {
	ledger.Store
	refuse int
	read   []int
}

func (s *pastRefused) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if version > 0 {
		if s.read = append(s.read, version); len(s.read) <= s.refuse {
			return ledger.Doc{}, &ledger.Error{Op: "reading", Reason: ledger.FailureSinkError, Err: errors.New("no")}
		}
	}
	return s.Store.Read(ctx, ref, version)
}

// A record is rolled back right after the process that published a new key in it has died. That key is looked for only among
// the versions since the intent, and a refused read is tried again at once.
func TestSettlingReadsWhatWasWrittenSinceTheIntent(t *testing.T) {
	for name, refuse := range map[string]int{"a few refusals": 3, "nothing but refusals": 1000} {
		t.Run(name, func(t *testing.T) { settling(t, refuse) })
	}
}

func settling(t *testing.T, refuse int) {
	a := newArena(t)
	past := &pastRefused{Store: a.store, refuse: refuse}
	a.store = past
	p := testPolicy(t, nil)
	write := func(fields map[string]any) int {
		doc, err := past.Store.Read(context.Background(), p.Sink.Ref, 0)
		if err == nil {
			_, err = past.Write(context.Background(), p.Sink.Ref, fields, doc.Version)
		}
		if err != nil {
			t.Fatal(err)
		}
		return doc.Version
	}
	synctest.Test(t, func(t *testing.T) {
		proc := &process{fault: fault{call: "write secret/elevenlabs", nth: 2, mode: diesAfter}}
		_, stop := a.startProcess(proc, p)
		after(time.Hour)
		for range 4 {
			write(a.record(p)) // others write the record, too
		}
		before := a.record(p)
		for !proc.isDead() {
			after(time.Second)
		}
		stop()
		made, published := a.inRecord(p), write(before)
		_, stop = a.startProcess(&process{}, p)
		after(10 * time.Minute)
		stop()
		if n := len(past.read); refuse > 3 {
			if n < 6 || n > 40 {
				t.Errorf("%d reads in ten minutes", n)
			}
			return
		}
		if want := slices.Repeat([]int{published}, past.refuse+1); !slices.Equal(past.read, want) || strings.Contains(a.logs.String(), "reading an earlier version") {
			t.Errorf("read versions %d at once, want %d", past.read, want)
		}
		if k := a.key(made.Secret); k.Deleted() || k.Disabled {
			t.Error("the key that was published does not get its overlap")
		}
	})
}

// outOfOrder is a store that refuses some calls while it is set.
type outOfOrder struct {
	ledger.Store
	refuse func(call string) bool
	lost   bool // the answer says that it may have happened
	set    atomic.Bool
	hit    atomic.Int32
}

func (s *outOfOrder) refused(call string) error {
	if s.set.Load() && s.refuse(call) {
		s.hit.Add(1)
		return &ledger.Error{Op: call, Reason: ledger.FailureSinkDenied, MaybeApplied: s.lost, Err: errors.New("no")}
	}
	return nil
}

func (s *outOfOrder) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if err := s.refused("read " + ref.Path); err != nil {
		return ledger.Doc{}, err
	}
	return s.Store.Read(ctx, ref, version)
}

func (s *outOfOrder) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	if err := s.refused("write " + ref.Path); err != nil {
		return 0, err
	}
	return s.Store.Write(ctx, ref, data, cas)
}

// A rotation fails, and for minutes its end cannot be settled. Then it is, as the failure that it was, which is told once; and
// meanwhile little is asked.
func TestARotationThatCannotBeSettledYet(t *testing.T) {
	for _, c := range []struct {
		name, call string
		listing    bool // refused, too
		lost       bool // it may have happened, and the create was answered
		failed     []string
	}{
		{name: "record not readable", call: "read elevenlabs/", failed: []string{"create lost_answer"}},
		{name: "ledger not writable", call: "write rekeyd/policies/", failed: []string{"claim sink_denied", "create lost_answer"}},
		{name: "record written without an answer", call: "write elevenlabs/", lost: true, failed: []string{"publish sink_denied"}},
		{name: "keys not listed", listing: true, failed: []string{"create lost_answer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newArena(t)
			store := &outOfOrder{Store: w.store, lost: c.lost, refuse: func(call string) bool { return c.call != "" && strings.HasPrefix(call, c.call) }}
			w.store = store
			p := testPolicy(t, nil)
			synctest.Test(t, func(t *testing.T) {
				r, stop := w.start(p)
				defer stop()
				after(3*time.Hour - 30*time.Second)
				first := w.inRecord(p)
				faults := elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.CutAfter, Operation: "createAPIKey", Count: 1}}}
				if c.lost {
					faults.Rules = nil
				}
				if c.listing {
					faults.Rules = append(faults.Rules, elevensim.Rule{Kind: elevensim.Status, Operation: "listAPIKeys", Status: 403, Code: "forbidden", Message: "no"})
				}
				if err := w.sim.SetFaults(faults); err != nil {
					t.Fatal(err)
				}
				var once sync.Once
				w.sim.OnChange(func(elevensim.Change) { once.Do(func() { store.set.Store(true) }) })
				after(6 * time.Minute)
				if len(w.alive()) != 2 || w.entry(p).Intent == nil {
					t.Errorf("before it can be settled: keys %+v, entry %+v", w.alive(), w.entry(p))
				}
				if n := store.hit.Load(); n > 40 {
					t.Errorf("%d refused calls in five minutes", n)
				}
				store.set.Store(false)
				if err := w.sim.SetFaults(elevensim.Faults{}); err != nil {
					t.Fatal(err)
				}
				after(70 * time.Minute) // the tries in vain may have spent what they may cost in an hour
				var failed []string
				w.mu.Lock()
				for _, e := range w.events {
					if e.Type == rotator.EventFailed {
						failed = append(failed, string(e.Stage)+" "+plan.Word(e.Reason))
					}
				}
				w.mu.Unlock()
				if !slices.Equal(failed, c.failed) || w.state(r, 0).Failures != len(failed) {
					t.Errorf("told: %q", failed)
				}
				// A listing from before the delete has the sweep repeat it.
				if n := w.countEvents(rotator.EventLostDeleted); n < 1 || n > 2 || w.inRecord(p).ID == first.ID || len(w.alive()) != 2 {
					t.Errorf("%d lost keys deleted, keys %+v", n, w.alive())
				}
			})
			w.accounted(p)
		})
	}
}

// undated is an API whose listings do not say when a key was made.
type undated struct{ http.RoundTripper }

func (u undated) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := u.RoundTripper.RoundTrip(r)
	if err != nil || r.Method != http.MethodGet {
		return resp, err
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	text = regexp.MustCompile(`"created_at_unix":\s*\d+`).ReplaceAll(text, []byte(`"created_at_unix":null`))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	resp.Header.Del("Content-Length")
	return resp, err
}

// A key whose commit the next process makes counts as published when its record says, not when its rotation began.
func TestARecoveredKeyIsOfItsPublication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		if err := w.sim.SetFaults(elevensim.Faults{KeyDelay: elevensim.Duration(10 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		p := testPolicy(t, nil)
		begun := time.Now()
		proc := &process{fault: fault{call: "write secret/elevenlabs", nth: 1, mode: diesAfter}}
		_, stop := w.startProcess(proc, p)
		for !proc.isDead() {
			after(time.Second)
		}
		stop()
		want, err := time.Parse(time.RFC3339, w.record(p)["rotated_at"].(string))
		if err != nil || want.Sub(begun) < 10*time.Second {
			t.Fatalf("published at %s: %v", want, err)
		}
		_, stop = w.startProcess(&process{}, p)
		defer stop()
		after(10 * time.Minute)
		if e := w.entry(p); e.Current == nil || !e.Current.Published.Equal(want) || !e.LastRotation.Equal(want) {
			t.Errorf("current: %+v, want it published at %s", e.Current, want)
		}
	})
}
