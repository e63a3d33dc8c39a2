package rotator_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// newAdminWorld is a world whose admin key is where the policy publishes; putAdminKey has to put it there.
func newAdminWorld(t *testing.T) (*world, plan.Policy) {
	w := newWorld(t)
	w.sim = elevensim.New(elevensim.Options{Accounts: []elevensim.Account{{ID: account, Name: "tts"}}, Seed: 1})
	w.api = elevensim.Transport(w.sim)
	p := testPolicy(t, func(p *plan.Policy) {
		p.Name, p.AdminOf, p.Sink.Path = "admin", "default", "elevenlabs/admin"
		p.Settings.Permissions.Names = []string{"service_account_write"}
	})
	w.admin = &p.Sink
	return w, p
}

// putAdminKey makes an admin key by hand, puts it where it is read, and returns its id.
func (w *world) putAdminKey(p plan.Policy) string {
	w.t.Helper()
	id, secret, err := w.sim.AddKey(account, elevensim.KeySpec{Name: "by hand", Permissions: p.Settings.Permissions.Names})
	if err != nil {
		w.t.Fatal(err)
	}
	doc, err := w.store.Read(context.Background(), p.Sink.Ref, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Write(context.Background(), p.Sink.Ref, map[string]any{p.Sink.Field: secret}, doc.Version); err != nil {
		w.t.Fatal(err)
	}
	return id
}

// keepAdmin fails the test when the key where the admin key is read is none that may manage keys.
func (w *world) keepAdmin(p plan.Policy) {
	w.sim.OnChange(func(c elevensim.Change) {
		may := c.Key.Permissions == nil || slices.Contains(c.Key.Permissions, "service_account_write")
		if w.published(p) == c.Key.Secret && (c.Key.Disabled || c.Key.Deleted() || !may) {
			w.t.Errorf("%s: the admin key in place was changed: %s", c.Time, c.Kind)
		}
	})
}

// TestTheAdminKeyRotates from a key that a person put in place, through two rotations.
func TestTheAdminKeyRotates(t *testing.T) {
	w, p := newAdminWorld(t)
	w.keepAdmin(p)
	other := testPolicy(t, nil)
	synctest.Test(t, func(t *testing.T) {
		p.Adopt = w.putAdminKey(p)
		_, stop := w.start(p, other)
		defer stop()
		after(2 * time.Hour)
		byHand := w.inRecord(p)
		if byHand.ID != p.Adopt || byHand.Disabled {
			t.Fatalf("before the first run the record holds %+v", byHand)
		}
		after(3 * time.Hour)
		first := w.inRecord(p)
		if first.ID == byHand.ID {
			t.Fatal("the admin key was not rotated")
		}
		w.proven(t, first, other)
		after(3 * time.Hour)
		if k, _ := w.sim.KeyBySecret(byHand.Secret); !k.Disabled {
			t.Error("after the overlap the old admin key still works")
		}
		after(24 * time.Hour)
		if k, _ := w.sim.KeyBySecret(byHand.Secret); !k.Deleted() || w.inRecord(p).ID == first.ID || w.inRecord(other).Disabled {
			t.Error("the next day's rotations did not come to their end")
		}
		w.accounted(p)
		w.accounted(other)
	})
}

// proven checks that the new admin key could list before it was published, and that it came after the other policy's.
func (w *world) proven(t *testing.T, admin elevensim.Key, other plan.Policy) {
	t.Helper()
	history := w.sim.History()
	made := slices.IndexFunc(history, func(r elevensim.Request) bool { return r.Operation == "createAPIKey" && r.KeyID == admin.ID })
	tried := slices.IndexFunc(history, func(r elevensim.Request) bool { return r.CredentialKind == admin.ID })
	if made < 0 || tried < made || history[tried].Operation != "listServiceAccounts" || !history[tried].Applied {
		t.Errorf("the new admin key was made in request %d and first used in request %d: %+v", made, tried, history[max(tried, 0)])
	}
	otherMade := slices.IndexFunc(history, func(r elevensim.Request) bool {
		return r.Operation == "createAPIKey" && r.KeyID == w.inRecord(other).ID
	})
	if otherMade > made {
		t.Error("the admin key went first")
	}
}

// Every remote write of an admin key's life fails in each way, and is the last that a process does: what is in its
// place is an admin key all the while, and in the end everything is in order.
func TestEveryRemoteWriteOfAnAdminKey(t *testing.T) {
	long(t)
	const ledger, record = "write secret/rekeyd/policies", "write secret/elevenlabs"
	for _, at := range []struct {
		name, call string
		nth        int
	}{
		{"adoption", ledger, 1},
		{"claim", ledger, 2},
		{"create", "POST", 1},
		{"publish", record, 1},
		{"commit", ledger, 3},
		{"claim to disable", ledger, 4},
		{"disable", "PATCH", 1},
		{"note of the disable", ledger, 5},
		{"delete", "DELETE", 1},
	} {
		for _, m := range []mode{notApplied, applied, diesBefore, diesAfter} {
			t.Run(fmt.Sprintf("%s %s", at.name, m), func(t *testing.T) {
				t.Parallel()
				w, p := newAdminWorld(t)
				brief(&p)
				w.keepAdmin(p)
				synctest.Test(t, func(*testing.T) {
					p.Adopt = w.putAdminKey(p)
					w.survive(p, fault{call: at.call, nth: at.nth, mode: m})
				})
			})
		}
	}
}

// TestANewAdminKeyThatCannotListIsNotPublished, as when its allowlist lacks the address of rekeyd itself.
func TestANewAdminKeyThatCannotListIsNotPublished(t *testing.T) {
	for name, change := range map[string]func(*plan.Policy){
		"permission": func(p *plan.Policy) { p.Settings.Permissions.Names = []string{"user_read"} },
		"address": func(p *plan.Policy) {
			p.Settings.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := newAdminWorld(t)
			w.keepAdmin(p)
			p.OnDrift = plan.DriftReport
			synctest.Test(t, func(t *testing.T) {
				p.Adopt = w.putAdminKey(p)
				change(&p)
				r, stop := w.start(p)
				defer stop()
				after(4 * time.Hour)
				if w.inRecord(p).ID != p.Adopt {
					t.Error("it was published")
				}
				if s := r.Snapshot().Policies[0]; s.Failure == nil || s.Failure.Stage != ledger.StageVerify {
					t.Errorf("the failure is %+v", s.Failure)
				}
				for range 60 { // one may be on trial just now
					if len(w.alive()) > 1 {
						after(time.Second)
					}
				}
				if n := len(w.alive()); n != 1 {
					t.Errorf("%d keys are left", n)
				}
			})
		})
	}
}

