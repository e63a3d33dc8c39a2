package simulation_test

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator/plan"
)

// What shows that a rotation did no harm: probes before the publication, use of the new key, the old key's end, the history.

// evidence is what a run has of that. It comes from a source of its own, so that the rest of a seed's run does not depend on it.
type evidence struct {
	probes     bool          // some policies have probes, and what they ask for is at times shared with one key alone
	waits      bool          // some policies wait until the new key is used
	months     bool          // counters begin anew now and then
	disableLag time.Duration // for how long a disabled key is still accepted
}

func drawEvidence(r *rand.Rand) evidence {
	return evidence{probes: r.IntN(2) == 0, waits: r.IntN(2) == 0, months: r.IntN(2) == 0,
		disableLag: []time.Duration{0, 0, 10 * time.Second, 45 * time.Minute}[r.IntN(4)]}
}

// addEvidence gives some of the policies what the run has.
func (w *world) addEvidence(ps []plan.Policy) {
	if w.profile.probes {
		ps[1].Probes, ps[2].Probes = []string{voicePath(1)}, []string{"/v1/models", voicePath(2)}
		for i := 1; i <= 2; i++ {
			names := &ps[i].Settings.Permissions.Names
			*names = append(slices.Clip(*names), "models_read", "voices_read")
			w.share(i)
		}
	}
	if w.profile.waits {
		ps[0].WaitUntilUsed, ps[2].WaitUntilUsed = 80*time.Minute, 3*time.Hour
	}
}

func voice(i int) string { return "voice" + string(rune('0'+i)) }

func voicePath(i int) string { return "/v1/voices/" + voice(i) }

// share has a voice shared with every account.
func (w *world) share(i int) {
	for _, sim := range w.sims() {
		sim.ShareVoice(voice(i), "svcacc_a")
		sim.ShareVoice(voice(i), "svcacc_b")
	}
}

// shareByHand has a person share a voice with the present key in place of its account, and find out some hours later.
func (w *world) shareByHand() {
	if !w.profile.probes {
		return
	}
	for i := 1; i <= 2; i++ {
		// Before the calm, and no two at one instant: their order would be chance.
		end := w.profile.duration - time.Duration(1+w.readers.Int64N(int64(10*time.Minute)))
		from := time.Hour + time.Duration(w.readers.Int64N(int64(w.profile.duration/2)))
		for range 1 + w.readers.IntN(2) {
			to := min(from+30*time.Minute+time.Duration(w.readers.Int64N(int64(8*time.Hour))), end)
			r := w.oracle.byName("p" + string(rune('0'+i)))
			w.later(from, func() { w.shareWith(r, i) })
			w.later(to, func() {
				w.hits["voice × shared with the account again"]++
				w.tracef("others share %s with the accounts", voice(i))
				w.share(i)
			})
			if from = to + time.Duration(1+w.readers.Int64N(int64(4*time.Hour))); from >= end {
				break
			}
		}
	}
}

func (w *world) shareWith(r *record, i int) {
	if r.key == nil {
		return
	}
	w.hits["voice × shared with one key"]++
	w.tracef("others share %s with key %s alone", voice(i), short(r.key.ID))
	for _, sim := range w.sims() {
		sim.UnshareVoice(voice(i), "svcacc_a")
		sim.UnshareVoice(voice(i), "svcacc_b")
		sim.ShareVoice(voice(i), r.key.ID)
	}
}

// Secrets are found in the open in one seed of so many, by its remainder: the noted seeds of the planted bugs stay as they are.
const (
	leakySeeds     = 64
	leakyRemainder = 10
)

// findSecrets has secrets of current keys found in the open, and reported.
func (w *world) findSecrets() {
	if w.seed%leakySeeds != leakyRemainder {
		return
	}
	for range 2 + w.readers.IntN(3) {
		w.later(time.Hour+time.Duration(w.readers.Int64N(int64(w.profile.duration-2*time.Hour))), func() {
			w.leaked(w.policies[w.readers.IntN(len(w.policies))])
		})
	}
}

// credits is what one use costs.
func (w *world) credits() int64 { return 1 + w.readers.Int64N(1000) }

// takeUp has the readers of a record use its key, once they have read it.
func (w *world) takeUp(r *record) {
	k := r.key
	if !w.profile.waits || k == nil || r.foreign || k.takenUp.IsZero() || time.Now().Before(k.takenUp) || k.Disabled || k.Deleted() {
		return
	}
	w.spend(k)
	w.oracle.followed(r)
}

// followed notes that a record's key was used.
func (o *oracle) followed(r *record) {
	for _, old := range o.keysOf(r.policy.Name) {
		if old != r.key && !old.replaced.IsZero() && old.followed.IsZero() {
			old.followed = time.Now()
		}
	}
}

