package rotator_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

func TestARotationFromFirstKeyToDeletedKey(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	w.sim.OnChange(func(c elevensim.Change) {
		kind := map[elevensim.ChangeKind]ledger.CallKind{elevensim.Disabled: ledger.CallDisable, elevensim.Deleted: ledger.CallDelete}[c.Kind]
		if e := w.entry(p); e.Claim == nil || kind != "" && !e.Key(c.Key.ID).Outstanding(kind, c.Time) {
			t.Errorf("a key was %s without a claim or a note of that: %+v", c.Kind, e)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p)
		defer stop()
		after(5 * time.Second)
		first := w.inRecord(p)
		if first.Disabled || len(w.alive()) != 1 {
			t.Fatalf("after the first key: %+v", w.alive())
		}
		if err := r.Ready(); err != nil {
			t.Errorf("Ready() = %v", err)
		}

		after(4 * time.Hour) // past the first 03:00, within the overlap
		second := w.inRecord(p)
		if second.ID == first.ID {
			t.Fatal("the schedule did not rotate the key")
		}
		if rec := w.record(p); rec["previous_key_id"] != first.ID || rec["key_id"] != second.ID {
			t.Errorf("record: key_id %v, previous_key_id %v", rec["key_id"], rec["previous_key_id"])
		}
		if k, _ := w.sim.KeyBySecret(first.Secret); k.Disabled {
			t.Error("the old key was disabled within its overlap")
		}
		after(4 * time.Hour)
		if k, _ := w.sim.KeyBySecret(first.Secret); !k.Disabled || k.Deleted() {
			t.Errorf("after the overlap: disabled %t, deleted %t", k.Disabled, k.Deleted())
		}
		after(7 * time.Hour)
		if k, _ := w.sim.KeyBySecret(first.Secret); !k.Deleted() {
			t.Error("after the quarantine the old key still exists")
		}
		if got := w.countEvents(rotator.EventRotated); got != 2 {
			t.Errorf("%d rotations were reported, want 2", got)
		}
		want := []string{"key created", "record published", "rotated", "key created", "record published", "rotated", "key disabled", "disabled key checked", "key deleted"}
		if got := w.audited(); !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
		for _, not := range []string{"level=ERROR", "level=WARN", "recovered=true"} {
			if strings.Contains(w.logs.String(), not) {
				t.Errorf("a life without a fault logs %s", not)
			}
		}
	})
}

// audited returns the messages of the log lines that tell of a change, in their order.
func (w *world) audited() (messages []string) {
	for line := range strings.Lines(w.logs.String()) {
		if _, rest, _ := strings.Cut(line, "msg="); strings.Contains(rest, "outcome=done") {
			msg, _, _ := strings.Cut(strings.TrimPrefix(rest, `"`), " policy=")
			messages = append(messages, strings.TrimSuffix(msg, `"`))
		}
	}
	return messages
}

// A plain rotation makes eight remote calls, in this order, and no other.
func TestAPlainRotationMakesEightCalls(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, betweenResyncs(t))
	synctest.Test(t, func(t *testing.T) {
		proc := &process{}
		_, stop := w.startProcess(proc, p)
		defer stop()
		after(3*time.Hour + 7*time.Minute - time.Second)
		before := proc.made()
		after(2 * time.Second)
		const keys = "/v1/service-accounts/" + account + "/api-keys"
		want := []string{
			"write secret/rekeyd/policies/tts-prod", "read secret/elevenlabs/tts-prod", "POST " + keys, "GET /v1/user", "GET " + keys,
			"write secret/elevenlabs/tts-prod", "read secret/elevenlabs/tts-prod", "write secret/rekeyd/policies/tts-prod",
		}
		var got []string
		for _, call := range proc.made()[len(before):] {
			if call != "GET /v1/service-accounts" && call != "read secret/rekeyd/owner" { // whose time may be now, due or not
				got = append(got, call)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