// TestALeakedAdminKey cannot be replaced without a person. What happens then is what the how-to says.
func TestALeakedAdminKey(t *testing.T) {
	w, p := newAdminWorld(t)
	synctest.Test(t, func(t *testing.T) {
		p.Adopt = w.putAdminKey(p)
		r, stop := w.start(p)
		defer stop()
		after(10 * time.Minute)
		if err := w.sim.DisableKey(p.Adopt, "exposed_publicly"); err != nil {
			t.Fatal(err)
		}
		requests := len(w.sim.History())
		after(30 * time.Minute)
		if n := len(w.sim.History()) - requests; n > 31 {
			t.Errorf("%d requests in 30 minutes, one is made a minute", n)
		}
		ws := r.Snapshot().Workspaces[0]
		if !errors.Is(ws.Err, elevenlabs.ErrInvalidKey) || !strings.Contains(ws.Err.Error(), "policy admin cannot replace") {
			t.Errorf("the workspace says: %v", ws.Err)
		}
		after(3 * time.Hour)
		if s := r.Snapshot().Policies[0]; s.State != plan.StateFailing || s.Reason != ledger.FailureAdminKeyRefused {
			t.Errorf("when it is due, the policy is %s: %s", s.State, s.Reason)
		}

		second := w.putAdminKey(p)
		after(20 * time.Minute)
		if s := r.Snapshot().Policies[0]; s.State != plan.StateError || s.Reason != plan.FaultRecordChanged {
			t.Errorf("with an unknown key in place the policy is %s: %s", s.State, s.Reason)
		}
		if err := r.Snapshot().Workspaces[0].Err; err != nil {
			t.Errorf("the new key is not used: %v", err)
		}
		first := p.Adopt
		p.Adopt = second
		r.Load([]plan.Policy{p}, w.clients(w.last))
		after(time.Minute)
		s := r.Snapshot().Policies[0]
		if s.Current == nil || s.Current.ID != second || len(s.Retiring) != 1 || s.Retiring[0].ID != first || s.Retiring[0].State != ledger.InQuarantine {
			t.Errorf("after adoption: current %+v, retiring %+v", s.Current, s.Retiring)
		}
		after(30 * time.Hour)
		w.accounted(p)
		if w.inRecord(p).ID == second {
			t.Error("the key put in by hand was not rotated")
		}
	})
}

// TestAKeyInUseAsAdminKeyIsNotRetired, whichever policy it is of: here something else carries the record to where the
// admin key is read, and does not keep up.
func TestAKeyInUseAsAdminKeyIsNotRetired(t *testing.T) {
	w, p := newAdminWorld(t)
	p.AdminOf = ""
	synctest.Test(t, func(t *testing.T) {
		p.Adopt = w.putAdminKey(p)
		kept := w.inRecord(p).Secret
		var inUse atomic.Value
		inUse.Store(secret.New(kept))
		w.adminSource = func() string { key, _ := inUse.Load().(secret.Secret); return key.Reveal() }
		_, stop := w.start(p)
		defer stop()
		after(20 * time.Hour)
		if w.inRecord(p).Secret == kept {
			t.Fatal("it was not rotated")
		}
		if k, _ := w.sim.KeyBySecret(kept); k.Disabled || k.Deleted() {
			t.Error("the key that is still in use was taken away")
		}
		kept = w.inRecord(p).Secret
		inUse.Store(secret.New(kept))
		after(3 * time.Hour)
		if k, _ := w.sim.KeyBySecret(kept); k.Disabled {
			t.Error("the current key was taken away")
		}
		if n := len(w.alive()); n != 2 {
			t.Errorf("%d keys", n)
		}
		for _, k := range w.alive() {
			if k.Secret != kept && !k.Disabled {
				t.Error("the old key stays, although it is not in use any more")
			}
		}
	})
}

