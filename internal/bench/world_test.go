package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

const (
	accounts    = 1000
	concurrency = 16
	overlap     = 20 * time.Second
)

// asked reports whether figures are wanted: they take minutes.
func asked(t *testing.T) bool {
	t.Helper()
	if os.Getenv("REKEYD_BENCH") == "" {
		t.Log("set REKEYD_BENCH=1 to run it; make bench does")
		return false
	}
	return true
}

// world is a Vault and a simulator, each a process of its own, that all contestants use.
type world struct {
	t        *testing.T
	programs process.Programs
	vault    *vaulttest.Server
	sim      *process.Simulator
	adminKey string
	policy   string // Vault's, as shipped
	token    string
	env      []string // the daemon's
	folder   string   // of the daemon's records
	log      string   // the file of the daemon's log

	mu     sync.Mutex
	ledger map[string]int
}

func account(i int) string { return fmt.Sprint("svcacc_", i) }

func newWorld(t *testing.T, vault *vaulttest.Server) *world {
	t.Helper()
	w := &world{t: t, vault: vault, adminKey: "sk_admin_of_the_benchmark", ledger: map[string]int{}}
	hcl, err := os.ReadFile("../../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	w.policy = string(hcl)
	// Others get rights as narrow as ours, since Vault does not look at those of its root token at all.
	w.token = w.vault.Token(t, strings.NewReplacer("data/rekeyd/", "data/bare/", "data/elevenlabs/", "data/least/").Replace(w.policy)+
		`path "secret/+/shell/*" { capabilities = ["create", "read", "update"] }`)
	if w.programs, err = process.Build(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	ids := make([]string, accounts)
	for i := range ids {
		ids[i] = account(i)
	}
	w.sim = w.programs.StartSimulator(t, w.adminKey, 1, ids...)
	return w
}

func (w *world) setLatency(d time.Duration) {
	w.sim.SetFaults(elevensim.Faults{Latency: elevensim.Range{Min: elevensim.Duration(d), Max: elevensim.Duration(d)}})
}

// daemon starts rekeyd with a policy for each account, due at each full minute, and returns it with every first key made.
func (w *world) daemon() (d *process.Process, metrics string) {
	w.t.Helper()
	w.configure("* * * * *", "")
	d, metrics = w.start()
	w.await(accounts)
	return d, metrics
}

// configure gives the daemon a policy for each account, with ledger and records in folders of that name.
func (w *world) configure(schedule, folder string) {
	w.t.Helper()
	w.folder = folder
	file := filepath.Join(w.t.TempDir(), "policies.yaml")
	var b strings.Builder
	fmt.Fprintf(&b, "defaults: {schedule: %q, overlap: %s, quarantine: 5s, permissions: [text_to_speech, user_read]}\npolicies:\n", schedule, overlap)
	for i := range accounts {
		fmt.Fprintf(&b, "- {name: p-%d, service_account: %s, sink: {path: %s}}\n", i, account(i), record(folder, i))
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.env = []string{
		"REKEYD_POLICY_FILE=" + file, "REKEYD_LEDGER_PATH=" + path.Join("rekeyd", folder), "REKEYD_LISTEN_ADDR=127.0.0.1:0", "REKEYD_MIN_INTERVAL=1m", fmt.Sprint("REKEYD_CONCURRENCY=", concurrency),
		"REKEYD_API_RATE=100000", "REKEYD_MAX_ROTATIONS_PER_HOUR=1000000", "ELEVENLABS_API_KEY=" + w.adminKey, "ELEVENLABS_BASE_URL=" + w.sim.URL,
		"VAULT_ADDR=" + w.vault.Addr, "VAULT_TOKEN=" + w.vault.Token(w.t, w.policy), "HOME=" + w.t.TempDir(),
	}
}

func record(folder string, i int) string { return path.Join("elevenlabs", folder, fmt.Sprint("p-", i)) }

// start starts the daemon as it was before. Its log goes to a file, which nobody but us reads, and we seldom: whoever
// looks on by a pipe or by scrapes takes time from it.
func (w *world) start() (d *process.Process, metrics string) {
	w.t.Helper()
	w.log = filepath.Join(w.t.TempDir(), "log")
	d = process.Start(w.t, w.env, "/bin/sh", "-c", `exec "$0" run 2>"$1"`, w.programs.Rekeyd, w.log)
	started := regexp.MustCompile(`"msg":"started".*"address":"([^"]+)"`)
	process.Eventually(w.t, process.Patience, func() error {
		found := started.FindSubmatch(w.said())
		if found == nil {
			return fmt.Errorf("rekeyd did not start: %s", w.said())
		}
		metrics = "http://" + string(found[1]) + "/metrics"
		return nil
	})
	return d, metrics
}

// said is the daemon's log, as far as it can be read.
func (w *world) said() []byte {
	text, _ := os.ReadFile(w.log)
	return text
}

// rotated counts the rotations since the daemon's start.
func (w *world) rotated() int { return bytes.Count(w.said(), []byte(`"msg":"rotated"`)) }

// await waits until there were so many rotations since the daemon's start.
func (w *world) await(rotations int) {
	w.t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); ; <-tick.C {
		got := w.rotated()
		if got >= rotations {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%v rotations of %d within five minutes", got, rotations)
		}
	}
}

func (w *world) scrape(url string) string {
	w.t.Helper()
	status, text := process.Request(w.t, "GET", url, "", "")
	if status != 200 {
		w.t.Fatalf("%s: %d", url, status)
	}
	return text
}

// sum adds up the series whose line begins with the expression.
func sum(exposition, series string) float64 {
	total := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+series+`.* ([0-9.e+-]+)$`).FindAllStringSubmatch(exposition, -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err == nil {
			total += v
		}
	}
	return total
}

// published returns, by Vault's own clock, how long after due each of the daemon's records was written.
func (w *world) published(ctx context.Context, due time.Time) []time.Duration {
	w.t.Helper()
	client := w.vault.Client(w.t)
	took := make([]time.Duration, accounts)
	for i := range took {
		s, err := client.Logical().ReadWithContext(ctx, "secret/metadata/"+record(w.folder, i))
		if err != nil || s == nil {
			w.t.Fatalf("reading what Vault knows of record %d: %v", i, err)
		}
		at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(s.Data["updated_time"]))
		if err != nil {
			w.t.Fatal(err)
		}
		took[i] = at.Sub(due)
	}
	return took
}

