package rotator_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator/ledger"
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

// pastRefused is a store that refuses the first reads of earlier versions, and notes which are read.
type pastRefused struct {
	ledger.Store
	refuse int
	read   []int
}

func (s *pastRefused) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	if version > 0 {
		if s.read = append(s.read, version); len(s.read) <= s.refuse {
			return ledger.Doc{}, &ledger.Error{Op: "reading", Reason: ledger.ReasonSinkError, Err: errors.New("no")}
		}
	}
	return s.Store.Read(ctx, ref, version)
}

// A record is rolled back right after the process that published a new key in it has died. That key is looked for only among
// the versions since the intent, and a refused read is tried again at once.
func TestSettlingReadsWhatWasWrittenSinceTheIntent(t *testing.T) {
	a := newArena(t)
	past := &pastRefused{Store: a.store, refuse: 3}
	a.store = past
	p := testPolicy(t, nil)
	write := func(fields map[string]any) int {
		doc, err := past.Store.Read(context.Background(), p.Sink.Ref, 0)
		if err == nil {
			_, err = past.Write(context.Background(), p.Sink.Ref, fields, doc.Version)
		}
		if err != nil {
			t.Fatal(err)
		}
		return doc.Version
	}
	synctest.Test(t, func(t *testing.T) {
		proc := &process{fault: fault{call: "write secret/elevenlabs", nth: 2, mode: diesAfter}}
		_, stop := a.startProcess(proc, p)
		after(time.Hour)
		for range 4 {
			write(a.record(p)) // others write the record, too
		}
		before := a.record(p)
		for !proc.isDead() {
			after(time.Second)
		}
		stop()
		made, published := a.inRecord(p), write(before)
		_, stop = a.startProcess(&process{}, p)
		after(10 * time.Minute)
		stop()
		if want := slices.Repeat([]int{published}, past.refuse+1); !slices.Equal(past.read, want) || strings.Contains(a.logs.String(), "reading an earlier version") {
			t.Errorf("read versions %d at once, want %d", past.read, want)
		}
		if k := a.key(made.Secret); k.Deleted() || k.Disabled {
			t.Error("the key that was published does not get its overlap")
		}
	})
}
