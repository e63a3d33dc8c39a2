package rotator_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/secret"
	"github.com/rekeyd/rekeyd/rotator"
	"github.com/rekeyd/rekeyd/rotator/plan"
	"github.com/rekeyd/rekeyd/sinks"
)

// Whether a holder may still write is decided by check-and-set, and never by how long it believes its claim to last.

// stopped is the claim TTL of a process whose monotonic clock stands still, as in a virtual machine or laptop that is
// suspended: seen from there, the TTL of others passes in no time.
const stopped = 1000 * time.Hour

func creating(r *http.Request) bool { return r.Method == http.MethodPost }

func verifying(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/v1/user") }

func inspecting(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/api-keys")
}

// TestProcessesWithDifferentClaimTTLs has a slow rotation taken over that is not yet old by its own TTL, which its claim does not
// name as one that may be configured.
func TestProcessesWithDifferentClaimTTLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		_, stopA := w.daemon(options{claimTTL: stopped, wall: func() time.Time { return time.Now().Add(time.Second) }}, p)
		defer stopA()
		_, stopB := w.daemon(options{claimTTL: 30 * time.Second}, p)
		defer stopB()
		after(2*time.Hour + 59*time.Minute + 30*time.Second)
		w.slow(20*time.Second, 14*time.Second)
		for range 60 {
			after(5 * time.Second)
			w.mustWork(p, time.Now().Format("at 15:04:05"))
		}
		w.slow(0, 0)
		after(3 * time.Hour)
		w.mustWork(p, "three hours later")
	})
}

// A claim names its TTL: a process with a shorter one leaves a slow rotation alone, and takes it over once its holder is gone.
func TestATakeoverWaitsForTheLongerTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := hold(w.api, creating)
		_, stopA := w.daemon(options{api: h, claimTTL: 10 * time.Minute}, p)
		defer stopA()
		<-h.held
		_, stopB := w.daemon(options{claimTTL: 30 * time.Second}, p)
		defer stopB()
		after(9*time.Minute + 50*time.Second)
		if made, logs := len(w.alive()), w.logs.String(); made != 0 || strings.Contains(logs, "claim_expired") {
			t.Errorf("taken over before the claim's own TTL: %d keys", made)
		}
		after(3 * time.Minute)
		w.mustWork(p, "after the takeover")
		close(h.release)
		after(5 * time.Minute)
		w.mustWork(p, "after the late create")
	})
}

// A takeover looks for the other's key until listings must show it, also where its own claim TTL is shorter than that.
func TestATakeoverWaitsForListingsThatLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		if err := w.sim.SetFaults(elevensim.Faults{ListLag: elevensim.Duration(25 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		h := hold(w.api, verifying)
		_, stopFirst := w.daemon(options{api: h}, p)
		defer stopFirst()
		<-h.held
		first := w.alive()[0]
		gone, made := false, 0 // OnChange is called under the simulator's lock
		w.sim.OnChange(func(c elevensim.Change) {
			gone = gone || c.Kind == elevensim.Deleted && c.Key.ID == first.ID
			if c.Kind == elevensim.Created && !gone {
				made++
			}
		})
		_, stop := w.daemon(options{claimTTL: 5 * time.Second}, p)
		defer stop()
		after(5 * time.Minute)
		close(h.release)
		after(time.Minute)
		w.mustWork(p, "after the takeover")
		if k := w.key(first.Secret); !k.Deleted() || made > 0 {
			t.Errorf("the abandoned key is gone: %t; made before it was: %d", k.Deleted(), made)
		}
	})
}

// slow sets how long a new key takes to work, and how long each answer of the API takes.
func (w *world) slow(newKey, answers time.Duration) {
	w.t.Helper()
	latency := elevensim.Range{Min: elevensim.Duration(answers), Max: elevensim.Duration(answers)}
	if err := w.sim.SetFaults(elevensim.Faults{KeyDelay: elevensim.Duration(newKey), Latency: latency}); err != nil {
		w.t.Fatal(err)
	}
}

