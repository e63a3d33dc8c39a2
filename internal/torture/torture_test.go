// Package torture tests real processes under real violence: three replicas of rekeyd are killed, frozen and started
// again while ElevenLabs misbehaves and Vault is killed. What it asserts on is what readers, Vault and the simulator
// saw, never what rekeyd says of itself.
package torture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

const (
	defaultKills = 200
	settleTime   = 4 * time.Minute // for what failed attempts, and times of a clock that was fast, wait after the last fault, on a busy machine
)

func TestTorture(t *testing.T) { torture(t, defaultKills, false) }

// TestTortureWithAWrongClock has one replica whose clock is wrong: by minutes, and in every fourth life by days.
func TestTortureWithAWrongClock(t *testing.T) { torture(t, defaultKills/5, true) }

func torture(t *testing.T, kills uint64, wrongClock bool) {
	t.Helper()
	kills = number(t, "REKEYD_TORTURE_KILLS", kills)
	seed := number(t, "REKEYD_TORTURE_SEED", uint64(time.Now().UnixNano()))
	t.Logf("REKEYD_TORTURE_SEED=%d REKEYD_TORTURE_KILLS=%d", seed, kills)

	vault := vaulttest.StartPersistent(t)
	w := newWorld(t, seed, []*vaulttest.Server{vault}, vault.Addr)
	w.wrongClock = wrongClock
	w.run(func() { w.torture(int(kills)) })
	t.Logf("%d kills, %d stops, %d lives with a clock wrong by days, %d Vault restarts, %d changes of faults; %s",
		w.did.kills, w.did.stops, w.did.days, w.did.vaultRestarts, w.did.faults, w.outcome())
}

// run has readers read while it is struck, and until all is well again; then it looks at what happened.
func (w *world) run(strike func()) {
	w.t.Helper()
	stop := w.read()
	strike()
	w.heal()
	w.settle()
	w.noneInError()
	w.stopReplicas()
	stop()
	w.check()
	w.checkOutputs()
}

func (w *world) outcome() string {
	return fmt.Sprintf("%d rotations, %d creates, %d reads; settled in %s; %d violations",
		w.did.rotations, w.did.creates, w.reads.Load(), w.settled.Round(100*time.Millisecond), w.violations.Load())
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("reading %s: %v", name, err)
	}
	return n
}

// torture strikes until so many processes were killed. What is struck, and how, comes from the seed; what the
// processes are doing at that moment does not.
func (w *world) torture(kills int) {
	w.t.Helper()
	for w.did.kills < kills {
		w.pass(time.Duration(100+w.dice.IntN(300)) * time.Millisecond)
		w.revive()
		switch n := w.dice.IntN(200); {
		case n < 120:
			w.kill(w.dice.IntN(replicas))
		case n < 150:
			w.freeze(w.dice.IntN(replicas))
		case n < 153:
			w.killVault(w.vaults[0], 2*time.Second)
		case n < 180:
			w.did.faults++
			w.sim.SetFaults(someFaults(w.dice))
		}
	}
}

// pass lets time go by, between two strikes.
func (w *world) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.t.Context().Done():
	}
	w.collect(false)
}

// revive ends what has lasted long enough.
func (w *world) revive() {
	w.t.Helper()
	for _, r := range w.replicas {
		switch {
		case r.until.After(time.Now()):
		case r.frozen:
			r.frozen = false
			w.note("replica %d wakes up", r.number)
			r.Signal(syscall.SIGCONT)
		case r.Process == nil:
			w.setClock(r)
			w.start(r)
		}
	}
	if w.down != nil && !w.downUntil.After(time.Now()) {
		w.down.Rejoin(w.t)
		w.note("Vault is back")
		w.down = nil
		w.did.vaultRestarts++
	}
}

// setClock makes the clock of the first replica wrong for its next life, until all is healed.
func (w *world) setClock(r *replica) {
	r.clock = 0
	if !w.wrongClock || r.number != 0 || !w.healed.IsZero() {
		return
	}
	r.clock = w.span(-100*time.Second, 100*time.Second)
	if w.dice.IntN(4) == 0 {
		r.clock = time.Duration(w.dice.IntN(2)*2-1) * w.span(24*time.Hour, 10*24*time.Hour)
		w.did.days++
	}
}

