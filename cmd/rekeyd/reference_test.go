package main

import (
	"os"
	"strings"
	"testing"
)

const commandLineHead = `# Command line

What ` + "`rekeyd help`" + ` and ` + "`rekeyd COMMAND -h`" + ` say; this page is made from them. [operating.md](operating.md) shows each command at
work. Flags may come before or after the names of policies.

` + "```text\n" + usage + "```\n"

// TestCommandLineReference holds docs/cli.md against what the commands say of themselves.
func TestCommandLineReference(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	page := commandLineHead
	for _, command := range offered() {
		if _, _, flags := w.run(command[0], "-h"); flags != "" {
			page += "\n## " + command[0] + "\n\n```text\n" + strings.ReplaceAll(flags, "\t", "  ") + "```\n"
		}
	}
	const path = "../../docs/cli.md"
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || string(have) != page {
		t.Errorf("docs/cli.md is not what the commands say (%v); write it with: go test ./cmd/rekeyd -run Reference -args -update", err)
	}
}
