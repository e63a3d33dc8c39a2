package sinks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/rekeyd/rekeyd/internal/smallfile"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

const (
	lockEvery = 5 * time.Millisecond
	maxFile   = 32 << 20 // bytes, as much as Vault takes
)

var (
	errNotObject = errors.New("the file does not hold one JSON object")
	errExchanged = errors.New("the file is not the one below the folder of the file sink")
	errCount     = errors.New("the file that counts its versions cannot be read")
)

// afterRename is a fault after the document got its new content.
type afterRename struct{ error }

func (a afterRename) Unwrap() error { return a.error }

// count is the version of a document and the digest of its content, empty when there is no file.
type count struct {
	Version int    `json:"version"`
	SHA256  string `json:"sha256"`
}

// document is a document whose lock is held.
type document struct {
	root        *os.Root
	name, count string // files below root
}

func newDocument(root *os.Root, ref ledger.Ref) *document {
	name := path.Join(ref.Mount, ref.Path+".json")
	return &document{root: root, name: name, count: path.Join(stateDir, "versions", name)}
}

// locked calls do while no other process or goroutine reads or writes the document. The kernel drops the lock of a
// process that dies.
func (f *File) locked(ctx context.Context, op string, ref ledger.Ref, do func(*document) error) (err error) {
	root, err := f.open(ctx, op, ref)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	d := newDocument(root, ref)
	locks := path.Join(stateDir, "locks")
	if err := d.mkdir(locks); err != nil {
		return err
	}
	lock, err := f.lock(ctx, root, path.Join(locks, stripe(d.name)))
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	return do(d)
}

// lock waits for a lock file below root. The library opens the file by its full path, so lock creates it through the root
// and compares the two.
func (f *File) lock(ctx context.Context, root *os.Root, name string) (*flock.Flock, error) {
	file, err := smallfile.Open(root, name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	lock := flock.New(filepath.Join(f.dir, name), flock.SetFlag(os.O_RDWR|syscall.O_NONBLOCK))
	if _, err := lock.TryLockContext(ctx, lockEvery); err != nil {
		return nil, err
	}
	wanted, err := file.Stat()
	locked, lockedErr := lock.Stat()
	if err = errors.Join(err, lockedErr); err == nil && !os.SameFile(wanted, locked) {
		err = fmt.Errorf("locking %s: %w", name, errExchanged)
	}
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}

// stripe spreads the documents over a fixed number of lock files.
func stripe(name string) string {
	h := fnv.New32a()
	_, _ = io.WriteString(h, name)
	return fmt.Sprintf("%02x", h.Sum32()%256)
}

// look returns the current count and content, nil without a file. It records a change by another writer first, so that
// the change keeps its version from now on.
func (d *document) look(ctx context.Context) (count, []byte, error) {
	content, err := d.readFile(ctx, d.name)
	if err != nil {
		return count{}, nil, err
	}
	c, err := d.readCount(ctx)
	if err != nil {
		return count{}, nil, err
	}
	if sum := digest(content); sum != c.SHA256 {
		c = count{Version: c.Version + 1, SHA256: sum}
		if err := d.writeCount(c); err != nil {
			return count{}, nil, err
		}
	}
	return c, content, nil
}

// replace writes the content as the given version.
func (d *document) replace(content []byte, version int) error {
	if err := d.writeFile(d.name, content); err != nil {
		return err
	}
	if err := d.writeCount(count{Version: version, SHA256: digest(content)}); err != nil {
		return afterRename{err}
	}
	return nil
}

func (d *document) readCount(ctx context.Context) (count, error) {
	text, err := d.readFile(ctx, d.count)
	if err != nil || text == nil {
		return count{}, err
	}
	var c count
	if err := json.Unmarshal(text, &c); err != nil || c.Version < 1 {
		return count{}, fmt.Errorf("%w: %s", errCount, d.count)
	}
	return c, nil
}

func (d *document) writeCount(c count) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return d.writeFile(d.count, append(text, '\n'))
}

// readFile returns nil if the file does not exist.
func (d *document) readFile(ctx context.Context, name string) ([]byte, error) {
	text, err := smallfile.ReadIn(ctx, d.root, name, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, smallfile.ErrTooLarge):
		return nil, &ledger.Error{Op: "reading " + name, Reason: ledger.FailureSinkTooLarge, Err: err}
	case err != nil:
		return nil, err
	}
	return append([]byte{}, text...), nil
}

// writeFile replaces a file in one step and returns once the change survives a power cut. The temporary name is fixed, so
// leftovers of earlier processes do not pile up.
func (d *document) writeFile(name string, text []byte) error {
	dir, base := path.Split(name)
	if err := d.mkdir(path.Clean(dir)); err != nil {
		return err
	}
	temp := path.Join(dir, "."+base+".tmp")
	if err := d.root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.writeNew(temp, text); err != nil {
		return errors.Join(err, d.root.Remove(temp))
	}
	if err := d.root.Rename(temp, name); err != nil {
		return errors.Join(err, d.root.Remove(temp))
	}
	if err := d.syncDir(path.Clean(dir)); err != nil {
		return afterRename{err}
	}
	return nil
}

func (d *document) writeNew(name string, text []byte) error {
	file, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// mkdir makes a folder and those above it, and syncs each parent.
func (d *document) mkdir(dir string) error {
	if dir == "." {
		return nil
	}
	if info, err := d.root.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := d.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := d.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(path.Dir(dir))
}

func (d *document) syncDir(dir string) error {
	file, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// digest is empty for nil, which stands for no file.
func digest(content []byte) string {
	if content == nil {
		return ""
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// checkObject refuses content that is not one JSON object. Its error does not quote the file.
func checkObject(text []byte) error {
	if !json.Valid(text) || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return errNotObject
	}
	return nil
}

func formatObject(data any) ([]byte, error) {
	if data == nil {
		data = struct{}{}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(data); err != nil {
		return nil, fmt.Errorf("encoding the document: %w", err)
	}
	if b.Len() > maxFile {
		return nil, &ledger.Error{Op: "encoding the document", Reason: ledger.FailureSinkTooLarge, Err: fmt.Errorf("it is longer than %d bytes", maxFile)}
	}
	return b.Bytes(), nil
}
