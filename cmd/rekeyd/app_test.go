package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/internal/web"
	"github.com/rekeyd/rekeyd/rotator/plan"
)

const policies = `policies:
  - {name: tts-prod, service_account: svcacc_a, schedule: "0 3 * * 1", timezone: Europe/Oslo, permissions: all, character_limit: 5, sink: {path: app/tts}}
  - {name: dubbing, service_account: svcacc_a, schedule: "@every 36h", permissions: all, sink: {path: app/dubbing}}
`

// command runs rekeyd with the file sink and an ElevenLabs that does not answer.
func command(t *testing.T, change map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(file, []byte(policies), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"REKEYD_POLICY_FILE": file, "REKEYD_SINK": "file", "REKEYD_FILE_DIR": filepath.Join(t.TempDir(), "data"),
		"ELEVENLABS_API_KEY": "sk_admin_of_a_test", "ELEVENLABS_BASE_URL": "http://127.0.0.1:1", "REKEYD_LISTEN_ADDR": "127.0.0.1:0",
	}
	maps.Copy(env, change)
	var out, errs bytes.Buffer
	a := app{lookuper: envconfig.MapLookuper(env), stdout: &out, stderr: &errs}
	for name, value := range env {
		a.environ = append(a.environ, name+"="+value)
	}
	status = a.run(t.Context(), args)
	return status, out.String(), errs.String()
}

func TestCommands(t *testing.T) {
	t.Parallel()
	const warning = "rekeyd: warning: "
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, c := range []struct {
		args           string
		change         map[string]string
		status         int
		stdout, stderr string // what each has in it
	}{
		{args: "check", stdout: "ok: 2 policies in 1 workspace\n", stderr: warning},
		{args: "check", change: map[string]string{"REKEYD_LISTEN_ADR": ":1"}, stdout: "ok", stderr: "did you mean REKEYD_LISTEN_ADDR?"},
		{args: "check", change: map[string]string{"REKEYD_SINK": ""}, status: 2, stderr: "rekeyd: error: VAULT_ADDR is not set"},
		{args: "check tts-prod", status: 2, stderr: "rekeyd: error: tts-prod: the policy file cannot be read: no such file or directory; correct the path or"},
		{args: "check --online tts-prod", status: 2, stderr: "--online asks with the environment's policies"},
		{args: "version", stdout: "rekeyd "},
		{args: "health", change: map[string]string{"REKEYD_LISTEN_ADDR": "127.0.0.1:1"}, status: 1, stderr: "refused; start the daemon, or give REKEYD_LISTEN_ADDR as the daemon has it\n"},
		{args: "health", change: map[string]string{"REKEYD_LISTEN_ADDR": "127.0.0.1:1", "VAULT_ADDR": "", "VAULT_TOKEN": "", "REKEYD_SINK": "", "REKEYD_POLICY_FILE": "", "REKEYD_POLICIES": ""}, status: 1, stderr: "refused; start the daemon, or give REKEYD_LISTEN_ADDR as the daemon has it\n"},
		{args: "health --fast", status: 2, stderr: "unknown flag: --fast"},
		{args: "help", stdout: "List the next runs"},
		{args: "help env", stdout: "REKEYD_POLICY_FILE"},
		{args: "help rotate", stdout: "rekeyd rotate POLICY... | --all [flags]"},
		{args: "help rotate tts-prod", status: 2, stderr: `there is no command "tts-prod"`},
		{args: "help all", status: 2, stderr: `there is no command "all"`},
		{args: "--help", stdout: "Exit status"},
		{args: "--version", stdout: "rekeyd "},
		{args: "status -h", stdout: "--json"},
		{args: "rotat", status: 2, stderr: `there is no command "rotat"; did you mean rotate?`},
		{args: "rotat tts-prod --json", status: 2, stderr: `there is no command "rotat"`},
		{args: "-- rotat", status: 2, stderr: `there is no command "rotat"`},
		{args: "frobnicate", status: 2, stderr: "known are check, completion, "},
		{args: "--fast", status: 2, stderr: "unknown flag: --fast; see rekeyd --help"},
		{args: "rotate --dry-rnu", status: 2, stderr: "unknown flag: --dry-rnu; did you mean --dry-run?; see rekeyd rotate --help"},
		{args: "status --no-colour", status: 2, stderr: "did you mean --no-color?"},
		{args: "help debug", stdout: "Examples:\n  rekeyd debug bundle"},
		{args: "help completion zsh", stdout: "Examples:\n  source <(rekeyd completion zsh)\n"},
		{args: "status --interval 5s", status: 2, stderr: "--interval is the time between the looks of --watch, which is not given"},
		{args: "status -o xml", status: 2, stderr: "write table, wide, json or yaml"},
		{args: "rollback tts-prod dubbing", status: 2, stderr: "2 arguments are given; write rekeyd rollback POLICY [flags]"},
		{args: "run --fast", status: 2, stderr: "unknown flag: --fast"},
		{args: "status none", status: 2, stderr: `there is no policy "none"`},
		{args: "schedule -n 0", status: 2, stderr: "-n is 0"},
		{args: "schedule --from tomorrow", status: 2, stderr: `--from is "tomorrow"`},
		{args: "run", change: map[string]string{"REKEYD_LISTEN_ADDR": taken.Addr().String()}, status: 1, stderr: "listening on REKEYD_LISTEN_ADDR"},
	} {
		status, stdout, stderr := command(t, c.change, strings.Fields(c.args)...)
		if status == 2 && c.change == nil && strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: more than one line:\n%s", c.args, stderr)
		}
		if status != c.status || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: exit status %d\n%s\n%s", c.args, status, stdout, stderr)
		}
	}
}

