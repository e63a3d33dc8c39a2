package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"syscall"
	"testing"

	"github.com/rekeyd/rekeyd/internal/process"
)

// uncapped is a program that allows core files and executes another.
var uncapped = []string{"prlimit", "--core=unlimited"}

// TestMemoryStaysInTheProcess lets rekeyd run as an ordinary user: root may read everything.
func TestMemoryStaysInTheProcess(t *testing.T) {
	t.Parallel()
	var user []string
	if os.Geteuid() == 0 {
		user = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	}
	user = append(user, uncapped...)
	may := func(p *process.Process, file string) bool {
		args := slices.Concat(user, []string{"head", "-c1", fmt.Sprintf("/proc/%d/%s", p.ID(), file)})
		return exec.CommandContext(t.Context(), args[0], args[1:]...).Run() == nil
	}
	ordinary := process.Start(t, nil, user[0], append(user[1:], "sleep", "600")...)
	process.Eventually(t, process.Patience, func() error {
		if !may(ordinary, "auxv") || !may(ordinary, "maps") {
			return fmt.Errorf("what an ordinary process of this user has cannot be read either, so this shows nothing")
		}
		return nil
	})
	w := newWorld(t, common.vault)
	w.policy("@every 1h")
	policies, err := os.ReadFile(w.policyFile)
	if err != nil {
		t.Fatal(err)
	}
	d := w.run(w.environment(map[string]string{"REKEYD_POLICY_FILE": "", "REKEYD_POLICIES": string(policies)}), user...)
	w.settled("")
	for _, file := range []string{"auxv", "maps", "environ"} {
		if may(d.Process, file) {
			t.Errorf("another process of the same user may read /proc/PID/%s", file)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.ID()))
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("%v; core files are limited to:\n%s", err, limits)
	}
	if d.metric("process_open_fds") == "" {
		t.Error("rekeyd cannot see its own files any more")
	}
	d.end()
}

// TestACrashLeavesNoSecret has what Go prints of its stacks looked through for secrets, as all that rekeyd says.
func TestACrashLeavesNoSecret(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGABRT, syscall.SIGQUIT} {
		w := newWorld(t, common.vault)
		w.policy("@every 2s") // so that there are keys at work in memory
		d := w.run(w.environment(map[string]string{"GOTRACEBACK": "crash"}), uncapped...)
		w.created()
		d.Signal(s)
		d.Wait()
		d.Find(&d.Stderr, `(goroutine \d+ )`)
		if d.DumpedCore() {
			t.Errorf("%s left a core file", s)
		}
	}
}
