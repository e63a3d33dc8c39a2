package rotator_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// probed returns a policy whose key must read a voice and the models.
func probed(t *testing.T) plan.Policy {
	return testPolicy(t, func(p *plan.Policy) {
		p.Probes = []string{"/v1/voices/ours", "/v1/models"}
		p.Settings.Permissions.Names = []string{"voices_read", "models_read", "user_read"}
	})
}

// TestAProbeFindsWhatWasSharedWithTheOldKey, and not with its account: the new key is deleted, and readers keep the old one.
func TestAProbeFindsWhatWasSharedWithTheOldKey(t *testing.T) {
	w := newWorld(t)
	p := probed(t)
	synctest.Test(t, func(t *testing.T) {
		plain := p
		plain.Probes = nil
		r, stop := w.start(plain)
		defer stop()
		after(time.Minute)
		old := w.inRecord(p)
		w.sim.ShareVoice("ours", old.ID)
		r.Load([]plan.Policy{p}, w.clients(w.last))
		after(3*time.Hour + 10*time.Minute)
		st := w.state(r, 0)
		if now := w.inRecord(p); now.ID != old.ID || now.Disabled || len(w.alive()) != 1 {
			t.Errorf("the record holds %s (disabled %t), and %d keys exist", now.ID, now.Disabled, len(w.alive()))
		}
		if f := st.Failure; f == nil || f.Stage != ledger.StageVerify || f.Reason != ledger.FailureProbeFailed || !strings.Contains(f.Message, "/v1/voices/ours") || !strings.Contains(f.Message, "404") {
			t.Errorf("the failure is %+v", f)
		}
		w.sim.ShareVoice("ours", account)
		after(2 * time.Hour)
		if now := w.inRecord(p); now.ID == old.ID {
			t.Error("the rotation does not succeed once the voice is shared with the account")
		}
		history := w.entry(p).History
		if last := history[len(history)-1]; len(last.Probes) != 2 || last.Probes[0] != (ledger.ProbeAnswer{Path: "/v1/voices/ours", Status: 200}) {
			t.Errorf("the probes are remembered as %+v", last.Probes)
		}
	})
}

// TestAProbeWaitsForANewKey that is not known everywhere yet, with verify off too.
func TestAProbeWaitsForANewKey(t *testing.T) {
	w := newWorld(t)
	w.sim.ShareVoice("ours", account)
	if err := w.sim.SetFaults(elevensim.Faults{KeyDelay: elevensim.Duration(10 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	p := probed(t)
	p.Verify = false
	synctest.Test(t, func(t *testing.T) {
		_, stop := w.start(p)
		defer stop()
		after(time.Minute)
		if k := w.inRecord(p); k.Disabled || w.countEvents(rotator.EventFailed) != 0 {
			t.Errorf("%d rotations failed", w.countEvents(rotator.EventFailed))
		}
	})
}

// TestAProbeFromAnAddressThatTheKeyRefuses says nothing about the path.
func TestAProbeFromAnAddressThatTheKeyRefuses(t *testing.T) {
	w := newWorld(t)
	p := probed(t)
	p.Settings.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	synctest.Test(t, func(t *testing.T) {
		_, stop := w.start(p)
		defer stop()
		after(time.Minute)
		w.inRecord(p)
		if !strings.Contains(w.logs.String(), "path not probed") {
			t.Error("the log does not say that the paths were not probed")
		}
		if past := w.entry(p).History[0]; len(past.Probes) != 2 || past.Probes[0].Status != 403 {
			t.Errorf("the probes are remembered as %+v", past.Probes)
		}
	})
}

// TestAProbeThatCannotSucceed does not use up the verify timeout.
func TestAProbeThatCannotSucceed(t *testing.T) {
	w := newWorld(t)
	w.sim.ShareVoice("ours", account)
	rule := elevensim.Rule{Kind: elevensim.Status, Operation: "getVoice", Status: 422, Code: "invalid_voice"}
	if err := w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{rule}}); err != nil {
		t.Fatal(err)
	}
	p := probed(t)
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p)
		defer stop()
		after(5 * time.Second)
		if f := w.state(r, 0).Failure; f == nil || f.Reason != ledger.FailureProbeFailed {
			t.Errorf("five seconds later the failure is %+v", f)
		}
		if n := len(w.alive()); n != 0 {
			t.Errorf("%d keys are left", n)
		}
	})
}

