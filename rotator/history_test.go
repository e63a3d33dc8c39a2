package rotator_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestAHistory: the entry says of each rotation who asked for it and when each of its steps was, without a call more.
func TestAHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		r, stop := w.start(p)
		after(time.Minute)
		first := w.inRecord(p)
		after(12 * time.Hour) // by schedule at 3
		second := w.inRecord(p)
		after(3 * time.Hour)
		if err := r.Request(p.Name, rotator.RotateOptions{Reason: "it was in a ticket: sk_0123456789abcdef \n and more"}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		third := w.inRecord(p)
		if err := w.sim.DisableKey(third.ID, "exposed_publicly"); err != nil {
			t.Fatal(err)
		}
		after(2 * time.Minute)
		fourth := w.inRecord(p)
		stop()
		cmd := w.buildProcess(&process{}, p)
		if err := cmd.Rotate(context.Background(), p.Name, rotator.RotateOptions{Reason: "new laptop"}); err != nil {
			t.Fatal(err)
		}
		fifth := w.inRecord(p)
		if err := w.buildProcess(&process{}, p).Rollback(context.Background(), p.Name); err != nil {
			t.Fatal(err)
		}
		history := w.entry(p).History
		want := []ledger.Past{
			{By: ledger.BySchedule, Reason: ledger.TriggerFirst, KeyID: first.ID},
			{By: ledger.BySchedule, Reason: ledger.TriggerSchedule, KeyID: second.ID, PreviousKeyID: first.ID},
			{By: ledger.ByHTTP, Reason: ledger.TriggerRequested, KeyID: third.ID, PreviousKeyID: second.ID, Words: "it was in a ticket: [redacted] and more"},
			{By: ledger.ByLeak, Reason: ledger.TriggerExposed, KeyID: fourth.ID, PreviousKeyID: third.ID},
			{By: ledger.ByCommand, Reason: ledger.TriggerRequested, KeyID: fifth.ID, PreviousKeyID: fourth.ID, Words: "new laptop"},
			{By: ledger.ByCommand, Reason: ledger.TriggerRollback, KeyID: fourth.ID, PreviousKeyID: fifth.ID},
		}
		if len(history) != len(want) {
			t.Fatalf("%d rotations are remembered, not %d: %+v", len(history), len(want), history)
		}
		for i, got := range history {
			if got.Started.IsZero() || got.Created.IsZero() || got.Published.Before(got.Started) {
				t.Errorf("rotation %d: started %s, created %s, published %s", i, got.Started, got.Created, got.Published)
			}
			if got.By != want[i].By || got.Reason != want[i].Reason || got.KeyID != want[i].KeyID || got.PreviousKeyID != want[i].PreviousKeyID || got.Words != want[i].Words {
				t.Errorf("rotation %d is remembered as\n%+v, want\n%+v", i, got, want[i])
			}
		}
		if end := history[1]; end.Disabled.Sub(end.Published) != p.Overlap || end.Deleted.Sub(end.Disabled) != p.Quarantine && !end.Deleted.IsZero() {
			t.Errorf("the first key was disabled at %s and deleted at %s; it was replaced at %s", end.Disabled, end.Deleted, end.Published)
		}
	})
}

// TestAHistoryIsBounded, by its number and by its size.
func TestAHistoryIsBounded(t *testing.T) {
	t.Parallel()
	var e ledger.Entry
	for i := range 60 {
		e.Remember(ledger.Past{Rotation: strings.Repeat("r", 10), KeyID: string(rune('a'+i%26)) + "x", Words: strings.Repeat("é ", 5000)})
	}
	if n := len(e.History); n != 20 {
		t.Errorf("%d rotations are remembered", n)
	}
	for range 30 {
		p := ledger.Past{KeyID: "k"}
		for range 10 {
			p.Probes = append(p.Probes, ledger.ProbeAnswer{Path: "/v1/" + strings.Repeat("p", 200), Status: 200})
		}
		e.Remember(p)
	}
	if n := len(e.History); n < 5 || n > 8 {
		t.Errorf("%d rotations with long probes are remembered in 16 KiB", n)
	}
}

// TestCommandsAreLoggedByADaemon: one line for each rotation that a command made since the daemon first read the entry. Nothing
// is logged at its start, nor of what it did itself.
func TestCommandsAreLoggedByADaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		command := func(words string) string {
			t.Helper()
			if err := w.buildProcess(&process{}, p).Rotate(context.Background(), p.Name, rotator.RotateOptions{Reason: words}); err != nil {
				t.Fatal(err)
			}
			return w.inRecord(p).ID
		}
		command("the first key")
		if h := w.entry(p).History; len(h) != 1 || h[0].By != ledger.ByCommand || h[0].Reason != ledger.TriggerFirst || h[0].Words != "the first key" {
			t.Errorf("a first key that a command made is remembered as %+v", h)
		}
		command("before the daemon")
		r, stop := w.start(p)
		after(20 * time.Minute)
		lines := func() int { return strings.Count(w.logs.String(), `msg="changed by a command"`) }
		if n := lines(); n != 0 {
			t.Errorf("at its start the daemon logs %d changes by commands", n)
		}
		before := w.inRecord(p).ID
		key := command("a drill \n of the month")
		after(20 * time.Minute)
		want := `msg="changed by a command" policy=` + p.Name + ` trigger=requested words="a drill of the month" rotation=` + w.entry(p).Current.Rotation +
			` key_id=` + key + ` previous_key_id=` + before
		if n := lines(); n != 1 || !strings.Contains(w.logs.String(), want) {
			t.Errorf("after a command it logs %d changes by commands\n%s\nwant %s", n, w.logs, want)
		}
		if err := w.buildProcess(&process{}, p).Rollback(context.Background(), p.Name); err != nil {
			t.Fatal(err)
		}
		after(20 * time.Minute)
		if n := lines(); n != 2 || !strings.Contains(w.logs.String(), "trigger=rollback") {
			t.Errorf("after a rollback it logs %d changes by commands", n)
		}
		if err := r.Request(p.Name, rotator.RotateOptions{Reason: "over HTTP"}); err != nil {
			t.Fatal(err)
		}
		after(25 * time.Hour)
		if n := lines(); n != 2 {
			t.Errorf("after its own work it logs %d changes by commands", n)
		}
		if n := strings.Count(w.logs.String(), "rotated by another process"); n != 0 {
			t.Errorf("it logs %d rotations of its own as those of another process", n)
		}
		stop()
	})
}