// TestWithoutACommand prints help for a person. TestRunEndsWithItsContext runs the daemon where stdout is no terminal.
func TestWithoutACommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	help := w.must(0, "help")
	w.tty = true
	if got := w.must(0); got != help {
		t.Errorf("got %q", got)
	}
}

// TestStdoutThatFails is that of a full disk.
func TestStdoutThatFails(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"help", "help env", "rotate --help", "--version", "version", "completion bash", "completion zsh", "completion fish"} {
		var errs bytes.Buffer
		a := app{lookuper: envconfig.MapLookuper(nil), stdout: full{}, stderr: &errs}
		if status := a.run(t.Context(), strings.Fields(args)); status != exitFailed || errs.String() != "rekeyd: error: writing to stdout: no space left on device\n" {
			t.Errorf("%s: exit status %d: %s", args, status, errs.String())
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestScheduleLines(t *testing.T) {
	t.Parallel()
	_, stdout, _ := command(t, nil, "schedule", "tts-prod", "-n", "2", "--from", "2026-03-23T12:00:00Z")
	const want = "2026-03-30T03:00:00+02:00\t2026-03-30T01:00:00Z\n2026-04-06T03:00:00+02:00\t2026-04-06T01:00:00Z\n"
	if stdout != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
	_, stdout, _ = command(t, nil, "schedule", "-n=1", "--from=2026-03-23T12:00:00Z")
	const both = "dubbing\t2026-03-25T00:00:00Z\t2026-03-25T00:00:00Z\ntts-prod\t2026-03-30T03:00:00+02:00\t2026-03-30T01:00:00Z\n"
	if stdout != both {
		t.Errorf("got %q, want %q", stdout, both)
	}
	_, stdout, _ = command(t, nil, "schedule", "-o", "json", "tts-prod", "-n", "1", "--from", "2026-03-23T12:00:00Z")
	var runs []run
	if err := json.Unmarshal([]byte(stdout), &runs); err != nil || len(runs) != 1 || runs[0] != (run{"tts-prod", "2026-03-30T03:00:00+02:00", "2026-03-30T01:00:00Z", plan.ModeAuto}) {
		t.Errorf("got %q (%v)", stdout, err)
	}
	idle := map[string]string{"REKEYD_POLICY_FILE": "", "REKEYD_POLICIES": strings.Replace(strings.Replace(twoPolicies, "{name: tts", "{mode: paused, name: tts", 1), "{name: dub", "{mode: manual, name: dub", 1)}
	_, stdout, stderr := command(t, idle, "schedule", "-n=1", "--from=2026-03-23T12:00:00Z")
	if stdout != both || stderr != "rekeyd: warning: by its mode, no run happens of tts-prod (paused), dubbing (manual)\n" {
		t.Errorf("got %q and %q", stdout, stderr)
	}
	if _, stdout, stderr = command(t, idle, "schedule", "-n=1", "-o", "json"); strings.Count(stdout, `"mode": "paused"`) != 1 || stderr != "" {
		t.Errorf("got %q and %q", stdout, stderr)
	}
}

// TestStatusOfWhatCannotBeReached shows what there is and says what is missing.
func TestStatusOfWhatCannotBeReached(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	status, stdout, stderr := command(t, map[string]string{"REKEYD_FILE_DIR": dir}, "status", "dubbing")
	if status != 1 || !strings.HasPrefix(stdout, "Policy:           dubbing\nState: ") || !strings.Contains(stderr, "listing workspace default: ") {
		t.Errorf("exit status %d\n%s\n%s", status, stdout, stderr)
	}
	var view web.View
	if _, stdout, _ = command(t, nil, "status", "--json"); json.Unmarshal([]byte(stdout), &view) != nil || len(view.Policies) != 2 {
		t.Errorf("not the JSON of two policies: %s", stdout)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("looking made the folder of the file sink")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs bytes.Buffer
	env := map[string]string{
		"REKEYD_POLICIES": policies, "REKEYD_SINK": "file", "REKEYD_FILE_DIR": t.TempDir(), "ELEVENLABS_API_KEY": "sk_admin_of_a_test",
		"ELEVENLABS_BASE_URL": "http://127.0.0.1:1", "REKEYD_LISTEN_ADDR": "127.0.0.1:0", "REKEYD_ADMIN_TOKEN": "admin-token-of-a-test",
	}
	a := app{lookuper: envconfig.MapLookuper(env), environ: []string{"REKEYD_LISTEN_ADR=:1"}, stdout: &errs, stderr: &errs}
	if status := a.run(ctx, nil); status != 0 {
		t.Errorf("exit status %d: %s", status, errs.String())
	}
	if !strings.Contains(errs.String(), "did you mean REKEYD_LISTEN_ADDR?") {
		t.Error("an unknown variable is not in the log")
	}
	for line := range strings.Lines(errs.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("the log has a line that is no JSON: %s", line)
		}
	}
}

// TestTheDaemonIsLinkedFromProductionCodeOnly looks at our own packages. (A library of Prometheus imports testing.)
func TestTheDaemonIsLinkedFromProductionCodeOnly(t *testing.T) {
	t.Parallel()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}} {{join .Imports " "}}{{end}}`, ".")
	out, err := list.Output()
	if err != nil {
		t.Fatal(fmt.Errorf("listing: %w", err))
	}
	const module = "github.com/rekeyd/rekeyd/"
	ours := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name, isOurs := strings.CutPrefix(words[0], module)
		if !isOurs {
			continue
		}
		ours++
		for _, banned := range []string{"testing", module + "elevenlabs/elevensim", module + "internal/vaulttest"} {
			for _, imported := range words[1:] {
				if imported == banned {
					t.Errorf("%s imports %s", name, banned)
				}
			}
		}
	}
	if ours < 5 {
		t.Errorf("only %d packages of our own were looked at:\n%s", ours, out)
	}
}
