package sinks_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// TestFileReadsRegularFilesOnly puts what blocks its reader, or leads elsewhere, where the store reads and locks.
func TestFileReadsRegularFilesOnly(t *testing.T) {
	const regular = "not a regular file"
	for _, c := range []struct {
		name, says string
		put        func(t *testing.T, path string)
	}{
		{"a FIFO", regular, func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }},
		{"a folder", regular, func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }},
		{"a link to a device", "escapes", func(t *testing.T, path string) { must(t, os.Symlink("/dev/zero", path)) }},
		{"a link to a file elsewhere", "escapes", func(t *testing.T, path string) {
			elsewhere := filepath.Join(t.TempDir(), "f")
			must(t, os.WriteFile(elsewhere, []byte("{}"), 0o600))
			must(t, os.Symlink(elsewhere, path))
		}},
	} {
		for _, place := range []string{"secret/a.json", ".rekeyd/versions/secret/a.json", ".rekeyd/locks/*"} {
			t.Run(c.name+" as "+strings.ReplaceAll(place, "/", " "), func(t *testing.T) {
				f, dir := fileFixture(t)
				wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
				found, err := filepath.Glob(filepath.Join(dir, place))
				if err != nil || len(found) != 1 {
					t.Fatalf("%v, %v", found, err)
				}
				must(t, os.Remove(found[0]))
				c.put(t, found[0])
				_, err = f.store.Read(t.Context(), f.ref("a"), 0)
				wantError(t, err, wanted{reason: ledger.FailureSinkError, says: c.says})
				_, err = f.store.Write(t.Context(), f.ref("a"), map[string]any{"n": "2"}, 1)
				wantError(t, err, wanted{reason: ledger.FailureSinkError, says: c.says})
			})
		}
	}
}
