package smallfile

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestOnlySmallRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, bytes int) {
		if err := os.WriteFile(at(name), make([]byte, bytes), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("full", Secret)
	write("over", Secret+1)
	write("empty", 0)
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "sock") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(short) }()
	socket, err := net.Listen("unix", filepath.Join(short, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	// As the kubelet projects a secret: a link to a link's folder.
	if err := os.MkdirAll(at("..2026"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("..2026/key", 3)
	for link, target := range map[string]string{"..data": "..2026", "key": "..data/key", "loop": "loop", "zero": "/dev/zero", "link-to-fifo": "fifo"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		at("full"): "", at("empty"): "", at("key"): "",
		at("over"):                "the file is too large: it has more than 64 KiB",
		at("fifo"):                "it is a FIFO, not a regular file",
		at("link-to-fifo"):        "it is a FIFO, not a regular file",
		filepath.Join(short, "s"): "it is a socket, not a regular file",
		dir:                       "it is a folder, not a regular file",
		"/dev/zero":               "it is a device, not a regular file",
		"/dev/tty":                "it is a device, not a regular file",
		at("zero"):                "it is a device, not a regular file",
		at("missing"):             "no such file or directory",
		at("loop"):                "too many levels of symbolic links",
	} {
		text, err := Read(t.Context(), path, Secret)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		if wanted := "reading " + path + ": " + want; err == nil || err.Error() != wanted || text != nil {
			t.Errorf("%s: %d bytes, %v; want %s", path, len(text), err, wanted)
		}
	}
	_, err = Read(t.Context(), at("fifo"), Secret)
	if _, ok := errors.AsType[*fs.PathError](err); !ok || !errors.Is(err, ErrNotRegular) {
		t.Errorf("%T %v", err, err)
	}
}

// A pipe's end below /proc is a link that a path check takes for a file.
func TestAnInheritedPipeIsNotRead(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("there is no /proc here")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	conn, err := r.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Control(func(fd uintptr) {
		_, err = Read(t.Context(), filepath.Join("/proc/self/fd", strconv.Itoa(int(fd))), Secret)
	})
	if err == nil || !strings.HasSuffix(err.Error(), "it is a FIFO, not a regular file") {
		t.Error(err)
	}
}

func TestReadingEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, path, Secret); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestARootIsNotLeft(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "f"), filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if text, err := ReadIn(t.Context(), root, "f", 10); err == nil {
		t.Errorf("read %q", text)
	}
	for name, want := range map[string]error{"fifo": ErrNotRegular, "f": nil} {
		file, err := Open(root, name, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", name, file, err)
		}
	}
	file, err := Open(root, "new", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	if _, err := ReadIn(t.Context(), root, "new", 10); err != nil {
		t.Error(err)
	}
}
