package rotator_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

func TestParseLeaked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"sk_a": "sk_a", " \r\n\tsk_a\v\f\u00a0\n": "sk_a", strings.Repeat("a", 1024): strings.Repeat("a", 1024),
		"": "", " \n": "", "sk_a sk_b": "", "sk_a\nsk_b": "", strings.Repeat("a", 1025): "",
	} {
		got, err := rotator.ParseLeaked(text)
		if got.Reveal() != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: %d bytes, %v", text, len(got.Reveal()), err)
		}
		if err != nil && strings.Contains(err.Error(), "sk_") {
			t.Errorf("%q is repeated: %v", text, err)
		}
	}
}

// rotateNow is `rekeyd rotate`; it returns the secret that is published then.
func (w *world) rotateNow(p plan.Policy, revoke bool) string {
	w.t.Helper()
	if err := w.build(options{}, p).Rotate(context.Background(), p.Name, rotator.RotateOptions{Revoke: revoke}); err != nil {
		w.t.Fatal(err)
	}
	return w.inRecord(p).Secret
}

// leaked looks for a secret as a command with these policies does, which must succeed.
func (w *world) leaked(value string, policies ...plan.Policy) rotator.Leak {
	w.t.Helper()
	l, err := w.build(options{}, policies...).Leaked(context.Background(), secret.New(value))
	if err != nil {
		w.t.Error(err)
	}
	return l
}

// endLeak is `rekeyd leaked --rotate`.
func (w *world) endLeak(value string, policies ...plan.Policy) (rotator.Leak, error) {
	w.t.Helper()
	r := w.build(options{}, policies...)
	l, err := r.Leaked(context.Background(), secret.New(value))
	if err != nil || !l.Known {
		w.t.Fatalf("%+v, %v", l, err)
	}
	return r.EndLeak(context.Background(), l, secret.New(value))
}

func (w *world) askedWithUnknownKeys() int {
	n := 0
	for _, r := range w.sim.History() {
		if r.CredentialKind == "unknown" {
			n++
		}
	}
	return n
}

// TestWhoseKeyItIs asks a command, which reads everything, and a running daemon.
func TestWhoseKeyItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p, other := testPolicy(t, nil), testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = "dubbing", "elevenlabs/dubbing" })
		first := w.rotateNow(p, false)
		second := w.rotateNow(p, true)
		third := w.rotateNow(p, false)
		another := w.rotateNow(other, false)
		r, stop := w.daemon(options{}, p, other)
		defer stop()
		after(time.Minute)
		leak := func(policy, value string, state rotator.LeakState, works rotator.Works) rotator.Leak {
			return rotator.Leak{Known: true, Policy: policy, State: state, Workspace: "default", KeyID: w.key(value).ID, Works: works}
		}
		for value, want := range map[string]rotator.Leak{
			third:                       leak("tts-prod", third, rotator.LeakCurrent, rotator.WorksYes),
			second:                      leak("tts-prod", second, rotator.LeakOverlap, rotator.WorksYes),
			first:                       leak("tts-prod", first, rotator.LeakQuarantine, rotator.WorksNo),
			another:                     leak("dubbing", another, rotator.LeakCurrent, rotator.WorksYes),
			adminKey:                    {Known: true, State: rotator.LeakAdmin, Workspace: "default", Works: rotator.WorksYes},
			"sk_of_others_0123456789":   {},
			third[:len(third)-1]:        {},
			strings.ToUpper(third):      {},
			w.key(third).ID:             {},
			"hvs.tok":                   {},
			"0000000000000000000000000": {},
		} {
			if got := w.leaked(value, p, other); got != want {
				t.Errorf("a command says %+v, want %+v", got, want)
			}
			if got, err := r.LeakedHere(t.Context(), secret.New(value)); err != nil || got != want {
				t.Errorf("the daemon says %+v, %v, want %+v", got, err, want)
			}
		}
		if n := w.askedWithUnknownKeys(); n != 0 {
			t.Errorf("%d requests carried an unknown secret to ElevenLabs", n)
		}
		if err := w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status500, Operation: "getUser"}}}); err != nil {
			t.Fatal(err)
		}
		if got := w.leaked(third, p); got.Works != rotator.WorksUnknown {
			t.Errorf("when ElevenLabs fails: %+v", got)
		}
	})
}

