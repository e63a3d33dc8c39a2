package simulation_test

import (
	"maps"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/rotator"
)

// meddlings is what others do to our keys and records.
func meddlings() []string {
	return []string{"leak", "delete key", "soft-delete record", "remove field", "person disables and enables", "drift", "foreign field", "foreign key", "overwrite and restore"}
}

func (w *world) meddle(what string) {
	p := w.policies[w.rng.IntN(len(w.policies))]
	path := p.Sink.String()
	r := w.oracle.records[path]
	if r.key == nil {
		return
	}
	w.tracef("others: %s (%s)", what, p.Name)
	w.hits["others × "+what]++
	var err error
	switch k := r.key; what {
	case "leak":
		err = w.sim.DisableKey(k.ID, "exposed_publicly")
	case "delete key":
		err = w.sim.DeleteKey(k.ID)
	case "soft-delete record":
		r.touched = time.Now()
		w.kv.SoftDelete(path)
	case "remove field":
		r.touched = time.Now()
		w.put(path, func(d map[string]any) { delete(d, "api_key") })
	case "person disables and enables":
		if err = w.sim.DisableKey(k.ID, ""); err == nil {
			time.AfterFunc(20*time.Minute, func() { w.must(w.sim.EnableKey(k.ID)) })
		}
	case "foreign field":
		w.put(path, func(d map[string]any) { d["note"] = "of another team" })
	case "foreign key":
		_, _, err = w.sim.AddKey(p.ServiceAccount, elevensim.KeySpec{Name: "by hand"})
	case "overwrite and restore":
		w.overwrite(p, r)
	}
	w.must(err)
}

func (w *world) must(err error) {
	if err != nil {
		w.tracef("others could not: %v", err)
	}
}

// overwrite puts a value into the record that nobody knows, and takes it back after a while.
func (w *world) overwrite(p rotator.Policy, r *record) {
	path := p.Sink.String()
	before, _ := w.kv.Get(path, 0)
	before = maps.Clone(before)
	r.foreign = true
	w.put(path, func(d map[string]any) { d["api_key"] = "by hand" })
	time.AfterFunc(40*time.Minute, func() {
		r.foreign = false
		w.put(path, func(d map[string]any) { maps.Copy(d, before) })
	})
}

func (w *world) put(path string, change func(map[string]any)) {
	data, _ := w.kv.Get(path, 0)
	data = maps.Clone(data)
	if data == nil {
		data = map[string]any{}
	}
	change(data)
	_, err := w.kv.Put(path, data)
	w.must(err)
}
