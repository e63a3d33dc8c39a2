package rotator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

func late(call string, nth int) *process {
	return &process{fault: fault{call: call, nth: nth, mode: muchLater}, held: make(chan struct{}), release: make(chan struct{})}
}

// The fifth way: each remote write of a policy's life is held back, and carried out after another process has taken the
// work over, and after an operator has put the previous key back, or revoked it. In the end the record's key works and
// every key is accounted for. What was held back goes on as a replica beside the other.
func TestEveryRemoteWriteMuchLater(t *testing.T) {
	long(t)
	writes := append(lifeWrites(), lifeWrite{"group", "write secret/rekeyd/groups", 1})
	meanwhile := map[string]func(*arena, plan.Policy){
		"after a takeover": func(*arena, plan.Policy) {},
		"after a rollback": func(w *arena, p plan.Policy) {
			_ = w.build(options{}, p).Rollback(within(w.t, 10*time.Minute), p.Name) // where there is nothing to go back to, it is refused
		},
		"after --revoke-now": func(w *arena, p plan.Policy) {
			if err := w.build(options{}, p).Rotate(within(w.t, 10*time.Minute), p.Name, rotator.RotateOptions{Revoke: true}); err != nil {
				w.t.Error(err)
			}
		},
	}
	for _, at := range writes {
		for when, act := range meanwhile {
			t.Run(at.name+" "+when, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newArena(t)
					p := testPolicy(t, func(p *plan.Policy) { brief(p); p.Group = "tts" })
					held := late(at.call, at.nth)
					_, stopHeld := w.startProcess(held, p)
					<-held.held
					_, stop := w.start(p)
					after(10 * time.Minute)
					act(w, p)
					w.mustWork(p, "before the late call")
					after(5 * time.Minute)
					close(held.release)
					after(2*time.Minute + 10*time.Second)
					w.mustWork(p, "two intervals after the late call")
					after(briefLife)
					stopHeld()
					stop()
					w.mustWork(p, "in the end")
					w.accounted(p)
				})
			})
		}
	}
}

// TestALateFence moves the record's version, and changes nothing else.
func TestALateFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		dying := &process{fault: fault{call: "POST", nth: 2, mode: diesAfter}}
		_, stopDead := w.startProcess(dying, p)
		for !dying.isDead() {
			after(time.Minute)
		}
		stopDead()
		held := late("write secret/elevenlabs", 1)
		_, stopHeld := w.startProcess(held, p)
		<-held.held
		_, stop := w.start(p)
		after(30 * time.Minute)
		second, _ := w.recordHolds(p)
		close(held.release)
		after(10 * time.Minute)
		if k, _ := w.recordHolds(p); k.ID != second.ID {
			t.Errorf("the record holds %s, and held %s before the late fence", k.ID, second.ID)
		}
		after(20 * time.Hour)
		stopHeld()
		stop()
		w.accounted(p)
	})
}

// TestALateProof: a record that is written again as it is before a disable, behind standbys that lag, arrives a day later. It is
// refused: the record has another key by then.
func TestALateProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		w.lagging(false, time.Second)
		p := testPolicy(t, nil)
		held := late("write secret/elevenlabs", 3) // after the first key and the second
		_, stopHeld := w.startProcess(held, p)
		<-held.held
		second := w.newestSecret(p)
		_, stop := w.start(p)
		after(24 * time.Hour)
		third := w.newestSecret(p)
		if third == second {
			t.Fatal("the other process did not rotate")
		}
		close(held.release)
		after(10 * time.Minute)
		if w.newestSecret(p) != third {
			t.Error("the late write put the former key back")
		}
		stopHeld()
		stop()
		w.mustWork(p, "in the end")
	})
}

// TestALatePatch is drift, and patched again by the replica that has the newer file.
func TestALatePatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		limited := func(n int64) plan.Policy {
			return testPolicy(t, func(p *plan.Policy) { p.Settings.CharacterLimit = &n })
		}
		_, stop := w.start(testPolicy(t, nil))
		after(time.Minute)
		stop()
		held := late("PATCH", 1)
		_, stopHeld := w.startProcess(held, limited(1000))
		<-held.held
		newer := limited(2000)
		_, stop = w.start(newer)
		after(10 * time.Minute)
		if k, _ := w.recordHolds(newer); k.CharacterLimit == nil || *k.CharacterLimit != 2000 {
			t.Errorf("the limit is %v before the late patch", k.CharacterLimit)
		}
		close(held.release)
		after(10 * time.Minute)
		stopHeld()
		stop()
		if k, _ := w.recordHolds(newer); k.CharacterLimit == nil || *k.CharacterLimit != 2000 {
			t.Errorf("the limit is %v ten minutes after the late patch", k.CharacterLimit)
		}
		w.mustWork(newer, "in the end")
	})
}