// TestALeakOfARemovedPolicy: the command knows it, and says what to do, since a rotation is not possible.
func TestALeakOfARemovedPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p, other := testPolicy(t, nil), testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = "dubbing", "elevenlabs/dubbing" })
		first := w.rotateNow(p, false)
		second := w.rotateNow(p, false)
		r, stop := w.daemon(options{}, other)
		defer stop()
		after(2 * time.Minute)
		for value, says := range map[string]string{first: "disable key " + w.key(first).ID, second: "run rekeyd prune tts-prod"} {
			l, err := w.endLeak(value, other)
			wantError(t, err, says)
			if l.Policy != "tts-prod" || l.Works != rotator.WorksYes {
				t.Errorf("%+v", l)
			}
			here, err := r.LeakedHere(t.Context(), secret.New(value))
			if err != nil || here != l {
				t.Errorf("the daemon says %+v, %v", here, err)
			}
			_, err = r.RequestEnd(here)
			wantError(t, err, says)
		}
	})
}

// TestALeakAfterARename: the old entry, which keeps the keys of its day, is not believed once the new one has them.
func TestALeakAfterARename(t *testing.T) {
	w := newWorld(t)
	old, renamed := testPolicy(t, nil), testPolicy(t, func(p *plan.Policy) { p.Name = "speech" })
	synctest.Test(t, func(t *testing.T) {
		e := newEdits(t, w, old)
		defer e.stop()
		first := e.published(old)
		e.load(renamed)
		if l := w.leaked(first.Secret, renamed); l.Policy != "speech" || l.State != rotator.LeakCurrent {
			t.Errorf("after the rename: %+v", l)
		}
		after(26 * time.Hour)
		if l := w.leaked(first.Secret, renamed); !e.gone(first) || l.Known {
			t.Errorf("after the key was deleted: %+v", l)
		}
	})
}

// TestLeaksWithoutAHash: values that readers have, or had, and that rekeyd did not publish.
func TestLeaksWithoutAHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		add := func(name string) (id, value string) {
			id, value, err := w.sim.AddKey(account, elevensim.KeySpec{Name: name, Permissions: []string{"text_to_speech", "user_read"}})
			if err != nil {
				t.Fatal(err)
			}
			return id, value
		}
		oldID, old := add("old")
		newID, current := add("new")
		until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		w.put(p, map[string]any{"api_key": old, "key_id": oldID})
		w.put(p, map[string]any{"api_key": current, "key_id": newID, "previous_key_id": oldID, "previous_valid_until": until})
		if l := w.leaked(current, p); l != (rotator.Leak{Known: true, Policy: p.Name, State: rotator.LeakCurrent, Workspace: "default", Works: rotator.WorksYes}) {
			t.Errorf("before the adoption: %+v", l)
		}
		_, stop := w.daemon(options{}, p)
		after(time.Minute)
		stop()
		if l := w.leaked(current, p); l.KeyID != newID || l.State != rotator.LeakCurrent {
			t.Errorf("the adopted key: %+v", l)
		}
		if l := w.leaked(old, p); l.KeyID != oldID || l.State != rotator.LeakOverlap || l.Works != rotator.WorksYes {
			t.Errorf("the previous key, whose secret only the record's history has: %+v", l)
		}
		_, stray := add("by hand")
		w.put(p, map[string]any{"api_key": stray})
		if l := w.leaked(stray, p); !l.Known || l.Policy != p.Name || l.KeyID != "" {
			t.Errorf("a value that a person put into the record: %+v", l)
		}
		// rekeyd does not touch a key that it does not know: a rotation does not end this leak, and that is said.
		l, err := w.endLeak(stray, p)
		wantError(t, err, "policy tts-prod is rotated, but ElevenLabs still accepts the reported secret")
		if l.Rotation != rotator.LeakRotated || w.inRecord(p).Secret == stray {
			t.Errorf("%+v", l)
		}
	})
}

func TestALeakIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		overlap := w.rotateNow(p, false)
		w.rotateNow(p, false)
		end := func(value string, state rotator.LeakState) {
			before := w.inRecord(p)
			l, err := w.endLeak(value, p)
			if err != nil || l.State != state || l.Rotation != rotator.LeakRotated || l.Works != rotator.WorksNo {
				t.Errorf("%s: %+v, %v", state, l, err)
			}
			if w.inRecord(p).ID == before.ID || !w.key(value).Disabled {
				t.Errorf("%s: the current key was not replaced, or the reported one still works", state)
			}
			w.mustWork(p, "after the leak was ended")
		}
		end(overlap, rotator.LeakOverlap)
		current := w.inRecord(p).Secret
		end(current, rotator.LeakCurrent)
		// A key in quarantine is dead: each further report of it leaves the current key to its readers.
		now := w.inRecord(p)
		l, err := w.endLeak(current, p)
		if err != nil || l.Rotation != rotator.LeakOver || w.inRecord(p).ID != now.ID {
			t.Errorf("a report of a dead key: %+v, %v", l, err)
		}
		fail := func(rules ...elevensim.Rule) {
			if err := w.sim.SetFaults(elevensim.Faults{Rules: rules}); err != nil {
				t.Fatal(err)
			}
		}
		fail(elevensim.Rule{Kind: elevensim.Status500, Operation: "getUser"})
		l, err = w.endLeak(current, p)
		wantError(t, err, "ElevenLabs did not say whether it still accepts the secret")
		if l.Rotation != rotator.LeakOver || w.inRecord(p).ID != now.ID {
			t.Errorf("a report of a dead key while ElevenLabs fails: %+v", l)
		}
		fail()
		if err := w.sim.EnableKey(w.key(current).ID); err != nil {
			t.Fatal(err)
		}
		end(current, rotator.LeakQuarantine)
		p.Mode = plan.ModePaused
		_, err = w.endLeak(w.inRecord(p).Secret, p)
		wantError(t, err, "policy tts-prod is paused")
	})
}

func TestALeakedAdminKeyIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		l, err := w.endLeak(adminKey, testPolicy(t, nil))
		wantError(t, err, "no policy rotates the admin key of workspace default: make another in ElevenLabs")
		if l.Rotation != "" {
			t.Errorf("%+v", l)
		}
	})
	w, p := newAdminWorld(t)
	synctest.Test(t, func(t *testing.T) {
		p.Adopt = w.putAdminKey(p)
		leaked := w.inRecord(p)
		if l := w.leaked(leaked.Secret, p); l.Policy != "admin" || l.State != rotator.LeakAdmin || l.KeyID != "" {
			t.Errorf("before the adoption: %+v", l)
		}
		_, stop := w.start(p)
		after(time.Minute)
		stop()
		l, err := w.endLeak(leaked.Secret, p)
		if err != nil || l.Policy != "admin" || l.State != rotator.LeakAdmin || l.KeyID != leaked.ID || l.Works != rotator.WorksNo {
			t.Errorf("%+v, %v", l, err)
		}
		if l := w.leaked(leaked.Secret, p); l.State != rotator.LeakQuarantine {
			t.Errorf("afterwards: %+v", l)
		}
	})
}

