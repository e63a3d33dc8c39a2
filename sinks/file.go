package sinks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rekeyd/rekeyd/internal/smallfile"
	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// File is a ledger.Store in files below one folder: the document MOUNT/PATH is the JSON object in MOUNT/PATH.json.
//
// Versions, which files do not have, are counted in .rekeyd/MOUNT/PATH.json: a number, and the digest of the content
// that has it. Content with another digest comes from another writer, and is the next version. So a single step decides
// a write, the rename of the document:
//
//   - before it, number and digest are those of the old content, and nothing has happened;
//   - after it, whether or not the count was written too, the new content is the next version.
//
// Each look at a document holds its lock and records what it finds, so that all processes count alike and see a second
// manual change as a version of its own. A manual change between a look and the following write of the same process is
// lost: files have no check-and-set. Only the newest version is kept.
type File struct {
	dir string
}

var _ ledger.Store = (*File)(nil)

const stateDir = ".rekeyd" // below the folder; no mount may have this name

// NewFile makes the store. The folder is made with the first write.
func NewFile(dir string) (*File, error) {
	abs, err := filepath.Abs(dir)
	if dir == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("using %q as the folder of the file sink: %w", dir, err)
	}
	return &File{dir: abs}, nil
}

// Read implements ledger.Store. For a version that is not the newest, JSON is nil and Version 0.
func (f *File) Read(ctx context.Context, ref ledger.Ref, version int) (ledger.Doc, error) {
	op := "reading " + ref.String()
	var doc ledger.Doc
	err := f.locked(ctx, op, ref, func(d *document) error {
		count, content, err := d.look(ctx)
		if err != nil || version != 0 && version != count.Version {
			return err
		}
		doc.Version = count.Version
		if content != nil {
			doc.JSON, err = content, checkObject(content)
		}
		return err
	})
	if errors.Is(err, errNothing) {
		return ledger.Doc{}, nil
	}
	if err != nil {
		return ledger.Doc{}, fileError(op, err)
	}
	return doc, nil
}

// Write implements ledger.Store.
func (f *File) Write(ctx context.Context, ref ledger.Ref, data any, cas int) (int, error) {
	op := "writing " + ref.String()
	content, err := formatObject(data)
	if err != nil {
		return 0, fileError(op, err)
	}
	if err := f.makeFolder(); err != nil {
		return 0, fileError(op, err)
	}
	err = f.locked(ctx, op, ref, func(d *document) error {
		count, _, err := d.look(ctx)
		switch {
		case err != nil:
			return err
		case count.Version != cas:
			return ledger.ErrConflict
		}
		return d.replace(content, cas+1)
	})
	if err != nil {
		return 0, fileError(op, err)
	}
	return cas + 1, nil
}

// Lags implements ledger.Store: files do not.
func (f *File) Lags(context.Context) bool { return false }

// List implements ledger.Store.
func (f *File) List(ctx context.Context, ref ledger.Ref) ([]string, error) {
	op := "listing " + ref.String()
	root, err := f.open(ctx, op, ref)
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	if err != nil {
		return nil, fileError(op, err)
	}
	defer func() { _ = root.Close() }()
	entries, err := fs.ReadDir(root.FS(), path.Join(ref.Mount, ref.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fileError(op, err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !e.IsDir() {
			names = append(names, name)
		} else if e.IsDir() {
			names = append(names, e.Name()+"/")
		}
	}
	slices.Sort(names)
	return names, nil
}

// Check implements ledger.Store: it makes and removes a file in the folders of each document and its count.
func (f *File) Check(ctx context.Context, refs ...ledger.Ref) error {
	const op = "checking that files can be written"
	if err := f.makeFolder(); err != nil {
		return fileError(op, err)
	}
	tried := map[string]bool{}
	for _, ref := range refs {
		root, err := f.open(ctx, op, ref)
		if err != nil {
			return fileError(op, err)
		}
		d := newDocument(root, ref)
		for _, name := range []string{d.name, d.count} {
			dir := nearestFolder(root, path.Dir(name))
			if err == nil && !tried[dir] {
				tried[dir], err = true, tryFile(root, dir)
			}
		}
		_ = root.Close()
		if err != nil {
			return fileError(op+" for "+ref.String(), err)
		}
	}
	return nil
}

// nearestFolder returns the folder, or the closest existing one above it.
func nearestFolder(root *os.Root, dir string) string {
	for dir != "." {
		if _, err := root.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = path.Dir(dir)
	}
	return dir
}

func tryFile(root *os.Root, dir string) error {
	name := path.Join(dir, ".rekeyd-check-"+rand.Text()+".tmp") // unique, since other processes may check at the same time
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, trySize))
	return errors.Join(err, file.Sync(), file.Close(), root.Remove(name))
}

// trySize is about what an entry and a record need; a disk that is full takes an empty file.
const trySize = 64 << 10

// makeFolder makes the store's own folder and syncs its parent.
func (f *File) makeFolder() error {
	if _, err := os.Stat(f.dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(f.dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// errNothing reports that the store's folder does not exist, and so no document either.
var errNothing = errors.New("the folder of the file sink does not exist")

// open opens the folder as a root, which symbolic links cannot leave.
func (f *File) open(ctx context.Context, op string, ref ledger.Ref) (*os.Root, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := validRef(op, ref); err != nil {
		return nil, err
	}
	if mount, _, _ := strings.Cut(ref.Mount, "/"); mount == stateDir {
		return nil, fmt.Errorf("mount %s is reserved: versions are counted there", stateDir)
	}
	root, err := os.OpenRoot(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNothing
	}
	return root, err
}

// fileError converts err to the errors of ledger.Store, and returns those unchanged.
func fileError(op string, err error) error {
	e, own := errors.AsType[*ledger.Error](err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ledger.ErrConflict) || own && e.Op != "" {
		return err
	}
	out := &ledger.Error{Op: op, Reason: ledger.FailureSinkError, MaybeApplied: errors.As(err, new(afterRename)), Err: err}
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		out.Reason, out.Advice = ledger.FailureSinkDenied, "let this user write below REKEYD_FILE_DIR"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		out.Advice = "free space on that disk"
	case errors.Is(err, smallfile.ErrNotRegular), errors.Is(err, errExchanged):
		out.Advice = "put a file there, or remove what is there"
	case errors.Is(err, errNotObject):
		out.Advice = "repair the file or delete it"
	case errors.Is(err, errCount):
		out.Advice = "restore the file from a backup; without it versions start again"
	}
	return out
}