// TestProofOfTheEnd: a disabled key's secret is tried once more, until it is rejected.
func TestProofOfTheEnd(t *testing.T) {
	for _, lag := range []time.Duration{0, 90 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newArena(t)
			p := testPolicy(t, nil)
			r, stop := w.daemon(options{}, p)
			defer stop()
			after(time.Minute)
			old := w.inRecord(p)
			if err := w.sim.SetFaults(elevensim.Faults{DisableLag: elevensim.Duration(lag)}); err != nil {
				t.Fatal(err)
			}
			after(7*time.Hour + 5*time.Minute) // the overlap ended at 7
			e := w.entry(p)
			past, state := e.PastOf(old.ID), w.state(r, 0)
			want := ledger.Rejected
			if lag > 0 {
				want = ledger.StillAccepted
			}
			if past.Proof != want || past.ProofAt.IsZero() || e.Retiring[0].Proof != want || state.State != plan.StateOK || state.Failures != 0 {
				t.Errorf("accepted for %s: the proof is %q at %s, the policy %s", lag, past.Proof, past.ProofAt, state.State)
			}
			after(3 * time.Hour)
			if e := w.entry(p); e.PastOf(old.ID).Proof != ledger.Rejected {
				t.Errorf("accepted for %s: three hours later the proof is %q", lag, e.PastOf(old.ID).Proof)
			}
			if strings.Contains(w.logs.String(), "no effect") {
				t.Error("a proof is logged as a step without effect")
			}
		})
	}
}

// TestNoProofWithoutTheSecret: a store that keeps no versions has it no more, which is no problem that a person could solve.
func TestNoProofWithoutTheSecret(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p)
		defer stop()
		after(7*time.Hour + 5*time.Minute)
		if e := w.entry(p); e.Retiring[0].Proof != ledger.NotTried {
			t.Errorf("the proof is %q", e.Retiring[0].Proof)
		}
		if all := w.problems(r); len(all) > 0 {
			t.Errorf("problems %q", all)
		}
	})
}

// problems are those of the only policy.
func (w *world) problems(r *rotator.Rotator) []rotator.Problem {
	s := w.state(r, 0)
	return s.Problems("", time.Now())
}

// TestAMissingProofIsAProblem until the key is deleted: where the version that had its secret is gone, or no answer is clear.
func TestAMissingProofIsAProblem(t *testing.T) {
	unclear := elevensim.Rule{Kind: elevensim.Status500, Operation: "getUser"}
	for _, destroyed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newArena(t)
			p := testPolicy(t, nil)
			r, stop := w.daemon(options{}, p)
			defer stop()
			after(time.Minute)
			old := w.inRecord(p)
			after(6 * time.Hour) // rotated at 3, disabled at 7
			if destroyed {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://vault.invalid/v1/secret/destroy/"+p.Sink.Path,
					strings.NewReader(fmt.Sprintf(`{"versions": [%d]}`, w.entry(p).Retiring[0].Version)))
				w.must(err)
				request.Header.Set("X-Vault-Token", "hvs.tok")
				answer, err := w.kv.RoundTrip(request)
				w.must(err)
				w.must(answer.Body.Close())
			} else {
				w.setFaults(elevensim.Faults{Rules: []elevensim.Rule{unclear}})
			}
			after(64 * time.Minute)
			if all := w.problems(r); (len(all) > 0) != destroyed {
				t.Errorf("destroyed %t: just after the disable the problems are %q", destroyed, all)
			}
			after(10 * time.Minute)
			if all := w.problems(r); !slices.Equal(all, []rotator.Problem{rotator.ProblemProofMissing}) {
				t.Errorf("destroyed %t: the proof is %q, the problems %q", destroyed, w.entry(p).Retiring[0].Proof, all)
			}
			w.must(w.sim.DeleteKey(old.ID))
			after(2 * time.Minute)
			if all := w.problems(r); len(all) > 0 {
				t.Errorf("destroyed %t: once the key is gone the problems are %q", destroyed, all)
			}
		})
	}
}

