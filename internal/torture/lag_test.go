package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestTortureBehindLaggingStandbys has every replica speak to a Vault whose standbys answer reads by themselves: one is 700 ms
// behind, the other seconds, and at times it stands still. A person rolls records back while the key before is still promised to readers.
func TestTortureBehindLaggingStandbys(t *testing.T) {
	seconds := number(t, "REKEYD_TORTURE_LAG_SECONDS", 15)
	seed := number(t, "REKEYD_TORTURE_SEED", uint64(time.Now().UnixNano()))
	t.Logf("REKEYD_TORTURE_SEED=%d REKEYD_TORTURE_LAG_SECONDS=%d", seed, seconds)
	for _, indexed := range []bool{false, true} {
		t.Run(fmt.Sprintf("indexed %t", indexed), func(t *testing.T) {
			vault := vaulttest.StartPersistent(t)
			b := startBalancer(t, vault, indexed, 700*time.Millisecond, 1500*time.Millisecond)
			w := newWorld(t, seed, []*vaulttest.Server{vault}, b.url, b.url, b.url, vault.Addr)
			w.run(func() { w.tortureLagging(b, time.Duration(seconds)*time.Second) })
			noted := 0
			for _, o := range w.said {
				noted += o.Count("reads from the store lag behind writes")
			}
			t.Logf("%d kills, %d stops, %d changes of faults; %d rollbacks, %d of them too late; %d retirements, %d versions with the same key; %s",
				w.did.kills, w.did.stops, w.did.faults, w.did.rollbacks, w.did.late, w.did.retirements, w.did.rewrites, w.outcome())
			t.Logf("standbys answered %d reads with an older version, had %d forwarded and refused %d; %d lives noted a lag", b.did.stale, b.did.forwarded, b.did.behind, noted)
			if w.did.rotations < 3*policies || w.did.retirements < 2*policies || w.did.rollbacks == 0 {
				t.Error("too little happened")
			}
			switch {
			case b.did.stale == 0:
				t.Error("no read lagged, so nothing was tested")
			case indexed && (b.did.forwarded == 0 || b.did.behind == 0):
				t.Error("no read waited for its index in one of the ways")
			case !indexed && (noted == 0 || w.did.rewrites < w.did.retirements/2):
				t.Error("no replica noted that reads lag, or records were not written again to be sure of them before a key's end")
			}
		})
	}
}

// tortureLagging strikes for so long. Vault itself is spared: how it ends is tested elsewhere.
func (w *world) tortureLagging(b *balancer, d time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	done := make(chan struct{})
	person := (&vaulttest.Server{Addr: b.url, RootToken: w.vaults[0].RootToken}).Client(w.t).KVv2(secretMount)
	dice := rand.New(rand.NewPCG(w.dice.Uint64(), 0))
	go func() { defer close(done); w.rollBackRecords(ctx, person, dice) }()
	for ctx.Err() == nil {
		w.pass(w.span(100*time.Millisecond, 400*time.Millisecond))
		w.revive()
		switch n := w.dice.IntN(100); {
		case n < 12:
			w.kill(w.dice.IntN(replicas))
		case n < 16:
			w.freeze(w.dice.IntN(replicas))
		case n < 24:
			w.did.faults++
			w.sim.SetFaults(someFaults(w.dice))
		case n < 27:
			still, lag := w.span(0, 20*time.Second), w.span(time.Second, 5*time.Second)
			w.note("the slower standby stands still for %s and then lags by %s", still, lag)
			b.slow(still, lag)
		}
	}
	<-done
}

// rollBackRecords is a person who at times puts the key before back, shortly before the end that its readers were told.
func (w *world) rollBackRecords(ctx context.Context, person *vaultapi.KVv2, dice *rand.Rand) {
	truth := w.root.KVv2(secretMount)
	considered := map[string]bool{} // by id of the current key
	for ctx.Err() == nil {
		for i := range policies {
			s, err := truth.Get(ctx, record(i))
			if err != nil {
				continue
			}
			now := version{s.VersionMetadata.Version, s.VersionMetadata.CreatedTime, s.Data}
			end, err := time.Parse(time.RFC3339, now.text("previous_valid_until"))
			if left := time.Until(end); err != nil || left < 100*time.Millisecond || left > 500*time.Millisecond || considered[now.text("key_id")] {
				continue
			}
			if considered[now.text("key_id")] = true; dice.IntN(4) > 0 {
				w.rollBack(ctx, person, i, now, end)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// rollBack does what vault kv rollback does. A rollback that comes after the end may come too late.
func (w *world) rollBack(ctx context.Context, person *vaultapi.KVv2, i int, now version, end time.Time) {
	former := now.text("previous_key_id")
	for n := now.number - 1; n > 0; n-- {
		s, err := w.root.KVv2(secretMount).GetVersion(ctx, record(i), n)
		if err != nil {
			return
		}
		if id, _ := s.Data["key_id"].(string); id != former {
			continue
		}
		w.byHand.Store(rollback{record(i), now.number + 1}, former)
		w.tooLate.Store(former, true)
		s, err = person.Put(ctx, record(i), s.Data, vaultapi.WithCheckAndSet(now.number))
		var refused *vaultapi.ResponseError
		switch {
		case errors.As(err, &refused):
			w.byHand.Delete(rollback{record(i), now.number + 1})
			w.tooLate.Delete(former)
		case err == nil && s.VersionMetadata.CreatedTime.Before(end):
			w.tooLate.Delete(former)
		default:
			w.did.late++
		}
		return
	}
}

// rollback is a version of a record that a person wrote.
type rollback struct {
	record string
	number int
}

func (w *world) wasLate(id string) bool { _, late := w.tooLate.Load(id); return late }

func (w *world) wasByHand(record string, number int) bool {
	_, byHand := w.byHand.Load(rollback{record, number})
	return byHand
}
