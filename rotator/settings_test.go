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

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

// What the policy manages is its own; the rest is the replaced key's, as listed, or else as it was created.
func TestNewSettings(t *testing.T) {
	some, none := elevenlabs.Some[int64], elevenlabs.None[int64]
	five := int64(5)
	type optional = elevenlabs.Optional
	for name, tc := range map[string]struct {
		policy  optional
		listed  *optional // nil: the current key is not listed
		created *ledger.Settings
		want    optional
		unknown []string
	}{
		"nothing known": {listed: &optional{}, unknown: []string{"tts_concurrency_limit", "dubbing_concurrency_limit", "music_concurrency_limit", "third_party_disable_allowed"}},
		"carried": {
			listed: &optional{TTSConcurrency: some(0), DubbingConcurrency: none(), MusicConcurrency: some(3), ThirdPartyDisable: elevenlabs.Some(false)},
			want:   optional{TTSConcurrency: some(0), DubbingConcurrency: none(), MusicConcurrency: some(3), ThirdPartyDisable: elevenlabs.Some(false)},
		},
		"managed": {
			policy: optional{TTSConcurrency: some(9), DubbingConcurrency: none(), ThirdPartyDisable: elevenlabs.Some(true)},
			listed: &optional{TTSConcurrency: some(1), DubbingConcurrency: some(2), MusicConcurrency: some(3), ThirdPartyDisable: elevenlabs.Some(false)},
			want:   optional{TTSConcurrency: some(9), DubbingConcurrency: none(), MusicConcurrency: some(3), ThirdPartyDisable: elevenlabs.Some(true)},
		},
		"not listed": {created: &ledger.Settings{TTSConcurrency: &five}, want: optional{TTSConcurrency: some(5)}},
		"listed after its create": {listed: &optional{TTSConcurrency: none()}, created: &ledger.Settings{TTSConcurrency: &five, MusicConcurrency: &five}, want: optional{TTSConcurrency: none()},
			unknown: []string{"dubbing_concurrency_limit", "music_concurrency_limit", "third_party_disable_allowed"}},
	} {
		p, o := planStage(t)
		p.Settings.Optional, o.Entry.Current.Settings = tc.policy, tc.created
		if tc.listed == nil {
			o.Keys = o.Keys[:1]
		} else {
			o.Keys[1].Settings.Optional = *tc.listed
		}
		o.Keys[0].Settings.Optional = optional{TTSConcurrency: some(77), MusicConcurrency: some(77)} // of a key that is retired
		if got, unknown := plan.NewSettings(p, o); got != tc.want || !slices.Equal(unknown, tc.unknown) {
			t.Errorf("%s: %+v, unknown %v; want %+v, %v", name, got, unknown, tc.want, tc.unknown)
		}
	}
	p, o := planStage(t)
	p.Settings.TTSConcurrency, o.Entry = some(4), nil
	if got, unknown := plan.NewSettings(p, o); got != p.Settings.Optional || unknown != nil {
		t.Errorf("of the first key: %+v, unknown %v", got, unknown)
	}
}

// capped is a key as an Enterprise workspace has it.
func capped() elevensim.KeySpec {
	no := false
	tts, music := int64(10), int64(0)
	return elevensim.KeySpec{Name: "by hand", Permissions: []string{"text_to_speech", "user_read"}, TTSConcurrency: &tts, MusicConcurrency: &music, ThirdPartyDisable: &no}
}

// adopted returns a policy that adopts a capped key, whose secret is in its record. It must be called in a synctest bubble, so
// that the key is not made in the future.
func (w *world) adopted(change func(*plan.Policy)) plan.Policy {
	w.t.Helper()
	id, secret, err := w.sim.AddKey(account, capped())
	if err != nil {
		w.t.Fatal(err)
	}
	p := testPolicy(w.t, func(p *plan.Policy) {
		if p.Adopt = id; change != nil {
			change(p)
		}
	})
	w.put(p, map[string]any{"api_key": secret})
	return p
}

