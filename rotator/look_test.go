package rotator

import (
	"context"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/rotator/schedule"
)

// aloneAt returns a rotator that nobody runs, at that time, and the client of its one workspace, which nobody asks.
func aloneAt(tb testing.TB, now time.Time, store ledger.Store) (*Rotator, map[string]*elevenlabs.Client) {
	tb.Helper()
	r, err := New(Options{Store: store, Logger: slog.New(slog.DiscardHandler), Ledger: ledger.Ref{Mount: "secret", Path: "rekeyd"},
		ReconcileInterval: time.Minute, ResyncInterval: time.Hour, ClaimTTL: 4 * time.Minute, Wall: func() time.Time { return now }})
	if err != nil {
		tb.Fatal(err)
	}
	api, err := elevenlabs.New(elevenlabs.Options{BaseURL: "http://127.0.0.1", Credential: func(context.Context) (secret.Secret, error) { return secret.New("sk_admin"), nil }})
	if err != nil {
		tb.Fatal(err)
	}
	return r, map[string]*elevenlabs.Client{"default": api}
}

// idleLook returns a look at a policy about which nothing has changed, as each listing causes one.
func idleLook(tb testing.TB) func() {
	tb.Helper()
	const owner, name = "abcdefghij", "rekeyd-abcdefghij-narrator-klmnopqrst"
	yearly, err := schedule.Parse("0 0 1 1 *", "UTC")
	if err != nil {
		tb.Fatal(err)
	}
	now := time.Date(2026, 5, 5, 4, 0, 0, 0, time.UTC)
	r, clients := aloneAt(tb, now, noStore{})
	sink := ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "elevenlabs/narrator"}, Field: "api_key"}
	p := plan.Policy{Name: "narrator", Workspace: "default", ServiceAccount: "svcacc_a", Schedule: yearly, Window: 4 * time.Hour, Overlap: 24 * time.Hour,
		Quarantine: 24 * time.Hour, Sink: sink, Settings: elevenlabs.Settings{Permissions: elevenlabs.Permissions{Names: []string{"text_to_speech"}}}}
	r.Load([]plan.Policy{p}, clients)
	key := ledger.KeyRef{ID: "k1", Name: name, Rotation: "klmnopqrst", Workspace: "default", Account: "svcacc_a", Sink: sink, Hash: "hash", Version: 1,
		Created: now.Add(-time.Hour), Published: now.Add(-time.Hour), Verified: true}
	st, ws := r.policies["narrator"], r.workspaces["default"]
	r.owner, r.stopping = owner, false
	st.known.recordTried, st.known.followed = true, true
	st.known.setEntry(&ledger.Entry{Owner: owner, Policy: "narrator", Current: &key, LastRotation: key.Published,
		Applied: &ledger.Applied{Digest: p.Settings.Digest(), At: key.Published}}, 3, now)
	st.known.record = &plan.RecordView{Version: 1, HasValue: true, Match: "k1", KeyID: "k1", Policy: "narrator"}
	ws.listing = r.index(ws, []elevenlabs.ServiceAccount{{ID: "svcacc_a", Keys: []elevenlabs.Key{{ID: "k1", Name: name, ServiceAccount: "svcacc_a", Settings: p.Settings}}}}, time.Now())
	ctx, m := metered(ledger.WithSession(tb.Context()))
	look := func() { r.work(ctx, m, st) }
	look()
	if got := st.statusLocked(); got.State != plan.StateOK || len(got.Steps) > 0 {
		tb.Fatalf("the look finds %s (%s: %s), steps %v", got.State, got.Reason, got.Message, got.Steps)
	}
	if st.known.rare != nil {
		tb.Fatalf("of a policy at rest the look keeps what is unusual: %+v", *st.known.rare)
	}
	return look
}

// TestALookAllocatesNoMoreThanItDid: 10,000 policies are looked at once a minute.
func TestALookAllocatesNoMoreThanItDid(t *testing.T) {
	const most = 5 // with half as much again as was measured
	if got := testing.AllocsPerRun(100, idleLook(t)); got > most {
		t.Errorf("%.0f allocations, at most %d are expected", got, most)
	}
}

func BenchmarkLook(b *testing.B) {
	look := idleLook(b)
	b.ReportAllocs()
	for b.Loop() {
		look()
	}
}

// A listing that shows the same is arranged once, and yet is a listing of its own. It shows no change of ours that ElevenLabs does not.
func TestTheSameListingIsArrangedOnce(t *testing.T) {
	t.Parallel()
	r := &Rotator{workspaces: map[string]*workspace{}}
	ws := &workspace{name: "default"}
	r.workspaces["default"] = ws
	answer := []elevenlabs.ServiceAccount{{ID: "svcacc_a", Keys: []elevenlabs.Key{{ID: "k1"}}}}
	now := time.Now()
	ws.listing = r.index(ws, answer, now)
	first := ws.listing
	ws.listing = r.index(ws, answer, now.Add(time.Minute))
	if l := ws.listing; reflect.ValueOf(l.accounts).Pointer() != reflect.ValueOf(first.accounts).Pointer() || l.seq != first.seq+1 || !l.begun.Equal(now.Add(time.Minute)) {
		t.Errorf("%+v after %+v", l, first)
	}
	r.updateListing("default", "svcacc_a", "k1", func(k *elevenlabs.Key) { k.Disabled = true })
	if key, _, _ := r.listedKeyLocked(ledger.KeyRef{ID: "k1", Workspace: "default", Account: "svcacc_a"}); !key.Disabled {
		t.Error("our change is not in the listing")
	}
	ws.listing = r.index(ws, answer, now.Add(2*time.Minute))
	if key, _, listed := r.listedKeyLocked(ledger.KeyRef{ID: "k1", Workspace: "default", Account: "svcacc_a"}); !listed || key.Disabled {
		t.Errorf("the next listing shows %+v", key)
	}
}
