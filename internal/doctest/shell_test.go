package doctest

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"

	"github.com/rekeyd/rekeyd/internal/process"
)

var patience = flag.Duration("patience", 3*time.Minute, "how long a command, and a wait, may take")

// shell is a bash at a terminal, which reads its commands from elsewhere.
type shell struct {
	place
	cmd      *exec.Cmd
	terminal *os.File
	commands *os.File
	output   process.Output
	seen     int // bytes of output that belong to steps before
	exited   chan struct{}
}

func newShell(where place) (*shell, error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := &shell{place: where, commands: ours, exited: make(chan struct{}), cmd: exec.Command("bash", "/dev/fd/3")} //nolint:noctx // ended by close, with all that it started
	s.cmd.Dir, s.cmd.Env, s.cmd.ExtraFiles = where.dir, where.env, []*os.File{theirs}
	s.terminal, err = pty.StartWithSize(s.cmd, &pty.Winsize{Rows: 50, Cols: 250})
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	go func() { _, _ = io.Copy(&s.output, s.terminal) }() // ends with the last that has the terminal open
	go func() { _ = s.cmd.Wait(); close(s.exited) }()
	_, err = fmt.Fprintln(ours, "set -e")
	return s, err
}

// kill ends the shell and whatever it started.
func (s *shell) kill() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // a session of its own; where nothing is left, nothing is to be done
	<-s.exited
}

func (s *shell) close() {
	s.kill()
	_, _ = s.commands.Close(), s.terminal.Close()
}

// do carries out one step of a page.
func (s *shell) do(st step) error {
	st.command = s.actual.Replace(st.command)
	if st.file != "" {
		return os.WriteFile(filepath.Join(s.dir, st.file), []byte(st.command), 0o600)
	}
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(*patience); ; <-tick.C {
		status, output, err := s.run(st.command, st.exit != 0 || st.wait, st.typed)
		switch {
		case err != nil:
		case status != st.exit:
			err = fmt.Errorf("exit status %d, want %d", status, st.exit)
		case st.shown != nil && !says(*st.shown, output):
			err = fmt.Errorf("it does not say what the page shows:\n%s", masked(*st.shown))
		default:
			return nil
		}
		if !st.wait || time.Now().After(deadline) {
			return fmt.Errorf("%w\nIt said:\n%s", err, masked(output))
		}
	}
}

var ended = regexp.MustCompile("\x1e(\\d+)\x1e\r?\n")

// run runs one command. Unless it may fail, the shell ends at the first that does.
func (s *shell) run(command string, mayFail bool, typed string) (status int, output string, err error) {
	script := "{\n" + command + "\n}\nstatus=0"
	if mayFail {
		script = "status=0; {\n" + command + "\n} || status=$?"
	}
	if _, err := fmt.Fprintf(s.commands, "%s\nprintf '\\036%%s\\036\\n' $status\n", script); err != nil {
		return 0, "", fmt.Errorf("the shell is gone: %w", err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(*patience); ; <-tick.C {
		output = s.output.String()[s.seen:]
		if m := ended.FindStringSubmatchIndex(output); m != nil {
			s.seen += m[1]
			status, err = strconv.Atoi(output[m[2]:m[3]])
			return status, output[:m[0]], err
		}
		if typed != "" && strings.HasSuffix(output, ": ") {
			_, err = fmt.Fprintln(s.terminal, typed)
			typed = ""
		}
		if s.gone() || err != nil {
			return 0, output, errors.New("a command failed")
		}
		if time.Now().After(deadline) {
			s.kill()
			return 0, output, fmt.Errorf("it takes more than %s", *patience)
		}
	}
}

func (s *shell) gone() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// run runs a whole page.
func (p page) run(where place) error {
	s, err := newShell(where)
	if err != nil {
		return fmt.Errorf("starting a shell: %w", err)
	}
	defer s.close()
	var faults []error
	for _, st := range p.steps {
		err := s.do(st)
		if err != nil {
			faults = append(faults, fmt.Errorf("line %d: %s: %w", st.line, strings.TrimSpace(st.command), err))
		}
		if s.gone() || err != nil && st.wait { // what comes after would only take time
			break
		}
	}
	return errors.Join(faults...)
}