// TestTheAdminKeyOfARemovedPolicyIsNotPruned while its workspace is managed with it.
func TestTheAdminKeyOfARemovedPolicyIsNotPruned(t *testing.T) {
	w, p := newAdminWorld(t)
	w.keepAdmin(p)
	synctest.Test(t, func(t *testing.T) {
		p.Adopt = w.putAdminKey(p)
		r, stop := w.start(p)
		after(5 * time.Hour)
		r.Load([]plan.Policy{testPolicy(t, nil)}, w.clients(w.last))
		stop()
		lost, err := r.Lost(t.Context(), p.Name)
		if err != nil || len(lost) != 1 || lost[0].KeyID != w.inRecord(p).ID {
			t.Fatalf("the keys to prune are %+v (%v)", lost, err)
		}
		if err := r.Prune(t.Context(), lost[0]); err == nil || !strings.Contains(err.Error(), "does not use the key that replaces") {
			t.Errorf("pruning it: %v", err)
		}
	})
}

// TestAHangingWorkspaceDelaysNoOther: as many policies of one workspace are due as there are workers, twice over, and
// every call of it takes until its timeout.
func TestAHangingWorkspaceDelaysNoOther(t *testing.T) {
	w := newWorld(t)
	quick := testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path, p.Workspace = "quick", "elevenlabs/quick", "other" })
	policies := []plan.Policy{quick}
	for i := range 8 {
		policies = append(policies, testPolicy(t, func(p *plan.Policy) {
			p.Name = fmt.Sprintf("hangs-%d", i)
			p.Sink.Path = "elevenlabs/" + p.Name
		}))
	}
	synctest.Test(t, func(*testing.T) {
		e := newEdits(t, w, policies...)
		defer e.stop()
		hang := &hanging{RoundTripper: e.proc.api}
		e.proc.mu.Lock()
		e.proc.api = hang
		e.proc.mu.Unlock()
		before := e.published(quick).ID
		after(2*time.Hour - time.Second)
		hang.start("127.0.0.1")
		after(8 * time.Second) // of which one was before 03:00
		if got := e.published(quick).ID; got == before {
			t.Errorf("%d calls hang, and the other workspace waits for them", hang.count())
		}
		if n := hang.count(); n != 4 {
			t.Errorf("%d calls hang, the limit for one workspace is 4", n)
		}
		hang.start("")
		after(10 * time.Minute)
	})
}

// hanging keeps the calls to one host waiting until they are given up.
type hanging struct {
	http.RoundTripper
	mu   sync.Mutex
	host string
	now  int
}

func (h *hanging) start(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.host = host
}

func (h *hanging) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	hangs := r.URL.Host == h.host && r.Method == http.MethodPost
	if hangs {
		h.now++
	}
	h.mu.Unlock()
	if !hangs {
		return h.RoundTripper.RoundTrip(r)
	}
	<-r.Context().Done()
	h.mu.Lock()
	h.now--
	h.mu.Unlock()
	return nil, r.Context().Err()
}

// TestTheAdminKeyGoesLastAfterAnOutage, when all runs were due long ago and every process has just started.
func TestTheAdminKeyGoesLastAfterAnOutage(t *testing.T) {
	w, p := newAdminWorld(t)
	synctest.Test(t, func(t *testing.T) {
		p.Adopt = w.putAdminKey(p)
		policies := []plan.Policy{p}
		for _, name := range []string{"tts-a", "tts-b", "tts-c"} {
			policies = append(policies, testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = name, "elevenlabs/"+name }))
		}
		_, stop := w.start(policies...)
		after(time.Minute)
		stop()
		before := w.inRecord(p).ID
		after(5 * time.Hour)
		_, stop = w.start(policies...)
		defer stop()
		after(10 * time.Minute)
		admin := w.inRecord(p)
		if admin.ID == before {
			t.Fatal("the admin key was not rotated")
		}
		for _, other := range policies[1:] {
			if w.inRecord(other).CreatedAt.After(admin.CreatedAt) {
				t.Errorf("%s came after the admin key", other.Name)
			}
		}
		var made []string
		for _, r := range w.sim.History() {
			if r.Operation == "createAPIKey" {
				made = append(made, r.KeyID)
			}
		}
		if made[len(made)-1] != admin.ID {
			t.Errorf("the admin key was made before others: %v", made)
		}
	})
}
