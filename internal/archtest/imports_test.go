// Package archtest holds the direction of imports: everything may know the rotator and the packages below it (plan, ledger,
// schedule), which know only the elevenlabs package and each other, in one direction, and neither the simulator nor anything else
// of the tests gets into the daemon. It holds the files of package rotator to an order, and the workflows of the public repository
// to their pins and permissions.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rekeyd/rekeyd/"

// mayLink names the packages of this module that a package may import, itself or through others.
var mayLink = map[string][]string{
	"internal/jsonvalues":  {},
	"elevenlabs":           {"internal/jsonvalues", "internal/secret"},
	"elevenlabs/elevensim": {}, // with its own wire types: a mistake of the client must not be mirrored
	"rotator":              {"elevenlabs", "internal/jsonvalues", "internal/secret", "rotator/ledger", "rotator/plan", "rotator/schedule"},
	"internal/smallfile":   {},
	"config":               {"elevenlabs", "internal/jsonvalues", "internal/secret", "internal/smallfile", "rotator/ledger", "rotator/plan", "rotator/schedule"},
	"sinks":                {"elevenlabs", "internal/jsonvalues", "internal/secret", "internal/smallfile", "rotator/ledger"},
	"internal/events":      {"elevenlabs", "internal/jsonvalues", "internal/secret", "rotator", "rotator/ledger", "rotator/plan", "rotator/schedule"},
	"internal/daemon":      {"config", "elevenlabs", "internal/events", "internal/jsonvalues", "internal/metrics", "internal/outbox", "internal/secret", "internal/smallfile", "internal/web", "rotator", "rotator/ledger", "rotator/plan", "rotator/schedule", "sinks"},
	"internal/conformance": {"elevenlabs", "internal/jsonvalues", "internal/secret"}, // not the simulator: it asks the real one
	"cmd/rekeyd":           {"config", "elevenlabs", "internal/conformance", "internal/daemon", "internal/events", "internal/jsonvalues", "internal/metrics", "internal/outbox", "internal/secret", "internal/smallfile", "internal/web", "rotator", "rotator/ledger", "rotator/plan", "rotator/schedule", "sinks"},
	"cmd/elevensim":        {"elevenlabs/elevensim"},
	"internal/metrics":     {"elevenlabs", "internal/events", "internal/jsonvalues", "internal/outbox", "internal/secret", "internal/smallfile", "rotator", "rotator/ledger", "rotator/plan", "rotator/schedule", "sinks"},
	"internal/web":         {"config", "elevenlabs", "internal/jsonvalues", "internal/outbox", "internal/secret", "internal/smallfile", "rotator", "rotator/ledger", "rotator/plan", "rotator/schedule"},
	"internal/outbox":      {},
	"internal/secret":      {},
	"reader":               {"internal/secret"}, // other people's programs link it
	"rotator/ledger":       {"elevenlabs", "internal/jsonvalues", "internal/secret"},
	"rotator/plan":         {"elevenlabs", "internal/jsonvalues", "internal/secret", "rotator/ledger", "rotator/schedule"},
	"rotator/schedule":     {},
}

// bans names what a package must not import of others' packages, nor what lies below them.
var bans = []struct {
	pkg, path string
	through   bool // nor through other packages
}{
	{"rotator", "net/http", false}, // the elevenlabs package has it
	{"rotator/ledger", "net/http", false},
	{"rotator/schedule", "net/http", false},

	// A decision is a pure function.
	{"rotator/plan", "context", false},
	{"rotator/plan", "crypto/rand", false},
	{"rotator/plan", "io", false},
	{"rotator/plan", "log", false},
	{"rotator/plan", "math/rand", false},
	{"rotator/plan", "net", false},
	{"rotator/plan", "os", false},
	{"rotator/plan", "runtime", false},
	{"rotator/plan", "sync", false},
	{"rotator/plan", "syscall", false},

	{"rotator", "github.com/prometheus", true},
	{"rotator", "github.com/hashicorp/vault", true},
	{"rotator", "github.com/sethvargo/go-envconfig", true},
	{"config", "github.com/hashicorp/vault", true},
	{"elevenlabs", "github.com/hashicorp", true},
	{"elevenlabs/elevensim", "github.com/hashicorp", true},
	{"cmd/rekeyd", "net/http/httptest", true},
	{"cmd/rekeyd", "github.com/spf13/cobra/doc", true}, // YAML and man pages for a page that a test writes
}

