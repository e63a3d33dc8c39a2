package bench

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// fleet is a daemon with many policies of which none is due, in workspaces with a simulator process each.
type fleet struct {
	t                *testing.T
	programs         process.Programs
	vault            *vaulttest.Server
	policies, spaces int
	file             string
	env              []string
	sims             []*process.Simulator
	daemon           *process.Process
	url              string
}

// TestFleet measures what 10, 1,000 and 10,000 policies cost while nothing is due, and what start, reload, scrape and
// page cost then.
func TestFleet(t *testing.T) {
	if !asked(t) {
		return
	}
	rows := []string{
		"| policies (workspaces) | first keys | CPU an hour | resident | of it while scraped | bytes allocated a reconcile | remote calls an hour |", "|---|---|---|---|---|---|---|",
	}
	var answers, starts []string
	for _, size := range []struct{ policies, spaces int }{{10, 1}, {1000, 10}, {10000, 100}} {
		t.Run(fmt.Sprint(size.policies), func(t *testing.T) {
			f := newFleet(t, size.policies, size.spaces)
			begun := time.Now()
			f.start()
			f.awaitKeys()
			rows = append(rows, f.steady(time.Since(begun)))
			answers = append(answers, f.answers()...)
			starts = append(starts, f.startAndReload())
		})
	}
	t.Logf("steady state, with the default intervals\n\n%s", strings.Join(rows, "\n"))
	t.Logf("answers\n\n| policies | path | bytes | gzip | wall | CPU |\n|---|---|---|---|---|---|\n%s", strings.Join(answers, "\n"))
	t.Logf("start and reload\n\n| policies | bare reads, 8 at a time | start to ready | of the bare reads, each | Vault on a processor of its own: bare reads | start to ready | of the bare reads, each | reload | reload, CPU | resident two minutes later |\n|---|---|---|---|---|---|---|---|---|---|\n%s", strings.Join(starts, "\n"))
}

func newFleet(t *testing.T, policies, spaces int) *fleet {
	t.Helper()
	f := &fleet{t: t, vault: vaulttest.Start(t), policies: policies, spaces: spaces, file: filepath.Join(t.TempDir(), "policies.yaml")}
	hcl, err := os.ReadFile("../../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if f.programs, err = process.Build(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	f.env = []string{
		"REKEYD_POLICY_FILE=" + f.file, "REKEYD_LISTEN_ADDR=127.0.0.1:0", "REKEYD_MAX_ROTATIONS_PER_HOUR=1000000", "REKEYD_API_RATE=1000",
		"VAULT_ADDR=" + f.vault.Addr, "VAULT_TOKEN=" + f.vault.Token(t, string(hcl)), "HOME=" + t.TempDir(),
	}
	var b strings.Builder
	b.WriteString("workspaces:\n")
	for w := range spaces {
		ids := make([]string, policies/spaces)
		for i := range ids {
			ids[i] = account(w + i*spaces)
		}
		key := fmt.Sprint("sk_admin_of_workspace_", w)
		sim := f.programs.StartSimulator(t, key, uint64(w)+1, ids...)
		f.sims = append(f.sims, sim)
		fmt.Fprintf(&b, "- {name: w%[1]d, base_url: %[2]q, api_key: {env: ELEVENLABS_KEY_%[1]d}}\n", w, sim.URL)
		f.env = append(f.env, fmt.Sprintf("ELEVENLABS_KEY_%d=%s", w, key))
	}
	b.WriteString("defaults: {schedule: \"0 0 1 1 *\", permissions: [text_to_speech, user_read]}\npolicies:\n")
	for i := range policies {
		fmt.Fprintf(&b, "- {name: p-%[1]d, workspace: w%[2]d, service_account: %[3]s, sink: {path: elevenlabs/p-%[1]d}}\n", i, i%spaces, account(i))
	}
	f.write(b.String())
	return f
}

func (f *fleet) write(policies string) {
	f.t.Helper()
	if err := os.WriteFile(f.file, []byte(policies), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) start() {
	f.t.Helper()
	f.daemon = process.Start(f.t, f.env, f.programs.Rekeyd, "run")
	f.url = "http://" + f.daemon.Find(&f.daemon.Stderr, `"msg":"started".*"address":"([^"]+)"`)
}

func (f *fleet) awaitKeys() {
	f.t.Helper()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Minute); sum(f.get("/metrics"), `rekeyd_rotations_total\{.*result="success"`) < float64(f.policies); <-tick.C {
		if time.Now().After(deadline) {
			f.t.Fatal("no first keys within ten minutes")
		}
	}
}

func (f *fleet) get(path string) string {
	f.t.Helper()
	status, text := process.Request(f.t, http.MethodGet, f.url+path, "", "")
	if status != http.StatusOK {
		f.t.Fatalf("%s: %d %.200s", path, status, text)
	}
	return text
}

// steady looks on for some reconciles, without asking anything.
func (f *fleet) steady(first time.Duration) string {
	const interval, reconciles = time.Minute, 3
	before := f.get("/metrics")
	sleepUntil(time.Now().Add(10 * time.Second)) // for the garbage of the scrape
	begun, used := time.Now(), f.cpu()
	sleepUntil(begun.Add(reconciles * interval))
	spent, resident := f.cpu()-used, f.memory("VmRSS")
	after := f.get("/metrics")
	grown := func(series string) float64 { return (sum(after, series) - sum(before, series)) / reconciles }
	return fmt.Sprintf("| %d (%d) | %.0f s | %.1f s | %.0f MiB | %.0f MiB | %.1f MiB | %.0f |", f.policies, f.spaces, first.Seconds(),
		spent.Seconds()*float64(time.Hour)/float64(reconciles*interval), resident, f.memory("VmHWM"),
		grown("go_memstats_alloc_bytes_total")/(1<<20), grown("rekeyd_requests_total")*float64(time.Hour/interval))
}