// optionals returns a key's optional settings in words.
func optionals(k elevensim.Key) string {
	word := func(n *int64) string {
		if n == nil {
			return "none"
		}
		return fmt.Sprint(*n)
	}
	third := "default"
	if k.ThirdPartyDisable != nil {
		third = fmt.Sprint(*k.ThirdPartyDisable)
	}
	return fmt.Sprintf("tts %s, dubbing %s, music %s, third party %s", word(k.TTSConcurrency), word(k.DubConcurrency), word(k.MusicConcurrency), third)
}

const asCapped = "tts 10, dubbing none, music 0, third party false"

func (w *world) wantSettings(p plan.Policy, when, want string) elevensim.Key {
	w.t.Helper()
	k := w.inRecord(p)
	if got := optionals(k); got != want {
		w.t.Errorf("%s the key in the record has %s; want %s", when, got, want)
	}
	return k
}

// An adopted key's limits go on to its successors, and a policy's own settings go before them.
func TestUnmanagedSettingsAreCarriedOver(t *testing.T) {
	for name, tc := range map[string]struct {
		manage func(*plan.Policy)
		want   string
	}{
		"nothing managed": {nil, asCapped},
		"some managed": {func(p *plan.Policy) {
			p.Settings.TTSConcurrency, p.Settings.DubbingConcurrency = elevenlabs.Some(int64(4)), elevenlabs.Some(int64(2))
		}, "tts 4, dubbing 2, music 0, third party false"},
		"some cleared": {func(p *plan.Policy) {
			p.Settings.TTSConcurrency, p.Settings.ThirdPartyDisable = elevenlabs.None[int64](), elevenlabs.Some(true)
		}, "tts none, dubbing none, music 0, third party true"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				p := w.adopted(tc.manage)
				w.guardReaders(p)
				r, stop := w.start(p)
				defer stop()
				after(time.Minute)
				first := w.wantSettings(p, "after the adoption", tc.want) // what is managed was patched
				if s := r.Snapshot().Policies[0]; s.State != plan.StateOK || len(s.Drift) > 0 {
					t.Errorf("after the adoption it is %s, drifted in %v: %s", s.State, s.Drift, s.Message)
				}
				after(5 * time.Hour)
				second := w.wantSettings(p, "after one rotation", tc.want)
				after(24 * time.Hour)
				third := w.wantSettings(p, "after two rotations", tc.want)
				if first.ID == second.ID || second.ID == third.ID {
					t.Error("it did not rotate")
				}
				if strings.Contains(w.logs.String(), "does not show these settings") {
					t.Error("the log says that the listing shows no settings")
				}
			})
		})
	}
}

// A first key has nothing to carry over, and a person's change of a key goes on to its successor.
func TestSettingsAreThoseOfTheReplacedKey(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, nil)
	if _, _, err := w.sim.AddKey(account, capped()); err != nil { // of the same account, and none of the policy's
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		_, stop := w.start(p)
		defer stop()
		after(time.Hour)
		const unlimited = "tts none, dubbing none, music none, third party default"
		first := w.wantSettings(p, "as the first key", unlimited)
		w.patchByHand(first, `"tts_concurrency_limit":7,"third_party_disable_allowed":true`)
		after(4 * time.Hour)
		second := w.wantSettings(p, "after one rotation", "tts 7, dubbing none, music none, third party true")
		w.patchByHand(second, `"tts_concurrency_limit":"clear","third_party_disable_allowed":"clear"`)
		after(24 * time.Hour) // the first key still has its limit
		w.wantSettings(p, "after two rotations", unlimited)
	})
}

// patchByHand changes a key as a person does.
func (w *world) patchByHand(k elevensim.Key, fields string) {
	w.t.Helper()
	body := strings.NewReader(fmt.Sprintf(`{"name":%q,%s}`, k.Name, fields))
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPatch, "http://127.0.0.1/v1/service-accounts/"+k.Account+"/api-keys/"+k.ID, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header = http.Header{"Xi-Api-Key": {adminKey}, "Content-Type": {"application/json"}}
	resp, err := w.api.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("patching by hand: %d (%v)", resp.StatusCode, err)
	}
}

