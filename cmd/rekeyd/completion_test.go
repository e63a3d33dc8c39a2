package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/rekeyd/rekeyd/internal/process"
)

// shells are those that complete rekeyd: how one starts without the user's configuration, with rekeyd's script and a key,
// Control-O, that prints what has been typed.
var shells = []struct{ name, file, setup string }{
	{"bash", "bashrc", `source /usr/share/bash-completion/bash_completion; source <(rekeyd completion bash)
bind -x '"\C-o": echo "typed <$READLINE_LINE>"'; PS1='ready '`},
	{"zsh", ".zshrc", `autoload -U compinit; compinit -u -D; source <(rekeyd completion zsh)
show() { print -r -- "typed <$BUFFER>" }; zle -N show; bindkey '^O' show; PS1='ready '`},
	{"fish", "config.fish", `rekeyd completion fish | source
function fish_prompt; echo -n 'ready '; end; bind \co 'echo "typed <"(commandline)">"'`},
}

// TestCompletionInRealShells types at each shell and presses Tab. Nothing listens at the addresses in the environment.
func TestCompletionInRealShells(t *testing.T) {
	if testing.Short() {
		t.Skip("builds rekeyd")
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "rekeyd"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, shell := range shells {
		t.Run(shell.name, func(t *testing.T) {
			rc := filepath.Join(t.TempDir(), shell.file)
			if err := os.WriteFile(rc, []byte(shell.setup), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), shell.name, map[string][]string{
				"bash": {"--noprofile", "--rcfile", rc, "-i"}, "zsh": {"-d", "-i"}, "fish": {"--no-config", "-i", "-C", "source " + rc},
			}[shell.name]...)
			_, missing := exec.LookPath(shell.name)
			if shell.name == "bash" && missing == nil {
				_, missing = os.Stat("/usr/share/bash-completion/bash_completion")
			}
			switch {
			case missing != nil && os.Getenv("CI") != "":
				t.Fatal(missing)
			case missing != nil:
				t.Skipf("its completion is not tested: %v (apt-get install bash-completion zsh fish)", missing)
			}
			cmd.Env = []string{
				"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + filepath.Dir(rc), "ZDOTDIR=" + filepath.Dir(rc), "TERM=xterm", "REKEYD_POLICIES=" + strings.Replace(twoPolicies, "permissions: all", "permissions: all, labels: {team: studio}", 1),
				"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=hvs.token-of-a-test", "ELEVENLABS_API_KEY=sk_admin_of_a_test", "ELEVENLABS_BASE_URL=http://127.0.0.1:1",
			}
			terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 250})
			if err != nil {
				t.Fatal(err)
			}
			said := new(process.Output)
			read := make(chan struct{})
			go func() {
				defer close(read)
				buffer := make([]byte, 1<<10)
				for {
					n, err := terminal.Read(buffer)
					_, _ = said.Write(buffer[:n])
					if err != nil {
						return
					}
				}
			}()
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				_ = terminal.Close()
				<-read
			})
			says := func(text string) {
				t.Helper()
				process.Eventually(t, time.Minute, func() error {
					if !strings.Contains(said.String(), text) {
						return fmt.Errorf("no %q in %q", text, said)
					}
					return nil
				})
			}
			says("ready ")
			for _, c := range [][2]string{
				{"rekeyd stat", "rekeyd status "},
				{"rekeyd rotate t", "rekeyd rotate tts-prod "},
				{"rekeyd rotate tts-prod ", "rekeyd rotate tts-prod dubbing "},
				{"rekeyd rename tts-prod d", "rekeyd rename tts-prod dubbing "},
				{"rekeyd check --on", "rekeyd check --online "},
				{"rekeyd plan -o j", "rekeyd plan -o json "},
				{"rekeyd plan --workspace d", "rekeyd plan --workspace default "},
				{"rekeyd rotate --label te", "rekeyd rotate --label team=studio "},
				{"rekeyd completion z", "rekeyd completion zsh "},
				{"rekeyd help en", "rekeyd help env "},
			} {
				if _, err := terminal.WriteString(c[0] + "\t\x0f"); err != nil {
					t.Fatal(err)
				}
				says("typed <" + c[1] + ">")
				if _, err := terminal.WriteString("\x15"); err != nil { // Control-U clears the line
					t.Fatal(err)
				}
			}
		})
	}
}

// TestCompletionNeedsNoPolicies says nothing where there are none, and fails in no other way.
func TestCompletionNeedsNoPolicies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change map[string]string
		args   []string
		want   string
	}{
		{nil, []string{"rotate", ""}, "tts-prod\ndubbing\n:4\n"},
		{nil, []string{"rotate", "dubbing", ""}, "tts-prod\n:4\n"},
		{nil, []string{"rollback", "dubbing", ""}, ":4\n"},
		{nil, []string{"rename", ""}, ":4\n"},
		{nil, []string{"check", ""}, "yaml\nyml\n:8\n"},
		{nil, []string{"status", "--state", "ok,"}, "ok,due\nok,rotating\nok,failing\nok,throttled\nok,paused\nok,error\n:4\n"},
		{map[string]string{"VAULT_ADDR": "", "VAULT_TOKEN": "", "ELEVENLABS_API_KEY": "", "REKEYD_API_RATE": "many"}, []string{"rotate", ""}, "tts-prod\ndubbing\n:4\n"},
		{map[string]string{"VAULT_ADDR": "", "ELEVENLABS_API_KEY": ""}, []string{"status", "--workspace", ""}, "default\n:4\n"},
		{map[string]string{"REKEYD_POLICY_FILE": "/nonexistent"}, []string{"rotate", ""}, ":4\n"},
	} {
		status, stdout, _ := command(t, c.change, append([]string{"__complete"}, c.args...)...)
		if status != 0 || stdout != c.want {
			t.Errorf("%q: exit status %d, %q", c.args, status, stdout)
		}
	}
}

func TestCompletionSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(2, "completion")
	w.must(2, "completion", "csh")
	w.must(2, "completion", "bash", "zsh")
	w.golden("completion")
}
