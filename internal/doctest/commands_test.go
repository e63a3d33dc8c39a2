package doctest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCommands runs the commands of every page.
func TestCommands(t *testing.T) {
	ran := 0
	for name, text := range pages(t) {
		p, err := parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.world == "" {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prepare := worlds[p.world]
			if prepare == nil {
				t.Fatalf("there is no world %q", p.world)
			}
			if err := p.run(prepare(t)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	if ran == 0 {
		t.Error("no page has a command that is run")
	}
}

// pages are all pages of the repository, by their path in it.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(repository, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, repository+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFalsePagesAreFound runs pages that are wrong.
func TestFalsePagesAreFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, page, want string }{
		{"true", "$ echo one; echo ffffffff\none\n00000000", ""},
		{"gap", "$ seq 9\n1\n...\n9\n$ true", ""},
		{"other output", "$ echo one\ntwo", "does not say"},
		{"more output", "$ echo one; echo two\none", "does not say"},
		{"less output", "$ echo one\none\ntwo", "does not say"},
		{"output of nothing", "two", "a command failed"},
		{"failure", "$ false; true", "a command failed"},
	} {
		text := "<!-- world: programs -->\n# Page\n\n```console\n" + c.page + "\n```\n"
		p, err := parse(text)
		if err == nil {
			err = p.run(bare(t))
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for text, want := range map[string]string{
		"# Page\n```sh\ntrue\n```\n":                                 "it has commands",
		"<!-- world: vault -->\n# Page\n\n    rekeyd status\n":       "outside of a fenced block",
		"<!-- wordl: vault -->\n# Page\n":                            "says nothing",
		"# Page\n<!-- not run: -->\n```sh\ntrue\n```\n":              "but why",
		"<!-- world: vault -->\n<!-- not run: because -->\n# Page\n": "needs",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
