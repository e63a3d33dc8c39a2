package conformance_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/conformance"
	"github.com/rekeyd/rekeyd/internal/process"
)

// processes are the real binary and a simulator, whose keys of others are foreign.
type processes struct {
	t       *testing.T
	bin     process.Programs
	sim     *process.Simulator
	env     []string
	foreign map[string]bool // by id
	said    []*process.Output
	hung    int // creates that hung so far
}

func start(t *testing.T) *processes {
	t.Helper()
	if testing.Short() {
		t.Skip("builds rekeyd")
	}
	bin, err := process.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &processes{t: t, bin: bin, sim: bin.StartSimulator(t, adminKey, 1, account+"=Speech of the test"), foreign: map[string]bool{}}
	p.env = []string{"ELEVENLABS_API_KEY=" + adminKey, "ELEVENLABS_BASE_URL=" + p.sim.URL, "REKEYD_API_RATE=500", "REKEYD_VERIFY_TIMEOUT=3s", "PATH=" + os.Getenv("PATH")}
	for _, name := range []string{"rekeyd-conformance.abcdefghij", "tts-prod"} {
		id, _ := p.sim.AddKey(account, name)
		p.foreign[id] = true
	}
	return p
}

// hangAt has the create of that number carried out, and not answered; 0: none.
func (p *processes) hangAt(create int) {
	p.t.Helper()
	f := elevensim.Faults{ListLag: d(200 * time.Millisecond), KeyDelay: d(100 * time.Millisecond)}
	if create > 0 {
		f.Rules = []elevensim.Rule{{Kind: elevensim.Hang, After: true, Operation: "createAPIKey", Nth: create}}
	}
	p.sim.SetFaults(f)
}

func (p *processes) run(args ...string) *process.Process {
	p.t.Helper()
	r := process.Start(p.t, p.env, p.bin.Rekeyd, append([]string{"conformance", "--account", account}, args...)...)
	p.said = append(p.said, &r.Stdout, &r.Stderr)
	return r
}

// made waits until so many keys were made since the simulator was told to hang.
func (p *processes) made(creates int) {
	p.t.Helper()
	process.Eventually(p.t, process.Patience, func() error {
		have := 0
		for _, r := range p.sim.History() {
			if r.Operation == "createAPIKey" && r.Fault == string(elevensim.Hang) {
				have++
			}
		}
		if have == p.hung {
			return fmt.Errorf("create %d was not sent", creates)
		}
		p.hung = have
		return nil
	})
}

// living counts the keys that runs left; those of others must be as they were.
func (p *processes) living() (n int) {
	p.t.Helper()
	for _, k := range p.sim.Keys() {
		switch {
		case p.foreign[k.ID] && (k.Deleted() || k.Disabled):
			p.t.Errorf("key %q of others is gone or disabled", k.Name)
		case !p.foreign[k.ID] && !k.Deleted():
			n++
		}
	}
	return n
}

// quiet looks for ids and secrets in all that was said.
func (p *processes) quiet() {
	p.t.Helper()
	hidden := map[string]string{"admin key": adminKey, "account's id": account, "account's name": "Speech of the test"}
	for _, k := range p.sim.Keys() {
		hidden["secret of "+k.Name], hidden["id of "+k.Name] = k.Secret, k.ID
	}
	process.CheckNoSecretIn(p.t, p.said, hidden)
}

// TestKilledAtAnyTime: the next run of the real binary deletes what a killed one left.
func TestKilledAtAnyTime(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, create := range []int{1, 2, 5, 8} {
		p.hangAt(create)
		r := p.run("--yes")
		p.made(create)
		r.Kill()
		if p.living() == 0 {
			t.Error("the killed run left no key")
		}
	}
	p.hangAt(0)
	if r := p.run("--yes", "-o", "json"); r.Wait() != 0 {
		t.Errorf("%s%s", r.Stdout.String(), r.Stderr.String())
	}
	if n := p.living(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	p.quiet()
}

// TestSignals: an interrupted run deletes what it made, says so, and reports what it asked.
func TestSignals(t *testing.T) {
	t.Parallel()
	p := start(t)
	for i, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGINT} {
		p.hangAt(1 + 3*i)
		r := p.run("--yes", "-o", "json")
		p.made(1 + 3*i)
		r.Signal(signal)
		if status := r.Wait(); status != 1 || !strings.Contains(r.Stderr.String(), "interrupted") {
			t.Errorf("%s: exit status %d: %s", signal, status, r.Stderr.String())
		}
		var report conformance.Report
		if err := json.Unmarshal([]byte(r.Stdout.String()), &report); err != nil || len(report.Checks) != len(conformance.Checks()) || report.Count(conformance.NotAsked) < 10 {
			t.Errorf("%s: %v: %s", signal, err, r.Stdout.String())
		}
		if n := p.living(); n != 0 {
			t.Errorf("%s: %d keys are left", signal, n)
		}
	}
	p.quiet()
}