// A key that no listing shows any more, or not yet, has what the ledger says that it was created with.
func TestSettingsOfAKeyThatIsNotListed(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		p := w.adopted(nil)
		r, stop := w.start(p)
		defer stop()
		after(time.Minute + time.Second)
		for range 2 {
			before := w.inRecord(p)
			w.must(r.Request(p.Name, rotator.RotateOptions{}))
			after(5 * time.Second) // before the next listing
			if k := w.wantSettings(p, "right after another rotation", asCapped); k.ID == before.ID {
				t.Fatal("it did not rotate")
			}
		}
		gone := w.inRecord(p)
		w.must(w.sim.DeleteKey(gone.ID))
		after(5 * time.Minute)
		if k := w.wantSettings(p, "after the key was deleted", asCapped); k.ID == gone.ID {
			t.Error("the deleted key was not replaced")
		}
	})
}

// … an adopted one, which this installation never made, too.
func TestSettingsOfAnAdoptedKeyThatIsDeleted(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		p := w.adopted(nil)
		_, stop := w.start(p)
		defer stop()
		after(time.Second)
		gone := w.inRecord(p)
		w.must(w.sim.DeleteKey(gone.ID))
		after(5 * time.Minute)
		if k := w.wantSettings(p, "after the adopted key was deleted", asCapped); k.ID == gone.ID {
			t.Error("the deleted key was not replaced")
		}
	})
}

// A key whose rotation was finished by another process is known with its settings.
func TestSettingsOfARecoveredRotation(t *testing.T) {
	for _, m := range []mode{notApplied, diesBefore} {
		t.Run(string(m), func(t *testing.T) {
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				p := w.adopted(nil)
				proc := &process{fault: fault{call: "write secret/rekeyd/policies", nth: 3, mode: m}}
				_, stop := w.startProcess(proc, p)
				after(3*time.Hour + time.Minute)
				if m == diesBefore {
					stop()
					_, stop = w.start(p)
				}
				defer func() { stop() }()
				after(20 * time.Minute)
				if e := w.entry(p); !proc.fault.hit || e.Claim != nil || e.Current.Rotation == "" || e.Current.Settings == nil || *e.Current.Settings.TTSConcurrency != 10 {
					t.Errorf("the commit failed: %t; then the entry is %+v with the current key %+v", proc.fault.hit, e, e.Current)
				}
			})
		})
	}
}

// A listing that does not show the new key yet says nothing about what it was given.
func TestALaggingListingSaysNothingOfSettings(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		p := w.adopted(nil)
		after(time.Minute)
		w.setFaults(elevensim.Faults{ListLag: elevensim.Duration(40 * time.Second)})
		_, stop := w.start(p)
		defer stop()
		after(4 * time.Hour)
		if w.countEvents(rotator.EventRotated) != 1 || strings.Contains(w.logs.String(), "were not taken over") {
			t.Errorf("%d rotations, and the log has what was not taken over", w.countEvents(rotator.EventRotated))
		}
	})
}

// A plan that drops allowed_ips, drift that is answered by a rotation, and listings that lag, for a while or for longer than the
// verify timeout: one rotation shows that another one does not help, and what scheduled rotations make has no drift that is new.
func TestADroppedSettingAndALaggingListing(t *testing.T) {
	for _, lag := range []time.Duration{0, 10 * time.Second, 10 * time.Minute} {
		for dropped := range 2 {
			t.Run(fmt.Sprintf("%s, %d", lag, dropped), func(t *testing.T) {
				w := newWorld(t)
				p := testPolicy(t, func(p *plan.Policy) { p.OnDrift = plan.DriftRotate })
				synctest.Test(t, func(t *testing.T) {
					_, stop := w.start(p)
					after(time.Minute)
					w.setFaults(elevensim.Faults{IgnoreAllowedIPs: dropped == 1, ListLag: elevensim.Duration(lag)})
					stop()
					p.Settings.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
					r, stop := w.start(p)
					defer stop()
					after(20 * time.Hour)
					s := r.Snapshot().Policies[0]
					n := strings.Count(w.logs.String(), "msg=rotated policy=tts-prod action=rotate trigger=drift")
					if n != 1 || w.countEvents(rotator.EventRotated) != 3 || (s.Reason == plan.FaultSettingsIgnored) != (dropped == 1) {
						t.Errorf("%d rotations for drift, want one; the policy is %s (%s): %s", n, s.State, s.Reason, s.Message)
					}
				})
			})
		}
	}
}

