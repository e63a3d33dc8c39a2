package daemon

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/memkv"
	"github.com/rekeyd/rekeyd/internal/process"
)

var (
	editSeed = flag.Uint64("edit-seed", 1, "decides the edits of TestEditsWhileRotationsRun")
	edits    = flag.Int("edits", defaultEdits, "how many there are")
)

const (
	vaultToken    = "hvs.token-of-the-edits"
	reconcile     = 5 * time.Minute
	keyDelay      = 20 * time.Second // so that edits fall into rotations
	longestPause  = 6 * time.Minute
	howLateAtMost = 2*reconcile + time.Minute
)

// editing is a daemon whose policy file is edited all the time, in simulated time.
type editing struct {
	t      *testing.T
	r      *rand.Rand
	d      *Daemon
	sim    *elevensim.Server
	kv     *memkv.Server
	log    process.Output
	path   string
	file   []wanted // the last valid file
	text   string   // … as it was written
	made   int      // names and paths so far: none is used twice
	oracle *editOracle
}

// remotes has ElevenLabs and Vault in this process.
type remotes struct{ elevenlabs, vault http.RoundTripper }

func (r remotes) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == "vault.invalid" {
		return r.vault.RoundTrip(req)
	}
	return r.elevenlabs.RoundTrip(req)
}

