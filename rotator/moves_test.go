package rotator_test

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// moves are the edits after which the key has to be somewhere else.
func moves() map[string]func(*plan.Policy) {
	return map[string]func(*plan.Policy){
		"path":      func(p *plan.Policy) { p.Sink.Path = "elevenlabs/new" },
		"mount":     func(p *plan.Policy) { p.Sink.Mount = "team" },
		"field":     func(p *plan.Policy) { p.Sink.Field = "token" },
		"account":   func(p *plan.Policy) { p.ServiceAccount = otherAccount },
		"workspace": func(p *plan.Policy) { p.Workspace = "other" },
	}
}

// TestAMovedPolicyRotatesAtOnce shows what an edit of a place does: a new key at the new place, and the old key works
// where it is until its overlap ends.
func TestAMovedPolicyRotatesAtOnce(t *testing.T) {
	for name, move := range moves() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old, edited := testPolicy(t, nil), testPolicy(t, move)
			synctest.Test(t, func(*testing.T) { w.checkMove(old, edited) })
		})
	}
}

func (w *world) checkMove(old, edited plan.Policy) {
	e := newEdits(w.t, w, old)
	defer e.stop()
	first, before := e.published(old), e.record(old)
	e.load(edited)
	second := e.published(edited)
	if second.ID == first.ID || second.Account != edited.ServiceAccount {
		w.t.Fatalf("the new place holds key %s of %s", second.ID, second.Account)
	}
	if _, here := w.sim.KeyBySecret(second.Secret); here != (edited.Workspace == "default") {
		w.t.Errorf("key %s is in the wrong workspace", second.ID)
	}
	if rec := e.record(edited); rec["previous_key_id"] != first.ID {
		w.t.Errorf("readers of the new place are told of the previous key %v", rec["previous_key_id"])
	}
	switch sameRecord := edited.Sink.Ref == old.Sink.Ref; {
	case !sameRecord && !maps.Equal(e.record(old), before):
		w.t.Errorf("the old record became %v", slices.Sorted(maps.Keys(e.record(old))))
	case edited.Sink.Field != old.Sink.Field && e.record(old)[old.Sink.Field] != first.Secret:
		w.t.Error("the old field lost its value")
	}
	after(old.Overlap - time.Minute)
	if k := e.every()[first.Secret]; k.Disabled || k.Deleted() {
		w.t.Error("the old key did not get its overlap")
	}
	e.wantKeys(2, "in the overlap")
	after(2 * time.Minute)
	if k := e.every()[first.Secret]; !k.Disabled || k.Deleted() {
		w.t.Errorf("after the overlap: disabled %t, deleted %t", k.Disabled, k.Deleted())
	}
	after(old.Quarantine)
	if k := e.every()[first.Secret]; !k.Deleted() {
		w.t.Error("after its quarantine the old key is still there")
	}
	if s := e.status(edited.Name); s.State == plan.StateError || s.Failures != 0 {
		w.t.Errorf("the policy is %s: %s", s.State, s.Message)
	}
}

// TestAMoveToAnOccupiedPlaceIsRefused: what others keep at the new place is never overwritten, and no key is made for it.
func TestAMoveToAnOccupiedPlaceIsRefused(t *testing.T) {
	foreign := map[string]any{"api_key": "theirs", "token": "theirs"}
	for name, move := range moves() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old, edited := testPolicy(t, nil), testPolicy(t, move)
			synctest.Test(t, func(*testing.T) {
				e := newEdits(t, w, old)
				defer e.stop()
				first := e.published(old)
				taken := maps.Clone(foreign)
				if edited.Sink.Ref == old.Sink.Ref && edited.Sink.Field != old.Sink.Field { // only the new field is theirs
					taken = maps.Clone(e.record(old))
					taken["token"] = "theirs"
				}
				e.put(edited.Sink.Ref, taken)
				e.load(edited)
				after(30 * time.Hour)
				if got := e.record(edited); !maps.Equal(got, taken) {
					t.Errorf("the place of others now has %v", slices.Sorted(maps.Keys(got)))
				}
				e.wantKeys(1, "after the refusal")
				if k := e.every()[first.Secret]; k.Disabled || k.Deleted() {
					t.Error("the old key does not work any more")
				}
				s := e.status(edited.Name)
				if s.State != plan.StateError || s.Reason != plan.FaultRecordChanged || !strings.Contains(s.Message, edited.Sink.String()) {
					t.Errorf("the policy is %s, %s: %s", s.State, s.Reason, s.Message)
				}
				delete(taken, edited.Sink.Field)
				e.put(edited.Sink.Ref, taken)
				after(20 * time.Minute)
				if k := e.published(edited); k.ID == first.ID {
					t.Error("once the place was free nothing moved there")
				}
			})
		})
	}
}