// TestALeakedKeyIsProvenDead, although rekeyd did not disable it.
func TestALeakedKeyIsProvenDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Minute)
		old := w.inRecord(p)
		if err := w.sim.DisableKey(old.ID, "exposed_publicly"); err != nil {
			t.Fatal(err)
		}
		after(5 * time.Minute)
		if e := w.entry(p); e.PastOf(old.ID) == nil || e.PastOf(old.ID).Proof != ledger.Rejected {
			t.Errorf("the history of the leaked key is %+v", e.PastOf(old.ID))
		}
	})
}

// TestWaitUntilUsed: the old key stays until the new one was seen in use, and no longer than the policy allows.
func TestWaitUntilUsed(t *testing.T) {
	for name, tc := range map[string]struct {
		use    bool
		maxAge time.Duration
		ends   time.Duration // after the overlap
	}{
		"used":    {use: true, ends: 30 * time.Minute},
		"unused":  {ends: 2 * time.Hour},
		"max_age": {maxAge: 7*time.Hour + 40*time.Minute, ends: 40 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := testPolicy(t, func(p *plan.Policy) { p.WaitUntilUsed = 2 * time.Hour })
			synctest.Test(t, func(t *testing.T) {
				r, stop := w.start(p)
				defer stop()
				after(time.Minute)
				old := w.inRecord(p)
				after(6*time.Hour + 59*time.Minute) // rotated at 3, a minute after the end of the overlap at 7
				if k := w.key(old.Secret); k.Disabled {
					t.Fatal("the old key is disabled although the new one was not used")
				}
				if missing := w.state(r, 0).Missing[old.ID]; len(missing) != 1 || missing[0] != plan.WaitNewKeyUnused {
					t.Errorf("the evidence that is missing: %q", missing)
				}
				if tc.maxAge > 0 {
					p.MaxAge = tc.maxAge
					r.Load([]plan.Policy{p}, w.clients(w.last))
				}
				after(tc.ends - 3*time.Minute)
				if k := w.key(old.Secret); k.Disabled {
					t.Error("the old key was disabled too early")
				}
				if tc.use {
					if err := w.sim.AddUsage(w.inRecord(p).ID, 5); err != nil {
						t.Fatal(err)
					}
				}
				after(5 * time.Minute)
				if k := w.key(old.Secret); !k.Disabled {
					t.Error("the old key is still enabled")
				}
			})
		})
	}
}

// TestAKeyThatIsPutBackIsUnused, even to a process that did not see it replaced.
func TestAKeyThatIsPutBackIsUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, func(p *plan.Policy) { p.WaitUntilUsed, p.Overlap = 3*time.Hour, time.Hour })
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(30 * time.Second)
		first := w.inRecord(p)
		if err := w.sim.AddUsage(first.ID, 5); err != nil {
			t.Fatal(err)
		}
		after(5 * time.Minute)
		if err := w.build(options{}, p).Rotate(context.Background(), p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		second := w.inRecord(p)
		if err := w.build(options{}, p).Rollback(context.Background(), p.Name); err != nil {
			t.Fatal(err)
		}
		if k := w.inRecord(p); k.ID != first.ID {
			t.Fatalf("the record holds key %s", k.ID)
		}
		after(2 * time.Hour) // until past 2, before the schedule's 3
		if k := w.key(second.Secret); k.Disabled {
			t.Error("the key that was rolled back is disabled although the one put back was not used since")
		}
		if err := w.sim.AddUsage(first.ID, 5); err != nil {
			t.Fatal(err)
		}
		after(5 * time.Minute)
		if k := w.key(second.Secret); !k.Disabled {
			t.Error("the key that was rolled back is still enabled")
		}
	})
}
