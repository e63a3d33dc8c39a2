package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/process"
)

// TestAStderrThatBlocks: a log collector that stands still stops rotations, and no page, metric or health check.
func TestAStderrThatBlocks(t *testing.T) {
	w := newWorld(t, common.vault)
	w.policy("@every 24h")
	name := filepath.Join(t.TempDir(), "stderr")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pipe.Close() }()
	p := process.Start(t, w.environment(map[string]string{"REKEYD_LOG_LEVEL": "info"}), "sh", "-c", `exec "$0" run 2>"$1"`, w.binary, name)
	lines, started := bufio.NewReader(pipe), regexp.MustCompile(`"msg":"started".*"address":"([^"]+)"`)
	r := &rekeyd{p, w, ""}
	for rotated := false; r.url == "" || !rotated; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if m := started.FindStringSubmatch(line); m != nil {
			r.url = "http://" + m[1]
		}
		rotated = rotated || strings.Contains(line, `"msg":"rotated"`)
	}
	full, err := syscall.Open(name, syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(full) }()
	for err == nil {
		_, err = syscall.Write(full, []byte("\n"))
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Fatal(err)
	}
	// What is logged next is found out under the rotator's mutex: that the workspace cannot be listed.
	w.sim.SetFaults(elevensim.Faults{Rules: []elevensim.Rule{{Kind: elevensim.Status, Operation: "listServiceAccounts", Status: 403, Code: "forbidden", Message: "no"}}})
	listings, last, same := len(w.history("listServiceAccounts")), 0, 0
	process.Eventually(t, time.Minute, func() error { // the listing that was refused is the last, since its line is not written
		if n := len(w.history("listServiceAccounts")); n != last {
			last, same = n, 0
		}
		if same++; last <= listings || same < 50 {
			return fmt.Errorf("%d listings, %d before", last, listings)
		}
		return nil
	})
	text, err := os.ReadFile(w.policyFile)
	if err != nil {
		t.Fatal(err)
	}
	w.write(w.policyFile, string(text)+"    labels: {team: blocked}\n")
	p.Signal(syscall.SIGHUP) // the reload's line is not written either
	process.Eventually(t, time.Minute, func() error {
		if _, body := r.get("/metrics"); !strings.Contains(body, `label_team="blocked"`) {
			return errors.New("not reloaded yet")
		}
		return nil
	})
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/api/v1/policies", "/", "/policies/tts-prod"} {
		if status, body := r.get(path); status != 200 || body == "" {
			t.Errorf("GET %s: HTTP %d %.200s", path, status, body)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, pipe) }()
	if status := p.Stop(); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
}
