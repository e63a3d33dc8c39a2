package rotator_test

import (
	"iter"
	"log/slog"
	"slices"
	"testing"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// foreseeing is a store that notes what it is told to expect.
type foreseeing struct {
	ledger.Store
	expected iter.Seq[ledger.Ref]
}

func (f *foreseeing) Expect(refs iter.Seq[ledger.Ref]) { f.expected = refs }

// TestTheStoreIsToldWhatRotationsWillCheck, so that it can ask Vault about many documents in one call.
func TestTheStoreIsToldWhatRotationsWillCheck(t *testing.T) {
	w := newWorld(t)
	store := &foreseeing{Store: w.store}
	r, err := rotator.New(rotator.Options{Store: store, Ledger: ledger.Ref{Mount: "secret", Path: "rekeyd"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ps := []plan.Policy{testPolicy(t, nil), testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = "dubbing", "elevenlabs/dubbing" })}
	for n := 1; n <= len(ps); n++ {
		r.Load(ps[:n], w.clients(nil))
		expected := slices.Collect(store.expected)
		for _, p := range ps[:n] {
			for _, ref := range []ledger.Ref{{Mount: "secret", Path: "rekeyd/policies/" + p.Name}, p.Sink.Ref} {
				if !slices.Contains(expected, ref) {
					t.Errorf("with %d policies, %s is not expected", n, ref)
				}
			}
		}
		if len(expected) != 2*n {
			t.Errorf("with %d policies, %v are expected", n, expected)
		}
	}
}
