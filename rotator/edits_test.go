package rotator_test

import (
	"context"
	"net/http"
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

const (
	otherAccount = "svcacc_2"
	otherURL     = "http://127.0.0.2"
)

// edits is a world in which policies are edited: it has a second account, and a second workspace.
type edits struct {
	*world
	other *elevensim.Server
	proc  *process
	r     *rotator.Rotator
	stop  func()
}

// newEdits starts a rotator with these policies an hour before the test's edits: their first keys exist.
func newEdits(t *testing.T, w *world, policies ...plan.Policy) *edits {
	t.Helper()
	e := &edits{world: w, other: elevensim.New(elevensim.Options{AdminKey: adminKey, Accounts: []elevensim.Account{{ID: account, Name: "tts"}}, Seed: 2})}
	if err := w.sim.AddAccount(elevensim.Account{ID: otherAccount, Name: "other"}); err != nil {
		t.Fatal(err)
	}
	w.urls["other"] = otherURL
	w.api = byHost{"127.0.0.1": elevensim.Transport(w.sim), "127.0.0.2": elevensim.Transport(e.other)}
	e.proc = &process{}
	e.r, e.stop = w.startProcess(e.proc, policies...)
	after(time.Hour)
	return e
}

type byHost map[string]http.RoundTripper

func (b byHost) RoundTrip(r *http.Request) (*http.Response, error) {
	return b[r.URL.Host].RoundTrip(r)
}

func (e *edits) load(policies ...plan.Policy) {
	e.r.Load(policies, e.clients(e.proc))
	after(10 * time.Second)
}

// every returns all keys that ever were, in both workspaces, by secret.
func (e *edits) every() map[string]elevensim.Key {
	keys := map[string]elevensim.Key{}
	for _, a := range append(e.sim.State(), e.other.State()...) {
		for _, k := range a.Keys {
			keys[k.Secret] = k
		}
	}
	return keys
}

// published returns the key whose secret is where the policy publishes it.
func (e *edits) published(p plan.Policy) elevensim.Key {
	e.t.Helper()
	secret, _ := e.record(p)[p.Sink.Field].(string)
	k, ok := e.every()[secret]
	if !ok {
		e.t.Fatalf("%s holds no key's secret", p.Sink)
	}
	return k
}

func (e *edits) status(name string) rotator.PolicyStatus {
	e.t.Helper()
	all := e.r.Snapshot().Policies
	i := slices.IndexFunc(all, func(s rotator.PolicyStatus) bool { return s.Policy.Name == name })
	if i < 0 {
		e.t.Fatalf("policy %s is not shown", name)
	}
	return all[i]
}

func (e *edits) gone(k elevensim.Key) bool {
	k = e.every()[k.Secret]
	return k.Deleted()
}

func (e *edits) wantKeys(n int, when string) {
	e.t.Helper()
	if got := len(e.every()); got != n {
		e.t.Errorf("%s: %d keys were ever made, want %d", when, got, n)
	}
}

// put has somebody else write a record.
func (e *edits) put(ref ledger.Ref, data map[string]any) {
	e.t.Helper()
	doc, err := e.store.Read(context.Background(), ref, 0)
	if err == nil {
		_, err = e.store.Write(context.Background(), ref, data, doc.Version)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

func (p *process) count(prefix string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

// inFlight starts an edit world, has the run of 03:00 begun, and returns in the middle of it: the new key is created
// and does not work yet.
func inFlight(t *testing.T, w *world, policies ...plan.Policy) *edits {
	t.Helper()
	e := newEdits(t, w, policies...)
	if err := w.sim.SetFaults(elevensim.Faults{KeyDelay: elevensim.Duration(20 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	after(2*time.Hour + 2*time.Second)
	if n := len(e.every()); n != len(policies)+1 {
		t.Fatalf("at 03:00 there are %d keys", n)
	}
	return e
}

// TestAnEditInMidRotation: the rotation ends as it was claimed, then the edit is what it would have been afterwards.
func TestAnEditInMidRotation(t *testing.T) {
	limit := int64(777)
	for name, edit := range map[string]func(*plan.Policy){
		"settings": func(p *plan.Policy) { p.Settings.CharacterLimit = &limit },
		"path":     func(p *plan.Policy) { p.Sink.Path = "elevenlabs/new" },
		"account":  func(p *plan.Policy) { p.ServiceAccount = otherAccount },
		"paused":   func(p *plan.Policy) { p.Mode = plan.ModePaused },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old, edited := testPolicy(t, nil), testPolicy(t, edit)
			synctest.Test(t, func(*testing.T) {
				e := inFlight(t, w, old)
				defer e.stop()
				first := e.published(old)
				e.load(edited)
				if k := e.published(old); k.ID != first.ID {
					t.Fatal("the key was published before it worked")
				}
				after(20 * time.Second) // it works now; where the edit calls for another key, that one does not
				second := e.published(old)
				if second.ID == first.ID || second.Account != old.ServiceAccount {
					t.Fatalf("the rotation did not end as it was claimed: key %s of %s", second.ID, second.Account)
				}
				after(time.Minute)
				last := e.published(edited)
				switch name {
				case "settings":
					if last.ID != second.ID || last.CharacterLimit == nil || *last.CharacterLimit != limit {
						t.Errorf("the edited settings were not patched: %v", last.CharacterLimit)
					}
				case "paused":
					if last.ID != second.ID {
						t.Error("a paused policy was rotated")
					}
				default:
					if last.ID == second.ID || last.Account != edited.ServiceAccount {
						t.Errorf("the edit was forgotten: key %s of %s", last.ID, last.Account)
					}
				}
			})
		})
	}
}

// TestAPolicyRemovedInMidRotation: the rotation ends, the old key leaves as it would have, the current one stays.
func TestAPolicyRemovedInMidRotation(t *testing.T) {
	w := newWorld(t)
	gone, stays := testPolicy(t, nil), testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = "stays", "elevenlabs/stays" })
	stays.Schedule = mustParse(t, "0 12 * * *")
	synctest.Test(t, func(*testing.T) {
		e := inFlight(t, w, gone, stays)
		defer e.stop()
		first := e.published(gone)
		e.load(stays)
		after(time.Minute)
		second := e.published(gone)
		if second.ID == first.ID {
			t.Fatal("the rotation of the removed policy did not end")
		}
		if entry := e.record(plan.Policy{Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "rekeyd/policies/tts-prod"}}}); entry["claim"] != nil {
			t.Error("the claim was not given back")
		}
		after(50 * time.Hour)
		if k := e.every()[second.Secret]; k.Disabled || k.Deleted() || e.published(gone).ID != second.ID {
			t.Error("the removed policy's current key does not work any more, or was replaced")
		}
		if !e.gone(first) {
			t.Error("the removed policy's old key is still there")
		}
		if len(e.r.Snapshot().Policies) != 1 {
			t.Error("the removed policy is still shown")
		}
	})
}

func mustParse(t *testing.T, text string) schedule.Schedule {
	t.Helper()
	s, err := schedule.Parse(text, "UTC")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAnEditedScheduleIsDueFromTheLastRotation: the next run is computed anew, and a run that it makes overdue happens
// at once.
func TestAnEditedScheduleIsDueFromTheLastRotation(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	synctest.Test(t, func(*testing.T) {
		start := time.Now()
		at := func(h, m int) time.Time { return start.Add(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute) }
		e := newEdits(t, w, p)
		defer e.stop()
		check := func(when string, due time.Time, keys int) {
			t.Helper()
			if s := e.status(p.Name); !s.NextDue.Equal(due) {
				t.Errorf("%s: due %s, want %s", when, s.NextDue, due)
			}
			e.wantKeys(keys, when)
		}
		check("at first", at(3, 0), 1)
		p.Schedule = mustParse(t, "0 20 * * *")
		e.load(p)
		check("later", at(20, 0), 1)
		after(time.Until(at(5, 0)))
		check("at 05:00", at(20, 0), 1)
		p.Splay = time.Hour
		e.load(p)
		check("with splay", at(20, 0).Add(schedule.SplayOf(p.Name, time.Hour)), 1)
		p.Splay = 0
		p.Schedule = mustParse(t, "30 4 * * *") // since the first key at 00:00 that was due at 04:30
		e.load(p)
		check("overdue", at(28, 30), 2)
		p.MaxAge, p.Overlap = 20*time.Hour, 2*time.Hour
		e.load(p)
		check("max_age", at(23, 0).Add(10*time.Second), 2)
	})
}

// TestAnEditedOverlapIsThatOfTheNextKey: what readers were told of the old key stays true.
func TestAnEditedOverlapIsThatOfTheNextKey(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	synctest.Test(t, func(*testing.T) {
		e := newEdits(t, w, p)
		defer e.stop()
		first := e.published(p)
		after(2*time.Hour + time.Minute) // 03:01
		second := e.published(p)
		p.Overlap = time.Hour
		e.load(p)
		after(3*time.Hour + 57*time.Minute) // 06:58
		if e.every()[first.Secret].Disabled {
			t.Error("the overlap that readers were told was cut short")
		}
		after(3 * time.Minute)
		if !e.every()[first.Secret].Disabled {
			t.Error("the overlap did not end when readers were told")
		}
		after(21 * time.Hour) // 04:01 of the next day
		if k := e.every()[second.Secret]; !k.Disabled {
			t.Error("the new overlap does not hold for the next key")
		}
	})
}

// TestAnAddedPolicyTouchesNoOther.
func TestAnAddedPolicyTouchesNoOther(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	added := testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = "added", "elevenlabs/added" })
	synctest.Test(t, func(*testing.T) {
		e := newEdits(t, w, p)
		defer e.stop()
		calls := func() int {
			return e.proc.count("write "+p.Sink.String()) + e.proc.count("read secret/rekeyd/policies/"+p.Name) + e.proc.count("read "+p.Sink.String())
		}
		before := calls()
		e.load(p, added)
		if k := e.published(added); k.Disabled {
			t.Error("the added policy's key does not work")
		}
		if n := calls() - before; n != 0 {
			t.Errorf("adding a policy made %d calls for another one", n)
		}
		e.wantKeys(2, "after the addition")
	})
}
