package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// floors are the rooms of the rotator, each of which may import those before it.
var floors = []string{"rotator/schedule", "rotator/ledger", "rotator/plan", "rotator"}

func TestNoArrowPointsUp(t *testing.T) {
	g := load(t)
	for i, low := range floors {
		if g[module+low] == nil {
			t.Errorf("there is no package %s", low)
		}
		for _, high := range floors[i+1:] {
			if slices.Contains(g[module+low], module+high) {
				t.Errorf("%s imports %s, which lies above it", low, high)
			}
		}
	}
}

// The time is a parameter of every decision: what reads the clock by itself cannot be asked about another time.
func TestPlanReadsNoClock(t *testing.T) {
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}
	tree := os.DirFS("../../rotator/plan")
	files, err := fs.Glob(tree, "*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding the files of plan: %d, %v", len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := fs.ReadFile(tree, name)
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, s.Sel.Name) {
				t.Errorf("%s: time.%s", set.Position(s.Pos()), s.Sel.Name)
			}
			return true
		})
	}
}

// The package comment of rotator walks through a rotation: its steps are called in that order by rotate, and defined in that
// order below it.
func TestTheWalkThroughARotation(t *testing.T) {
	doc, err := os.ReadFile("../../rotator/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var walk []string
	for line := range strings.Lines(string(doc)) {
		if step, found := strings.CutPrefix(line, "//\t"); found {
			walk = append(walk, strings.Fields(step)[0])
		}
	}
	if len(walk) < 7 {
		t.Fatalf("the walk has %d steps: %v", len(walk), walk)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../../rotator/rotate.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var defined, called []string
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if slices.Contains(walk, f.Name.Name) {
			defined = append(defined, f.Name.Name)
		}
		if f.Name.Name != "rotate" {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.SelectorExpr)
			if ok && slices.Contains(walk, c.Sel.Name) && !slices.Contains(called, c.Sel.Name) {
				called = append(called, c.Sel.Name)
			}
			return true
		})
	}
	if !slices.Equal(defined, walk) || !slices.Equal(called, walk) {
		t.Errorf("doc.go walks %v, rotate calls %v, rotate.go defines %v", walk, called, defined)
	}
}
