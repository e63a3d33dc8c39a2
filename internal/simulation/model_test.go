package simulation_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/internal/model"
)

// follow holds a write against the model when it has been carried out, whoever still waits for its answer. The trace of a
// policy is in the events of internal/model/events.pml.
func (w *world) follow(g *gate, req *http.Request) func() {
	if req.Method == http.MethodGet || req.Method == "LIST" || w.oracle.restored {
		return func() {}
	}
	if w.model == nil {
		c, err := model.New()
		w.must(err)
		w.model = c
	}
	if isVault(req) {
		return w.followDocument(g, strings.Replace(strings.TrimPrefix(req.URL.Path, "/v1/"), "/data/", "/", 1))
	}
	before := map[string]model.Key{}
	for id, k := range w.oracle.keys {
		before[id] = modelled(k)
		w.model.See(before[id])
	}
	return func() {
		for _, id := range slices.Sorted(maps.Keys(w.oracle.keys)) {
			b, existed := before[id]
			k := w.oracle.keys[id]
			a, what := modelled(k), ""
			switch {
			case !existed:
				what = "create"
			case a.Deleted && !b.Deleted:
				what = "delete"
			case a.Disabled && !b.Disabled:
				what = "disable"
			case b.Disabled && !a.Disabled:
				what = "enable"
			default:
				continue
			}
			w.modelSays(k.policy, []string{what}, w.model.Call(what, a))
		}
	}
}

func modelled(k *life) model.Key {
	return model.Key{ID: k.ID, Name: k.Name, Disabled: k.Disabled, Deleted: k.Deleted()}
}

func (w *world) followDocument(g *gate, path string) func() {
	before, version := w.kv.Get(path, 0)
	return func() {
		after, now := w.kv.Get(path, 0)
		if now == version {
			return // refused
		}
		for _, k := range w.oracle.keys {
			w.model.See(modelled(k))
		}
		document, ledger := strings.CutPrefix(path, ledgerPrefix)
		kind, name, _ := strings.Cut(document, "/")
		switch {
		case ledger && kind == "policies":
			w.held()
			if is, _ := after["claim"].(map[string]any); is != nil {
				if was, _ := before["claim"].(map[string]any); was == nil || was["holder"] != is["holder"] {
					g.claimed[name] = time.Now()
				}
			}
			events, err := w.model.Entry(name, fmt.Sprintf("r%d.%d", g.replica, g.life), after)
			w.modelSays(name, events, err)
		case ledger && kind == "keys":
			w.model.Reserve(name, text(after["policy"]))
		case !ledger:
			what, err := w.model.Record(before, after)
			w.modelSays(text(after["policy"]), []string{what}, err)
		}
	}
}

// held tells the model which keys records hold by now, whoever put them there.
func (w *world) held() {
	for _, r := range w.oracle.records {
		if r.key != nil {
			w.model.Published(r.key.ID)
		}
	}
}

func (w *world) modelSays(policy string, events []string, err error) {
	if len(events) > 0 {
		w.tracef("%s in the model: %s", policy, strings.Join(events, ", "))
	}
	for _, e := range events {
		w.hits["model × "+e]++
	}
	if err != nil {
		w.oracle.violated("%s: the model does not allow: %v", policy, err)
	}
}
