package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/licensecheck"
)

// allowed are the licences of what may be linked into rekeyd, as SPDX names them: all let a binary be passed on.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MPL-2.0"}

// TestLicences reads the licence of each module that is linked into the daemon, and those of parts with one of their own.
func TestLicences(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Dir}} {{$.Dir}}{{end}}{{end}}", module+"cmd/rekeyd")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		root, dir, linked := strings.Cut(strings.TrimSpace(line), " ")
		if !linked {
			continue // ours, or the standard library's
		}
		for ; strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
			if !read[dir] {
				read[dir] = true
				checkLicences(t, dir, dir == root)
			}
		}
	}
	if len(read) < 40 {
		t.Errorf("only %d folders were looked at:\n%s", len(read), out)
	}
}

func checkLicences(t *testing.T, dir string, must bool) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "[LC][IO][CP][EY]*")) // LICENSE, LICENCE, COPYING, with any ending
	if must && len(files) == 0 {
		t.Errorf("%s has no licence", dir)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := licensecheck.Scan(text)
		if found.Percent < 75 {
			t.Errorf("%s is %.0f %% of a licence that is known", name, found.Percent)
		}
		for _, m := range found.Match {
			if !slices.Contains(allowed, m.ID) {
				t.Errorf("%s is %s, which is not allowed", name, m.ID)
			}
		}
	}
}
