package simulation_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs"
	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// managed is what each policy has to say of the settings that it need not manage.
func managed(i int) elevenlabs.Optional {
	return []elevenlabs.Optional{
		{TTSConcurrency: elevenlabs.Some(int64(5))},
		{},
		{MusicConcurrency: elevenlabs.None[int64](), ThirdPartyDisable: elevenlabs.Some(true)},
	}[i]
}

// foreign is a key that a person made, with settings that no key of ours has.
func foreign(permissions []string) elevensim.KeySpec {
	no, n := false, int64(777)
	return elevensim.KeySpec{Name: "by hand", Permissions: permissions, ThirdPartyDisable: &no, TTSConcurrency: &n, DubConcurrency: &n, MusicConcurrency: &n}
}

// limitByHand has a person change settings of current keys that no policy manages, now and then. It draws from a source of its
// own, so that the rest of a seed's run does not depend on it.
func (w *world) limitByHand() {
	rng := rand.New(rand.NewPCG(w.seed, 11))
	for i, p := range w.policies {
		for n := range rng.IntN(3) {
			at := time.Hour + time.Duration(rng.Int64N(int64(w.profile.duration)))
			w.later(at, func() {
				r := w.oracle.byName(p.Name)
				if k := r.key; k != nil && p.AdminOf == "" && !w.calm && !r.foreign && !r.removed && !k.Deleted() && w.current(p, k) {
					w.hits["others × limit changed"]++
					w.must(w.patchByHand(k, fmt.Sprintf(`"dubbing_concurrency_limit":%d`, 100*(i+1)+n)))
				}
			})
		}
	}
}

// patchByHand changes a key as a person in the console does.
func (w *world) patchByHand(k *life, fields string) error {
	body := fmt.Sprintf(`{"name":%q,%s}`, k.Name, fields)
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPatch, baseURL(k.space)+"/v1/service-accounts/"+k.account+"/api-keys/"+k.ID, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("xi-api-key", adminKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.api.RoundTrip(req)
	if err != nil {
		return err
	}
	w.tracef("others patched key %s: %d", short(k.ID), resp.StatusCode)
	return resp.Body.Close()
}

// had is what optional settings a key had, and since when.
type had struct {
	since time.Time
	elevenlabs.Optional
}

func optionalOf(k elevensim.Key) elevenlabs.Optional {
	return elevenlabs.Optional{TTSConcurrency: valueOf(k.TTSConcurrency), DubbingConcurrency: valueOf(k.DubConcurrency),
		MusicConcurrency: valueOf(k.MusicConcurrency), ThirdPartyDisable: valueOf(k.ThirdPartyDisable)}
}

func valueOf[T comparable](p *T) elevenlabs.Value[T] {
	if p == nil {
		return elevenlabs.None[T]()
	}
	return elevenlabs.Some(*p)
}

// remember notes what a key has now.
func (k *life) remember() {
	if now := optionalOf(k.Key); len(k.settings) == 0 || k.settings[len(k.settings)-1].Optional != now {
		k.settings = append(k.settings, had{time.Now(), now})
	}
}

// stale is how long a replica may go by a listing from before a person changed a key.
const stale = 4 * time.Hour

// carried checks a new key: it has what the policy manages, and otherwise what the key has that the ledger says it replaces.
func (o *oracle) carried(k *life) {
	r := o.byName(k.policy)
	entry := o.w.entry(k.policy)
	if r == nil || entry["intent"] == nil || o.belated() {
		return
	}
	own := r.policy.Settings.Optional
	got := optionalOf(k.Key)
	current, _ := entry["current"].(map[string]any)
	old := o.keys[text(current["id"])]
	switch {
	case current == nil:
		o.hasSettings(k, got, own.Or(optionalOf(elevensim.Key{})))
	case old != nil:
		fits := slices.ContainsFunc(old.settings, func(h had) bool { return got == own.Or(h.Optional) })
		if !fits || !old.Deleted() && !o.justHad(old, got, own) {
			o.hasSettings(k, got, own.Or(old.settings[len(old.settings)-1].Optional))
		}
	}
}

// justHad reports whether a key had such settings a short while ago, or has them now.
func (o *oracle) justHad(k *life, got, own elevenlabs.Optional) bool {
	if g := o.w.actor; g != nil && g.standsStill() {
		return true // a call that hangs keeps it from listing for hours, of which it notices nothing
	}
	for i, h := range k.settings {
		if got == own.Or(h.Optional) && (i == len(k.settings)-1 || time.Since(k.settings[i+1].since) < stale) {
			return true
		}
	}
	return false
}

func (o *oracle) hasSettings(k *life, got, want elevenlabs.Optional) {
	if got != want {
		o.violated("invariant 13: key %s of policy %s has %v, want %v", short(k.ID), k.policy, got.Texts(), want.Texts())
	}
}

// left checks a patch of ours: what the policy does not manage stays as it was.
func (o *oracle) left(k *life, before elevensim.Key) {
	for _, r := range o.records {
		if o.w.actor != nil && o.w.current(r.policy, k) { // the name may be another policy's: records are copied
			o.hasSettings(k, optionalOf(k.Key), r.policy.Settings.Or(optionalOf(before)))
		}
	}
}