// TestASuspendedCommand has an operator's laptop sleep in the middle of a rotation, while a daemon takes it over.
func TestASuspendedCommand(t *testing.T) {
	for name, match := range map[string]func(*http.Request) bool{
		"before the create": creating, "before the verifying": verifying, "before the inspection": inspecting,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newArena(t)
				p := testPolicy(t, func(p *plan.Policy) { p.Mode = plan.ModeManual })
				_, stop := w.daemon(options{}, p)
				defer stop()
				after(time.Hour)
				h := hold(w.api, match)
				laptop := w.build(options{api: h, claimTTL: stopped}, p)
				done := make(chan error, 1)
				go func() { done <- laptop.Rotate(context.Background(), p.Name, rotator.RotateOptions{}) }()
				<-h.held
				after(8 * time.Hour)
				w.mustWork(p, "in the morning")
				close(h.release)
				if err := <-done; err == nil {
					t.Error("a rotation that was taken over is reported as done")
				}
				for range 12 {
					after(15 * time.Minute)
					w.mustWork(p, time.Now().Format("at 15:04"))
				}
				w.accounted(p)
			})
		})
	}
}

// TestASuspendedDaemon wakes up after the other one's own attempt has failed.
func TestASuspendedDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, nil)
		h := holdLater(w.api, creating)
		_, stopA := w.daemon(options{api: h, claimTTL: stopped}, p)
		defer stopA()
		after(2*time.Hour + 59*time.Minute)
		h.arm()
		<-h.held
		_, stopB := w.daemon(options{}, p)
		defer stopB()
		refusal := elevensim.Rule{Kind: elevensim.Status, Operation: "createAPIKey", Status: 403, Code: "forbidden", Message: "not now"}
		if err := w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{refusal}}); err != nil {
			t.Fatal(err)
		}
		after(6 * time.Minute)
		w.slow(0, 0)
		close(h.release)
		for range 30 {
			after(10 * time.Second)
			w.mustWork(p, time.Now().Format("at 15:04:05"))
		}
		after(3 * time.Hour)
		w.mustWork(p, "three hours later")
		w.accounted(p)
	})
}

// TestASuspendedLookAtTheRecord gives the suspended process a version of the record from after the fence.
func TestASuspendedLookAtTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newArena(t)
		p := testPolicy(t, func(p *plan.Policy) { p.Mode = plan.ModeManual })
		_, stop := w.daemon(options{}, p)
		defer stop()
		after(time.Hour)
		claimed := false
		h := hold(w.kv, func(r *http.Request) bool {
			claimed = claimed || r.Method != http.MethodGet && strings.Contains(r.URL.Path, "/data/rekeyd/policies/")
			return claimed && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/data/elevenlabs/")
		})
		laptop := w.over(h).build(options{claimTTL: stopped}, p)
		done := make(chan error, 1)
		go func() { done <- laptop.Rotate(context.Background(), p.Name, rotator.RotateOptions{}) }()
		<-h.held
		after(8 * time.Hour)
		close(h.release)
		if err := <-done; err == nil {
			t.Error("a rotation that was taken over is reported as done")
		}
		for range 12 {
			after(15 * time.Minute)
			w.mustWork(p, time.Now().Format("at 15:04"))
		}
		w.accounted(p)
	})
}

// over is the same world, with its store reached through another transport.
func (a *arena) over(transport http.RoundTripper) *world {
	a.t.Helper()
	config := vaultapi.DefaultConfig()
	config.Address = "http://vault.invalid"
	store, err := sinks.NewVault(sinks.VaultOptions{Config: config, Token: secret.New("hvs.tok"), Transport: transport})
	if err != nil {
		a.t.Fatal(err)
	}
	return &world{t: a.t, sim: a.sim, store: store, api: a.api, urls: a.urls, logs: a.logs}
}
