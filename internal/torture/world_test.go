package torture

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

const (
	replicas = 3
	policies = 6
	accounts = 3

	every      = 3 * time.Second
	overlap    = 2 * time.Second
	quarantine = 2 * time.Second
)

// claimTTLs are those of the replicas, as in a rollout that changes the variable, or beside an operator's shell.
func claimTTLs() [replicas]time.Duration {
	return [replicas]time.Duration{2 * time.Second, 5 * time.Second, 12 * time.Second}
}

// world is what is tortured, and what was done to it.
type world struct {
	t        *testing.T
	dice     *mathrand.Rand
	vaults   []*vaulttest.Server // one, or a cluster
	addrs    []string            // where the replicas, in turn, find Vault
	root     *vaultapi.Client    // looks at Vault with rights that rekeyd does not have
	programs process.Programs
	sim      *process.Simulator
	replicas []*replica
	env      []string
	secrets  map[string]string
	foreign  map[string]string // names by id of the keys that are not ours
	said     []*process.Output // everything that rekeyd wrote
	lives    []int             // whose that was: two outputs for each life of a replica

	down       *vaulttest.Server // was killed
	downUntil  time.Time
	leader     leader
	healed     time.Time
	ended      time.Time     // when the replicas were stopped
	settled    time.Duration // after that
	wrongClock bool          // one replica's clock is wrong, so no promise of a time can be kept
	notes      []event
	did        struct{ kills, stops, days, vaultRestarts, stepDowns, leaders, faults, rotations, creates, rewrites, rollbacks, late, retirements int }
	byHand     sync.Map // the rollbacks that a person made
	tooLate    sync.Map // the keys that were put back by one that may have come too late
	reads      atomic.Int64
	violations atomic.Int64

	requests  map[uint64]elevensim.Request // by number, all but those of readers
	collected time.Time
}

// replica is one of the processes; which one it is changes with each kill.
type replica struct {
	*process.Process // nil: it was killed
	number           int
	frozen           bool
	until            time.Time     // when it is started or woken up
	clock            time.Duration // by how much its clock is wrong
}

// event is a line of a trace.
type event struct {
	at   time.Time
	what string
}

