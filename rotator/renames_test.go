package rotator_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestARenamedPolicyKeepsItsKey: the new name takes the ledger entry over, and a replica that still has the old file
// writes nothing any more.
func TestARenamedPolicyKeepsItsKey(t *testing.T) {
	w := newWorld(t)
	old, renamed := testPolicy(t, nil), testPolicy(t, func(p *plan.Policy) { p.Name = "speech" })
	synctest.Test(t, func(*testing.T) {
		e := newEdits(t, w, old)
		defer e.stop()
		stale := &process{}
		behind, stopBehind := w.startProcess(stale, old)
		defer stopBehind()
		after(time.Minute)
		first := e.published(old)
		e.load(renamed)
		if k := e.published(renamed); k.ID != first.ID {
			t.Fatal("the rename made a new key")
		}
		if s := e.status("speech"); s.State != plan.StateOK || s.Current == nil || s.Current.ID != first.ID {
			t.Errorf("the new name is %s (%s)", s.State, s.Message)
		}
		if moved := e.record(plan.Policy{Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "rekeyd/policies/tts-prod"}}}); moved["moved_to"] != "speech" {
			t.Errorf("the old entry is marked %v", moved["moved_to"])
		}
		after(26 * time.Hour) // past two runs of the schedule
		e.wantKeys(3, "after two runs")
		second := e.published(renamed)
		if !strings.Contains(second.Name, ".speech.") {
			t.Errorf("the new key is named %s", second.Name)
		}
		// It may help to retire keys of the new name, as it would for any policy that is not in its file.
		for _, call := range []string{"POST", "write secret/elevenlabs", "write secret/rekeyd/policies/tts-prod"} {
			if n := stale.count(call); n != 0 {
				t.Errorf("the replica with the old file did %q %d times", call, n)
			}
		}
		s := behind.Snapshot().Policies[0]
		if s.State != plan.StateError || s.Reason != plan.FaultMovedAway || !strings.Contains(s.Message, "speech") {
			t.Errorf("the replica with the old file shows %s, %s: %s", s.State, s.Reason, s.Message)
		}
	})
}

// TestAPolicyRenamedTwiceKeepsItsKey: the record still has the first of the names.
func TestAPolicyRenamedTwiceKeepsItsKey(t *testing.T) {
	w := newWorld(t)
	named := func(name string) plan.Policy { return testPolicy(t, func(p *plan.Policy) { p.Name = name }) }
	synctest.Test(t, func(*testing.T) {
		e := newEdits(t, w, named("a"))
		defer e.stop()
		first := e.published(named("a"))
		e.load(named("b"))
		e.load(named("c"))
		for name, to := range map[string]any{"a": "b", "b": "c", "c": nil} {
			if got := e.record(plan.Policy{Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "rekeyd/policies/" + name}}}); got["moved_to"] != to {
				t.Errorf("the entry of %s is marked %v, want %v", name, got["moved_to"], to)
			}
		}
		after(26 * time.Hour)
		e.wantKeys(3, "after two runs")
		if !e.gone(first) {
			t.Error("the first key is still there")
		}
		if n := w.countEvents(rotator.EventError) + w.countEvents(rotator.EventRetireError); n != 0 {
			t.Errorf("%d errors were reported", n)
		}
	})
}

// TestARenameAfterACrash: what the process left that died in mid-rotation is settled under the old name, then taken over.
func TestARenameAfterACrash(t *testing.T) {
	for _, c := range []struct {
		call string
		nth  int
	}{{"POST", 2}, {"write secret/elevenlabs", 2}, {"write secret/elevenlabs", 1}} { // 1: there is no current key yet
		t.Run(fmt.Sprint(c.call, " ", c.nth), func(t *testing.T) {
			w := newWorld(t)
			old, renamed := testPolicy(t, brief), renamed(t, brief)
			synctest.Test(t, func(*testing.T) {
				proc := &process{fault: fault{call: c.call, nth: c.nth, mode: diesAfter}}
				_, stop := w.startProcess(proc, old)
				after(3*time.Hour + time.Minute)
				if !proc.isDead() {
					t.Fatal("the process did not die")
				}
				stop()
				_, stop = w.startProcess(&process{}, renamed)
				defer stop()
				after(2 * time.Hour)
				if entry := w.record(plan.Policy{Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "rekeyd/policies/tts-prod"}}}); entry["moved_to"] != "speech" || entry["claim"] != nil {
					t.Errorf("the old entry is marked %v, its claim is %v", entry["moved_to"], entry["claim"])
				}
				after(briefLife)
				if k := w.inRecord(renamed); k.Disabled || !strings.Contains(k.Name, ".speech.") {
					t.Errorf("the record holds %s, disabled %t", k.Name, k.Disabled)
				}
				if keys := w.alive(); len(keys) > 3 {
					t.Errorf("%d keys are left", len(keys))
				}
			})
		})
	}
}
