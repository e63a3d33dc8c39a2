package conformance_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rekeyd/rekeyd/internal/conformance"
)

const repository = "../.."

var id = regexp.MustCompile(`\bA[0-9]{2}\b`)

// TestEachAssumptionHasItsPlaces: an id of FIDELITY.md names one row of its tables, one row that says what rekeyd does if it is
// wrong, one check, and the code that relies on it; and there are no other ids.
func TestEachAssumptionHasItsPlaces(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(path.Join(repository, "elevenlabs/elevensim/FIDELITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`ASSUMPTION.*`).FindAllString(string(text), -1)
	var assumed, wrong []string
	for _, row := range rows[1:] { // the first explains the word
		if ids := id.FindAllString(row, -1); len(ids) != 1 {
			t.Errorf("a row has the ids %q: %s", ids, row)
		} else {
			assumed = append(assumed, ids...)
		}
	}
	for _, row := range regexp.MustCompile(`(?m)^\| (A[0-9]{2}) \| \S.+ \| .*`+"`.+`"+`.* \|$`).FindAllStringSubmatch(string(text), -1) {
		wrong = append(wrong, row[1])
	}
	var checked []string
	for _, c := range conformance.Checks() {
		checked = append(checked, c.ID)
	}
	slices.Sort(assumed)
	if !slices.Equal(assumed, checked) || !slices.Equal(wrong, checked) || len(checked) < 25 {
		t.Errorf("FIDELITY.md assumes %v\nand says what follows from %v\nand asked is %v", assumed, wrong, checked)
	}
	named := map[string]bool{}
	for _, in := range inCode(t) {
		if named[in] = true; !slices.Contains(checked, in) {
			t.Errorf("code names %s, which is not in FIDELITY.md", in)
		}
	}
	for _, id := range checked {
		if !named[id] {
			t.Errorf("no code names %s", id)
		}
	}
}

// inCode returns the ids in comments of product code, which is neither conformance nor the simulator.
func inCode(t *testing.T) (ids []string) {
	t.Helper()
	tree := os.DirFS(repository)
	files := 0
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{".cache", ".git", "elevenlabs/elevensim", "internal/conformance"}, name) || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		source, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments)
		if err != nil {
			return err
		}
		files++
		for _, group := range file.Comments {
			ids = append(ids, id.FindAllString(group.Text(), -1)...)
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files, %v", files, err)
	}
	return ids
}
