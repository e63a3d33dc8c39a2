package sinks_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/rekeyd/rekeyd/rotator/ledger"
	"github.com/rekeyd/rekeyd/sinks"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SINKS_TEST_WRITER"); dir != "" {
		os.Exit(raceForVersions(dir))
	}
	os.Exit(m.Run())
}

func fileFixture(t *testing.T) (fixture, string) {
	dir := filepath.Join(t.TempDir(), "data")
	store, err := sinks.NewFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := func(ref ledger.Ref) string { return filepath.Join(dir, ref.Mount, ref.Path+".json") }
	return fixture{
		store: store, mount: "secret",
		edit: func(t *testing.T, ref ledger.Ref, data map[string]any) {
			text, err := json.Marshal(data)
			must(t, err)
			must(t, os.MkdirAll(filepath.Dir(file(ref)), 0o700))
			must(t, os.WriteFile(file(ref), text, 0o600))
		},
		remove: func(t *testing.T, ref ledger.Ref) { must(t, os.Remove(file(ref))) },
	}, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFileContract(t *testing.T) {
	contract(t, func(t *testing.T) fixture { f, _ := fileFixture(t); return f })
}

func TestFileLooksAsPromised(t *testing.T) {
	f, dir := fileFixture(t)
	wantWrite(t, f, "elevenlabs/tts", map[string]any{"api_key": "sk_<1>"}, 0)
	text, err := os.ReadFile(filepath.Join(dir, "secret/elevenlabs/tts.json"))
	if want := "{\n  \"api_key\": \"sk_<1>\"\n}\n"; err != nil || string(text) != want {
		t.Errorf("the file is %q, %v; want %q", text, err, want)
	}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		info, err := e.Info()
		must(t, err)
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
		if strings.HasSuffix(path, ".tmp") {
			t.Errorf("%s was left behind", path)
		}
		return nil
	}))
}

func TestFileListsDocumentsOnly(t *testing.T) {
	f, dir := fileFixture(t)
	wantWrite(t, f, "elevenlabs/tts", map[string]any{"a": "b"}, 0)
	wantWrite(t, f, "elevenlabs/more/tts", map[string]any{"a": "b"}, 0)
	must(t, os.WriteFile(filepath.Join(dir, "secret/elevenlabs/notes.txt"), []byte("of others"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "secret/elevenlabs/odd.json"), 0o700))
	names, err := f.store.List(t.Context(), ledger.Ref{Mount: "secret", Path: "elevenlabs"})
	if want := []string{"more/", "odd.json/", "tts"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("listed %q, %v; want %q", names, err, want)
	}
}

func TestFileReadingMakesNothing(t *testing.T) {
	f, dir := fileFixture(t)
	wantDoc(t, f, "a", nil, 0)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading made the folder: %v", err)
	}
}

// TestFileCrashStates constructs what a process leaves that dies between any two steps of a write.
func TestFileCrashStates(t *testing.T) {
	after := map[string]any{"n": "2"}
	for name, c := range map[string]struct {
		leave   func(t *testing.T, document, count string)
		data    map[string]any
		version int
	}{
		"before the rename": {func(t *testing.T, document, _ string) {
			must(t, os.WriteFile(filepath.Join(filepath.Dir(document), ".a.json.tmp"), []byte(`{"n":`), 0o600))
		}, map[string]any{"n": "1"}, 1},
		"after the rename": {func(t *testing.T, document, _ string) {
			must(t, os.WriteFile(document, []byte(`{"n":"2"}`), 0o600))
		}, after, 2},
		"while counting": {func(t *testing.T, document, count string) {
			must(t, os.WriteFile(document, []byte(`{"n":"2"}`), 0o600))
			must(t, os.WriteFile(filepath.Join(filepath.Dir(count), ".a.json.tmp"), []byte(`{"ver`), 0o600))
		}, after, 2},
		"at the very first write": {func(t *testing.T, document, count string) {
			must(t, os.WriteFile(document, []byte(`{"n":"2"}`), 0o600))
			must(t, os.Remove(count))
		}, after, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := fileFixture(t)
			wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
			c.leave(t, filepath.Join(dir, "secret/a.json"), filepath.Join(dir, ".rekeyd/versions/secret/a.json"))
			other, err := sinks.NewFile(dir) // whoever looks, and whether once or twice
			must(t, err)
			for _, store := range []ledger.Store{f.store, other, f.store} {
				f.store = store
				wantDoc(t, f, "a", c.data, c.version)
			}
			wantConflict(t, f, "a", c.version-1)
			wantWrite(t, f, "a", map[string]any{"n": "3"}, c.version)
		})
	}
}

func TestFileRefusesWhatIsNoObject(t *testing.T) {
	for _, text := range []string{"", "null", "[]", `"x"`, "{", `{"a":1}{}`, `{"a":1} x`, "\x00"} {
		f, dir := fileFixture(t)
		wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
		must(t, os.WriteFile(filepath.Join(dir, "secret/a.json"), []byte(text), 0o600))
		_, err := f.store.Read(t.Context(), f.ref("a"), 0)
		wantError(t, err, wanted{reason: ledger.FailureSinkError, says: "JSON object", advice: "repair"})
		wantConflict(t, f, "a", 1)
	}
}

