package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

func TestPrune(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	foreign, _ := w.sim.AddKey(account, "of somebody else")
	d := w.start(nil)
	first := w.becomes("")
	owner, _ := w.document("rekeyd/" + w.id + "/owner")
	lost, _ := w.sim.AddKey(account, fmt.Sprintf("rekeyd.%v.long-gone.abcdefghij", owner["owner"]))
	said := w.verb(2, "prune")
	w.says(said, lost, "add --yes")
	if strings.Contains(said, foreign) || strings.Contains(said, first) {
		t.Errorf("not lost, but listed:\n%s", said)
	}
	w.says(w.verb(0, "prune", "--yes"), "deleted "+lost)
	if !w.gone(lost) || w.gone(foreign) || w.gone(first) {
		t.Error("the wrong keys are gone")
	}
	w.says(w.verb(0, "prune", "--yes"), "Nothing to prune")
	d.end()

	w.rewrite("tts-prod", "tts-next")
	w.says(w.verb(0, "prune", "--yes"), "Nothing to prune")
	if w.key(first).Disabled {
		t.Error("a removed policy's key was pruned without being named")
	}
	w.says(w.verb(0, "prune", "tts-prod", "--yes"), "disabled "+first)
	if !w.key(first).Disabled || w.gone(first) || w.gone(foreign) {
		t.Error("the removed policy's key is not in quarantine")
	}
}

// rewrite changes words of the policy file.
func (w *world) rewrite(from, to string) {
	w.t.Helper()
	text, err := os.ReadFile(w.policyFile)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.policyFile, []byte(strings.ReplaceAll(string(text), from, to)), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// TestPruneAfterTheLedgerWasLost has the ledger entry of a policy deleted: its key is adopted from the record, and what
// was in overlap is lost and only shown.
func TestPruneAfterTheLedgerWasLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, common.vault)
	w.calm("")
	w.verb(0, "rotate", "tts-prod")
	w.verb(0, "rotate", "tts-prod")
	w.verb(0, "rotate", "tts-prod")
	third := w.current()
	if err := w.root.KVv2("secret").DeleteMetadata(t.Context(), "rekeyd/"+w.id+"/policies/tts-prod"); err != nil {
		t.Fatal(err)
	}
	d := w.start(nil)
	process.Eventually(t, process.Patience, func() error {
		if _, version := w.document("rekeyd/" + w.id + "/policies/tts-prod"); version == 0 {
			return fmt.Errorf("not adopted")
		}
		return nil
	})
	keys := slices.DeleteFunc(w.sim.Keys(), func(k elevensim.Key) bool { return k.Deleted() })
	if len(keys) != 3 || w.current() != third {
		t.Fatalf("the keys are %+v, the record has %s", keys, w.current())
	}
	said := w.verb(0, "prune", "--yes", "--json")
	var answer struct {
		Pruned []string `json:"pruned"`
	}
	if err := json.Unmarshal([]byte(said), &answer); err != nil || len(answer.Pruned) != 1 || answer.Pruned[0] != keys[0].ID || !w.gone(keys[0].ID) {
		t.Errorf("pruned %v, want %s (%v)", answer.Pruned, keys[0].ID, err)
	}
	if w.current() != third || w.gone(keys[1].ID) {
		t.Error("a known key is gone")
	}
	d.end()
}