// cpu is what the daemon has used of the processors.
func (f *fleet) cpu() time.Duration { return cpu()["rekeyd"] }

// memory is a line of the daemon's /proc/PID/status, in MiB.
func (f *fleet) memory(line string) float64 {
	f.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.daemon.ID()))
	if err != nil {
		f.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), line+":")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		f.t.Fatal(err)
	}
	return float64(kib) / 1024
}

// answers asks for what people and Prometheus ask for.
func (f *fleet) answers() []string {
	var rows []string
	for _, path := range []string{"/metrics", "/", "/api/v1/policies"} {
		plain, zipped := f.fetch(path, ""), f.fetch(path, "gzip")
		rows = append(rows, fmt.Sprintf("| %d | `%s` | %d | %d | %s | %s |", f.policies, path, plain.bytes, zipped.bytes, ms(zipped.wall), ms(zipped.cpu)))
	}
	return rows
}

type fetched struct {
	bytes     int64
	wall, cpu time.Duration
}

// fetch asks five times. The wall time is the median, the CPU time the mean.
func (f *fleet) fetch(path, encoding string) fetched {
	f.t.Helper()
	const times = 5
	var walls []time.Duration
	used, got, client := f.cpu(), fetched{}, &http.Client{Timeout: time.Minute}
	for range times {
		begun := time.Now()
		req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.url+path, nil)
		if err != nil {
			f.t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", encoding)
		resp, err := client.Do(req)
		if err != nil {
			f.t.Fatal(err)
		}
		got.bytes, err = io.Copy(io.Discard, resp.Body)
		if _ = resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			f.t.Fatalf("%s: %d %v", path, resp.StatusCode, err)
		}
		walls = append(walls, time.Since(begun))
	}
	slices.Sort(walls)
	got.wall, got.cpu = walls[times/2], (f.cpu()-used)/times
	return got
}

// startAndReload starts the daemon again and again, also while the remotes have a processor of their own, then reloads its file, and
// looks at what is in memory where no first keys were made.
func (f *fleet) startAndReload() string {
	f.t.Helper()
	apart(f.t)
	own := f.starts()
	together(f.t)
	shared := f.starts()
	text, err := os.ReadFile(f.file)
	if err != nil {
		f.t.Fatal(err)
	}
	used, begun := f.cpu(), time.Now()
	f.write(strings.Replace(string(text), "0 0 1 1 *", "0 0 2 1 *", 1))
	f.daemon.Signal(syscall.SIGHUP)
	f.daemon.Find(&f.daemon.Stderr, `("policies reloaded")`)
	reload := time.Since(begun)
	sleepUntil(time.Now().Add(2 * time.Second)) // plans are made anew
	used = f.cpu() - used
	sleepUntil(time.Now().Add(2 * time.Minute))
	return fmt.Sprintf("| %d | %s | %s | %s | %s | %.0f MiB |", f.policies, shared, own, ms(reload), ms(used), f.memory("VmRSS"))
}

// starts starts the daemon again, in turn with bare reads of the entries that it has to read. The times are medians.
func (f *fleet) starts() string {
	f.t.Helper()
	const times = 5
	var bare, ready []time.Duration
	var each string
	for range times {
		if status := f.daemon.Stop(); status != 0 {
			f.t.Errorf("rekeyd ended with %d", status)
		}
		bare = append(bare, f.bareReads())
		ready = append(ready, f.readyAgain())
		each += fmt.Sprintf("%.2f ", ready[len(ready)-1].Seconds()/bare[len(bare)-1].Seconds())
		sleepUntil(time.Now().Add(5 * time.Second)) // the first listing is neither the reload's nor the next reads'
	}
	slices.Sort(bare)
	slices.Sort(ready)
	return fmt.Sprintf("%s | %s | %s", ms(bare[times/2]), ms(ready[times/2]), each)
}

// readyAgain starts the daemon and returns how long that took until it was ready.
func (f *fleet) readyAgain() time.Duration {
	f.t.Helper()
	begun := time.Now()
	f.start()
	process.Eventually(f.t, 2*time.Minute, func() error {
		if status, text := process.Request(f.t, http.MethodGet, f.url+"/readyz", "", ""); status != http.StatusOK {
			return fmt.Errorf("not ready: %s", text)
		}
		return nil
	})
	return time.Since(begun)
}

func (f *fleet) bareReads() time.Duration {
	const workers = 8
	token := f.vault.Token(f.t, `path "secret/data/rekeyd/*" { capabilities = ["read"] }`)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	next := make(chan int)
	var group sync.WaitGroup
	begun := time.Now()
	for range workers {
		group.Go(func() {
			for i := range next {
				req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, fmt.Sprint(f.vault.Addr, "/v1/secret/data/rekeyd/policies/p-", i), nil)
				if err != nil {
					f.t.Error(err)
					continue
				}
				req.Header.Set("X-Vault-Token", token)
				resp, err := client.Do(req)
				if err != nil {
					f.t.Error(err)
					continue
				}
				if _, _ = io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusOK {
					f.t.Errorf("entry %d: %s", i, resp.Status)
				}
				_ = resp.Body.Close()
			}
		})
	}
	for i := range f.policies {
		next <- i
	}
	close(next)
	group.Wait()
	return time.Since(begun)
}
