package main

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const commandLineHead = `# Command line

What ` + "`rekeyd help`" + ` and ` + "`rekeyd COMMAND --help`" + ` say, but for their examples: [operating.md](operating.md) shows each command at work.
Flags may come before or after the names of policies. Commands that look or change write a table, with ` + "`-o wide`" + ` whole sentences where
the table cuts them, or the same document as JSON (` + "`-o json`, `--json`" + `) or YAML (` + "`-o yaml`" + `). Those that take policies also take
` + "`--workspace NAME` and `--label NAME=VALUE`" + `, of which several must all be there.
`

// common are the lines of a help text that the page tells once, or leaves to operating.md.
var common = regexp.MustCompile(`(?m)^      --json .*\n|^  -o, --output FORMAT .*\n|^  -h, --help .*\n|\nGlobal Flags:\n      --no-color .*\n` +
	`|^      --label NAME=VALUE .*\n|^      --workspace NAME +only policies .*\n|\nExamples:\n(?:  .*\n)+|\nUsage:\n  rekeyd [a-z ]+ \[flags\]\n`)

// TestCommandLineReference holds docs/cli.md against what the commands say of themselves.
func TestCommandLineReference(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	page := commandLineHead + "\n```text\n" + w.must(0, "help") + "```\n"
	for _, c := range documented() {
		name := strings.TrimPrefix(c.CommandPath(), "rekeyd ")
		help := w.must(0, append(strings.Fields(name), "--help")...)
		if c.Name() != "completion" && strings.Count(c.Example, "\n") != 1 || c.Short == "" || !strings.Contains(help, "  rekeyd "+name) {
			t.Errorf("%s has no help, or not two examples:\n%s", name, help)
		}
		if c.Name() == "completion" || c.Name() == "help" || c.Name() == "version" {
			continue // the list of commands says all of them
		}
		page += "\n## " + name + "\n\n```text\n" + strings.TrimSuffix(strings.Replace(common.ReplaceAllString(help, ""), "\nFlags:\n\n", "\n", 1), "\nFlags:\n") + "```\n"
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

// documented returns the commands that do something.
func documented() []*cobra.Command {
	var all []*cobra.Command
	for _, c := range (app{}).root(io.Discard).Commands() {
		if c.Name() == "debug" {
			all = append(all, c.Commands()...)
		} else if c.Runnable() {
			all = append(all, c)
		}
	}
	return all
}
