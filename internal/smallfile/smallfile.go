// Package smallfile reads files that other programs may replace: a key, a policy file, a record. A file that is not regular
// can block its reader or not end, so the package reads only regular files of a bounded size.
package smallfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Secret is the most bytes of a file that holds a secret.
const Secret = 64 << 10

var (
	// ErrNotRegular is a device, a FIFO, a socket or a folder.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge is a file of more bytes than are accepted.
	ErrTooLarge = errors.New("too large")
)

// opener is the file system, or an [os.Root].
type opener interface {
	Stat(name string) (fs.FileInfo, error)
	OpenFile(name string, flag int, perm os.FileMode) (*os.File, error)
}

type everywhere struct{}

func (everywhere) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (everywhere) OpenFile(name string, flag int, perm os.FileMode) (*os.File, error) {
	return os.OpenFile(name, flag, perm) //nolint:gosec // the path is what a person configured
}

// Read returns the content of a regular file of at most most bytes. It follows links, does not open any other kind of file,
// and ends with ctx. The error is a [fs.PathError].
func Read(ctx context.Context, path string, most int) ([]byte, error) {
	return read(ctx, everywhere{}, path, most)
}

// ReadIn is Read for a name below root, which links cannot leave.
func ReadIn(ctx context.Context, root *os.Root, name string, most int) ([]byte, error) {
	return read(ctx, root, name, most)
}

func read(ctx context.Context, in opener, name string, most int) ([]byte, error) {
	file, err := open(in, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, pathError(name, err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	text, err := readAll(ctx, file, most)
	if err != nil {
		return nil, pathError(name, err)
	}
	return text, nil
}

// Open opens a regular file below root, or makes it if flag says so.
func Open(root *os.Root, name string, flag int, perm os.FileMode) (*os.File, error) {
	file, err := open(root, name, flag, perm)
	if err != nil {
		return nil, pathError(name, err)
	}
	return file, nil
}

// open checks the file before it opens it, since opening can have effects, and after, since the file may have been replaced
// in between.
func open(in opener, name string, flag int, perm os.FileMode) (*os.File, error) {
	info, err := in.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0:
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, notRegular(info.Mode())
	}
	file, err := in.OpenFile(name, flag|syscall.O_NONBLOCK|syscall.O_NOCTTY, perm)
	if err != nil {
		return nil, err
	}
	info, err = file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(info.Mode())
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// longest bounds the read of a file that does not become readable, like some below /proc.
const longest = time.Second

func readAll(ctx context.Context, file *os.File, most int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	// A file that the kernel cannot poll has no deadline and needs none.
	defer context.AfterFunc(bounded, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	text, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("it does not end, and is %w", ErrNotRegular)
	case err != nil:
		return nil, err
	case len(text) > most:
		return nil, fmt.Errorf("the file is %w: it has more than %s", ErrTooLarge, size(most))
	}
	return text, nil
}

func notRegular(mode fs.FileMode) error {
	kind := "something else"
	switch {
	case mode.IsDir():
		kind = "a folder"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a FIFO"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeDevice != 0:
		kind = "a device"
	}
	return fmt.Errorf("it is %s, %w", kind, ErrNotRegular)
}

func size(bytes int) string {
	if bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}

// pathError has the path once.
func pathError(name string, err error) error {
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return &fs.PathError{Op: "reading", Path: name, Err: err}
}
