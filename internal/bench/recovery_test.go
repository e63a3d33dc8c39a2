package bench

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestRecovery measures how long it takes until rotations go on after kill -9, and until all are done after an outage
// of Vault.
func TestRecovery(t *testing.T) {
	if !asked(t) {
		return
	}
	w := newWorld(t, vaulttest.StartPersistent(t))
	d, _ := w.daemon()
	due := time.Now().Truncate(time.Minute).Add(2 * time.Minute)
	sleepUntil(due.Add(time.Second))
	d.Kill()
	killed := time.Now()
	w.start()
	process.Eventually(t, time.Minute, func() error {
		if w.rotated() == 0 {
			return errors.New("nothing is rotated")
		}
		return nil
	})
	t.Logf("from kill -9 in the middle of %d rotations to the first completed one: %s", accounts, ms(time.Since(killed)))

	due = time.Now().Truncate(time.Minute).Add(2 * time.Minute)
	sleepUntil(due.Add(-5 * time.Second))
	done := w.rotated()
	w.vault.Kill()
	sleepUntil(due.Add(10 * time.Second))
	w.vault.Restart(t)
	back := time.Now()
	w.await(done + accounts)
	t.Logf("from Vault's return to the end of %d overdue rotations: %s", accounts, ms(time.Since(back)))
}

// TestLeak measures how long it takes from a key's leak to the next key in Vault, with the default interval.
func TestLeak(t *testing.T) {
	if !asked(t) {
		return
	}
	f := newFleet(t, 10, 1)
	f.start()
	f.awaitKeys()
	client := f.vault.Client(t)
	current := func(i int) string {
		s, err := client.KVv2("secret").Get(t.Context(), fmt.Sprint("elevenlabs/p-", i))
		if err != nil {
			t.Fatal(err)
		}
		id, _ := s.Data["key_id"].(string)
		return id
	}
	took := make([]time.Duration, f.policies)
	for i := range took {
		leaked := current(i)
		begun := time.Now()
		f.sims[0].Ask(http.MethodPost, "keys/"+leaked+"/disable", map[string]string{"reason": "exposed_publicly"}, &struct{}{})
		process.Eventually(t, 3*time.Minute, func() error {
			if current(i) == leaked {
				return errors.New("the leaked key is still there")
			}
			return nil
		})
		took[i] = time.Since(begun)
		// What follows a rotation is always as long before the next listing, so the leaks are spread over a minute.
		sleepUntil(begun.Add(took[i] + time.Duration(i+1)*6*time.Second))
	}
	slices.Sort(took)
	t.Logf("from a leak to the next key in Vault, of %d: shortest %s, median %s, longest %s", len(took), ms(took[0]), ms(took[len(took)/2]), ms(took[len(took)-1]))
}