// figure is one line of a table.
type figure struct {
	name       string
	perSecond  float64
	p50, p99   time.Duration
	calls, cpu string
}

// figureOf makes a line from how long after the start each rotation was published.
func figureOf(name string, took []time.Duration, calls, cpu string) figure {
	took = slices.Sorted(slices.Values(took))
	n := len(took)
	return figure{name: name, perSecond: float64(n) / took[n-1].Seconds(), p50: took[n/2], p99: took[n*99/100], calls: calls, cpu: cpu}
}

// table has the bare loop first, against which the others are held.
func table(figures []figure) string {
	against := figures[0].perSecond
	var b strings.Builder
	b.WriteString("| | rotations a second | of the bare loop | p50 | p99 | remote calls a rotation | CPU ms a rotation |\n|---|---|---|---|---|---|---|\n")
	for _, f := range figures {
		fmt.Fprintf(&b, "| %s | %.1f | %.2f | %s | %s | %s | %s |\n", f.name, f.perSecond, f.perSecond/against, ms(f.p50), ms(f.p99), f.calls, f.cpu)
	}
	return b.String()
}

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// callsByKind says how many calls of each kind one rotation made, from the difference of two scrapes.
func callsByKind(before, after string) string {
	series := regexp.MustCompile(`(?m)^rekeyd_requests_total\{code="[^"]*",operation="([^"]+)",target="([^"]+)"\} ([0-9.e+]+)$`)
	counts := map[string]float64{}
	for sign, text := range map[float64]string{-1: before, 1: after} {
		for _, m := range series.FindAllStringSubmatch(text, -1) {
			v, _ := strconv.ParseFloat(m[3], 64)
			counts[m[2]+" "+m[1]] += sign * v
		}
	}
	text, _ := json.Marshal(counts)
	return string(text)
}