func TestFileRefusesABrokenCount(t *testing.T) {
	f, dir := fileFixture(t)
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	must(t, os.WriteFile(filepath.Join(dir, ".rekeyd/versions/secret/a.json"), []byte("{}"), 0o600))
	_, err := f.store.Read(t.Context(), f.ref("a"), 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkError, says: "counts its versions", advice: "backup"})
	_, err = f.store.Write(t.Context(), f.ref("a"), nil, 1)
	wantError(t, err, wanted{reason: ledger.FailureSinkError, says: "counts its versions"})
}

func TestFileStaysInside(t *testing.T) {
	f, dir := fileFixture(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "a.json"), []byte(`{"not":"ours"}`), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "secret"), 0o700))
	must(t, os.Symlink(outside, filepath.Join(dir, "secret/link")))
	must(t, os.Symlink(filepath.Join(outside, "a.json"), filepath.Join(dir, "secret/file.json")))
	for _, path := range []string{"link/a", "file"} {
		_, err := f.store.Read(t.Context(), f.ref(path), 0)
		wantError(t, err, wanted{reason: ledger.FailureSinkError})
		_, err = f.store.Write(t.Context(), f.ref(path), map[string]any{"x": "y"}, 0)
		wantError(t, err, wanted{reason: ledger.FailureSinkError})
	}
	_, err := f.store.List(t.Context(), f.ref("link"))
	wantError(t, err, wanted{reason: ledger.FailureSinkError})
	_, err = f.store.Write(t.Context(), ledger.Ref{Mount: ".rekeyd", Path: "versions/secret/a"}, nil, 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkError, says: "counted"})
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
}

func TestFileWhereNothingCanBeWritten(t *testing.T) {
	f, dir := fileFixture(t)
	must(t, os.MkdirAll(filepath.Join(dir, "secret"), 0o700))
	// A file where a folder must be stops every user, root included.
	must(t, os.WriteFile(filepath.Join(dir, "secret/f"), nil, 0o600))
	err := f.store.Check(t.Context(), f.ref("f/a"))
	wantError(t, err, wanted{reason: ledger.FailureSinkError, says: "secret/f/a"})
	_, err = f.store.Write(t.Context(), f.ref("f/a"), nil, 0)
	wantError(t, err, wanted{reason: ledger.FailureSinkError})
	if os.Getuid() != 0 {
		must(t, os.Chmod(dir, 0o500))
		err := f.store.Check(t.Context(), ledger.Ref{Mount: "other", Path: "a"})
		wantError(t, err, wanted{reason: ledger.FailureSinkDenied, advice: "REKEYD_FILE_DIR"})
		must(t, os.Chmod(dir, 0o700))
	}
	if _, err := sinks.NewFile(""); err == nil {
		t.Error("an empty folder name was accepted")
	}
}

func TestFileWaitsForTheLockAsLongAsTheContext(t *testing.T) {
	f, dir := fileFixture(t)
	wantWrite(t, f, "a", map[string]any{"n": "1"}, 0)
	locks, err := filepath.Glob(filepath.Join(dir, ".rekeyd/locks/*"))
	if err != nil || len(locks) != 1 {
		t.Fatalf("locks: %v, %v", locks, err)
	}
	lock := flock.New(locks[0])
	must(t, lock.Lock())
	defer func() { _ = lock.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := f.store.Write(ctx, f.ref("a"), nil, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another process holds the lock: %v", err)
	}
	must(t, lock.Unlock())
	wantDoc(t, f, "a", map[string]any{"n": "1"}, 1)
}

const racedVersions = 40

// TestFileProcessesRace has processes write each version at once; each version must have one winner.
func TestFileProcessesRace(t *testing.T) {
	f, dir := fileFixture(t)
	var outs []*bufio.Scanner
	var writers []*exec.Cmd
	for range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "SINKS_TEST_WRITER="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		writers = append(writers, cmd)
		outs = append(outs, bufio.NewScanner(out))
	}
	wins := map[string]int{}
	for _, out := range outs {
		for out.Scan() {
			wins[out.Text()]++
		}
	}
	for _, cmd := range writers {
		must(t, cmd.Wait())
	}
	for v := range racedVersions {
		if n := wins[fmt.Sprint(v+1)]; n != 1 {
			t.Errorf("version %d was won %d times", v+1, n)
		}
	}
	doc, err := f.store.Read(t.Context(), f.ref("raced"), 0)
	if err != nil || doc.Version != racedVersions {
		t.Errorf("at the end: %v, %v", doc, err)
	}
}

// raceForVersions is what each process does: it prints the versions that it won.
func raceForVersions(dir string) int {
	store, err := sinks.NewFile(dir)
	ref := ledger.Ref{Mount: "secret", Path: "raced"}
	for err == nil {
		var doc ledger.Doc
		if doc, err = store.Read(context.Background(), ref, 0); err != nil || doc.Version >= racedVersions {
			break
		}
		var version int
		version, err = store.Write(context.Background(), ref, map[string]any{"pid": fmt.Sprint(os.Getpid())}, doc.Version)
		switch {
		case err == nil:
			_, err = fmt.Fprintln(os.Stdout, version)
		case errors.Is(err, ledger.ErrConflict):
			err = nil
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