// newWorld begins a world in which readers find Vault at the last of the addresses.
func newWorld(t *testing.T, seed uint64, vaults []*vaulttest.Server, addrs ...string) *world {
	t.Helper()
	w := &world{
		t: t, dice: mathrand.New(mathrand.NewPCG(seed, 0)), vaults: vaults, addrs: addrs,
		foreign: map[string]string{}, requests: map[uint64]elevensim.Request{}, collected: time.Now(),
	}
	front := &vaulttest.Server{Addr: addrs[len(addrs)-1], RootToken: vaults[0].RootToken}
	w.root = front.Client(t)
	var err error
	if w.programs, err = process.Build(t.Context(), t.TempDir(), "wrongclock"); err != nil {
		t.Fatal(err)
	}
	hcl, err := os.ReadFile("../../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	w.secrets = map[string]string{"admin key": "sk_admin" + rand.Text(), "Vault token": front.Token(t, string(hcl))}
	var ids []string
	for i := range accounts {
		ids = append(ids, account(i))
	}
	w.sim = w.programs.StartSimulator(t, w.secrets["admin key"], seed, ids...)
	w.addForeign()
	w.prepareRecords()
	w.setEnvironment()
	for i := range replicas {
		r := &replica{number: i}
		w.replicas = append(w.replicas, r)
		w.start(r)
	}
	return w
}

func account(i int) string { return fmt.Sprint("svcacc_", i%accounts) }

func policy(i int) string { return fmt.Sprint("policy-", i) }

func record(i int) string { return "elevenlabs/" + policy(i) }

// addForeign adds keys that must not be touched, another installation's among them.
func (w *world) addForeign() {
	w.t.Helper()
	for i := range accounts {
		for _, name := range []string{"of somebody else", "rekeyd.other123." + policy(i) + ".0123456789"} {
			id, _ := w.sim.AddKey(account(i), name)
			w.foreign[id] = name
		}
	}
}

const foreignField = "team"

// prepareRecords has Vault keep every version, and puts a field of others into each record.
func (w *world) prepareRecords() {
	w.t.Helper()
	kv := w.root.KVv2("secret")
	for i := range policies {
		if err := kv.PutMetadata(w.t.Context(), record(i), vaultapi.KVMetadataPutInput{MaxVersions: 100_000}); err != nil {
			w.t.Fatal(err)
		}
		if _, err := kv.Put(w.t.Context(), record(i), map[string]any{foreignField: policy(i)}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) setEnvironment() {
	w.t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "defaults: {overlap: %s, quarantine: %s}\npolicies:\n", overlap, quarantine)
	for i := range policies {
		fmt.Fprintf(&text, "  - {name: %s, service_account: %s, schedule: \"@every %s\", permissions: [user_read], sink: {path: %s}}\n",
			policy(i), account(i), every, record(i))
	}
	file := filepath.Join(w.t.TempDir(), "policies.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.env = []string{
		"REKEYD_POLICY_FILE=" + file, "REKEYD_LISTEN_ADDR=127.0.0.1:0", "REKEYD_LOG_LEVEL=debug",
		"REKEYD_MIN_INTERVAL=1s", "REKEYD_RECONCILE_INTERVAL=500ms", "REKEYD_RESYNC_INTERVAL=2s", "REKEYD_VERIFY_TIMEOUT=2s",
		"REKEYD_API_RATE=1000", "REKEYD_API_TIMEOUT=3s",
		"REKEYD_MAX_ROTATIONS_PER_HOUR=1000000", "REKEYD_SHUTDOWN_TIMEOUT=15s",
		"ELEVENLABS_API_KEY=" + w.secrets["admin key"], "ELEVENLABS_BASE_URL=" + w.sim.URL,
		"VAULT_TOKEN=" + w.secrets["Vault token"], "HOME=" + w.t.TempDir(),
	}
}

func (w *world) start(r *replica) {
	w.t.Helper()
	env := append(slices.Clone(w.env), "VAULT_ADDR="+w.addrs[r.number%len(w.addrs)], fmt.Sprint("REKEYD_CLAIM_TTL=", claimTTLs()[r.number]), fmt.Sprint("TEST_CLOCK_OFFSET=", r.clock))
	r.Process = process.Start(w.t, env, w.programs.Rekeyd, "run")
	w.said, w.lives = append(w.said, &r.Stdout, &r.Stderr), append(w.lives, r.number)
	w.note("replica %d is started, its clock wrong by %s", r.number, r.clock)
}

// mustRun checks, before a process is struck, that it had not ended by itself.
func (w *world) mustRun(r *replica) {
	w.t.Helper()
	if r.Exited() {
		w.t.Fatalf("replica %d ended by itself; it said:\n%s", r.number, r.Stderr.String())
	}
}

// collect keeps what the simulator remembers before the requests of readers push it out.
func (w *world) collect(now bool) {
	w.t.Helper()
	if !now && time.Since(w.collected) < 20*time.Second {
		return
	}
	w.collected = time.Now()
	for _, r := range w.sim.History() {
		if r.Operation != "getUser" {
			w.requests[r.Seq] = r
		}
	}
}

// settle waits until nothing of the torture is left.
func (w *world) settle() {
	w.t.Helper()
	for deadline := time.Now().Add(settleTime); ; {
		left := w.unsettled()
		if left == "" {
			w.settled = time.Since(w.healed)
			return
		}
		if time.Now().After(deadline) {
			w.violated("not settled within %s: %s", settleTime, left)
			return
		}
		w.pass(200 * time.Millisecond)
	}
}

// unsettled says what is left of the torture: each key that was made in it must be gone, and rotations must go on.
func (w *world) unsettled() string {
	w.t.Helper()
	newer := map[string]int{}
	for _, k := range w.sim.Keys() {
		switch ours := w.ours(k.ID, k.Name); {
		case ours && !k.Deleted() && k.CreatedAt.Before(w.healed):
			return fmt.Sprintf("key %s (%s, disabled %v), made before all was healed, is still there", k.ID, k.Name, k.Disabled)
		case ours && !k.CreatedAt.Before(w.healed):
			newer[policyOf(k.Name)]++
		}
	}
	for i := range policies {
		if newer[policy(i)] < 2 {
			return fmt.Sprintf("%s was not rotated twice since all was healed", policy(i))
		}
	}
	return ""
}

func (w *world) ours(id, name string) bool {
	return w.foreign[id] == "" && strings.HasPrefix(name, "rekeyd.")
}

// policyOf returns the policy in a key's name.
func policyOf(name string) string {
	parts := strings.Split(name, ".")
	return parts[len(parts)-2]
}

// noneInError waits until no replica shows that a policy needs a person, or fails: nothing is wrong any more.
func (w *world) noneInError() {
	w.t.Helper()
	for _, r := range w.replicas {
		url := "http://" + r.Find(&r.Stderr, `"started".*"address":"([^"]+)"`) + "/api/v1/policies"
		process.Eventually(w.t, settleTime, func() error {
			_, body := process.Request(w.t, http.MethodGet, url, "", "")
			var v struct {
				Policies []struct{ Name, State, Message string }
			}
			if err := json.Unmarshal([]byte(body), &v); err != nil || len(v.Policies) != policies {
				return fmt.Errorf("replica %d shows %s", r.number, body)
			}
			for _, p := range v.Policies {
				if p.State == "error" || p.State == "failing" {
					return fmt.Errorf("replica %d shows %s as %s: %s", r.number, p.Name, p.State, p.Message)
				}
			}
			return nil
		})
	}
}

func (w *world) stopReplicas() {
	w.t.Helper()
	w.ended = time.Now()
	for _, r := range w.replicas {
		w.mustRun(r)
		if status := r.Stop(); status != 0 {
			w.violated("exit status %d after SIGTERM; replica %d said:\n%s", status, r.number, r.Stderr.String())
		}
	}
	w.note("all replicas were stopped")
}

// checkOutputs checks that no process panicked, said a secret, or took Vault for restored, which it never was.
func (w *world) checkOutputs() {
	w.t.Helper()
	panicked := regexp.MustCompile(`(?m)^(panic|fatal error): |^goroutine \d+ `)
	restored := regexp.MustCompile(`(?m)^.*went back in time.*$`)
	for _, o := range w.said {
		text := o.String()
		if panicked.MatchString(text) {
			w.violated("a process panicked:\n%s", text)
		}
		if said := restored.FindString(text); said != "" {
			w.violated("Vault was not restored, but a process said:\n%s", said)
		}
	}
	for _, k := range w.sim.Keys() {
		w.secrets["secret of key "+k.ID] = k.Secret
	}
	process.CheckNoSecretIn(w.t, w.said, w.secrets)
}

// rotationsOf says how many rotations each replica carried through.
func (w *world) rotationsOf() (done [replicas]int) {
	for i, o := range w.said {
		done[w.lives[i/2]] += o.Count(`"msg":"rotated"`)
	}
	return done
}

// ask uses a secret as whoever reads it from Vault does.
func (w *world) ask(client *http.Client, secret string) (status int) {
	req, err := http.NewRequest(http.MethodGet, w.sim.URL+"/v1/user", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("xi-api-key", secret)
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	var buf [4096]byte
	for err == nil {
		_, err = resp.Body.Read(buf[:])
	}
	return resp.StatusCode
}