// billByMonth has all counters begin anew now and then, a few with what was used since.
func (w *world) billByMonth() {
	if !w.profile.months {
		return
	}
	for range 2 + w.readers.IntN(8) {
		w.later(time.Duration(w.readers.Int64N(int64(w.profile.duration))), func() {
			for _, p := range w.policies {
				for _, k := range w.oracle.keysOf(p.Name) {
					now, _ := w.at(k).KeyBySecret(k.Secret)
					if now.Deleted() || now.CharacterCount < 10 {
						continue
					}
					w.hits["counter × began anew"]++
					w.tracef("the counter of key %s begins anew", short(k.ID))
					left := w.readers.Int64N(2) * w.readers.Int64N(9)
					w.must(w.at(k).AddUsage(k.ID, left-now.CharacterCount))
					k.began, k.anew, k.spared = time.Now(), left == 0, k.spared || w.abandoned(k)
				}
			}
		})
	}
}

// abandoned reports that the ledger says so of a key.
func (w *world) abandoned(k *life) bool {
	all, _ := w.entry(k.policy)["abandoned"].([]any)
	return slices.ContainsFunc(all, func(one any) bool { a, _ := one.(map[string]any); return a["key_name"] == k.Name })
}

// spend has readers use a key.
func (w *world) spend(k *life) {
	w.must(w.at(k).AddUsage(k.ID, w.credits()))
	k.anew = false
}

// pasted is why a person asks for a rotation: the words hold what must not be kept.
func pasted(k *life) string {
	if k == nil {
		return "drill"
	}
	return "drill with " + k.Secret
}

// witnessed is what is known of a key beside its life.
type witnessed struct {
	answered map[string]bool // the probes that were answered 2xx with it
	accepted time.Time       // when its secret was last tried and accepted
	rejected time.Time       // … and rejected
	takenUp  time.Time       // when readers begin to use it; zero: never
	followed time.Time       // when a key that replaced it was first used
	began    time.Time       // when its counter last began anew: what was used shortly before that, no listing shows
	anew     bool            // its counter began anew, and shows no use since
	spared   bool            // … when it was in use although its rotation was abandoned
}

// publication is a key that a record was given, and the one before it.
type publication struct {
	at      time.Time
	key     *life
	before  *life
	again   bool // it had been published before
	excused bool // others had their hands in the record
}

// answers is told of what ElevenLabs answers to keys that are tried, where the answer arrives.
func (o *oracle) answers(req *http.Request, step string, resp *http.Response, f fate) {
	if resp == nil || f.crash == "after" || step != "probe read" && step != "verify read" {
		return
	}
	k, path, ok := o.bySecret(req.Header.Get("xi-api-key")), req.URL.Path, resp.StatusCode == http.StatusOK
	switch {
	case k == nil:
	case step == "probe read" && ok && (f.fault == "" || f.fault == "truncated"): // nobody reads that body
		if k.answered == nil {
			k.answered = map[string]bool{}
		}
		k.answered[path] = true
	case step == "probe read" && !ok:
		o.w.hits["probe × refused"]++
	case f.fault != "" || !strings.HasSuffix(path, "/user"):
	case resp.StatusCode == http.StatusUnauthorized && says(resp, "invalid_api_key"):
		k.rejected = time.Now()
	default:
		k.accepted = time.Now()
	}
}

// says reports whether an answer holds a text, and leaves it to be read.
func says(resp *http.Response, text string) bool {
	body, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return bytes.Contains(body, []byte(text))
}

// probed wants a new key to have been tried with every probe of its policy.
func (o *oracle) probed(r *record, k *life) {
	if !k.published.IsZero() || len(r.policy.Probes) == 0 {
		return
	}
	for _, path := range r.policy.Probes {
		if !k.answered[path] {
			o.violated("invariant 13: key %s was published, and probe %s was not answered with 2xx", short(k.ID), path)
		}
	}
	o.w.hits["probe × answered before a publication"]++
}

// publishedAfter notes a publication, and when its readers will take the key up.
func (o *oracle) publishedAfter(r *record, k *life) {
	r.line = append(r.line, publication{time.Now(), k, r.key, !k.published.IsZero(), k.touched || !r.touched.IsZero() || r.rolled})
	if r.key != nil {
		r.key.followed = time.Time{}
	}
	k.followed, k.takenUp = time.Time{}, time.Time{}
	switch o.w.readers.IntN(3) {
	case 0:
		k.takenUp = time.Now()
	case 1:
		k.takenUp = time.Now().Add(r.policy.Overlap + time.Duration(o.w.readers.Int64N(int64(2*time.Hour))))
	}
}

// unproven checks that an overlap lasts until a key that replaced it was used, within its bounds.
func (o *oracle) unproven(k *life, r *record) {
	wait := r.policy.WaitUntilUsed
	if wait == 0 || o.restored || k.touched || k.revoked || k.mistimed || r.removed || r.readded || o.belated() || k.promised.IsZero() {
		return
	}
	end := k.promised.Add(wait)
	if byAge := k.CreatedAt.Add(r.policy.MaxAge); r.policy.MaxAge > 0 && byAge.Before(end) {
		end = byAge
	}
	early := time.Now().Before(end.Add(-2*o.w.profile.skew - time.Minute))
	switch {
	case k.followed.IsZero() && early:
		o.violated("key %s was disabled %s before the end of wait_until_used, and the new key was not used", short(k.ID), time.Until(end))
	case k.followed.IsZero():
		o.w.hits["overlap × ended though the new key was not used"]++
	case k.followed.After(k.promised) && early:
		o.w.hits["overlap × waited until the new key was used"]++
	}
}

