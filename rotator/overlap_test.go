package rotator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// TestAnOverlapIsAtLeastAsLongAsItsPolicySays: it begins within a second, and records hold whole ones.
func TestAnOverlapIsAtLeastAsLongAsItsPolicySays(t *testing.T) {
	for _, overlap := range []time.Duration{time.Second, 4 * time.Hour, time.Hour + time.Millisecond} {
		w := newWorld(t)
		p := testPolicy(t, func(p *plan.Policy) { p.Overlap = overlap })
		synctest.Test(t, func(t *testing.T) {
			var disabled time.Time
			w.sim.OnChange(func(c elevensim.Change) {
				if c.Kind == elevensim.Disabled {
					disabled = c.Time
				}
			})
			r, stop := w.daemon(options{}, p)
			defer stop()
			after(time.Minute + 853*time.Millisecond)
			if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			made, record := w.inRecord(p).CreatedAt, w.record(p)
			promised, err := time.Parse(time.RFC3339, record["previous_valid_until"].(string))
			if err != nil || made.Nanosecond() == 0 {
				t.Fatalf("the second key is of %s: %v", made, err)
			}
			after(overlap + 2*time.Second)
			if disabled.Before(made.Add(overlap)) || disabled.Before(promised) || promised.Before(made.Add(overlap)) || promised.Sub(made.Add(overlap)) >= 2*time.Second {
				t.Errorf("an overlap of %s: the new key is of %s, the old one was promised until %s and disabled at %s", overlap, made, promised, disabled)
			}
		})
	}
}