func newEditing(t *testing.T, seed uint64) *editing {
	t.Helper()
	e := &editing{t: t, r: rand.New(rand.NewPCG(seed, 3)), path: filepath.Join(t.TempDir(), "policies.yaml"), oracle: newEditOracle(t)}
	e.sim = elevensim.New(elevensim.Options{AdminKey: adminKey, Seed: seed, HistoryLimit: 1,
		Accounts: []elevensim.Account{{ID: "svcacc_a", Name: "a"}, {ID: "svcacc_b", Name: "b"}}})
	if err := e.sim.SetFaults(elevensim.Faults{KeyDelay: elevensim.Duration(keyDelay)}); err != nil {
		t.Fatal(err)
	}
	e.sim.OnChange(e.oracle.changed)
	e.kv = memkv.New(vaultToken, "secret")
	for range 5 {
		e.file = append(e.file, e.another())
	}
	e.write(e.render(e.file))
	s, err := Load(envconfig.MapLookuper(map[string]string{
		"REKEYD_POLICY_FILE": e.path, "VAULT_ADDR": "http://vault.invalid", "VAULT_TOKEN": vaultToken, "REKEYD_API_RATE": "1000",
		"REKEYD_RECONCILE_INTERVAL": reconcile.String(), "REKEYD_RESYNC_INTERVAL": "1h", "REKEYD_LOG_LEVEL": "info",
		"ELEVENLABS_API_KEY": adminKey, "ELEVENLABS_BASE_URL": "http://127.0.0.1",
	}))
	if err != nil {
		t.Fatal(err)
	}
	e.d, err = New(Config{Settings: s, Log: &e.log, Observe: e.oracle.happened, transport: remotes{elevensim.Transport(e.sim), e.kv}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// write replaces the policy file.
func (e *editing) write(text string) {
	e.t.Helper()
	if err := os.WriteFile(e.path, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// TestEditsWhileRotationsRun edits the policy file thousands of times, well and badly, while rotations run: the last
// valid file is always the one in force, and each policy rotates when it is due, once.
func TestEditsWhileRotationsRun(t *testing.T) {
	t.Parallel()
	t.Logf("-edit-seed=%d -edits=%d", *editSeed, *edits)
	synctest.Test(t, func(t *testing.T) {
		e := newEditing(t, *editSeed)
		e.oracle.edited("the first file", e.file)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.d.rotator.Run(ctx) }()
		for range *edits {
			if t.Failed() {
				break
			}
			e.wait(time.Duration(e.r.Int64N(int64(longestPause))))
			e.check()
			if e.r.IntN(3) == 0 {
				e.breakFile()
			} else {
				e.edit()
			}
		}
		e.wait(howLateAtMost + keyDelay)
		e.check()
		e.oracle.conclude()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s\n%s", strings.Join(last(e.oracle.trace, 40), "\n"), strings.Join(last(e.logged(), 40), "\n"))
		}
		t.Logf("%d rotations, of which %d were in flight during an edit; %d policies", e.oracle.rotations, e.oracle.disturbed, len(e.oracle.lineages))
		if *edits >= 1000 && (e.oracle.rotations < *edits/20 || e.oracle.disturbed < 5) {
			t.Error("the edits hardly met a rotation")
		}
	})
}

// logged returns what the daemon said, but for its opinion of the files.
func (e *editing) logged() []string {
	return slices.DeleteFunc(strings.Split(e.log.String(), "\n"), func(line string) bool { return strings.Contains(line, "configuration warning") })
}

func last(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

func (e *editing) wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// edit writes a valid file and has it loaded.
func (e *editing) edit() {
	e.t.Helper()
	next, what := e.edited()
	e.text = e.render(next)
	e.write(e.text)
	e.oracle.edited(what, next)
	n, err := e.d.reload(context.Background(), e.r.IntN(2) == 0)
	if err != nil || n != len(next) {
		e.t.Fatalf("%s: %d policies, %v\n%s", what, n, err, e.text)
	}
	e.file = next
	e.inForce(what, true)
}

// breakFile writes an invalid file, has it loaded, and often repairs it.
func (e *editing) breakFile() {
	e.t.Helper()
	bad, what := e.broken()
	if e.write(bad); what == "no file" {
		if err := os.Remove(e.path); err != nil {
			e.t.Fatal(err)
		}
	}
	for range 1 + e.r.IntN(2) {
		if _, err := e.d.reload(context.Background(), e.r.IntN(2) == 0); err == nil {
			e.t.Fatalf("%s: accepted\n%s", what, bad)
		}
	}
	e.inForce(what, false)
	if e.r.IntN(2) == 0 {
		return
	}
	e.write(e.text)
	if _, err := e.d.reload(context.Background(), e.r.IntN(2) == 0); err != nil {
		e.t.Fatalf("repaired after %s: %v", what, err)
	}
	e.inForce("repaired after "+what, true)
}

// inForce checks that the policies are those of the last valid file, and that a reload's failure is told.
func (e *editing) inForce(after string, well bool) {
	e.t.Helper()
	synctest.Wait()
	var got, want []string
	for _, s := range e.d.rotator.Snapshot().Policies {
		p := s.Policy
		got = append(got, shownAs(p.Name, p.ServiceAccount, p.Sink.Path, p.Schedule.String(), p.Overlap, p.Splay, *p.Settings.CharacterLimit))
	}
	for _, p := range byName(e.file) {
		want = append(want, shownAs(p.name, p.account, p.path, p.schedule, p.overlap, p.splay, p.limit))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		e.t.Fatalf("after %s these are in force:\n%s\nand not these:\n%s", after, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if ok := e.gauge("rekeyd_config_last_reload_successful") == 1; ok != well || (e.d.reloadFault() == "") != well {
		e.t.Fatalf("after %s the metric says %t and the page %q", after, ok, e.d.reloadFault())
	}
}

func (e *editing) gauge(name string) float64 {
	e.t.Helper()
	families, err := e.d.metrics.Registry.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	e.t.Fatalf("no metric %s", name)
	return 0
}

// check holds what readers find against what they were promised, and the clock against what is due.
func (e *editing) check() {
	e.t.Helper()
	for _, p := range e.file {
		data, _ := e.kv.Get("secret/"+p.path, 0)
		secret, _ := data["api_key"].(string)
		if k, ok := e.sim.KeyBySecret(secret); secret != "" && (!ok || k.Disabled) {
			e.t.Errorf("readers of %s have a key that does not work", p.path)
		}
	}
	e.oracle.check(time.Now())
}