// TestALeakIsNotCalledUnknownUnseen: without the whole ledger, a secret is known or in doubt, but not unknown.
func TestALeakIsNotCalledUnknownUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p, broken := testPolicy(t, nil), testPolicy(t, func(p *plan.Policy) { p.Name, p.Sink.Path = "broken", "elevenlabs/broken" })
		current := w.rotateNow(p, false)
		w.rotateNow(broken, false)
		fresh := w.build(options{}, p, broken)
		if _, err := fresh.LeakedHere(t.Context(), secret.New("sk_of_others")); err == nil {
			t.Error("a daemon that has read nothing calls a secret unknown")
		}
		w.put(plan.Policy{Sink: ledger.Sink{Ref: ledger.Ref{Mount: "secret", Path: "rekeyd/policies/broken"}}}, map[string]any{"schema": 99})
		r, stop := w.daemon(options{}, p, broken)
		defer stop()
		after(time.Minute)
		for name, ask := range map[string]func(context.Context, secret.Secret) (rotator.Leak, error){"command": fresh.Leaked, "daemon": r.LeakedHere} {
			if l, err := ask(t.Context(), secret.New(current)); err != nil || !l.Known {
				t.Errorf("%s: a known secret: %+v, %v", name, l, err)
			}
			if l, err := ask(t.Context(), secret.New("sk_of_others")); err == nil || l.Known {
				t.Errorf("%s: an unknown secret: %+v", name, l)
			}
		}
	})
}

// TestAReportToAReplicaThatIsBehind: another process has ended the leak, and the key that is current now is nobody's leak.
func TestAReportToAReplicaThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Minute)
		leaked := w.inRecord(p).Secret
		report := func() rotator.Leak {
			l, err := r.LeakedHere(t.Context(), secret.New(leaked))
			if err == nil {
				l, err = r.RequestEnd(l)
			}
			if err != nil {
				t.Error(err)
			}
			return l
		}
		second := w.rotateNow(p, true)
		if l := report(); l.State != rotator.LeakQuarantine || l.Rotation != rotator.LeakOver {
			t.Errorf("%+v", l)
		}
		after(2 * time.Minute)
		if w.inRecord(p).Secret != second {
			t.Error("the key that replaced the leaked one was replaced")
		}
		leaked = second
		if l := report(); l.State != rotator.LeakCurrent || l.Rotation != rotator.LeakRequested {
			t.Errorf("%+v", l)
		}
		after(time.Minute)
		if w.inRecord(p).Secret == second || !w.key(second).Disabled {
			t.Error("the reported key was not replaced and disabled")
		}
		if l := report(); l.Rotation != rotator.LeakOver || l.Works != rotator.WorksNo {
			t.Errorf("the same report again: %+v", l)
		}
	})
}

// accepting answers for one secret as if its key were never disabled, until a time.
type accepting struct {
	http.RoundTripper
	value string
	until time.Time
}

func (a accepting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Xi-Api-Key") == a.value && time.Now().Before(a.until) {
		r = r.Clone(r.Context())
		r.Header.Set("Xi-Api-Key", adminKey)
	}
	return a.RoundTripper.RoundTrip(r)
}

// TestALeakEndsWhenTheSecretIsRejected, not when its key is disabled: ElevenLabs may take a while.
func TestALeakEndsWhenTheSecretIsRejected(t *testing.T) {
	for lag, ended := range map[time.Duration]bool{10 * time.Second: true, time.Hour: false} {
		synctest.Test(t, func(t *testing.T) {
			w := newArena(t)
			p := testPolicy(t, nil)
			value, begun := w.rotateNow(p, false), time.Now()
			r := w.build(options{api: accepting{w.api, value, begun.Add(lag)}}, p)
			l, err := r.Leaked(t.Context(), secret.New(value))
			if err != nil {
				t.Fatal(err)
			}
			l, err = r.EndLeak(t.Context(), l, secret.New(value))
			if (err == nil) != ended || (l.Works == rotator.WorksNo) != ended || l.Rotation != rotator.LeakRotated || !w.key(value).Disabled {
				t.Errorf("after %s: %+v, %v", lag, l, err)
			}
			if took := time.Since(begun); took < min(lag, 30*time.Second) || took > time.Minute {
				t.Errorf("it took %s", took)
			}
		})
	}
}