func TestImports(t *testing.T) {
	g := load(t)
	for pkg, allowed := range mayLink {
		for _, fault := range g.beyond(pkg, allowed) {
			t.Error(fault)
		}
	}
	for _, b := range bans {
		if chain := g.chain(module+b.pkg, b.path, b.through); chain != nil {
			t.Errorf("%s must not import %s: %s", b.pkg, b.path, strings.Join(chain, " imports "))
		}
	}
}

// TestReaderIsLight: other people's programs link package reader, and nothing of others with it.
func TestReaderIsLight(t *testing.T) {
	for path := range load(t).reach(module + "reader") {
		if host, _, _ := strings.Cut(path, "/"); strings.Contains(host, ".") && !strings.HasPrefix(path, module) {
			t.Errorf("reader links %s", path)
		}
	}
}

// The rules themselves are tried on imports that break them.
func TestRulesFindFaults(t *testing.T) {
	g := graph{
		module + "rotator": {"context", module + "sinks"},
		module + "sinks":   {"net/http", module + "sinks/vaultish"},
		"net/http":         {"net/http/internal"},
	}
	if got := g.beyond("rotator", []string{"elevenlabs"}); len(got) != 2 {
		t.Errorf("a package that links sinks and sinks/vaultish has these faults: %q", got)
	}
	if got := g.beyond("gone", nil); len(got) != 1 {
		t.Errorf("a package that does not exist has these faults: %q", got)
	}
	if got := g.chain(module+"rotator", "net/http", false); got != nil {
		t.Errorf("an import through another package counts as its own: %q", got)
	}
	want := []string{module + "rotator", module + "sinks", "net/http"}
	if got := g.chain(module+"rotator", "net/http", true); !slices.Equal(got, want) {
		t.Errorf("the chain to net/http is %q, not %q", got, want)
	}
	if got := g.chain(module+"sinks", "net", true); got == nil {
		t.Error("net/http does not count as below net")
	}
	if got := g.chain(module+"sinks", "net/ht", true); got != nil {
		t.Errorf("net/http counts as below net/ht: %q", got)
	}
}

// graph has the imports of each package, without those of its tests.
type graph map[string][]string

func load(t *testing.T) graph {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports", module+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing packages: %v\n%s", err, stderr.String())
	}
	g := make(graph)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return g
		} else if err != nil {
			t.Fatalf("reading the list of packages: %v", err)
		}
		g[p.ImportPath] = p.Imports
	}
}

// beyond says which packages of this module pkg links without being allowed to.
func (g graph) beyond(pkg string, allowed []string) []string {
	if _, exists := g[module+pkg]; !exists {
		return []string{fmt.Sprintf("there is no package %s: the rules are out of date", pkg)}
	}
	var faults []string
	from := g.reach(module + pkg)
	for _, path := range slices.Sorted(maps.Keys(from)) {
		own, ours := strings.CutPrefix(path, module)
		if ours && own != pkg && !slices.Contains(allowed, own) {
			faults = append(faults, fmt.Sprintf("%s must not import %s: %s", pkg, own, strings.Join(trace(from, path), " imports ")))
		}
	}
	return faults
}

// chain returns how pkg comes to import path or what lies below it; nil if it does not.
func (g graph) chain(pkg, path string, through bool) []string {
	from := g.reach(pkg)
	for _, p := range slices.Sorted(maps.Keys(from)) {
		if (p == path || strings.HasPrefix(p, path+"/")) && (through || slices.Contains(g[pkg], p)) {
			return trace(from, p)
		}
	}
	return nil
}

// reach returns every package that pkg links, with the one that imports it on the shortest way there.
func (g graph) reach(pkg string) map[string]string {
	from := map[string]string{pkg: ""}
	for queue := []string{pkg}; len(queue) > 0; queue = queue[1:] {
		for _, p := range g[queue[0]] {
			if _, seen := from[p]; !seen {
				from[p] = queue[0]
				queue = append(queue, p)
			}
		}
	}
	return from
}

// trace follows reach's answer back to where it began.
func trace(from map[string]string, path string) []string {
	var chain []string
	for ; path != ""; path = from[path] {
		chain = append(chain, path)
	}
	slices.Reverse(chain)
	return chain
}