// An older API lists no such settings: nothing is carried over, nothing drifts, and it is said once.
func TestAnOlderAPIWithoutOptionalSettings(t *testing.T) {
	w := newWorld(t)
	p := testPolicy(t, func(p *plan.Policy) { p.Settings.TTSConcurrency = elevenlabs.None[int64]() })
	q := second(t, nil)
	w.setFaults(elevensim.Faults{NoOptionalFields: true})
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.start(p, q)
		defer stop()
		after(3 * 24 * time.Hour)
		for _, s := range r.Snapshot().Policies {
			if s.State != plan.StateOK || s.Successes != 4 || s.Failures != 0 || s.ThirdPartyDisable.Known {
				t.Errorf("%s is %s after %d rotations and %d failures: %s", s.Policy.Name, s.State, s.Successes, s.Failures, s.Message)
			}
		}
		if n := strings.Count(w.logs.String(), "does not show these settings"); n != 1 {
			t.Errorf("the log says %d times that the listing shows no settings", n)
		}
	})
}

// A plan that does not offer a setting: the rotation fails with a sentence that says what to do, waits longer each time, and the
// old key stays. Once the policy clears the setting, it rotates.
func TestAPlanThatRefusesASetting(t *testing.T) {
	for name, tc := range map[string]struct {
		manage func(*plan.Policy)
		refuse string
		says   string
		clear  func(*plan.Policy)
		want   string
	}{
		"carried over": {nil, "tts_concurrency_limit",
			"ElevenLabs refuses tts_concurrency_limit 10, which the key to replace has; set it in policy tts-prod to none, or to what the plan of the workspace offers: ",
			func(p *plan.Policy) { p.Settings.TTSConcurrency = elevenlabs.None[int64]() }, "tts none, dubbing none, music 0, third party false"},
		"managed": {func(p *plan.Policy) { p.Settings.DubbingConcurrency = elevenlabs.Some(int64(3)) }, "dubbing_concurrency_limit",
			"ElevenLabs refuses dubbing_concurrency_limit 3, which the policy asks for; set it in policy tts-prod to none, or to what the plan of the workspace offers: ",
			func(p *plan.Policy) { p.Settings.DubbingConcurrency = elevenlabs.None[int64]() }, asCapped},
		"third parties": {nil, "third_party_disable_allowed",
			"ElevenLabs refuses third_party_disable_allowed false, which the key to replace has; set it in policy tts-prod to what the plan of the workspace offers: ", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				p := w.adopted(tc.manage)
				w.guardReaders(p)
				r, stop := w.start(p)
				defer stop()
				after(time.Minute)
				old := w.inRecord(p)
				w.setFaults(elevensim.Faults{NotOffered: []string{tc.refuse}})
				after(27 * time.Hour)
				s := r.Snapshot().Policies[0]
				if f := s.Failure; f == nil || f.Stage != ledger.StageCreate || f.Reason != ledger.FailureInvalidRequest || !strings.Contains(f.Message, tc.says) {
					t.Errorf("the failure is %+v; want %q", s.Failure, tc.says)
				}
				if k := w.inRecord(p); k.ID != old.ID || k.Disabled || len(w.alive()) != 1 {
					t.Errorf("the old key did not stay: %+v", w.alive())
				}
				if n := w.creates(); n < 5 || n > 40 {
					t.Errorf("%d creates in a day", n)
				}
				if tc.clear == nil {
					return
				}
				tc.clear(&p)
				r.Load([]plan.Policy{p}, w.clients(w.last))
				after(time.Hour)
				if k := w.wantSettings(p, "once the policy clears it", tc.want); k.ID == old.ID {
					t.Error("it does not rotate once the policy clears the setting")
				}
			})
		})
	}
}