// TestEventsSayWhatWasProven of the new key and of the old one's end, and name the key.
func TestEventsSayWhatWasProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		w.sim.ShareVoice("ours", account)
		p := probed(t)
		unproven := testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path, p.Verify = "dubbing", "elevenlabs/dubbing", false })
		_, stop := w.start(p, unproven)
		after(14 * time.Hour) // the first key was replaced, disabled and deleted
		stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		var got []string
		for _, e := range w.events {
			if e.Policy == p.Name {
				got = append(got, fmt.Sprintf("%s %s %v", e.Type, e.Reason, e.Evidence))
			}
			if e.Policy == unproven.Name && e.Type == rotator.EventRotated && len(e.Evidence) > 0 {
				t.Errorf("without verification and probes: %+v", e)
			}
			if _, policy, _, ok := ledger.ParseKeyName(e.KeyName); !ok || policy != e.Policy {
				t.Errorf("the key's name is %q: %+v", e.KeyName, e)
			}
		}
		want := "rotated first [verified probed]|rotated schedule [verified probed]|retired overlap_ended [rejected]|retired quarantine_ended [rejected]"
		if got := strings.Join(got, "|"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// TestOtherReplicasAreLogged: each rotation has one line in each replica, which says who made it.
func TestOtherReplicasAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, first := w.start(p)
		after(5 * time.Minute)
		_, second := w.start(p)
		after(76 * time.Hour)
		first()
		second()
		rotated, told := w.countEvents(rotator.EventRotated), strings.Count(w.logs.String(), `msg="rotated by another process"`)
		if rotated != 5 || told != rotated-1 { // the first one, before the other replica was there
			t.Errorf("%d rotations, and %d lines of other replicas", rotated, told)
		}
		for what, want := range map[string]int{"key disabled": 3, "key deleted": 3} {
			made, told := strings.Count(w.logs.String(), `msg="`+what+`"`), strings.Count(w.logs.String(), `msg="`+what+` by another process"`)
			if made != want || told != want {
				t.Errorf("%s: %d lines of what was done, and %d of other replicas, want %d", what, made, told, want)
			}
		}
	})
}

// TestEndsByOthersAreLoggedOnce: a daemon has one line for each key that a command disabled, none after a restart, and none for what
// it does itself, although the answer to that was lost.
func TestEndsByOthersAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		lines := func(what string) int { return strings.Count(w.logs.String(), `msg="`+what+`"`) }
		_, stop := w.start(p)
		after(20 * time.Minute)
		old := w.inRecord(p).ID
		if err := w.buildProcess(&process{}, p).Rotate(context.Background(), p.Name, rotator.RotateOptions{Revoke: true}); err != nil {
			t.Fatal(err)
		}
		after(20 * time.Minute)
		want := `msg="key disabled by another process" policy=` + p.Name + ` key_id=` + old + ` replaced_by=` + w.inRecord(p).ID + ` proof=rejected`
		if n := lines("key disabled by another process"); n != 1 || !strings.Contains(w.logs.String(), want) {
			t.Errorf("%d lines of a key that a command disabled:\n%s\nwant %s", n, w.logs, want)
		}
		stop() // the next one deletes the old key, and does not learn at once that this is written
		lost := &process{fault: fault{call: "write secret/rekeyd/policies/", nth: 2, mode: applied}}
		_, stop = w.startProcess(lost, p)
		after(7 * time.Hour) // the quarantine ended
		if n, own := lines("key disabled by another process")+lines("key deleted by another process"), lines("key deleted"); n != 1 || own != 1 {
			t.Errorf("after a restart and the daemon's own delete there are %d lines of others, and %d of its own", n, own)
		}
		if !lost.fault.hit {
			t.Error("no answer was lost")
		}
		stop()
	})
}

// TestAFailureThatRepeatsIsLoggedOnceADay, and when its reason changes.
func TestAFailureThatRepeatsIsLoggedOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		r, stop := w.start(p)
		defer stop()
		after(2 * time.Hour)
		lines := func() int { return strings.Count(w.logs.String(), `msg="rotation failed"`) }
		fail := func(status int) {
			t.Helper()
			err := w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: "createAPIKey", Status: status, Code: "no", Message: "no"}}})
			if err != nil {
				t.Fatal(err)
			}
		}
		fail(403)
		after(20 * time.Hour) // due since 3 o'clock
		if n, failures := lines(), w.state(r, 0).Failures; n != 1 || failures < 10 {
			t.Errorf("%d lines of %d failures", n, failures)
		}
		after(10 * time.Hour)
		if n := lines(); n != 2 {
			t.Errorf("%d lines after a day", n)
		}
		fail(422)
		after(3 * time.Hour)
		if n := lines(); n != 3 {
			t.Errorf("%d lines after the reason changed", n)
		}
	})
}