// past is a rotation in a history.
type past struct {
	By            string    `json:"by"`
	KeyID         string    `json:"key_id"`
	PreviousKeyID string    `json:"previous_key_id"`
	Started       time.Time `json:"started"`
	Published     time.Time `json:"published"`
	Proof         string    `json:"proof"`
	Probes        []struct {
		Path   string `json:"path"`
		Status int    `json:"status"`
	} `json:"probes"`
}

func (o *oracle) historyOf(entry map[string]any) (all []past) {
	text, err := json.Marshal(entry["history"])
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		o.violated("a history cannot be read: %v", err)
	}
	return all
}

// remembered checks what a ledger entry says of its rotations, each time it is written.
func (o *oracle) remembered(entry map[string]any) {
	if text, err := json.Marshal(entry); err != nil || bytes.Contains(text, []byte("sk_")) {
		o.violated("the ledger entry of policy %v holds a secret: %v", entry["policy"], err)
	}
	all := o.historyOf(entry)
	if len(all) > 20 {
		o.violated("the history of policy %v has %d rotations", entry["policy"], len(all))
	}
	for _, p := range all {
		if k := o.keys[p.KeyID]; k != nil {
			for _, a := range p.Probes {
				if a.Status/100 != 2 || !k.answered[a.Path] {
					o.violated("history says that probe %s was answered %d with key %s, which it was not", a.Path, a.Status, short(k.ID))
				}
			}
		}
		what := p.KeyID + p.PreviousKeyID + p.Started.String() + p.Published.String()
		if p.Proof == o.proven[what] || entry["moved_to"] != nil { // what another name has taken over stays as it was then
			continue
		}
		o.proves(p, o.proven[what])
		o.proven[what] = p.Proof
	}
}

// proves wants a proof to have been had since the key was last a record's.
func (o *oracle) proves(p past, before string) {
	k := o.keys[p.PreviousKeyID]
	if k == nil || o.restored {
		return
	}
	o.w.hits["proof × "+p.Proof]++
	switch {
	case p.Proof == "rejected" && !k.rejected.After(k.published), p.Proof == "still_accepted" && !k.accepted.After(k.published):
		o.violated("history says that key %s was %s, which nothing showed", short(k.ID), p.Proof)
	case p.Proof == "rejected" && before == "still_accepted":
		o.w.hits["proof × still accepted, then rejected"]++
	case p.Proof == "":
		o.violated("history has lost the proof %s of key %s", before, short(k.ID))
	}
}

// told checks in the end that each publication is in the history, with the key before it, and that every end is proven.
func (o *oracle) told() {
	for _, r := range o.records {
		if o.restored || r.removed || r.readded || r.foreign || o.shut(r) {
			continue
		}
		entry := o.w.entry(r.policy.Name)
		all := o.historyOf(entry)
		for i, p := range slices.Backward(r.line) {
			recent := time.Since(p.at) < claimTTL+2*reconcile
			undone := p.again && (p.key.touched || i < len(r.line)-1 || r.key != p.key)
			if len(r.line)-i > 10 || recent || p.excused || p.key.hidden || undone {
				continue
			}
			before := ""
			if p.before != nil {
				before = p.before.ID
			}
			if !slices.ContainsFunc(all, func(h past) bool {
				return h.KeyID == p.key.ID && (h.PreviousKeyID == before || o.mayHaveBeen(h.PreviousKeyID))
			}) {
				o.violated("the history of policy %s lacks the publication of key %s after key %s", r.policy.Name, short(p.key.ID), short(before))
			}
			o.w.hits["history × has a publication"]++
		}
		o.ended14(r, entry)
	}
}

// mayHaveBeen reports a key that nobody saw published, and that may have been.
func (o *oracle) mayHaveBeen(id string) bool {
	k := o.keys[id]
	return k != nil && k.published.IsZero()
}

// ended14 wants to know that no key in quarantine is accepted, once there was time to find out.
func (o *oracle) ended14(r *record, entry map[string]any) {
	if o.w.deviant() {
		return // what ElevenLabs says proves nothing then
	}
	retiring, _ := entry["retiring"].([]any)
	for _, one := range retiring {
		old, _ := one.(map[string]any)
		k := o.keys[text(old["id"])]
		if k == nil || old["state"] != "quarantine" || text(old["hash"]) == "" || k.freed || !k.Disabled || k.Deleted() {
			continue
		}
		since := time.Since(later(k.DisabledAt, o.calmSince)) - o.w.profile.disableLag
		if proof := text(old["proof"]); since > 2*time.Hour && proof != "rejected" && proof != "not_tried" {
			o.violated("invariant 14: key %s of policy %s was disabled %s ago, and its proof is %q", short(k.ID), r.policy.Name, time.Since(k.DisabledAt), proof)
		}
	}
}
