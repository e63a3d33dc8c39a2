package torture

import (
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// leader is the one of Vault's servers that leads.
type leader struct {
	*vaulttest.Server
	since  time.Time
	spared time.Time // until then it is not struck
	struck bool
}

// noLeader is how long an election may take on a busy machine.
const noLeader = 3 * time.Minute

// TestTortureOfACluster has Vault's leader killed and stepped down. One replica speaks to one of the three servers, one to
// another, and one, as all readers do, to a proxy that sends each request to the next server.
//
// A server that does not lead forwards every request to the one that does (only Vault Enterprise has standbys that answer
// reads), so what is read here fails or is fresh.
func TestTortureOfACluster(t *testing.T) {
	leaders := number(t, "REKEYD_TORTURE_LEADERS", 8)
	seed := number(t, "REKEYD_TORTURE_SEED", uint64(time.Now().UnixNano()))
	t.Logf("REKEYD_TORTURE_SEED=%d REKEYD_TORTURE_LEADERS=%d", seed, leaders)

	nodes := vaulttest.StartCluster(t)
	proxy := startProxy(t, nodes[0].Addr, nodes[1].Addr, nodes[2].Addr)
	w := newWorld(t, seed, nodes, nodes[0].Addr, nodes[1].Addr, proxy.url)
	w.run(func() { w.tortureCluster(int(leaders)) })
	t.Logf("%d leader changes after %d kills and %d step-downs; %d kills and %d stops of rekeyd, %d changes of faults; %s",
		w.did.leaders, w.did.vaultRestarts, w.did.stepDowns, w.did.kills, w.did.stops, w.did.faults, w.outcome())
	t.Logf("rotations by replica: %v", w.rotationsOf())
	for i := range proxy.turns {
		turn := &proxy.turns[i]
		t.Logf("the proxy sent %d requests to server %d, and found it dead %d times", turn.sent.Load(), i+1, turn.dead.Load())
	}
}

// tortureCluster strikes until the lead has changed so many times.
func (w *world) tortureCluster(changes int) {
	w.t.Helper()
	w.leader.spared = time.Now()
	for w.did.leaders = -1; w.did.leaders < changes; w.findLeader() { // the first one is no change
		w.pass(time.Duration(100+w.dice.IntN(300)) * time.Millisecond)
		w.revive()
		switch n := w.dice.IntN(100); {
		case n < 50:
			w.strikeLeader()
		case n < 70:
			w.kill(w.dice.IntN(replicas))
		case n < 80:
			w.freeze(w.dice.IntN(replicas))
		case n < 90:
			w.did.faults++
			w.sim.SetFaults(someFaults(w.dice))
		}
	}
}

// strikeLeader kills the leader, or has it step down, once it has led for a while and the others can elect another one.
func (w *world) strikeLeader() {
	w.t.Helper()
	switch {
	case w.leader.Server == nil || w.leader.struck || w.down != nil || w.leader.spared.After(time.Now()):
	case w.dice.IntN(2) == 0:
		w.killVault(w.leader.Server, 6*time.Second)
		w.leader.struck = true
	default:
		w.note("Vault at %s steps down", w.leader.Addr)
		if err := w.leader.StepDown(w.t); err != nil {
			w.note("it does not: %v", err)
			return
		}
		w.did.stepDowns++
		w.leader.struck = true
	}
}

// findLeader looks for a server that leads since later than the known one.
func (w *world) findLeader() {
	w.t.Helper()
	for _, s := range w.vaults {
		if s == w.down {
			continue
		}
		if since := s.Leads(w.t.Context()); since.After(w.leader.since) {
			w.note("Vault at %s leads", s.Addr)
			if s != w.leader.Server {
				w.did.leaders++
			}
			w.leader = leader{Server: s, since: since, spared: time.Now().Add(w.span(0, 3*time.Second))}
		}
	}
	if time.Since(w.leader.spared) > noLeader {
		w.t.Errorf("no other server leads for %s:\n%s", noLeader, story(w.notes, nil))
		for _, s := range w.vaults {
			w.t.Errorf("%s said last:\n%s", s.Addr, s.LogTail())
		}
		w.t.FailNow()
	}
}