// TestAMoveAndBack edits a policy back while the old key is still in its overlap: the old place is its own.
func TestAMoveAndBack(t *testing.T) {
	for name, move := range moves() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old, edited := testPolicy(t, nil), testPolicy(t, move)
			synctest.Test(t, func(*testing.T) {
				e := newEdits(t, w, old)
				defer e.stop()
				first := e.published(old)
				e.load(edited)
				second := e.published(edited)
				e.load(old)
				third := e.published(old)
				if third.ID == first.ID || third.ID == second.ID {
					t.Errorf("the old place holds key %s, after %s and %s", third.ID, first.ID, second.ID)
				}
				after(old.Overlap + old.Quarantine + time.Hour)
				for _, k := range []elevensim.Key{first, second} {
					if !e.gone(k) {
						t.Errorf("key %s is still there", k.ID)
					}
				}
			})
		})
	}
}

// TestAnOccupiedPlaceCanBeAdopted: whoever says whose key it is that the new place holds has it taken over.
func TestAnOccupiedPlaceCanBeAdopted(t *testing.T) {
	w := newWorld(t)
	old, edited := testPolicy(t, nil), testPolicy(t, moves()["path"])
	synctest.Test(t, func(*testing.T) {
		e := newEdits(t, w, old)
		defer e.stop()
		first := e.published(old)
		id, secret, err := w.sim.AddKey(account, elevensim.KeySpec{Name: "by hand", Permissions: []string{"text_to_speech", "user_read"}})
		if err != nil {
			t.Fatal(err)
		}
		e.put(edited.Sink.Ref, map[string]any{"api_key": secret})
		edited.Adopt = id
		after(time.Minute) // it is listed
		e.load(edited)
		if s := e.status(edited.Name); s.Current == nil || s.Current.ID != id || s.State != plan.StateOK {
			t.Fatalf("the policy is %s, %s: %s", s.State, s.Reason, s.Message)
		}
		e.wantKeys(2, "after the adoption")
		after(old.Overlap + time.Minute)
		if k := e.every()[first.Secret]; !k.Disabled {
			t.Error("the old key was not retired")
		}
	})
}

// TestAPolicyThatLeftAWorkspaceRotatesOn although its old key there can be disabled no more.
func TestAPolicyThatLeftAWorkspaceRotatesOn(t *testing.T) {
	for name, lose := range map[string]func(e *edits, p plan.Policy){
		"removed": func(e *edits, p plan.Policy) { delete(e.urls, "default"); e.load(p) },
		"revoked": func(e *edits, _ plan.Policy) {
			e.proc.mu.Lock()
			defer e.proc.mu.Unlock()
			e.proc.api = byHost{"127.0.0.1": unknowing{}, "127.0.0.2": elevensim.Transport(e.other)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := testPolicy(t, brief)
			synctest.Test(t, func(t *testing.T) {
				e := newEdits(t, w, p)
				defer func() { e.stop() }()
				p.Workspace = "other"
				e.load(p)
				moved := e.published(p).ID
				lose(e, p)
				after(briefLife)
				if e.published(p).ID == moved {
					s := e.status(p.Name)
					t.Errorf("it was not rotated, though due three times: %s %s", s.State, s.Reason)
				}
			})
		})
	}
}

// TestARefusalIsThatOfItsWorkspace: of the one that was asked, not of the one in which a key is retired.
func TestARefusalIsThatOfItsWorkspace(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	synctest.Test(t, func(t *testing.T) {
		e := newEdits(t, w, p)
		defer func() { e.stop() }()
		p.Workspace = "other"
		e.load(p)
		after(3*time.Hour + 58*time.Minute)
		e.proc.mu.Lock()
		e.proc.api = byHost{"127.0.0.1": elevensim.Transport(e.sim), "127.0.0.2": unknowing{}}
		e.proc.mu.Unlock()
		for range 20 * 60 {
			after(time.Second)
			for _, ws := range e.r.Snapshot().Workspaces {
				if ws.Name == "default" && ws.Err != nil {
					t.Fatalf("workspace default: %v", ws.Err)
				}
			}
		}
	})
}

