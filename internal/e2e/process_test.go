package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 20 * time.Second // for what takes a second on a quiet machine

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// process is one running program.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout output
	stderr output
	exited chan struct{}
}

func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), exited: make(chan struct{})} //nolint:noctx // ended below, and not by a context
	p.cmd.Env, p.cmd.Dir = env, t.TempDir()
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.exited) }()
	t.Cleanup(p.kill)
	return p
}

// kill is SIGKILL.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// stop is SIGTERM; it returns the exit status.
func (p *process) stop() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("sending SIGTERM: %v", err)
	}
	return p.wait()
}

func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("the process does not end; it said:\n%s", p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// find waits for a match of the expression's first group in what the process says.
func (p *process) find(where *output, expression string) string {
	p.t.Helper()
	re := regexp.MustCompile(expression)
	var found []string
	eventually(p.t, func() error {
		if found = re.FindStringSubmatch(where.String()); found == nil {
			return fmt.Errorf("no %s in:\n%s%s", expression, p.stdout.String(), p.stderr.String())
		}
		return nil
	})
	return found[1]
}

// eventually asks again and again until f has no complaint.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", patience, err)
		}
		<-tick.C
	}
}

// simulator is a process of cmd/elevensim.
type simulator struct {
	t   *testing.T
	url string
}

func startSimulator(t *testing.T, adminKey string, accounts ...string) *simulator {
	t.Helper()
	args := []string{"--listen", "127.0.0.1:0", "--seed", fmt.Sprint(time.Now().UnixNano())}
	for _, a := range accounts {
		args = append(args, "--account", a+"="+a)
	}
	p := start(t, []string{"ELEVENSIM_ADMIN_KEY=" + adminKey}, common.simulator, args...)
	return &simulator{t, p.find(&p.stdout, `(http://127\.0\.0\.1:\d+)`)}
}

// ask does one call below /_sim/ and decodes the answer.
func (s *simulator) ask(method, path string, body, answer any) {
	s.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	status, got := request(s.t, method, s.url+"/_sim/"+path, "", string(text))
	if status != http.StatusOK {
		s.t.Fatalf("%s %s: HTTP %d: %s", method, path, status, got)
	}
	if err := json.Unmarshal([]byte(got), answer); err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// request sends one request; credential is a whole header line.
func request(t *testing.T, method, url, credential, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body)) //nolint:noctx // loopback, and the client has a timeout
	if err != nil {
		t.Fatal(err)
	}
	if name, value, ok := strings.Cut(credential, ": "); ok {
		req.Header.Set(name, value)
	}
	client := http.Client{Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}