// kill strikes a replica that runs; one that is frozen is left to do its harm.
func (w *world) kill(n int) {
	w.t.Helper()
	r := w.replicas[n]
	if r.frozen || r.Process == nil {
		return
	}
	w.note("replica %d is killed", n)
	w.mustRun(r)
	r.Kill()
	r.Process = nil
	r.until = time.Now().Add(w.span(0, 700*time.Millisecond))
	w.did.kills++
}

// freeze stops a replica, one at a time, for up to as long as the longest claim lasts: others take over what it was at.
func (w *world) freeze(n int) {
	w.t.Helper()
	for _, r := range w.replicas {
		if r.frozen {
			return
		}
	}
	r := w.replicas[n]
	if r.Process == nil {
		return
	}
	w.note("replica %d is frozen", n)
	w.mustRun(r)
	r.Signal(syscall.SIGSTOP)
	r.frozen, r.until = true, time.Now().Add(w.span(500*time.Millisecond, claimTTLs()[replicas-1]))
	w.did.stops++
}

// killVault kills a server for up to that long, unless one is dead already.
func (w *world) killVault(s *vaulttest.Server, atMost time.Duration) {
	if w.down != nil {
		return
	}
	w.note("Vault at %s is killed", s.Addr)
	s.Kill()
	w.down, w.downUntil = s, time.Now().Add(w.span(0, atMost))
}

func (w *world) span(from, to time.Duration) time.Duration {
	return from + time.Duration(w.dice.Int64N(int64(to-from)))
}

// heal ends all faults and has every replica run.
func (w *world) heal() {
	w.t.Helper()
	w.sim.SetFaults(elevensim.Faults{})
	w.healed = time.Now()
	for _, r := range w.replicas {
		r.until = time.Time{}
		if r.clock != 0 && r.Process != nil {
			r.Kill() // its next life has the right time
			r.Process, r.frozen = nil, false
		}
	}
	w.downUntil = time.Time{}
	w.revive()
	w.note("all is healed")
}

// someFaults makes ElevenLabs bad in one way or another, but never so bad that nothing gets through.
func someFaults(dice *rand.Rand) elevensim.Faults {
	upTo := func(d time.Duration) elevensim.Duration { return elevensim.Duration(dice.Int64N(int64(d))) }
	f := elevensim.Faults{
		Latency:  elevensim.Range{Max: upTo(30 * time.Millisecond)},
		KeyDelay: upTo(400 * time.Millisecond), ListLag: upTo(time.Second),
		Shuffle: dice.IntN(2) == 0, ExtraFields: dice.IntN(2) == 0,
	}
	kinds := []elevensim.Kind{elevensim.Status500, elevensim.Status500After, elevensim.BadGateway, elevensim.CutBefore, elevensim.CutAfter,
		elevensim.Truncate, elevensim.Malformed, elevensim.Status, elevensim.Delay}
	for _, o := range []struct {
		operation string
		often     float64
	}{{"createAPIKey", 0.2}, {"updateAPIKey", 0.3}, {"deleteAPIKey", 0.3}, {"listAPIKeys", 0.05}, {"listServiceAccounts", 0.05}, {"getUser", 0.02}} {
		r := elevensim.Rule{Operation: o.operation, Probability: o.often, Kind: kinds[dice.IntN(len(kinds))], After: dice.IntN(2) == 0}
		switch r.Kind {
		case elevensim.Status:
			r.After, r.Status, r.Code, r.Message, r.RetryAfter = false, 429, "rate_limit_exceeded", "Slow down.", 1
		case elevensim.Delay:
			r.Duration = elevensim.Duration(100*time.Millisecond) + upTo(time.Second)
		}
		f.Rules = append(f.Rules, r)
	}
	return f
}

// violated reports that something happened which must never happen.
func (w *world) violated(format string, args ...any) {
	if w.violations.Add(1) <= 10 {
		w.t.Errorf("VIOLATION: "+format, args...)
	} else {
		w.t.Fail()
	}
}

// note remembers what the torture did, for the trace.
func (w *world) note(format string, args ...any) {
	w.notes = append(w.notes, event{time.Now(), fmt.Sprintf(format, args...)})
}