// unknowing knows no key.
type unknowing struct{}

func (unknowing) RoundTrip(r *http.Request) (*http.Response, error) {
	body := `{"detail":{"code":"invalid_api_key","status":"invalid_api_key","message":"Invalid API key"}}`
	return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// TestARotationInAWorkspaceThatIsNoLongerConfigured was cut off there, and nothing can be found out about its key.
func TestARotationInAWorkspaceThatIsNoLongerConfigured(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	synctest.Test(t, func(t *testing.T) {
		e := inFlight(t, w, p)
		defer func() { e.stop() }()
		e.proc.mu.Lock()
		e.proc.dead = true
		e.proc.mu.Unlock()
		after(time.Minute)
		e.stop()
		delete(e.urls, "default")
		p.Workspace = "other"
		e.proc = &process{}
		e.r, e.stop = e.startProcess(e.proc, p)
		after(30 * time.Minute)
		if s := e.status(p.Name); s.State != plan.StateOK || s.Current.Workspace != "other" {
			t.Errorf("the policy is %s %s", s.State, s.Reason)
		}
	})
}

// TestAReplicaThatIsBehindMovesNothingBack: it goes on with the policy file of before the edit, and would undo the move.
func TestAReplicaThatIsBehindMovesNothingBack(t *testing.T) {
	for name, move := range moves() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old, edited := testPolicy(t, nil), testPolicy(t, move)
			synctest.Test(t, func(t *testing.T) {
				e := newEdits(t, w, old)
				defer e.stop()
				behind, stop := w.startProcess(&process{}, old)
				defer stop()
				after(5 * time.Minute)
				e.load(edited)
				after(90 * time.Minute)
				e.wantKeys(2, "with one replica behind")
				if s := behind.Snapshot().Policies[0]; s.Reason != plan.FaultReplicasDiffer {
					t.Errorf("the replica that is behind says %s (%s)", s.State, s.Reason)
				}
				untilThree()
				for range 170 { // the end of the overlap waits longer, each time that the replica that is behind tries it and must not
					if len(e.every()) < 3 {
						after(time.Minute)
					}
				}
				e.wantKeys(3, "after a run with one replica behind")
				behind.Load([]plan.Policy{edited}, w.clients(w.last))
				after(time.Minute)
				if s := behind.Snapshot().Policies[0]; s.State != plan.StateOK {
					t.Errorf("once it is no longer behind it says %s (%s)", s.State, s.Reason)
				}
				after(time.Hour)
				e.wantKeys(3, "with the same file for both")
				if got := e.published(edited); got.Account != edited.ServiceAccount {
					t.Errorf("the next key is of account %s", got.Account)
				}
			})
		})
	}
}

// TestAMoveDoesNotStopAtARotationOfBefore: a replica that has the new file settles what one with the old file began, which
// puts a key at the old place, and then moves it.
func TestAMoveDoesNotStopAtARotationOfBefore(t *testing.T) {
	for name, move := range moves() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old, edited := testPolicy(t, nil), testPolicy(t, move)
			synctest.Test(t, func(t *testing.T) {
				e := newEdits(t, w, old)
				e.stop()
				// It dies once the key is published, and before that is in the ledger.
				dead := &process{fault: fault{call: "write secret/elevenlabs", nth: 1, mode: diesAfter}}
				_, stopDead := w.startProcess(dead, old)
				after(2*time.Hour + time.Minute)
				stopDead()
				if !dead.isDead() {
					t.Fatal("the run of 03:00 was not cut off")
				}
				e.r, e.stop = w.startProcess(e.proc, edited)
				defer e.stop()
				after(15 * time.Minute)
				if s := e.status(edited.Name); s.State != plan.StateOK {
					t.Errorf("the policy is %s (%s): %s", s.State, s.Reason, s.Message)
				}
				k := e.published(edited)
				if _, here := w.sim.KeyBySecret(k.Secret); here != (edited.Workspace == "default") || k.Account != edited.ServiceAccount {
					t.Errorf("the published key is of account %s, in the wrong place", k.Account)
				}
			})
		})
	}
}
