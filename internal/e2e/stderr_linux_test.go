package e2e

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/rekeyd/rekeyd/internal/process"
)

// TestAStderrThatBlocks: a log collector that stands still stops rotations, and no page, metric or health check.
func TestAStderrThatBlocks(t *testing.T) {
	w := newWorld(t, common.vault)
	w.policy("@every 2s")
	name := filepath.Join(t.TempDir(), "stderr")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pipe.Close() }()
	const setPipeSize, fionread, size = 1031, 0x541b, 4096
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, pipe.Fd(), setPipeSize, size); errno != 0 {
		t.Fatal(errno)
	}
	p := process.Start(t, w.environment(nil), "sh", "-c", `exec "$0" run 2>"$1"`, w.binary, name)
	lines, started := bufio.NewReader(pipe), regexp.MustCompile(`"msg":"started".*"address":"([^"]+)"`)
	r := &rekeyd{p, w, ""}
	for r.url == "" {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if m := started.FindStringSubmatch(line); m != nil {
			r.url = "http://" + m[1]
		}
	}
	before := -1
	process.Eventually(t, time.Minute, func() error { // the pipe is full: what is in it stays as it is
		time.Sleep(time.Second) //nolint:forbidigo // a process of its own fills it
		var n int32
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, pipe.Fd(), fionread, uintptr(unsafe.Pointer(&n))); errno != 0 {
			return errno
		}
		if was := before; int(n) < size/2 || int(n) != was {
			before = int(n)
			return io.ErrNoProgress
		}
		return nil
	})
	for _, path := range []string{"/healthz", "/metrics", "/api/v1/policies", "/"} {
		if status, body := r.get(path); status != 200 || body == "" {
			t.Errorf("GET %s: HTTP %d %.200s", path, status, body)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, pipe) }()
	if status := p.Stop(); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
}
