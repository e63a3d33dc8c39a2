package main

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// dated is the first line of a manual page, in which cobra puts the day on which it was made.
var dated = regexp.MustCompile(`(?m)^(\.TH "[^"]*" "1") "[^"]*"`)

// TestManualPages holds deploy/man, which packages install, against what the commands say of themselves.
func TestManualPages(t *testing.T) {
	t.Parallel()
	pages := map[string][]byte{}
	var add func(c *cobra.Command)
	add = func(c *cobra.Command) {
		if !c.IsAvailableCommand() && c.HasParent() || c.HasParent() && c.Parent().Name() == "completion" {
			return
		}
		c.DisableAutoGenTag = true
		var page bytes.Buffer
		if err := doc.GenMan(c, &doc.GenManHeader{Section: "1", Source: "rekeyd", Manual: "rekeyd"}, &page); err != nil {
			t.Fatal(err)
		}
		name := string(bytes.ReplaceAll([]byte(c.CommandPath()), []byte(" "), []byte("-"))) + ".1"
		pages[name] = dated.ReplaceAll(page.Bytes(), []byte(`$1 ""`))
		for _, sub := range c.Commands() {
			add(sub)
		}
	}
	add((app{}).root(io.Discard))

	const folder = "../../deploy/man"
	if *update {
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(folder, 0o750); err != nil {
			t.Fatal(err)
		}
		for name, page := range pages {
			if err := os.WriteFile(filepath.Join(folder, name), page, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	there, err := filepath.Glob(folder + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for i := range there {
		there[i] = filepath.Base(there[i])
	}
	if wanted := slices.Sorted(maps.Keys(pages)); !slices.Equal(there, wanted) {
		t.Errorf("deploy/man has %v, want %v", there, wanted)
	}
	for _, name := range there {
		if have, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !bytes.Equal(have, pages[name]) {
			t.Errorf("deploy/man/%s is not what the command says (%v); write all with: go test ./cmd/rekeyd -run Manual -args -update", name, err)
		}
	}
}
