package rotator_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/sinks"
)

// storeOver returns a client of the world's Vault whose calls pass through a transport.
func (w *world) storeOver(through http.RoundTripper) ledger.Store {
	w.t.Helper()
	config := vaultapi.DefaultConfig()
	config.Address = "http://vault.invalid"
	store, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.tok"), Transport: through})
	if err != nil {
		w.t.Fatal(err)
	}
	return store
}

// A request between the publish of a key and its commit is about that key: readers have it.
func TestARequestBetweenPublishAndCommit(t *testing.T) {
	ask := map[string]func(*rotator.Rotator, *rotator.Rotator, plan.Policy) error{
		"of a daemon": func(daemon, _ *rotator.Rotator, p plan.Policy) error {
			return daemon.Request(p.Name, rotator.RotateOptions{Revoke: true})
		},
		"of a command": func(_, command *rotator.Rotator, p plan.Policy) error {
			return command.Rotate(context.Background(), p.Name, rotator.RotateOptions{Revoke: true})
		},
	}
	for name, ask := range ask {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, nil)
				plain := w.store
				h := holdLater(w.kv, func(r *http.Request) bool {
					return r.Method != http.MethodGet && strings.HasSuffix(r.URL.Path, "/rekeyd/policies/"+p.Name)
				})
				var atThree atomic.Bool
				w.kv.OnWrite = func(path string, _ int, _ map[string]any) {
					if path == p.Sink.String() && atThree.Load() {
						h.arm()
					}
				}
				w.store = w.storeOver(h)
				_, stopFirst := w.daemon(options{}, p)
				defer stopFirst()
				after(time.Hour)
				atThree.Store(true)
				<-h.held
				published, _ := w.recordHolds(p)
				w.store = plain
				daemon, stop := w.daemon(options{}, p)
				defer stop()
				if err := ask(daemon, w.build(options{}, p), p); err != nil {
					t.Fatal(err)
				}
				after(10 * time.Minute)
				if k, _ := w.recordHolds(p); k.ID == published.ID {
					t.Error("the key that readers had at the request is still in the record")
				}
				if k := w.key(published.Secret); !k.Disabled {
					t.Error("the request said revoke_now, and the key still works")
				}
				close(h.release)
				after(time.Hour)
				w.mustWork(p, "after the late commit")
			})
		})
	}
}

// A request that cannot be carried out does not keep the ledger from following a record that was rolled back: with the
// account full, the rotation itself waits for the key that leaves then.
func TestARequestThatWaitsDoesNotHoldUpARollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		r, stop := w.daemon(options{}, p)
		defer stop()
		after(3*time.Hour + time.Minute) // the first key is in overlap
		first, second := w.alive()[0], w.inRecord(p)
		if err := w.sim.SetFaults(elevensim.Faults{KeyLimit: 2}); err != nil {
			t.Fatal(err)
		}
		if err := r.Request(p.Name, rotator.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		w.put(p, map[string]any{"api_key": first.Secret}) // vault kv rollback
		after(time.Hour)
		if s := w.state(r, 0); s.Current == nil || s.Current.ID != first.ID {
			t.Errorf("the record was rolled back to %s an hour ago, and the ledger says %+v", first.ID, s.Current)
		}
		after(12 * time.Hour) // the second key's overlap and the longest wait between tries
		if k := w.inRecord(p); k.ID == first.ID || k.ID == second.ID {
			t.Errorf("the request was not carried out: the record holds %s", k.ID)
		}
		w.mustWork(p, "after the rotation")
	})
}
