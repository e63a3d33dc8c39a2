package localtest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// NPM installs the packages of a folder's package-lock.json, once for each content of it. What the programs are needed for is
// skipped where they are missing, but not in CI.
func NPM(ctx context.Context, t *testing.T, dir string) {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" { //nolint:forbidigo // no daemon runs here
				t.Fatalf("%s is not installed, and needed for %s", tool, dir)
			}
			t.Skipf("%s is not installed, and needed for %s", tool, dir)
		}
	}
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json")) //nolint:gosec // the test names the folder
	if err != nil {
		t.Fatal(err)
	}
	stamp := filepath.Join(dir, "node_modules", ".installed-package-lock.json")
	if installed, err := os.ReadFile(stamp); err == nil && bytes.Equal(installed, lock) { //nolint:gosec // the same
		return
	}
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("installing the packages of %s: %v\n%s", dir, err, out)
	}
	if err := os.WriteFile(stamp, lock, 0o600); err != nil { //nolint:gosec // the same
		t.Fatal(err)
	}
}
