package rotator_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// Somebody deletes the record right after the process that published a new key in it has died. Vault shows nobody what
// the deleted version held, so the key counts as read: it is replaced, and retired through its overlap and quarantine.
func TestARecordDeletedAfterItsWriterDied(t *testing.T) {
	for _, c := range []struct {
		name string
		nth  int // publication whose writer dies
	}{{"first key", 1}, {"second key", 2}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			p := testPolicy(t, nil)
			var read elevensim.Key
			disabled := map[string]time.Time{}
			w.sim.OnChange(func(change elevensim.Change) {
				switch at, was := disabled[change.Key.ID]; {
				case change.Kind == elevensim.Disabled:
					disabled[change.Key.ID] = change.Time
				case change.Kind == elevensim.Deleted && !was:
					t.Errorf("key %s was deleted without a quarantine", change.Key.ID)
				case change.Kind == elevensim.Deleted && change.Time.Sub(at) < p.Quarantine:
					t.Errorf("key %s was deleted after %s of quarantine", change.Key.ID, change.Time.Sub(at))
				}
			})
			synctest.Test(t, func(*testing.T) {
				proc := &process{fault: fault{call: "write secret/elevenlabs", nth: c.nth, mode: diesAfter}}
				_, stop := w.startProcess(proc, p)
				for !proc.isDead() {
					after(time.Second)
				}
				stop()
				read = w.inRecord(p)
				if err := os.Remove(filepath.Join(w.dir, p.Sink.Mount, p.Sink.Path+".json")); err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				_, stop = w.startProcess(&process{}, p)
				after(30 * time.Hour)
				stop()
				if d := disabled[read.ID].Sub(begun); d < p.Overlap {
					t.Errorf("the key that readers had was disabled after %s, the overlap is %s", d, p.Overlap)
				}
			})
			w.accounted(p)
		})
	}
}