// A plan that accepts a setting and drops it: of what was carried over the log says so, and of what is managed the policy.
func TestAPlanThatDropsASetting(t *testing.T) {
	w := newWorld(t)
	q := second(t, func(p *plan.Policy) { p.Settings.DubbingConcurrency = elevenlabs.Some(int64(3)) })
	synctest.Test(t, func(t *testing.T) {
		p := w.adopted(func(p *plan.Policy) { p.Settings.DubbingConcurrency = elevenlabs.None[int64]() })
		w.setFaults(elevensim.Faults{NotTaken: []string{"tts_concurrency_limit", "dubbing_concurrency_limit"}})
		r, stop := w.start(p, q)
		defer stop()
		after(5 * time.Hour)
		w.wantSettings(p, "with what the plan took", "tts none, dubbing none, music 0, third party false")
		if n := strings.Count(w.logs.String(), `msg="settings of the replaced key were not taken over by the new one"`); n != 1 || !strings.Contains(w.logs.String(), "settings=[tts_concurrency_limit]") {
			t.Errorf("the log says %d times what was not taken over", n)
		}
		if s := named(t, r, p.Name); s.State != plan.StateOK {
			t.Errorf("%s is %s: %s", p.Name, s.State, s.Message)
		}
		wantRefusal(t, named(t, r, q.Name), plan.FaultSettingsIgnored, "dubbing_concurrency_limit")
	})
}

// A patch of what drifted leaves what the policy does not manage.
func TestAPatchLeavesUnmanagedSettings(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		p := w.adopted(func(p *plan.Policy) { p.Settings.TTSConcurrency = elevenlabs.Some(int64(10)) })
		_, stop := w.start(p)
		defer stop()
		after(time.Minute)
		k := w.inRecord(p)
		w.patchByHand(k, `"permissions":"all","tts_concurrency_limit":99,"dubbing_concurrency_limit":5`)
		after(10 * time.Minute)
		if k := w.wantSettings(p, "after the patch", "tts 10, dubbing 5, music 0, third party false"); k.Permissions == nil {
			t.Error("the drift was not patched")
		}
		if want := `changes="[permissions: all to `; !strings.Contains(w.logs.String(), want) || !strings.Contains(w.logs.String(), "tts_concurrency_limit: 99 to 10") {
			t.Errorf("the log does not say what was patched:\n%s", w.logs)
		}
	})
}

func TestTheLedgerKeepsSettingsOnlyWhereThereAreSome(t *testing.T) {
	w := newWorld(t)
	q := second(t, nil)
	synctest.Test(t, func(t *testing.T) {
		p := w.adopted(nil)
		_, stop := w.start(p, q)
		defer stop()
		after(5 * time.Hour)
		if e := w.entry(p); e.Current.Settings == nil || *e.Current.Settings.TTSConcurrency != 10 || e.Current.Settings.DubbingConcurrency != nil {
			t.Errorf("the entry of a capped key: %+v", e.Current.Settings)
		}
		if e := w.entry(q); e.Current.Settings != nil {
			t.Errorf("the entry of a plain key: %+v", e.Current.Settings)
		}
	})
}

// The settings are decided and written down before the create, so every way in which a write can fail leaves them right.
func TestSettingsFourWays(t *testing.T) {
	long(t)
	const document, record = "write secret/rekeyd/policies", "write secret/elevenlabs"
	for _, at := range []lifeWrite{{"adoption", document, 1}, {"claim", document, 2}, {"create", "POST", 1}, {"publish", record, 1}, {"commit", document, 3}} {
		for _, m := range []mode{notApplied, applied, diesBefore, diesAfter} {
			t.Run(fmt.Sprintf("%s %s", at.name, m), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				synctest.Test(t, func(*testing.T) {
					p := w.adopted(func(p *plan.Policy) { brief(p); p.Settings.TTSConcurrency = elevenlabs.Some(int64(10)) })
					w.guardReaders(p)
					w.sim.OnChange(func(c elevensim.Change) {
						if c.Kind == elevensim.Created && optionals(c.Key) != asCapped {
							w.t.Errorf("a key was created with %s", optionals(c.Key))
						}
					})
					w.survive(p, fault{call: at.call, nth: at.nth, mode: m})
					w.wantSettings(p, "in the end", asCapped)
					if e := w.entry(p); e.Current.Settings == nil || *e.Current.Settings.TTSConcurrency != 10 {
						w.t.Errorf("the ledger does not say what the current key was created with: %+v", e.Current)
					}
				})
			})
		}
	}
}
