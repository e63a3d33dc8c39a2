package e2e

import (
	"errors"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// created waits until a key was made for us and returns its id.
func (w *world) created() string {
	w.t.Helper()
	var id string
	process.Eventually(w.t, process.Patience, func() error {
		for _, r := range w.history("createAPIKey") {
			if r.Applied {
				id = r.KeyID
				return nil
			}
		}
		return errors.New("no key was created")
	})
	return id
}

func delay(operation string, d time.Duration) elevensim.Faults {
	return elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Delay, Operation: operation, After: true, Duration: elevensim.Duration(d)}}}
}

// TestSIGTERM comes while the answer to a create is on its way.
func TestSIGTERM(t *testing.T) {
	t.Parallel()
	t.Run("the rotation finishes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, common.vault)
		old := w.seed()
		w.policy("@every 1h")
		w.sim.SetFaults(delay("createAPIKey", time.Second))
		stop := w.read()
		d := w.start(nil)
		id := w.created()
		if status := d.Stop(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		if record, _ := w.record(); record["key_id"] != id {
			t.Errorf("the record holds %v, not the new key %s", record["key_id"], id)
		}
		d = w.start(nil)
		w.settled(old)
		if record, _ := w.record(); record["key_id"] != id || len(w.history("createAPIKey")) != 1 {
			t.Errorf("rotated again after the restart: the record holds %v", record["key_id"])
		}
		stop()
		d.end()
	})
	t.Run("the time is too short", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, common.vault)
		old := w.seed()
		w.policy("@every 1h")
		w.sim.SetFaults(delay("createAPIKey", process.Patience))
		stop := w.read()
		d := w.start(map[string]string{"REKEYD_SHUTDOWN_TIMEOUT": "200ms"})
		id := w.created()
		if status := d.Stop(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		if record, _ := w.record(); record["key_id"] != old {
			t.Errorf("the record holds %v, not the old key %s", record["key_id"], old)
		}
		w.sim.SetFaults(elevensim.Faults{})
		d = w.start(nil)
		w.settled(old)
		if !w.gone(id) {
			t.Error("the key whose secret was lost is still there")
		}
		stop()
		d.end()
	})
}

// TestSIGKILL comes when a key exists and its secret is nowhere but in the process.
func TestSIGKILL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	old := w.seed()
	w.policy("@every 1h")
	w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Hang, Operation: "getUser"}}})
	stop := w.read()
	d := w.start(nil)
	id := w.created()
	d.Kill()
	if record, _ := w.record(); record["key_id"] != old {
		t.Fatalf("the record holds %v although the new key was never proved", record["key_id"])
	}
	w.sim.SetFaults(elevensim.Faults{})
	d = w.start(map[string]string{"REKEYD_CLAIM_TTL": "1s"})
	w.settled(old)
	if !w.gone(id) {
		t.Error("the key whose secret was lost is still there")
	}
	if n := len(w.history("createAPIKey")); n != 2 {
		t.Errorf("%d keys were created, want the lost one and one more", n)
	}
	stop()
	d.end()
}
