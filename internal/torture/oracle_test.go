package torture

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

// life is what happened to a key of ours, by the clock of this machine, which all processes share.
type life struct {
	elevensim.Key
	published time.Time // zero: never
	replaced  time.Time // zero: it is in its record
	promised  time.Time // until when its readers were told that it works
	disabled  time.Time // the first time
	deleted   time.Time
}

// version is one version of a record. Readers see it no earlier than at that time.
type version struct {
	number int
	at     time.Time
	data   map[string]any
}

func (v version) text(field string) string { s, _ := v.data[field].(string); return s }

// check compares the simulator's history with that of the records in Vault, from the first moment to the last.
func (w *world) check() {
	w.t.Helper()
	w.root.SetMaxRetries(10) // a busy cluster may hold another election
	w.collect(true)
	lives := map[string]*life{}
	for _, k := range w.sim.Keys() {
		if w.ours(k.ID, k.Name) {
			lives[k.ID] = &life{Key: k, deleted: k.DeletedAt}
		} else if k.Name != w.foreign[k.ID] || k.Disabled || k.Deleted() {
			w.violated("foreign key %s is now %+v", k.ID, k)
		}
	}
	w.checkRequests(lives)
	for i := range policies {
		w.checkRecord(lives, i)
	}
	for _, l := range lives {
		w.checkLife(l)
	}
	if w.did.kills >= defaultKills/2 && w.did.creates == w.did.rotations {
		w.t.Error("no kill cost a key, so none came at a bad moment, and nothing was tested")
	}
}

// checkRequests looks at what was asked of ElevenLabs.
func (w *world) checkRequests(lives map[string]*life) {
	w.t.Helper()
	asked := map[string]int{}
	for _, seq := range slices.Sorted(maps.Keys(w.requests)) {
		r := w.requests[seq]
		var body struct {
			Name    string `json:"name"`
			Enabled any    `json:"is_enabled"`
		}
		if len(r.Body) > 0 {
			if err := json.Unmarshal(r.Body, &body); err != nil {
				w.t.Fatalf("request %d: %v", seq, err)
			}
		}
		switch l := lives[r.KeyID]; {
		case w.foreign[r.KeyID] != "":
			w.violated("%s was asked for on foreign key %s", r.Operation, r.KeyID)
		case r.Operation == "createAPIKey":
			if asked[body.Name]++; asked[body.Name] > 1 {
				w.violated("a create was sent again, for %s", body.Name)
			}
			if r.Applied {
				w.did.creates++
			}
		case r.Operation == "updateAPIKey" && body.Enabled != false && !w.wasLate(r.KeyID):
			w.violated("key %s was given %s", r.KeyID, r.Body)
		case r.Operation == "updateAPIKey" && r.Applied && l.disabled.IsZero():
			l.disabled = r.Time
		}
	}
}

// checkRecord follows a record through its versions.
func (w *world) checkRecord(lives map[string]*life, i int) {
	w.t.Helper()
	var current *life
	var rotated time.Time
	for _, v := range w.versions(record(i)) {
		if v.text(foreignField) != policy(i) {
			w.violated("version %d of %s lost the field of others", v.number, record(i))
		}
		next := lives[v.text("key_id")]
		switch {
		case next == nil && current == nil && v.text("api_key") == "":
			continue // not published yet
		case next == nil || v.text("api_key") != next.Secret || v.text("key_name") != next.Name || policyOf(next.Name) != policy(i):
			w.violated("version %d of %s holds no key of the policy: key_id %q", v.number, record(i), v.text("key_id"))
			continue
		case next == current:
			w.did.rewrites++
			continue // written again as it was
		case current != nil && w.wasByHand(record(i), v.number):
			w.did.rollbacks++
			current.replaced, current.promised, next.replaced = v.at, time.Time{}, time.Time{}
			current, rotated = next, w.time(v, "rotated_at")
			continue
		}
		w.did.rotations++
		if !next.published.IsZero() {
			w.violated("key %s was published twice:\n%s", next.ID, w.trace(next))
		}
		if v.at.Before(next.UsableAt) {
			w.violated("key %s was published at %s, before it worked:\n%s", next.ID, v.at, w.trace(next))
		}
		if earliest := rotated.Add(every); v.at.Before(earliest) && !w.wrongClock {
			w.violated("%s was rotated at %s, and not due before %s:\n%s", record(i), v.at, earliest, w.trace(next))
		}
		next.published = v.at
		if current != nil {
			current.replaced = v.at
			if v.text("previous_key_id") == current.ID {
				current.promised = w.time(v, "previous_valid_until")
			}
			if end := w.time(v, "rotated_at").Add(overlap); current.promised.Before(end) && !w.wrongClock {
				w.violated("readers of key %s were told that it works until %s, and not until %s:\n%s", current.ID, current.promised, end, w.trace(current))
			}
		}
		current, rotated = next, w.time(v, "rotated_at")
	}
	if current == nil {
		w.violated("%s was never published", record(i))
	}
}

// checkLife checks that readers never lost a key, and that nothing was lost track of.
func (w *world) checkLife(l *life) {
	w.t.Helper()
	var fault string
	retired := !l.disabled.IsZero() || !l.deleted.IsZero()
	if retired && !l.replaced.IsZero() {
		w.did.retirements++
	}
	settled := w.ended.Sub(l.replaced) < overlap+quarantine+settleSlack
	switch {
	case w.wasLate(l.ID):
	case l.published.IsZero() && l.deleted.IsZero():
		fault = "was never published and is still there"
	case l.published.IsZero():
	case l.replaced.IsZero() && retired:
		fault = "was retired while its record holds it"
	case l.replaced.IsZero():
	case retired && earliest(l.disabled, l.deleted).Before(l.replaced):
		fault = "was retired before its record held another key"
	case retired && earliest(l.disabled, l.deleted).Before(l.promised) && !w.wrongClock:
		fault = "was retired before the end that its readers were told"
	case !l.deleted.IsZero() && (l.disabled.IsZero() || l.deleted.Before(l.disabled.Add(quarantine)) && !w.wrongClock):
		fault = "was deleted before its quarantine was over"
	case l.deleted.IsZero() && !settled:
		fault = "is in no record and is still there"
	}
	if fault != "" {
		w.violated("key %s (%s) %s:\n%s", l.ID, l.Name, fault, w.trace(l))
	}
}

const settleSlack = 15 * time.Second // for retirements on a busy machine

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (w *world) time(v version, field string) time.Time {
	w.t.Helper()
	at, err := time.Parse(time.RFC3339, v.text(field))
	if err != nil {
		w.violated("version %d says %s %q", v.number, field, v.text(field))
	}
	return at
}

func (w *world) versions(path string) []version {
	w.t.Helper()
	kv := w.root.KVv2("secret")
	list, err := kv.GetVersionsAsList(w.t.Context(), path)
	if err != nil {
		w.t.Fatal(fmt.Errorf("listing versions of %s: %w", path, err))
	}
	var versions []version
	for _, m := range list {
		s, err := kv.GetVersion(w.t.Context(), path, m.Version)
		if err != nil {
			w.t.Fatal(fmt.Errorf("reading version %d of %s: %w", m.Version, path, err))
		}
		versions = append(versions, version{m.Version, m.CreatedTime, s.Data})
	}
	return versions
}
