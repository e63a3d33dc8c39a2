package rotator_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// slowStore makes the next read of the record, and then the next write of the entry, take a while.
type slowStore struct {
	ledger.Store

	mu          sync.Mutex
	read, write time.Duration
}

func (s *slowStore) take(d *time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := *d
	*d = 0
	return v
}

func (s *slowStore) set(read, write time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read, s.write = read, write
}

func (s *slowStore) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if strings.HasPrefix(ref.Path, "elevenlabs/") {
		<-time.After(s.take(&s.read))
	}
	return s.Store.Read(ctx, ref, version)
}

func (s *slowStore) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	s.mu.Lock()
	e, entry := data.(*ledger.Entry)
	renewal := s.read == 0 && entry && e.Claim != nil
	s.mu.Unlock()
	if renewal {
		<-time.After(s.take(&s.write))
	}
	return s.Store.Write(ctx, ref, data, cas)
}

// TestGuard: a claim that got old is renewed before the create, and one whose renewal took half a claim TTL is not used.
func TestGuard(t *testing.T) {
	for name, c := range map[string]struct {
		write   time.Duration // of the renewal
		creates bool
	}{"renews": {0, true}, "refuses": {70 * time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				slow := &slowStore{Store: w.store}
				w.store = slow
				p := testPolicy(t, betweenResyncs(t))
				proc := &process{}
				_, stop := w.startProcess(proc, p)
				defer stop()
				after(3*time.Hour + 6*time.Minute + 30*time.Second)
				before := len(proc.made())
				slow.set(31*time.Second, c.write)
				after(2*time.Minute + 20*time.Second) // until what was claimed at 03:07 is created, or given back
				calls := proc.made()[before:]
				i := slices.Index(calls, "POST /v1/service-accounts/"+account+"/api-keys")
				if (i >= 0) != c.creates {
					t.Fatalf("created: %t; calls %q", i >= 0, calls)
				}
				if c.creates && calls[i-1] != "write secret/rekeyd/policies/tts-prod" {
					t.Errorf("the create was not preceded by a renewal: %q", calls)
				}
			})
		})
	}
}

// ghost is a store where one write of a record is carried out later than its error is answered, and where no other is
// allowed meanwhile.
type ghost struct {
	ledger.Store

	mu    sync.Mutex
	armed bool
	later func()
}

func (g *ghost) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch record := strings.HasPrefix(ref.Path, "elevenlabs/"); {
	case record && g.later != nil:
		return 0, &ledger.Error{Op: "writing", Reason: ledger.FailureSinkDenied, Err: errors.New("permission denied")}
	case record && g.armed:
		g.armed, g.later = false, func() { _, _ = g.Store.Write(context.WithoutCancel(ctx), ref, data, cas) }
		return 0, lostCall("writing", errCut)
	}
	return g.Store.Write(ctx, ref, data, cas)
}

// TestALostPublishIsFenced before its key is deleted: it may still come.
func TestALostPublishIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		g := &ghost{Store: w.store}
		w.store = g
		p := testPolicy(t, nil)
		_, stop := w.start(p)
		defer stop()
		after(time.Hour)
		g.mu.Lock()
		g.armed = true
		g.mu.Unlock()
		after(2*time.Hour + 5*time.Minute)
		g.mu.Lock()
		g.later()
		g.later = nil
		g.mu.Unlock()
		w.mustWork(p, "after the lost publish came")
		after(2 * time.Hour)
		w.mustWork(p, "two hours later")
		w.accounted(p)
	})
}

// TestARetirementLooksAtTheCurrentKey, at ElevenLabs and not in a listing that it has.
func TestARetirementLooksAtTheCurrentKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		after(30 * time.Second) // listings are at half past each minute
		_, stop := w.start(p)
		defer stop()
		after(6*time.Hour + 59*time.Minute + 15*time.Second)
		first, _ := w.sim.KeyBySecret(w.firstSecret(p))
		current, _ := w.recordHolds(p)
		if err := w.sim.DisableKey(current.ID, ""); err != nil { // at 06:59:45, past the last listing of the overlap
			t.Fatal(err)
		}
		after(30 * time.Second)
		if w.key(first.Secret).Disabled {
			t.Error("the old key was disabled although the current one does not work")
		}
	})
}

// TestARetirementsCalls: the call is noted before it is sent, entry and record are read again after that, and the record once more
// after the call.
func TestARetirementsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		after(30 * time.Second)
		proc := &process{}
		_, stop := w.startProcess(proc, p)
		defer stop()
		after(6*time.Hour + 59*time.Minute + 25*time.Second)
		first, _ := w.sim.KeyBySecret(w.firstSecret(p))
		before := len(proc.made())
		after(10 * time.Second)
		const entry, record, keys = "secret/rekeyd/policies/tts-prod", "secret/elevenlabs/tts-prod", "/v1/service-accounts/" + account + "/api-keys"
		want := []string{"write " + entry, "read " + entry, "read " + record, "GET " + keys, "PATCH " + keys + "/" + first.ID, "read " + record, "read " + record, "GET /v1/user", "write " + entry}
		if got := proc.made()[before:]; !slices.Equal(got, want) {
			t.Errorf("calls %q, want %q", got, want)
		}
		after(5*time.Hour + 59*time.Minute + 50*time.Second)
		before = len(proc.made())
		after(10 * time.Second)
		want = []string{"write " + entry, "read " + entry, "GET " + keys, "read " + record, "DELETE " + keys + "/" + first.ID, "write " + entry}
		if got := proc.made()[before:]; !slices.Equal(got, want) {
			t.Errorf("calls %q, want %q", got, want)
		}
	})
}

// TestARetirementLeavesTheClaimOfOthers: what it knew when it was planned is not what it finds.
func TestARetirementLeavesTheClaimOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		after(30 * time.Second)
		_, stop := w.start(p)
		defer stop()
		after(6*time.Hour + 59*time.Minute + 15*time.Second)
		h := hold(w.api, creating)
		done := make(chan error, 1)
		go func() {
			done <- w.build(options{api: h}, p).Rotate(context.Background(), p.Name, rotator.RotateOptions{})
		}()
		<-h.held
		after(30 * time.Second) // past the end of the overlap, at 07:00
		close(h.release)
		if err := <-done; err != nil {
			t.Errorf("the rotation lost its claim: %v", err)
		}
	})
}

// TestAStrangersValueIsNotOverwritten in the middle of a rotation.
func TestAStrangersValueIsNotOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := holdLater(w.api, verifying)
		_, stop := w.daemon(options{api: h}, p)
		defer stop()
		after(2*time.Hour + 59*time.Minute)
		h.arm()
		<-h.held
		if _, err := w.kv.Put(p.Sink.String(), map[string]any{"api_key": "by hand"}); err != nil {
			t.Fatal(err)
		}
		close(h.release)
		after(time.Hour)
		if got := w.record(p)["api_key"]; got != "by hand" {
			t.Error("what others put into the record is not there any more")
		}
	})
}

// TestACreateThatIsADayLate is still known for what it is, after a rotation of others.
func TestACreateThatIsADayLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := holdLater(w.api, method(http.MethodPost))
		_, stopHeld := w.daemon(options{api: h, claimTTL: stopped}, p)
		defer stopHeld()
		after(2*time.Hour + 59*time.Minute)
		h.arm()
		<-h.held
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(30 * time.Hour)
		close(h.release)
		after(3 * time.Minute)
		w.accounted(p)
	})
}
